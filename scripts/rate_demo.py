#!/usr/bin/env python3
"""Rate the embedded demo against the known truth: what its model restores, what its layers tell a linear probe.

With --sae: what single latents of SAE files tell instead, beside the probe and beside random directions.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsae import runtime
from jaxsae.cli import arguments, process, terminal
from jaxsae.config import DEMO, DEMO_TEXT
from jaxsae.errors import require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from jax import Array

    from jaxsae.demo.dataset import Truth
    from jaxsae.models.protocol import ResidualModel
    from jaxsae.text.samples import Samples

LAYERS = (0, 4, 8, 12, 15)
ORDER = 5
"""Of the n-grams that the model is compared with."""


def main(args: argparse.Namespace) -> None:
    """Two tables, or one for each SAE; with --json, the same figures."""
    folder = Path(args.folder)
    runtime.select_device(args.device)
    from convert import read_checkpoint
    from jaxsae.activations.extraction import extract
    from jaxsae.demo import dataset
    from jaxsae.files import write_json
    from jaxsae.text.loading import load_samples

    checkpoint = read_checkpoint(args.checkpoint)
    last = checkpoint.config.n_layers - 1
    require(last >= max(LAYERS), f"the model must have at least {max(LAYERS) + 1} layers, got {last + 1}")
    dataset.ensure_demo(folder / "dataset")
    model = checkpoint.model()
    samples = {split: load_samples(folder / "dataset", split) for split in ("train", "validation", "test")}
    truth = {split: dataset.load_truth(folder, split) for split in ("validation", "test")}
    if args.sae:
        found: dict = {path: latents(path, model, samples, truth) for path in args.sae}
        if args.json:
            write_json(args.json, found)
        return
    rows = {split: extract(model, samples[split], [*LAYERS, last]).values for split in truth}

    restored = restoration(model, rows["test"][last], samples, truth["test"])
    columns = (
        "damaged characters of the test split",
        "characters",
        "most frequent",
        f"two-sided {ORDER}-gram",
        "model",
    )
    terminal.print_table(
        "Restored right at the first guess",
        columns,
        [
            (name, f"{row['characters']:,}", *(f"{row[k]:.1%}" for k in ("majority", "ngram", "model")))
            for name, row in restored.items()
        ],
    )

    probed = probes(rows, samples, truth)
    places = [(where, layer) for where in ("all", "damaged") for layer in LAYERS]
    terminal.print_table(
        "Linear probe on a layer's rows: AUROC on the test split",
        ("characters within words", "share", *(f"{where} {layer}" for where, layer in places)),
        [
            (name, f"{row['share']:.1%}", *(f"{row[where][str(layer)]:.3f}" for where, layer in places))
            for name, row in probed.items()
        ],
    )
    if args.json:
        write_json(args.json, {"restoration": restored, "probes": probed})


def restoration(model: ResidualModel, stream: Array, samples: dict[str, Samples], truth: Truth) -> dict[str, dict]:
    """Share of damaged test characters that are restored right, in all and by language and genre."""
    import numpy as np

    from jaxsae.models import ngram, pretrain_data

    test, train = samples["test"], samples["train"]
    real = test.real
    damaged = test.damaged[real]
    true = test.labels[real][damaged]
    logits = model.unembed(stream[damaged][None])[0]
    # the same texts with other damage: the n-gram sees as much of it as the model saw
    p, vocab = ngram.predict([pretrain_data.redamage(train, 0, epoch) for epoch in range(4)], test, ORDER)
    frequent = np.bincount(train.true_ids[train.real]).argmax()
    right = {
        "majority": true == frequent,
        "ngram": true == vocab[p.argmax(axis=1)],
        "model": true == np.asarray(logits).argmax(axis=1),
    }
    language, genre = truth.fields["language"][damaged], truth.genre[damaged]
    groups = {"all": np.ones(len(true), bool)}
    groups |= {name: language == name for name in np.unique(language).tolist()}
    groups |= {name: genre == name for name in np.unique(genre).tolist()}
    return {
        name: {"characters": int(of.sum()), **{who: float(hit[of].mean()) for who, hit in right.items()}}
        for name, of in groups.items()
    }


def probes(rows: dict[str, dict[int, Array]], samples: dict[str, Samples], truth: dict[str, Truth]) -> dict[str, dict]:
    """AUROC per property and layer: a probe is fitted on the validation split's characters and scored on the test's."""
    import numpy as np

    from jaxsae.features import probe

    has = {split: truth[split].properties() for split in truth}
    use = {split: truth[split].in_word for split in truth}
    damaged = {split: samples[split].damaged[samples[split].real] for split in truth}
    out = {}
    for name in has["test"]:
        if min((has[split][name] & use[split] & damaged[split]).sum() for split in truth) < 30:
            continue  # too few to say
        found: dict[str, dict[str, float]] = {"all": {}, "damaged": {}}
        for layer in LAYERS:
            for where, chosen in (("all", use), ("damaged", {s: use[s] & damaged[s] for s in use})):
                fit_on, score_on = (np.asarray(rows[split][layer])[chosen[split]] for split in ("validation", "test"))
                direction = probe.fit(fit_on, has["validation"][name][chosen["validation"]])
                found[where][str(layer)] = probe.auroc(score_on @ direction, has["test"][name][chosen["test"]])
        out[name] = {"share": float(has["test"][name][use["test"]].mean()), **found}
    return out


def latents(path: str, model: ResidualModel, samples: dict[str, Samples], truth: dict[str, Truth]) -> dict:
    """Property -> what tells it how well: chosen on the validation split's characters, scored on the test's."""
    import jax.numpy as jnp
    import numpy as np

    from convert import load_sae
    from jaxsae.activations.extraction import extract
    from jaxsae.features import detection
    from jaxsae.sae.architectures import encode

    file = load_sae(path)
    require("layer" in file.extra, f"{path} must say its layer in its config, which it does not")
    layer = file.extra["layer"]
    names = [n for n in truth["test"].properties() if all(count_of(truth[split], n) >= 30 for split in truth)]
    directions = np.random.default_rng(0).standard_normal((file.config.d_in, file.config.d_sae)).astype(np.float32)
    halves: dict[str, dict[str, detection.Half]] = {"rows": {}, "random": {}, "latents": {}}
    for split in truth:
        use = truth[split].in_word
        rows = np.asarray(extract(model, samples[split], [layer]).values[layer])[use]
        has = truth[split].properties()
        properties = np.stack([has[name][use] for name in names])
        halves["rows"][split] = detection.Half(rows, properties)
        halves["random"][split] = detection.Half(rows @ directions, properties)
        latents = np.asarray(encode(file.sae, jnp.asarray(rows)))
        halves["latents"][split] = detection.Half(latents, properties)

    def both(what: str) -> tuple[detection.Half, detection.Half]:
        return halves[what]["validation"], halves[what]["test"]

    scores = {
        "probe": detection.linear_probe(*both("rows")),
        "random direction": detection.best_columns(*both("random"), 1),
        "best latent": detection.best_columns(*both("latents"), 1),
        "best five": detection.best_columns(*both("latents"), 5),
    }
    out, shown = {}, []
    for i, name in enumerate(names):
        share = float(halves["rows"]["test"].properties[i].mean())
        cells = [f"{scores[what][i].auroc:.3f} {scores[what][i].f1:.2f}" for what in scores]
        shown.append((name, f"{share:.1%}", *cells, ", ".join(map(str, scores["best five"][i].columns))))
        out[name] = {"share": share, **{what: scores[what][i]._asdict() for what in scores}}
    columns = ("characters within words", "share", *scores, "latents")
    terminal.print_table(f"{path}: AUROC and F1 on the test split", columns, shown)
    return out


def count_of(truth: Truth, name: str) -> int:
    """Characters within words that have a property."""
    return int((truth.properties()[name] & truth.in_word).sum())


if __name__ == "__main__":
    parser = arguments.Parser(__doc__ or "")
    parser.add_argument("--checkpoint", default=str(DEMO / "best_model.pt"), help="the model to rate")
    parser.add_argument("--folder", default=str(DEMO_TEXT), help="holds the demo's dataset and truth")
    parser.add_argument("--sae", nargs="+", default=[], metavar="FILE", help="rate the latents of these instead")
    parser.add_output("--json", "also write the figures as JSON; - is standard output")
    arguments.add_device(parser)
    process.run(main, parser)
