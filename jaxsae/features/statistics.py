"""One pass over the text: what every latent of one or more SAEs does on it, in memory that does not grow with the text.

How strongly latents fire is kept as counts in bins of an eighth of an octave; of the places where a latent fires the
strongest are kept, and some drawn at random, each with the latent's values around it. Every firing is kept on the
characters that latents are judged on, of which there are not more than a limit.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsae.activations.extraction import StreamBatch
from jaxsae.features.concepts import true_text
from jaxsae.features.contexts import DRAWN, STRONGEST, Contexts
from jaxsae.features.firings import FiringLog, Firings
from jaxsae.features.histograms import Histograms
from jaxsae.features.judged_text import JudgedText
from jaxsae.features.pair_counts import CSR, PairCounts, stretches
from jaxsae.sae.active import ActiveLatents, active_latents, rows_at_once
from jaxsae.sae.autoencoder import SAE
from jaxsae.text.pieces import Pieces, begins_word, is_space
from jaxsae.text.samples import Samples

WORD_POSITIONS = ("between words", "only character", "first", "second", "inner", "last")
"""The places of a character in its word; words are separated by spaces."""
DAMAGED = -1
"""Number that stands for every damaged character where firings are counted by character."""
COUNTED_AT_ONCE = 2**23
"""Firings, about, which bounds the memory where many of a wide SAE's latents fire on each row."""


class LayerSAE(NamedTuple):
    """An SAE, and the layer whose residual stream it reads."""

    layer: int
    sae: SAE


class BatchCharacters(NamedTuple):
    """The characters that the rows of a batch are of, in their order: sample after sample."""

    sample: Int[np.ndarray, " n"]
    position: Int[np.ndarray, " n"]
    real: Bool[np.ndarray, " n"]
    """Whether the position is a character, and not padding."""
    character: Int[np.ndarray, " n"]
    """Index of the character in `LatentStatistics.character_ids`; -1 at padding."""
    place: Int[np.ndarray, " n"]
    """Index into `WORD_POSITIONS`; -1 at padding."""
    judged: Int[np.ndarray, " n"]
    """The number of the character among those that latents are judged on; -1: it is not one of them."""


@dataclass
class LatentStatistics:
    """What the latents of one SAE do on the text that was read so far."""

    d_sae: int
    character_ids: Int[np.ndarray, " characters"]
    """The characters that occur, as the model sees them: code points, or `DAMAGED`."""
    judged: JudgedText
    """The characters that latents are judged on."""
    rows: int = 0
    strongest: Contexts = field(init=False)
    drawn: Contexts = field(init=False)

    def __post_init__(self) -> None:
        self.fired, self.total = np.zeros(self.d_sae, np.int64), np.zeros(self.d_sae)
        self.peak = np.zeros(self.d_sae, np.float32)
        self.histogram = Histograms(self.d_sae)
        """How often each latent has which value above 0."""
        self.log = FiringLog(self.judged, self.d_sae)
        self.by_character = PairCounts(self.d_sae, len(self.character_ids))
        """How often each latent fires on each of `character_ids`, and, in `by_place`, at each of `WORD_POSITIONS`."""
        self.by_place = np.zeros((len(WORD_POSITIONS), self.d_sae), np.float32)
        self.character_rows, self.place_rows = (
            np.zeros(len(self.character_ids), np.int64),
            np.zeros(len(WORD_POSITIONS), np.int64),
        )
        self.cofiring = PairCounts(self.d_sae, self.d_sae)
        """On how many rows two latents both fire."""
        self.strongest, self.drawn = Contexts(STRONGEST, self.d_sae), Contexts(DRAWN, self.d_sae)
        self._rng = np.random.default_rng(0)

    @cached_property
    def firings(self) -> Firings:
        """Every firing on the judged characters; for when the text has been read to its end."""
        return self.log.firings()

    @property
    def rate(self) -> Float[np.ndarray, " d_sae"]:
        """Share of the rows on which each latent fires."""
        return self.fired / self.rows

    @property
    def mean(self) -> Float[np.ndarray, " d_sae"]:
        """Mean value of each latent over all rows."""
        return self.total / self.rows

    @property
    def l0(self) -> float:
        """Mean number of latents that fire on a row."""
        return float(self.fired.sum() / self.rows)

    def add(self, active: ActiveLatents, characters: BatchCharacters) -> None:
        """Add the rows of a batch to the counts."""
        if not active.rows:  # of texts without characters
            return
        self.rows += active.rows
        for rows, number in ((self.character_rows, characters.character), (self.place_rows, characters.place)):
            rows += np.bincount(number[number >= 0], minlength=len(rows))
        ends = np.searchsorted(active.row, np.arange(active.rows), side="right")
        for start, end in stretches(ends // COUNTED_AT_ONCE):
            self._count(active.between(start, end), BatchCharacters(*(of[start:end] for of in characters)))
        starts = np.flatnonzero(np.diff(characters.sample, prepend=-1)).tolist()
        for start, end in itertools.pairwise([*starts, active.rows]):
            end = start + int(characters.real[start:end].sum())  # padding, where it is kept, is no context
            if end > start:
                self._offer(active.between(start, end), int(characters.sample[start]), int(characters.position[start]))

    def _count(self, active: ActiveLatents, characters: BatchCharacters) -> None:
        """Add some rows to the counts of firings."""
        row, latent, values = active.row, active.latent, active.value
        self.fired += np.bincount(latent, minlength=self.d_sae)
        self.total += np.bincount(latent, values, self.d_sae)
        np.maximum.at(self.peak, latent, values)
        self.histogram.add(latent, values)
        self.log.add(characters.judged[row], latent, values)

        fires = firing_matrix(active)
        self.cofiring.add(fires, fires)
        self.by_character.add(fires, _one_hot(characters.character, len(self.character_ids)))
        there = characters.place[row] >= 0
        np.add.at(self.by_place.reshape(-1), characters.place[row[there]] * self.d_sae + latent[there], 1)

    def _offer(self, active: ActiveLatents, sample: int, first: int) -> None:
        """Offer the places of one sample as contexts; rows are positions `first`, `first` + 1, ... of it."""
        drawn = 1 - self._rng.random((active.rows, 1), np.float32)
        fire = np.flatnonzero(np.bincount(active.latent, minlength=self.d_sae))
        number = np.empty(self.d_sae, np.int64)
        # latents of many rows are as long as rows of many latents
        step = rows_at_once(active.rows, max(len(fire), 1))
        for start in range(0, len(fire), step):
            some = fire[start : start + step]
            number[:] = -1
            number[some] = np.arange(len(some))
            at = number[active.latent]
            here = np.zeros((active.rows, len(some)), np.float32)
            here[active.row[at >= 0], at[at >= 0]] = active.value[at >= 0]
            self.strongest.offer(here, here, some, sample, first)
            self.drawn.offer(np.where(here > 0, drawn, 0), here, some, sample, first)


def firing_matrix(active: ActiveLatents) -> CSR:
    """[rows, d_sae]: 1 where a latent is active."""
    from scipy.sparse import csr_array  # heavy: where figures are kept it is not needed

    ends = np.cumsum(np.bincount(active.row, minlength=active.rows))
    ones = np.ones(len(active.latent), np.float32)
    return csr_array((ones, active.latent, np.append(0, ends)), (active.rows, active.d_sae))


def _one_hot(number: Int[np.ndarray, " n"], columns: int) -> CSR:
    """[n, columns]: 1 in the column of each number; -1 has none."""
    from scipy.sparse import csr_array

    there = number >= 0
    return csr_array(
        (np.ones(int(there.sum()), np.float32), number[there], np.append(0, np.cumsum(there))), (len(number), columns)
    )


class Collected(NamedTuple):
    """The result of one pass over the text."""

    statistics: list[LatentStatistics]
    """One for each SAE."""
    cofiring: list[PairCounts]
    """On how many rows a latent of an SAE and one of the next SAE both fire."""
    rows: dict[int, Float[np.ndarray, "n d_in"]]
    """Layer -> the residual stream at the judged characters, float16; of the layers that were asked for."""
    seeds: list[list[Firings]]
    """For each SAE, the firings of its `seeds`."""


def collect_statistics(
    batches: Iterable[StreamBatch],
    samples: Samples,
    saes: Sequence[LayerSAE],
    judged: JudgedText,
    *,
    seeds: Sequence[Sequence[SAE]] | None = None,
    rows_of: Sequence[int] = (),
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Collected:
    """Read the text once and count what the latents of each SAE do.

    Args:
      batches: `extraction.stream` of the samples and of the SAEs' layers, or `extraction.stored`. A padded position,
        where it is kept, counts in the rates and means alone.
      judged: the characters that latents are judged on.
      seeds: for each SAE, others of the same layer of which only the firings are wanted.
      rows_of: layers whose residual stream is kept at the judged characters.
      on_rows: called with the number of rows made since the last call.
    """
    seen, ids = _seen(samples), character_ids(samples)
    statistics = [LatentStatistics(sae.d_sae, ids, judged) for _, sae in saes]
    logs = [[FiringLog(judged, other.d_sae) for other in of] for of in seeds or [[] for _ in saes]]
    rows: dict[int, np.ndarray] = {}
    cofiring = [PairCounts(a.d_sae, b.d_sae) for a, b in itertools.pairwise(statistics)]
    for batch in batches:
        characters = _characters(samples, batch, seen, ids, judged)
        kept, fires = batch.kept.reshape(-1), []
        for (layer, sae), of_sae in zip(saes, statistics, strict=True):
            active = active_latents(sae, batch.values[layer]).of_rows(kept)
            of_sae.add(active, characters)
            if cofiring:
                fires.append(firing_matrix(active))
        for (layer, _), of, of_logs in zip(saes, seeds or [], logs, strict=False):
            for other, log in zip(of, of_logs, strict=True):
                active = active_latents(other, batch.values[layer]).of_rows(kept)
                log.add(characters.judged[active.row], active.latent, active.value)
        for layer in rows_of:
            here, x = characters.judged >= 0, batch.values[layer]
            if layer not in rows:
                rows[layer] = np.zeros((len(judged), x.shape[-1]), np.float16)
            rows[layer][characters.judged[here]] = as_half(np.asarray(x).reshape(-1, x.shape[-1])[kept][here])
        for counts, (a, b) in zip(cofiring, itertools.pairwise(fires), strict=False):
            counts.add(a, b)
        on_rows(int(kept.sum()))
    return Collected(statistics, cofiring, rows, [[log.firings() for log in of] for of in logs])


def character_ids(samples: Samples) -> Int[np.ndarray, " characters"]:
    """The characters that occur, as the model sees them; those that are damaged are one, `DAMAGED`."""
    return np.unique(_seen(samples)[samples.real])


def _seen(samples: Samples) -> Int[np.ndarray, "n positions"]:
    return np.where(samples.damaged, DAMAGED, samples.ids)


def as_half(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """As float16; what is too large becomes the largest that it has."""
    largest = np.finfo(np.float16).max
    return np.clip(x, -largest, largest).astype(np.float16)


def _characters(
    samples: Samples, batch: StreamBatch, seen: np.ndarray, character_ids: np.ndarray, judged: JudgedText
) -> BatchCharacters:
    """The characters at the kept positions of a batch."""
    sample, position = batch.sample[batch.kept], batch.position[batch.kept]
    real = samples.real[sample, position]
    character = np.where(real, np.searchsorted(character_ids, seen[sample, position]), -1)
    place = np.full(len(sample), -1)
    for number, rows in batch.samples():
        place[rows][real[rows]] = word_positions(true_text(samples, number)[0])
    return BatchCharacters(sample, position, real, character, place, judged.row_at[sample, position])


def word_positions(pieces: Pieces) -> Int[np.ndarray, " n"]:
    """Index into `WORD_POSITIONS` of each token."""
    space, starts = is_space(pieces), np.flatnonzero(begins_word(pieces))
    lengths = np.diff([*starts, len(pieces)])
    at = np.arange(len(pieces)) - np.repeat(starts, lengths)
    last = at == np.repeat(lengths, lengths) - 1
    out = np.select([space, last & (at == 0), at == 0, last, at == 1], [0, 1, 2, 5, 3], 4)
    return out.astype(int)
