"""Passages of a corpus that share latents, and letters, with a given text or with a place in it.

A passage is the vector of ln(1 + 4 s / m) over latents, scaled to length 1: s is the sum of a latent's values over the
passage's characters, m the median of such sums in the corpus, above 0. Beside it stands the vector of its n-grams of
characters (`letters`). Two passages are as alike as four fifths of the cosine of their latents and a fifth of that of
their letters. `scripts/rate_parallels.py` measures it, docs/parallels.md has the figures.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float

from jaxsae.activations.extraction import stream
from jaxsae.errors import require
from jaxsae.explain.letters import Letters
from jaxsae.explain.parallel_index import Index, Postings
from jaxsae.explain.passages import Passage, passage_around, passages
from jaxsae.features.concepts import Concept
from jaxsae.features.inspection import check_text, inspect_all
from jaxsae.features.judged_text import MOST_CHARACTERS
from jaxsae.features.statistics import LayerSAE
from jaxsae.models.protocol import ModelShape, ResidualModel
from jaxsae.sae.active import ActiveLatents, active_latents
from jaxsae.sae.autoencoder import SAE, identity
from jaxsae.text.batching import run_lengths
from jaxsae.text.preparation import NO_LABEL, PADDING_ID
from jaxsae.text.samples import Samples

By = Literal["both", "latents", "letters"]
BY: dict[str, tuple[float, float]] = {"both": (0.8, 0.2), "latents": (1.0, 0.0), "letters": (0.0, 1.0)}
"""What passages are compared by -> the weights of latents and of letters."""
MOST_SHARED = 10
"""Latents that are named of each parallel: of large share, and in few passages of the corpus."""


class Shared(NamedTuple):
    """A latent that fires in both passages."""

    feature: int
    caption: str
    share: float
    """Of the score."""


class Parallel(NamedTuple):
    """A passage of the corpus that is like one of the text given."""

    text_number: int
    """Of the text in the corpus, from 0."""
    score: float
    """0: nothing in common, 1: the same."""
    passage: str
    start: int
    """Where it stands in its text, and `end`; `query_start` and `query_end` in the text given."""
    end: int
    query_start: int
    query_end: int
    shared: list[Shared]
    letters: float
    """Share of the score that is due to letters."""

    def as_json(self) -> dict[str, Any]:
        """Its fields, as objects."""
        return self._asdict() | {"shared": [one._asdict() for one in self.shared]}


def build(
    model: ResidualModel,
    samples: Samples,
    sae: SAE,
    layer: int,
    *,
    about: dict[str, Any],
    concepts: Sequence[Concept] = (),
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Index:
    """An index of all passages of a corpus, in memory; `parallel_index.write_index` writes it.

    The texts are read as they were before the damage: what is known of them is found by it. The captions are of the
    damaged texts, of which at most about 200,000 characters are read once more.

    Args:
      about: for index.json; `model_sha256` is the model's identity.
      concepts: what captions may name, see `concepts.load_concepts`.
      on_rows: called with the number of characters read since the last call; both readings count.

    Raises:
      InputError: the SAE, the model and the texts do not fit together.
    """
    require(sae.d_in == model.d_model, f"d_in of the SAE must be {model.d_model} (the model's d_model), got {sae.d_in}")
    (found,) = inspect_all(
        model, captioned(samples), [LayerSAE(layer, sae)], concepts=concepts, compare=False, on_rows=on_rows
    )
    texts = [samples.text_of(i) for i in range(len(samples))]
    of_text = [passages(text, number) for number, text in enumerate(texts)]
    every = [one for of in of_text for one in of]
    require(bool(every), "an index needs texts with words, got none")
    nothing = scipy.sparse.csr_matrix((0, sae.d_sae), dtype=np.float32)
    sums = [nothing for _ in of_text]
    whole = Samples(samples.true_ids, np.full_like(samples.labels, NO_LABEL), samples.mask)
    for batch in stream(model, whole, [layer]):
        active = active_latents(sae, batch.values[layer]).of_rows(batch.kept.reshape(-1))
        for number, rows in batch.samples():
            sums[number] = _sums(active.between(rows.start, rows.stop), of_text[number])
        on_rows(int(batch.kept.sum()))
    rows = scipy.sparse.vstack(sums, format="csr")
    scale = float(np.median(rows.data)) if rows.nnz else 1.0
    grams = Letters.of([texts[one.text][one.start : one.end] for one in every])
    letters = grams.vectors([texts[one.text][one.start : one.end] for one in every])
    head = {**about, "sae_sha256": identity(sae), "layer": layer, "scale": scale}
    postings = Postings.of(_vectors(rows, scale)), Postings.of(letters)
    captions = [str(one) for one in found.captions]
    return Index(head, texts, captions, np.array(every, np.int32), *postings, grams)


def captioned(samples: Samples) -> Samples:
    """The texts that captions are made on: all, or every second, third, ... one, as many as `MOST_CHARACTERS` allow."""
    step = max(1, -(-int(samples.real.sum()) // MOST_CHARACTERS))
    return Samples(samples.ids[::step], samples.labels[::step], samples.mask[::step])


def _sums(active: ActiveLatents, of: Sequence[Passage]) -> scipy.sparse.csr_matrix:
    """The sum of each latent over the characters of each passage."""
    values = scipy.sparse.csr_matrix((active.value, (active.row, active.latent)), (active.rows, active.d_sae))
    inside = np.zeros((len(of), active.rows), np.float32)
    for row, one in zip(inside, of, strict=True):
        row[one.start : one.end] = 1
    return (scipy.sparse.csr_matrix(inside) @ values).sorted_indices()


def sparse_rows(sums: Float[np.ndarray, "passages d_sae"], scale: float) -> scipy.sparse.csr_matrix:
    """The vector of each passage, from the sums of its latents; `scale`: their median in the corpus."""
    return _vectors(scipy.sparse.csr_matrix(sums), scale)


def _vectors(sums: scipy.sparse.csr_matrix, scale: float) -> scipy.sparse.csr_matrix:
    out = sums.copy()
    out.data = np.log1p(4 * out.data / scale)
    squares = np.asarray(out.multiply(out).sum(axis=1)).reshape(-1)
    out.data /= np.repeat(np.sqrt(squares), np.diff(out.indptr)).astype(out.dtype)
    return out


def find(
    index: Index,
    model: ResidualModel,
    sae: SAE,
    text: str,
    *,
    position: int | None = None,
    top: int = 20,
    by: By = "both",
) -> list[Parallel]:
    """The passages of an index that are most like a text's, at most one of each text of the corpus, the best first.

    Args:
      index: of this model and SAE, see `parallel_index.open_index`.
      text: cleaned as in training; `#` stands for a damaged character.
      position: a character of it; only the passage around it is looked for.
      top: so many, at most.
      by: what passages are compared by.

    Raises:
      InputError: the model cannot read the text, it has no words, or not that position.
    """
    check_query(text, model, position, top)
    asked = passages(text) if position is None else [passage_around(text, position)]
    rows = _vectors(_sums(latents_of(model, sae, text, index.about["layer"]), asked), index.about["scale"])
    letters = index.grams.vectors([text[one.start : one.end] for one in asked])
    of_latents, of_letters = BY[by]
    scores = np.zeros((len(asked), len(index.passages)), np.float32)
    if of_latents:
        scores += of_latents * index.latents.scores(rows)
    if of_letters:
        scores += of_letters * index.letters.scores(letters)
    return [
        _parallel(index, asked[query], rows[query], number, float(scores[query, number]), of_latents)
        for query, number in best(scores, index.passages[:, 0], top)
    ]


def check_query(text: str, shape: ModelShape, position: int | None = None, top: int = 20) -> None:
    """Raise `InputError` where `find` cannot look for a text with a model of this shape."""
    check_text(text, shape)
    require(bool(text.strip()), "text must have a word, got only spaces")
    require(position is None or 0 <= position < len(text), f"position must be in 0..{len(text) - 1}, got {position}")
    require(top >= 1, f"top must be at least 1, got {top}")


def best(scores: Float[np.ndarray, "queries passages"], text: np.ndarray, top: int) -> list[tuple[int, int]]:
    """(query, passage) of the highest scores above 0, at most one of each text; equal ones in the corpus's order.

    Args:
      text: of each passage, ascending.
    """
    query = scores.argmax(axis=0)
    score = scores[query, np.arange(len(query))]
    starts = np.flatnonzero(np.diff(text, prepend=-1))
    of_text = np.maximum.reduceat(score, starts)
    ends = [*starts[1:], len(score)]
    texts = [at for at in np.argsort(-of_text, kind="stable")[:top].tolist() if of_text[at] > 0]
    numbers = [int(starts[at] + score[starts[at] : ends[at]].argmax()) for at in texts]
    return [(int(query[number]), number) for number in numbers]


def latents_of(model: ResidualModel, sae: SAE, text: str, layer: int) -> ActiveLatents:
    """The latents of each character of a text, run at one of few lengths: each is compiled for."""
    ids = model.tokenizer.encode(text)
    length = next(n for n in run_lengths(model.max_position) if n >= len(ids))
    padded = np.full((1, length), PADDING_ID, np.int32)
    padded[0, : len(ids)] = ids
    x = model.activations(padded, (np.arange(length) < len(ids))[None].astype(np.int8), layer=layer)
    return active_latents(sae, x).between(0, len(ids))


def _parallel(
    index: Index, asked: Passage, row: scipy.sparse.csr_matrix, number: int, score: float, of_latents: float
) -> Parallel:
    """A result, with what it shares."""
    products = [
        (float(value) * index.latents.weight(feature, number), feature)
        for feature, value in zip(row.indices.tolist(), row.data.tolist(), strict=True)
    ]
    shares = [(feature, of_latents * product / score) for product, feature in products if of_latents * product]
    common = np.diff(index.latents.starts) / index.latents.count
    telling = sorted(shares, key=lambda one: one[1] * np.log(common[one[0]]))  # what is everywhere tells nothing
    named = [Shared(feature, index.captions[feature], share) for feature, share in telling[:MOST_SHARED]]
    there = index.passage(number)
    passage = index.texts[there.text][there.start : there.end]
    letters = max(0.0, 1 - sum(share for _, share in shares)) if of_latents < 1 else 0.0
    return Parallel(there.text, score, passage, there.start, there.end, asked.start, asked.end, named, letters)
