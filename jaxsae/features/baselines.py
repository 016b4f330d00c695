"""What finds the concepts without a sparse autoencoder: random directions, windows of text, feed-forward neurons."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsae.features.firings import Firings
from jaxsae.features.judge import BestColumn, best_column, dense_halves, sparse_halves
from jaxsae.features.judged_text import JudgedText, MarkedRows
from jaxsae.features.statistics import as_half
from jaxsae.models.protocol import ModelWithNeurons, ResidualModel
from jaxsae.text.batching import plan_batches
from jaxsae.text.tokenizer import Tokenizer

WINDOWS = 2048
"""Of each kind of window, the commonest, as the model sees them."""
KINDS = ((False, False), (True, False), (False, True), (True, True))
"""Of windows: whether the token before, and the one behind, are in it."""
MOST_DIRECTIONS = 1 << 14
"""Random directions beside a wide SAE; the best of eight times as many is hardly better, and takes minutes."""
ALONE = (1 << 21) - 1
"""Of a window's key, in place of a token that is not in it."""


class Baseline(NamedTuple):
    """The best of many columns that no SAE made, for each concept; chosen and scored as latents are."""

    score: Float[np.ndarray, " p"]
    """Run score of the best column, on texts on which it was not chosen."""
    column: Int[np.ndarray, " p"]


class Baselines(NamedTuple):
    """The baselines of one layer."""

    random: Baseline
    """As many random directions of the residual stream as the SAE has latents, or `MOST_DIRECTIONS`, both ways."""
    windows: Baseline
    window_texts: list[str]
    """The windows of text that `windows.column` numbers."""
    neurons: Baseline | None
    """The neurons of the layer's feed-forward network, both ways; None: the model does not show them."""


def in_chunks(columns: int, size: int = 256) -> Iterator[slice]:
    """Parts of many columns."""
    yield from (slice(start, min(start + size, columns)) for start in range(0, columns, size))


def _best_of_directions(
    values: Float[np.ndarray, "n d"],
    directions: Float[np.ndarray, "d columns"] | None,
    text: JudgedText,
    marked: tuple[MarkedRows, MarkedRows],
    used: Bool[np.ndarray, " n"],
) -> Baseline:
    """The best projection on `directions`, or without them the best column of `values`; a few hundred at a time."""
    total = values.shape[1] if directions is None else directions.shape[1]
    parts = [values[used & (text.half == half)] for half in (0, 1)]
    best = [BestColumn(0, -1.0, 0.0) for _ in marked[0].has]
    for chunk in in_chunks(total):
        some = [part[:, chunk] if directions is None else part @ directions[:, chunk] for part in parts]
        halves = dense_halves((some[0].astype(np.float32), some[1].astype(np.float32)), marked)
        for p, so_far in enumerate(best):
            here = best_column(*halves, marked, p)
            if here.chosen > so_far.chosen:
                best[p] = here._replace(column=here.column % (chunk.stop - chunk.start) + chunk.start)
    return _baseline(best)


def _baseline(best: Sequence[BestColumn]) -> Baseline:
    return Baseline(np.array([one.run for one in best]), np.array([one.column for one in best]))


def random_directions(
    rows: Float[np.ndarray, "n d_in"],
    count: int,
    text: JudgedText,
    marked: tuple[MarkedRows, MarkedRows],
    used: Bool[np.ndarray, " n"],
) -> Baseline:
    """The best of `count` random directions, both ways."""
    values = rows.astype(np.float32)
    directions = np.random.default_rng(0).standard_normal((rows.shape[1], count)).astype(np.float32)
    return _best_of_directions(values, directions, text, marked, used)


def own_direction(
    values: Float[np.ndarray, "n p"],
    text: JudgedText,
    marked: tuple[MarkedRows, MarkedRows],
    used: Bool[np.ndarray, " n"],
) -> Baseline:
    """Each property's own column, such as the projection on its probe; either way round."""
    halves = dense_halves((values[used & (text.half == 0)], values[used & (text.half == 1)]), marked)
    count = values.shape[1]  # a column stands there twice: the second time the other way round
    return _baseline([best_column(*halves, marked, p, slice(p, None, count)) for p in range(count)])


def windows_of_text(
    text: JudgedText, marked: tuple[MarkedRows, MarkedRows], used: Bool[np.ndarray, " n"]
) -> tuple[Baseline, list[str]]:
    """(the best window of up to three characters, what the windows are).

    A character alone, with the one before, with the one behind, and with both; or tokens, where they are more.
    """
    samples = text.samples
    padding_id = samples.tokenizer.padding_id
    seen = np.where(samples.real, samples.ids, padding_id).astype(np.int64)
    around = [np.roll(seen, shift, axis=1) for shift in (1, 0, -1)]
    around[0][:, 0] = around[2][:, -1] = padding_id
    before, here, after = (ids[text.sample, text.position] for ids in around)
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    texts: list[str] = []
    for with_before, with_after in KINDS:
        key = (before if with_before else ALONE) << 42 | here << 21 | (after if with_after else ALONE)
        found, counts = np.unique(key[used & (text.half == 0)], return_counts=True)
        common = np.sort(found[np.argsort(-counts, kind="stable")[:WINDOWS]])
        at = np.minimum(np.searchsorted(common, key), len(common) - 1)
        (row,) = np.nonzero(common[at] == key)
        rows.append(row)
        columns.append(at[row] + len(texts))
        texts += [_window(samples.tokenizer, window) for window in common.tolist()]
    row, column = np.concatenate(rows), np.concatenate(columns)
    order = np.lexsort((row, column))
    firings = Firings(row[order], column[order], np.ones(len(row), np.uint16), len(texts), used)
    choose, score, _ = sparse_halves(firings, text, marked, used)
    return _baseline([best_column(choose, score, marked, p) for p in range(len(marked[0].has))]), texts


def _window(tokenizer: Tokenizer, key: int) -> str:
    """The text of a window by its key."""
    ids = [part for part in (key >> 42, key >> 21 & ALONE, key & ALONE) if part != ALONE]
    return "".join(tokenizer.pieces(ids))


def neurons(
    model: ModelWithNeurons,
    text: JudgedText,
    layer: int,
    marked: tuple[MarkedRows, MarkedRows],
    used: Bool[np.ndarray, " n"],
) -> Baseline:
    """The best neuron of the feed-forward network of block `layer`, after its activation function."""
    samples, values = text.samples, None
    judged = np.unique(text.sample)
    for batch in plan_batches(samples.lengths[judged], samples.ids.shape[1]):
        numbers = judged[batch.samples]
        ids, mask = (part[numbers, : batch.length] for part in (samples.ids, samples.mask))
        hidden = as_half(np.asarray(model.neurons(ids, mask, layer=layer)))
        if values is None:
            values = np.zeros((len(text), hidden.shape[-1]), np.float16)
        row = text.row_at[numbers, : batch.length]
        values[row[row >= 0]] = hidden[row >= 0]
    assert values is not None
    return _best_of_directions(values, None, text, marked, used)


def baselines(
    model: ResidualModel | None,
    text: JudgedText,
    layer: int,
    rows: Float[np.ndarray, "n d_in"],
    d_sae: int,
    marked: tuple[MarkedRows, MarkedRows],
) -> Baselines:
    """All baselines of an SAE with `d_sae` latents.

    Args:
      model: None: it is not there to be asked.
      rows: the residual stream after the layer, at the characters of the text.
    """
    used = np.ones(len(text), bool)
    return Baselines(
        random_directions(rows, min(d_sae, MOST_DIRECTIONS), text, marked, used),
        *windows_of_text(text, marked, used),
        neurons(model, text, layer, marked, used) if isinstance(model, ModelWithNeurons) else None,
    )
