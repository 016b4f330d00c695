"""How well single columns (latents, directions, windows of text) find the characters with a property.

The score is the *run score*, after the concept F1 of InterPLM (Simon and Zou 2024): precision of characters, recall of
instances. An instance is a stretch of a word with the property; it is found where the column fires on any of its
characters. A latent that fires on the `š` of every `-šè` reads that ending perfectly; counting characters alone would
give it 0.4. A column's threshold is chosen on one half of the texts, by the score itself, and scored on the other.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from jaxsae.features.firings import Firings
from jaxsae.features.judged_text import JudgedText, MarkedRows

THRESHOLDS = 40
"""Candidates of a column: values that from all of its firings down to five of them exceed, in equal ratios."""
FEWEST_FIRINGS = 5
"""A column that fires less often where thresholds are chosen is not judged."""


def f1(precision: Float[np.ndarray, "..."], recall: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The harmonic mean; 0 where both are 0."""
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)


class Counts(NamedTuple):
    """Of one property: how much of it each column finds from each threshold on."""

    characters: Float[np.ndarray, "columns thresholds"]
    instances: Float[np.ndarray, "columns thresholds"]


@runtime_checkable
class Columns(Protocol):
    """Columns on the characters of one half, cut into bins by their candidate thresholds; bin 0 is below all."""

    @property
    def said(self) -> Float[np.ndarray, "columns thresholds"]:
        """On how many characters each column is at its threshold or above."""

    @property
    def said_words(self) -> Float[np.ndarray, "columns thresholds"]:
        """In how many words it is on any character."""

    def counts(self, p: int) -> Counts:
        """How much each column finds of property `p`."""

    def word_counts(self, p: int) -> Float[np.ndarray, "columns thresholds"]:
        """In how many words with property `p` it is on any character."""

    def fires(self, column: int, at: int) -> Bool[np.ndarray, " n"]:
        """The characters on which a column is at its threshold `at` or above."""


def _above(flat: Int[np.ndarray, " m"], columns: int, bins: int) -> Float[np.ndarray, "columns thresholds"]:
    """How many of the entries `column * bins + bin` are in each bin or above, but for bin 0."""
    counts = np.bincount(flat, minlength=columns * bins).reshape(columns, bins)
    return counts[:, :0:-1].cumsum(axis=1)[:, ::-1].astype(np.float64)


@dataclass(frozen=True)
class SparseColumns:
    """Columns that are silent on most characters."""

    marked: MarkedRows
    row: Int[np.ndarray, " m"]
    column: Int[np.ndarray, " m"]
    bin: Int[np.ndarray, " m"]
    columns: int
    bins: int

    @cached_property
    def _flat(self) -> Int[np.ndarray, " m"]:
        return self.column * self.bins + self.bin

    def _largest(
        self, group: Int[np.ndarray, " k"], flat: Int[np.ndarray, " k"]
    ) -> tuple[Int[np.ndarray, " j"], Int[np.ndarray, " j"]]:
        """(group, `column * bins + bin`) of the largest bin of each column in each group of characters."""
        size = self.columns * self.bins
        packed = np.sort(group.astype(np.int64) * size + flat)
        last = np.append(np.diff(packed // self.bins) != 0, True) if len(packed) else np.zeros(0, bool)
        return np.divmod(packed[last], size)

    @cached_property
    def _words(self) -> tuple[Int[np.ndarray, " j"], Int[np.ndarray, " j"]]:
        return self._largest(self.marked.word_number[self.row], self._flat)

    @cached_property
    def said(self) -> Float[np.ndarray, "columns thresholds"]:
        """On how many characters each column is at its threshold or above."""
        return _above(self._flat, self.columns, self.bins)

    @cached_property
    def said_words(self) -> Float[np.ndarray, "columns thresholds"]:
        """In how many words it is on any character."""
        return _above(self._words[1], self.columns, self.bins)

    def counts(self, p: int) -> Counts:
        """How much each column finds of property `p`."""
        hit = self.marked.has[p][self.row]
        flat = self._flat[hit]
        _, flat_of_instance = self._largest(self.marked.instance(p)[self.row[hit]], flat)
        return Counts(*(_above(entries, self.columns, self.bins) for entries in (flat, flat_of_instance)))

    def word_counts(self, p: int) -> Float[np.ndarray, "columns thresholds"]:
        """In how many words with property `p` it is on any character."""
        word, flat = self._words
        return _above(flat[self.marked.words_with[p][word]], self.columns, self.bins)

    def fires(self, column: int, at: int) -> Bool[np.ndarray, " n"]:
        """The characters on which a column is at its threshold `at` or above."""
        out = np.zeros(self.marked.has.shape[1], bool)
        out[self.row[(self.column == column) & (self.bin > at)]] = True
        return out


@dataclass(frozen=True)
class DenseColumns:
    """Columns that have a value everywhere, such as projections; a few hundred at a time."""

    marked: MarkedRows
    bin: Integer[np.ndarray, "n columns"]
    """uint8."""
    bins: int

    def _count(self, bins: Integer[np.ndarray, "m columns"]) -> Float[np.ndarray, "columns thresholds"]:
        columns = bins.shape[1]
        return _above((bins + np.arange(columns, dtype=np.int32) * self.bins).ravel(), columns, self.bins)

    @cached_property
    def said(self) -> Float[np.ndarray, "columns thresholds"]:
        """On how many characters each column is at its threshold or above."""
        return self._count(self.bin)

    @cached_property
    def _words(self) -> Integer[np.ndarray, "words columns"]:
        starts = np.flatnonzero(np.diff(self.marked.word, prepend=-1))
        return np.maximum.reduceat(self.bin, starts, axis=0) if len(starts) else self.bin

    @cached_property
    def said_words(self) -> Float[np.ndarray, "columns thresholds"]:
        """In how many words it is on any character."""
        return self._count(self._words)

    def counts(self, p: int) -> Counts:
        """How much each column finds of property `p`."""
        members, starts = self.marked.members[p], self.marked.starts[p]
        values = self.bin[members]
        instances = np.maximum.reduceat(values, starts, axis=0) if len(starts) else values
        return Counts(self._count(values), self._count(instances))

    def word_counts(self, p: int) -> Float[np.ndarray, "columns thresholds"]:
        """In how many words with property `p` it is on any character."""
        return self._count(self._words[self.marked.words_with[p]])

    def fires(self, column: int, at: int) -> Bool[np.ndarray, " n"]:
        """The characters on which a column is at its threshold `at` or above."""
        return self.bin[:, column] > at


class Judgement(NamedTuple):
    """How well each column finds each property; but for `chosen`, on texts on which nothing was chosen."""

    chosen: Float[np.ndarray, "p columns"]
    """The score that a threshold is chosen by, at the best one, where it is chosen; 0: not judged."""
    at: Int[np.ndarray, "p columns"]
    """Number of that threshold."""
    precision: Float[np.ndarray, "p columns"]
    """Share of the characters on which the column fires, at its threshold, that have the property."""
    recall: Float[np.ndarray, "p columns"]
    """Share of the instances of the property that it finds, and `character_recall`, of the characters."""
    character_recall: Float[np.ndarray, "p columns"]
    word_precision: Float[np.ndarray, "p columns"]
    word_recall: Float[np.ndarray, "p columns"]

    @property
    def run(self) -> Float[np.ndarray, "p columns"]:
        """The run score."""
        return f1(self.precision, self.recall)

    @property
    def character(self) -> Float[np.ndarray, "p columns"]:
        """F1 of characters."""
        return f1(self.precision, self.character_recall)

    @property
    def words(self) -> Float[np.ndarray, "p columns"]:
        """F1 of words."""
        return f1(self.word_precision, self.word_recall)

    def best(self, p: int, count: int = 1) -> list[int]:
        """The columns that find a property best where they were chosen, best first."""
        return np.argsort(-self.chosen[p], kind="stable")[:count].tolist()


BY = ("run", "character", "words")
"""What a threshold, and then a column, is chosen by."""


def judge(choose: Columns, score: Columns, marked: tuple[MarkedRows, MarkedRows], by: str = "run") -> Judgement:
    """Judge columns on two halves of the texts.

    Args:
      choose, score: the same columns, cut by the same thresholds, on the first and on the second half.
      marked: the characters of the halves; of as many properties.
      by: one of `BY`.
    """
    fields: dict[str, list[np.ndarray]] = {name: [] for name in Judgement._fields}
    columns = np.arange(choose.said.shape[0])
    for p in range(len(marked[0].has)):
        of_column = _chosen_by(choose, marked[0], p, by)
        at = of_column.argmax(axis=1)
        here = (columns, at)
        found, words = score.counts(p), score.word_counts(p)[here]
        said, said_words = score.said[here], score.said_words[here]
        fields["chosen"].append(of_column[here])
        fields["at"].append(at)
        fields["precision"].append(found.characters[here] / np.maximum(said, 1))
        fields["recall"].append(found.instances[here] / max(len(marked[1].starts[p]), 1))
        fields["character_recall"].append(found.characters[here] / max(len(marked[1].members[p]), 1))
        fields["word_precision"].append(words / np.maximum(said_words, 1))
        fields["word_recall"].append(words / max(marked[1].words_with[p].sum(), 1))
    shape = (len(marked[0].has), len(columns))
    types = {name: np.int64 if name == "at" else np.float32 for name in fields}
    return Judgement(*(np.reshape(rows, shape).astype(types[name]) for name, rows in fields.items()))


def _chosen_by(choose: Columns, marked: MarkedRows, p: int, by: str) -> Float[np.ndarray, "columns thresholds"]:
    """The score of each column and threshold for a property, where they are chosen."""
    if by == "words":
        found = choose.word_counts(p)
        return f1(found / np.maximum(choose.said_words, 1), found / max(marked.words_with[p].sum(), 1))
    counts = choose.counts(p)
    precision = counts.characters / np.maximum(choose.said, 1)
    if by == "run":
        return f1(precision, counts.instances / max(len(marked.starts[p]), 1))
    return f1(precision, counts.characters / max(len(marked.members[p]), 1))


class BestColumn(NamedTuple):
    """The column that finds a property best."""

    column: int
    chosen: float
    """Its run score where it was chosen."""
    run: float
    """Its run score on texts on which it was not."""


def best_column(
    choose: Columns, score: Columns, marked: tuple[MarkedRows, MarkedRows], p: int, among: slice = slice(None)
) -> BestColumn:
    """The column, of some, with the best run score for property `p`; the others are not scored."""
    of_column = _chosen_by(choose, marked[0], p, "run")[among]
    best, at = np.unravel_index(of_column.argmax(), of_column.shape)
    column = int(np.arange(choose.said.shape[0])[among][best])
    return BestColumn(column, float(of_column[best, at]), run_score(marked[1], p, score.fires(column, int(at))))


def run_score(marked: MarkedRows, p: int, fires: Bool[np.ndarray, " n"]) -> float:
    """The run score of firing on some characters."""
    members, starts = marked.members[p], marked.starts[p]
    if not len(members):
        return 0.0
    hit = fires[members]
    precision, recall = hit.sum() / max(fires.sum(), 1), np.logical_or.reduceat(hit, starts).mean()
    return float(f1(np.array([precision]), np.array([recall]))[0])


# ---------------------------------------------------------------- columns from latents and from directions


def halves(
    text: JudgedText, has: Bool[np.ndarray, "p n"], used: Bool[np.ndarray, " n"]
) -> tuple[MarkedRows, MarkedRows]:
    """The characters `used` of the two halves of a text."""
    rows = [np.flatnonzero(used & (text.half == half)) for half in (0, 1)]
    return tuple(MarkedRows(text.word[of], text.sample[of], has[:, of]) for of in rows)  # type: ignore[return-value]


def thresholds_of(
    column: Int[np.ndarray, " m"], code: Int[np.ndarray, " m"], columns: int
) -> Int[np.ndarray, "columns t"]:
    """The candidate thresholds of each column, as codes, rising; the first one is 0. Of columns not judged, too high.

    Args:
      column, code: the firings on which thresholds are chosen.
    """
    order = np.lexsort((code, column))
    ordered, n = code[order].astype(np.int64), np.bincount(column, minlength=columns)
    first = np.cumsum(n) - n
    shares = (FEWEST_FIRINGS / np.maximum(n, FEWEST_FIRINGS))[:, None] ** (np.arange(THRESHOLDS) / (THRESHOLDS - 1))
    at = np.minimum(((1 - shares) * n[:, None]).astype(int), np.maximum(n[:, None] - 1, 0))
    judged = n >= FEWEST_FIRINGS
    out = np.full((columns, THRESHOLDS), 1 << 16, np.int64)
    out[judged] = ordered[(first[:, None] + at)[judged]]
    out[judged, 0] = 0
    return out


def sparse_halves(
    firings: Firings, text: JudgedText, marked: tuple[MarkedRows, MarkedRows], used: Bool[np.ndarray, " n"]
) -> tuple[SparseColumns, SparseColumns, Int[np.ndarray, "columns t"]]:
    """(columns on the first half, on the second, their thresholds as codes).

    Args:
      marked: `halves` of the characters `used`.
    """
    number = np.full(len(text), -1, np.int64)
    parts = []
    for half in (0, 1):
        rows = np.flatnonzero(used & (text.half == half))
        number[rows] = np.arange(len(rows))
        here = (text.half[firings.row] == half) & used[firings.row]
        parts.append(
            (number[firings.row[here]], firings.column[here].astype(np.int64), firings.code[here].astype(np.int64))
        )
    _, column, code = parts[0]
    edges = thresholds_of(column, code, firings.columns)
    flat = (edges + np.arange(firings.columns)[:, None] * (1 << 17)).ravel()
    out = []
    for marks, (row, column, code) in zip(marked, parts, strict=True):
        bin_ = np.searchsorted(flat, code + column * (1 << 17), side="right") - column * THRESHOLDS
        fires = bin_ > 0
        out.append(SparseColumns(marks, row[fires], column[fires], bin_[fires], firings.columns, THRESHOLDS + 1))
    return out[0], out[1], edges


def dense_halves(
    values: tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "m c"]], marked: tuple[MarkedRows, MarkedRows]
) -> tuple[DenseColumns, DenseColumns]:
    """Directions as columns, each twice: the second time the other way round.

    They are cut where from half of the first values down to five of them are larger, in equal ratios, and smaller.
    """
    n = len(values[0])
    share = 0.5 * (FEWEST_FIRINGS / max(0.5 * n, FEWEST_FIRINGS)) ** (np.arange(THRESHOLDS) / (THRESHOLDS - 1))
    larger = np.minimum((share * n).astype(int), max(n - 1, 0))
    rank = np.concatenate([larger[:0:-1], n - 1 - larger])  # of the values in rising order
    ordered = np.sort(values[0], axis=0)
    edges = np.sort(ordered[rank], axis=0) if n else np.zeros((0, values[0].shape[1]), np.float32)
    out = []
    for marks, part in zip(marked, values, strict=True):
        bins = np.empty(part.shape, np.uint8)
        for column in range(part.shape[1]):
            bins[:, column] = np.searchsorted(edges[:, column], part[:, column], side="right")
        out.append(DenseColumns(marks, np.concatenate([bins, len(edges) - bins], axis=1), len(edges) + 1))
    return out[0], out[1]
