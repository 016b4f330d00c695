#!/usr/bin/env python3
"""Rate parallels on the embedded demo: how many of the ten best are of the same genre, or of the same formula.

The corpus is the train split, the texts that are looked for are those of another split, damaged. Beside latents: mean
activations of a passage, standardised, with cosine; n-grams of characters with TF-IDF; and what the command does. With
--texts, also the time of a search in so many texts, those of the corpus over and over.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsae import runtime
from jaxsae.cli import arguments, process, terminal
from jaxsae.config import DEMO, DEMO_TEXT

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    import numpy as np
    from jaxtyping import Float

    from jaxsae.explain.parallel_index import Index
    from jaxsae.explain.passages import Passage
    from jaxsae.models.protocol import ResidualModel
    from jaxsae.sae.autoencoder import SAE
    from jaxsae.text.samples import Samples

WHAT = ("genre", "formula")
TOP, MOSTLY, PLACES = 10, 0.5, 2
"""Of the results that are rated; share of a passage's characters that makes it a formula's; places of a text."""


def main(args: argparse.Namespace) -> None:
    """A table for each SAE."""
    runtime.select_device(args.device)
    from convert import layer_of, load_sae, read_checkpoint
    from jaxsae.demo import dataset
    from jaxsae.explain.parallels import build
    from jaxsae.files import write_json
    from jaxsae.text.loading import load_samples

    checkpoint = read_checkpoint(args.checkpoint)
    dataset.ensure_demo(DEMO_TEXT / "dataset")
    corpus, asked = (load_samples(DEMO_TEXT / "dataset", split) for split in ("train", args.split))
    out: dict[str, dict[str, Any]] = {}
    for path in args.sae:
        file = load_sae(path)
        layer = layer_of(path, file, None)
        model = checkpoint.model(n_layers=layer + 1)
        about = {"model_sha256": checkpoint.identity}
        began = time.monotonic()
        index = build(model, corpus, file.sae, layer, about=about)
        seconds = time.monotonic() - began
        print(f"{path}: {len(index.passages):,} passages, built in {seconds:.0f} s", flush=True)
        found = rate(index, model, file.sae, corpus, asked, args.split)
        means = {name: {what: float(of[what].mean()) for what in WHAT} for name, of in found.items()}
        n = ", ".join(f"{what}: {len(found['latents'][what])}" for what in WHAT)
        rows = [(name, *(f"{of[what]:.3f}" for what in WHAT)) for name, of in means.items()]
        terminal.print_table(f"Precision at {TOP} ({n})", ("compared by", *WHAT), rows)
        pairs = [(a, b) for a in list(found)[2:] for b in found if a != b]
        less = {f"{a} - {b}": {what: interval(found[a][what] - found[b][what]) for what in WHAT} for a, b in pairs}
        rows = [
            (name, *(f"{d:+.3f} [{low:+.3f}, {high:+.3f}]" for d, low, high in of.values()))
            for name, of in less.items()
        ]
        terminal.print_table("Differences, with 95% intervals (bootstrap over texts or places)", ("", *WHAT), rows)
        out[path] = {"n": n, "precision": means, "differences": less, "build": seconds}
        if args.texts:
            out[path]["speed"] = speed(index, args.texts, model, file.sae, asked)
    if args.json:
        write_json(args.json, out)


def interval(difference: np.ndarray) -> tuple[float, float, float]:
    """(mean, its 2.5 % and 97.5 % quantiles over 2,000 draws)."""
    import numpy as np

    draws = np.random.default_rng(0).integers(0, len(difference), (2000, len(difference)))
    low, high = np.quantile(difference[draws].mean(axis=1), (0.025, 0.975))
    return float(difference.mean()), float(low), float(high)


def rate(
    index: Index, model: ResidualModel, sae: SAE, corpus: Samples, asked: Samples, split: str
) -> dict[str, dict[str, np.ndarray]]:
    """Who -> `genre` and `formula` -> precision of each text or place.

    A text is looked for by all its passages, a place by the passage around it. The places are drawn where the passage
    around is mostly of one formula, at most two of each text; a result counts where it is mostly of that formula too.
    """
    import numpy as np

    from jaxsae.demo import dataset
    from jaxsae.explain.parallels import best, passages, sparse_rows
    from jaxsae.explain.passages import passage_around
    from jaxsae.text.tokenizer import UNICODE

    formulas, genres = {}, {}
    for name, samples in (("train", corpus), (split, asked)):
        truth, ends = dataset.load_truth(DEMO_TEXT, name), np.cumsum(samples.real.sum(axis=1))
        formulas[name] = np.split(truth.fields["formula"], ends[:-1])
        genres[name] = truth.genre[ends - 1]

    def mostly(name: str, one: Passage) -> str:
        within, count = np.unique(formulas[name][one.text][one.start : one.end], return_counts=True)
        return str(within[count.argmax()]) if count.max() >= MOSTLY * (one.end - one.start) else "none"

    seen = np.where(asked.damaged, UNICODE.encode("#")[0], asked.ids)
    texts = [UNICODE.decode(ids[real]) for ids, real in zip(seen, asked.real, strict=True)]
    rng, queries, of_query = np.random.default_rng(0), [], []
    for number, text in enumerate(texts):
        of_text = passages(text, number)
        around = [passage_around(text, position)._replace(text=number) for position in range(len(text))]
        good = [i for i, one in enumerate(around) if mostly(split, one) == formulas[split][number][i] != "none"]
        places = rng.choice(good, min(PLACES, len(good)), replace=False).tolist() if good else []
        queries += [*of_text, *(around[i] for i in places)]
        of_query += [("genre", number)] * len(of_text) + [("formula", number)] * len(places)
    there = [index.passage(number) for number in range(len(index.passages))]
    formula_there = np.array([mostly("train", one) for one in there])
    genre_there = genres["train"][index.passages[:, 0]]

    latents, rows = latents_and_rows(model, sae, index.about["layer"], asked, queries)
    letters = [texts[one.text][one.start : one.end] for one in queries]
    of_latents = index.latents.scores(sparse_rows(latents, index.about["scale"]))
    of_letters = index.letters.scores(index.grams.vectors(letters))
    whole = undamaged(corpus)
    _, corpus_rows = latents_and_rows(model, None, index.about["layer"], whole, there)
    mean, spread = corpus_rows.mean(axis=0), corpus_rows.std(axis=0)
    scaled = [(x - mean) / spread for x in (rows, corpus_rows)]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in scaled]
    scores = {
        "mean activations": unit[0] @ unit[1].T,
        "character n-grams": of_letters,
        "latents": of_latents,
        "latents and letters": 0.8 * of_latents + 0.2 * of_letters,
    }
    out: dict[str, dict[str, np.ndarray]] = {}
    for who, values in scores.items():
        genre, formula = [], []
        for number in range(len(texts)):
            mine = [i for i, of in enumerate(of_query) if of == ("genre", number)]
            hits = [hit for _, hit in best(values[mine], index.passages[:, 0], TOP)]
            genre.append(np.mean(genre_there[hits] == genres[split][number]))
        for i, (what, _) in enumerate(of_query):
            if what == "formula":
                hits = [hit for _, hit in best(values[i : i + 1], index.passages[:, 0], TOP)]
                formula.append(np.mean(formula_there[hits] == mostly(split, queries[i])))
        out[who] = {"genre": np.array(genre), "formula": np.array(formula)}
    return out


def undamaged(samples: Samples) -> Samples:
    """The texts as they were before the damage."""
    import numpy as np

    from jaxsae.text.preparation import NO_LABEL
    from jaxsae.text.samples import Samples

    return Samples(samples.true_ids, np.full_like(samples.labels, NO_LABEL), samples.mask)


def latents_and_rows(
    model: ResidualModel, sae: SAE | None, layer: int, samples: Samples, of: list[Passage]
) -> tuple[Float[np.ndarray, "passages d_sae"], Float[np.ndarray, "passages d_model"]]:
    """For each passage the sums of its latents, and the means of its activations."""
    import numpy as np

    from jaxsae.activations.extraction import stream
    from jaxsae.sae.active import active_latents

    width = 0 if sae is None else sae.d_sae
    sums, means = np.zeros((len(of), width), np.float32), np.zeros((len(of), model.d_model), np.float32)
    of_text: dict[int, list[int]] = {}
    for i, one in enumerate(of):
        of_text.setdefault(one.text, []).append(i)
    for batch in stream(model, samples, [layer]):
        x = np.asarray(batch.values[layer])[batch.kept]
        kept = batch.kept.reshape(-1)
        latents = None if sae is None else active_latents(sae, batch.values[layer]).of_rows(kept).dense()
        for number, rows in batch.samples():
            for i in of_text.get(number, []):
                means[i] = x[rows][of[i].start : of[i].end].mean(axis=0)
                if latents is not None:
                    sums[i] = latents[rows][of[i].start : of[i].end].sum(axis=0)
    return sums, means


def speed(index: Index, count: int, model: ResidualModel, sae: SAE, asked: Samples) -> dict[str, float]:
    """Seconds to open and to search an index of so many texts, those of `index` over and over, and its size."""
    import numpy as np

    from jaxsae.explain.parallel_index import open_index, write_index
    from jaxsae.explain.parallels import find

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        write_index(path, repeated(index, -(-count // len(index.texts))))
        size = sum(file.stat().st_size for file in path.iterdir())
        began = time.monotonic()
        index = open_index(path)
        opened = time.monotonic() - began
        texts = [asked.text_of(i) for i in range(60)]
        for text in texts:
            find(index, model, sae, text)  # compiles for each length, and reads the files once
        whole: list[float] = []
        place: list[float] = []
        for text in texts:
            for seconds, position in ((whole, None), (place, len(text) // 2)):
                began = time.monotonic()
                find(index, model, sae, text, position=position)
                seconds.append(time.monotonic() - began)
    found: dict[str, float] = {
        "texts": len(index.texts),
        "passages": len(index.passages),
        "bytes": size,
        "open": opened,
    }
    for name, seconds in (("text", whole), ("place", place)):
        found |= {f"{name}, median": float(np.median(seconds)), f"{name}, longest": max(seconds)}
    terminal.print_table("Seconds of a search", ("figure", "value"), [(name, f"{n:,.3f}") for name, n in found.items()])
    return found


def repeated(index: Index, times: int) -> Index:
    """The same passages over and over, as those of more texts."""
    import dataclasses

    import numpy as np
    import scipy.sparse

    from jaxsae.explain.parallel_index import Postings

    def tiled(of: Postings) -> Postings:
        matrix = scipy.sparse.csc_matrix((of.weights, of.passages, of.starts), (of.count, of.features))
        return Postings.of(scipy.sparse.vstack([matrix] * times, format="csr"))

    shift = len(index.texts) * np.repeat(np.arange(times, dtype=np.int32), len(index.passages))
    numbers = np.tile(index.passages, (times, 1)) + shift[:, None] * np.array([1, 0, 0], np.int32)
    return dataclasses.replace(
        index,
        texts=index.texts * times,
        passages=numbers.astype(np.int32),
        latents=tiled(index.latents),
        letters=tiled(index.letters),
    )


if __name__ == "__main__":
    parser = arguments.Parser(__doc__ or "")
    parser.add_argument("--sae", nargs="+", required=True, metavar="FILE", help="SAEs of the demo")
    parser.add_argument("--checkpoint", default=str(DEMO / "best_model.pt"), help="the demo's model")
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="texts that are looked for")
    parser.add_argument("--texts", type=int, default=0, metavar="N", help="also time a search in so many texts")
    parser.add_output("--json", "also write the figures as JSON; - is standard output")
    arguments.add_device(parser)
    process.run(main, parser)
