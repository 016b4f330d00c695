#!/usr/bin/env python3
"""Rate the embedded demo's model against the known truth: what it restores, what its layers tell a linear probe."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsae import cli
from jaxsae.config import DEMO, require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from jax import Array

    from jaxsae.data import Samples
    from jaxsae.demo import Truth
    from jaxsae.model import RestorationModel

LAYERS = (0, 4, 8, 12, 15)
ORDER = 5
"""Of the n-grams that the model is compared with."""


def main(args: argparse.Namespace) -> None:
    """Two tables; with --json, the same figures."""
    folder = Path(args.folder)
    cli.select_device(args.device)
    from rich.console import Console
    from rich.table import Table

    from convert import read_checkpoint
    from jaxsae import demo, extract, load_samples
    from jaxsae.files import whole

    checkpoint = read_checkpoint(args.checkpoint)
    last = checkpoint.config.n_layers - 1
    require(last >= max(LAYERS), f"the model must have at least {max(LAYERS) + 1} layers, got {last + 1}")
    demo.ensure_demo(folder / "dataset")
    model = checkpoint.model()
    samples = {split: load_samples(folder / "dataset", split) for split in ("train", "validation", "test")}
    truth = {split: demo.load_truth(folder, split) for split in ("validation", "test")}
    rows = {split: extract(model, samples[split], [*LAYERS, last]).values for split in truth}
    console = Console(width=None if Console().is_terminal else 100)

    restored = restoration(model, rows["test"][last], samples, truth["test"])
    table = Table("damaged characters of the test split", title="Restored right at the first guess")
    for column in ("characters", "most frequent", f"two-sided {ORDER}-gram", "model"):
        table.add_column(column, justify="right")
    for name, row in restored.items():
        table.add_row(name, f"{row['characters']:,}", *(f"{row[k]:.1%}" for k in ("majority", "ngram", "model")))
    console.print(table)

    probed = probes(rows, samples, truth)
    table = Table("characters within words", title="Linear probe on a layer's rows: AUROC on the test split")
    table.add_column("share", justify="right")
    for where in ("all", "damaged"):
        for layer in LAYERS:
            table.add_column(f"{where} {layer}", justify="right")
    for name, row in probed.items():
        cells = [f"{row[where][str(layer)]:.3f}" for where in ("all", "damaged") for layer in LAYERS]
        table.add_row(name, f"{row['share']:.1%}", *cells)
    Console(width=None if Console().is_terminal else 140).print(table)
    if args.json:
        with whole(Path(args.json)) as aside:
            aside.write_text(json.dumps({"restoration": restored, "probes": probed}, indent=2))


def restoration(model: RestorationModel, stream: Array, samples: dict[str, Samples], truth: Truth) -> dict[str, dict]:
    """Share of damaged test characters that are restored right, in all and by language and genre."""
    import numpy as np

    from jaxsae import ngram, pretrain, text

    test, train = samples["test"], samples["train"]
    real = test.mask != 0
    damaged = test.labels[real] != text.NO_LABEL
    true = test.labels[real][damaged]
    logits = model.unembed(stream[damaged][None])[0]
    # the same texts with other damage: the n-gram sees as much of it as the model saw
    p, vocab = ngram.predict([pretrain.redamage(train, 0, epoch) for epoch in range(4)], test, ORDER)
    frequent = np.bincount(ngram.truth_of(train)[train.mask != 0]).argmax()
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

    from jaxsae import probe, text

    has = {split: truth[split].properties() for split in truth}
    use = {split: truth[split].in_word for split in truth}
    damaged = {split: (samples[split].labels != text.NO_LABEL)[samples[split].mask != 0] for split in truth}
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


if __name__ == "__main__":
    parser = cli.Parser(__doc__ or "")
    parser.add_argument("--checkpoint", default=str(DEMO / "best_model.pt"), help="the model to rate")
    parser.add_argument("--folder", default=str(DEMO), help="holds the demo's dataset and truth")
    parser.add_argument("--json", metavar="OUT", help="also write the figures as JSON")
    cli.add_device(parser)
    cli.run(main, parser)
