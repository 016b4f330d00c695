#!/usr/bin/env python3
"""Rate the embedded demo against the known truth: what its model restores, what its layers tell a linear probe.

With --sae: what single latents of SAE files find instead, beside a probe of the layer, random directions, windows of
text and neurons; and whether the latent of a general property is silent where that of a special one fires (absorption).
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
    import numpy as np
    from jax import Array
    from jaxtyping import Bool, Float, Int

    from jaxsae.config import SAEConfig
    from jaxsae.demo.dataset import Truth
    from jaxsae.features.firings import Firings
    from jaxsae.features.judged_text import JudgedText
    from jaxsae.models.protocol import ResidualModel
    from jaxsae.sae.autoencoder import SAE
    from jaxsae.text.samples import Samples

LAYERS = (0, 4, 8, 12, 15)
ORDER = 5
"""Of the n-grams that the model is compared with."""
SIGNS = 10
"""The commonest signs of a general property, whose latents may absorb its own."""


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
        found: dict = {path: latents(path, model, samples, truth, args.frozen) for path in args.sae}
        if args.json:
            write_json(args.json, found)
        return
    rows = {split: extract(model, samples[split], [*LAYERS, last]).values for split in truth}

    restored = restoration(model, samples, truth["test"])
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


def restoration(model: ResidualModel, samples: dict[str, Samples], truth: Truth) -> dict[str, dict]:
    """Share of damaged test characters that are restored right, in all and by language and genre."""
    import numpy as np

    from jaxsae.features.splice import restorations
    from jaxsae.models import ngram, pretrain_data

    test, train = samples["test"], samples["train"]
    real = test.real
    damaged = test.damaged[real]
    true = test.labels[real][damaged]
    restored = restorations(model, test, model.n_layers - 1, {})[0]["clean"]
    # the same texts with other damage: the n-gram sees as much of it as the model saw
    p, vocab = ngram.predict([pretrain_data.redamage(train, 0, epoch) for epoch in range(4)], test, ORDER)
    frequent = np.bincount(train.true_ids[train.real]).argmax()
    right = {
        "majority": true == frequent,
        "ngram": true == vocab[p.argmax(axis=1)],
        "model": true == restored.guess,
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


def latents(
    path: str, model: ResidualModel, samples: dict[str, Samples], truth: dict[str, Truth], frozen: bool
) -> dict:
    """Property -> the run scores of the best latent and of what no SAE made, of all characters and of damaged ones.

    Chosen on the validation split's characters within words, scored on the test's.
    """
    import jax.numpy as jnp
    import numpy as np

    from convert import load_sae
    from jaxsae.activations.extraction import extract
    from jaxsae.features import judge
    from jaxsae.sae.architectures import encode

    file = load_sae(path)
    require("layer" in file.extra, f"{path} must say its layer in its config, which it does not")
    layer = file.extra["layer"]
    text = joined_text([samples[split] for split in truth])
    rows = np.concatenate([np.asarray(extract(model, samples[split], [layer]).values[layer]) for split in truth])
    latents = {"latent": np.asarray(encode(file.sae, jnp.asarray(rows)))}
    if frozen:
        print(f"training an encoder for a decoder of {file.config.d_sae:,} random directions ...", flush=True)
        sae = with_frozen_decoder(extract(model, samples["train"], [layer]).values[layer], file.config)
        latents["frozen decoder"] = np.asarray(encode(sae, jnp.asarray(rows)))
    properties = {split: of.properties() for split, of in truth.items()}
    has = {name: np.concatenate([properties[split][name] for split in truth]) for name in properties["test"]}
    in_word = np.concatenate([of.in_word for of in truth.values()])
    absorbed = absorption_of(text, in_word, has, latents["latent"])
    out: dict = {"absorption": absorbed}
    for where, used in (("all", in_word), ("damaged", in_word & text.damaged)):
        names = [n for n in has if min((has[n] & used & (text.half == half)).sum() for half in (0, 1)) >= 30]
        found = scores(model, text, used, np.stack([has[n] for n in names]), rows, latents, layer)
        told: list[tuple[str, list[str], str, str]] = [  # column, its cells, their median, how many are large
            (
                f"{what} {by}",
                [f"{v:.2f}" for v in of[by]],
                f"{np.median(of[by]):.3f}",
                f"{sum(v >= 0.5 for v in of[by])}",
            )
            for what, of in found.items()
            for by in of
        ]
        if where == "all":
            told.insert(len(judge.BY), absorption_column(names, absorbed))
        table = [*zip(names, *(cells for _, cells, _, _ in told), strict=True)]
        table += [("median", *(median for _, _, median, _ in told)), ("at least 0.5", *(half for *_, half in told))]
        columns = (f"{where} characters within words", *(column for column, *_ in told))
        terminal.print_table(f"{path}: scores on the test split", columns, table)
        out[where] = {what: {by: dict(zip(names, of[by], strict=True)) for by in of} for what, of in found.items()}
    return out


def joined_text(parts: list[Samples]) -> JudgedText:
    """The validation split as the half that is chosen on, the test split as the half that is scored on."""
    from jaxsae.features.judged_text import JudgedText
    from jaxsae.text.samples import joined

    return JudgedText.of(joined(parts), most=10**9, scored_from=len(parts[0]))


def absorption_of(
    text: JudgedText,
    used: Bool[np.ndarray, " n"],
    has: dict[str, Bool[np.ndarray, " n"]],
    values: Float[np.ndarray, "n d_sae"],
) -> dict:
    """Pairs of a general property and one within it: another property, or one of its commonest signs; their absorption.

    General are those that are no single morpheme: language, logograms, numerals, suffixes, formulas, word classes.
    """
    import numpy as np

    from jaxsae.demo.dataset import ABOUT
    from jaxsae.features import judge
    from jaxsae.features.absorption import absorption, nested

    general = [name for name in has if name in ABOUT or name == "suffix"]
    sign, signs = signs_of(text)
    every = dict(has)
    for parent in general:
        inside = np.bincount(sign[has[parent] & used & (sign >= 0)], minlength=len(signs))
        every |= {f"{parent}: {signs[i]}": has[parent] & (sign == i) for i in np.argsort(-inside)[:SIGNS] if inside[i]}
    names = list(every)
    marked = judge.halves(text, np.stack([*every.values()]), used)
    choose, score, _ = judge.sparse_halves(firings_of(text, values), text, marked, used)
    pairs = nested(np.stack([*every.values()]) & used, [names.index(name) for name in general])
    # a sign of another parent may happen to lie within this one: it is this one's own that counts
    pairs = [one for one in pairs if ": " not in names[one.child] or names[one.child].startswith(names[one.parent])]
    found = absorption(judge.judge(choose, score, marked), score, pairs)
    told = []
    for one in found.pairs:
        figures = {name: value for name, value in one._asdict().items() if name != "pair"}
        of = {"parent": names[one.pair.parent], "child": names[one.pair.child]}
        told.append({**of, **figures, "absorption": one.share})
    return found._asdict() | {"pairs": told}


def signs_of(text: JudgedText) -> tuple[Int[np.ndarray, " n"], list[str]]:
    """(the sign that each character is in, by its number; -1: a hyphen, a stop or a space, the signs)."""
    import numpy as np

    letters = text.pieces
    ends = np.array([c in " -." for c in letters])
    begins = ~ends & (np.append(True, ends[:-1]) | (np.diff(text.sample, prepend=-1) != 0))
    number = np.cumsum(begins) - 1
    written: list[list[str]] = [[] for _ in range(begins.sum())]
    for of, letter, apart in zip(number, letters, ends, strict=True):
        if not apart:
            written[of].append(letter)
    signs, which = np.unique(["".join(one) for one in written], return_inverse=True)
    return np.where(ends, -1, which[number]), signs.tolist()


def absorption_column(names: list[str], absorbed: dict) -> tuple[str, list[str], str, str]:
    """Column of the table: of each general property the median over its pairs; over all of them; how many are large."""
    import numpy as np

    of = {name: [one["absorption"] for one in absorbed["pairs"] if one["parent"] == name] for name in names}
    cells = [f"{np.median(of[name]):.2f} ({len(of[name])})" if of[name] else "" for name in names]
    median = f"{absorbed['median']:.3f} ({absorbed['low']:.3f} to {absorbed['high']:.3f})"
    return "absorbed (pairs)", cells, median, f"{sum(one['absorption'] >= 0.5 for one in absorbed['pairs'])}"


def firings_of(text: JudgedText, values: Float[np.ndarray, "n columns"]) -> Firings:
    """Where columns are above 0."""
    import numpy as np

    from jaxsae.features.firings import FiringLog

    log = FiringLog(text, values.shape[1], most=10**9)
    row, column = np.nonzero(values)
    log.add(row, column, values[row, column])
    return log.firings()


def scores(
    model: ResidualModel,
    text: JudgedText,
    used: Bool[np.ndarray, " n"],
    has: Bool[np.ndarray, "p n"],
    rows: Float[np.ndarray, "n d_in"],
    latents: dict[str, Float[np.ndarray, "n d_sae"]],
    layer: int,
) -> dict[str, dict[str, list[float]]]:
    """Who tells -> score -> its value for each property."""
    import numpy as np

    from jaxsae.features import baselines, judge, probe
    from jaxsae.models.protocol import ModelWithNeurons

    assert isinstance(model, ModelWithNeurons)
    marked = judge.halves(text, has, used)
    out: dict[str, dict[str, list[float]]] = {}
    for who, values in latents.items():
        choose, score, _ = judge.sparse_halves(firings_of(text, values), text, marked, used)
        out[who] = {}
        for by in judge.BY:
            judged = judge.judge(choose, score, marked, by)
            out[who][by] = [float(getattr(judged, by)[p, judged.best(p)[0]]) for p in range(len(has))]
    chosen_on = used & (text.half == 0)
    directions = np.stack([probe.fit(rows[chosen_on], one[chosen_on]) for one in has], axis=1)
    beside = {
        "probe": baselines.own_direction(rows @ directions, text, marked, used),
        "random": baselines.random_directions(rows, latents["latent"].shape[1], text, marked, used),
        "windows": baselines.windows_of_text(text, marked, used)[0],
        "neurons": baselines.neurons(model, text, layer, marked, used),
    }
    return out | {what: {"run": found.score.tolist()} for what, found in beside.items()}


def with_frozen_decoder(rows: Array, config: SAEConfig) -> SAE:
    """An SAE of the same kind whose decoder stays at its random start: what an encoder can do with any directions."""
    import dataclasses

    import jax
    import jax.numpy as jnp
    import optax

    from jaxsae.config import TrainConfig
    from jaxsae.sae.basis import principal_basis
    from jaxsae.train.group import Group
    from jaxsae.train.plan import Member

    l0 = config.k or config.target_l0
    require(l0 is not None, "the SAE must have a k or a target L0 to be compared with a frozen decoder, got neither")
    how = TrainConfig(
        recipe="modern",
        architecture=config.architecture,
        target_l0=l0,
        expansion=config.d_sae // config.d_in,
        epochs=10,
    )
    group = Group({0: rows}, {"frozen": Member(0, how)}, lambda layer, whiten: principal_basis(rows))
    inner = group.stepper.transform

    def update(grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
        updates, state = inner.update(grads, state, params)
        return updates.replace(W_dec=jnp.zeros_like(updates.W_dec)), state

    transform = optax.GradientTransformation(inner.init, update)
    group.stepper = dataclasses.replace(group.stepper, transform=transform, sparse=False)
    state, (constants, shared) = group.begin(["frozen"]), group.constants(["frozen"])
    for epoch in range(1, how.epochs + 1):
        for held, batch in group.feed(["frozen"], shared, epoch):
            state = group.stepper.step(state, constants, held, batch)
    return group.finish("frozen", jax.tree.map(lambda leaf: leaf[0], state), []).sae


if __name__ == "__main__":
    parser = arguments.Parser(__doc__ or "")
    parser.add_argument("--checkpoint", default=str(DEMO / "best_model.pt"), help="the model to rate")
    parser.add_argument("--folder", default=str(DEMO_TEXT), help="holds the demo's dataset and truth")
    parser.add_argument("--sae", nargs="+", default=[], metavar="FILE", help="rate the latents of these instead")
    parser.add_argument("--frozen", action="store_true", help="with --sae: beside an encoder of random directions, too")
    parser.add_output("--json", "also write the figures as JSON; - is standard output")
    arguments.add_device(parser)
    process.run(main, parser)
