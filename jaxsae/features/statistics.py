"""One pass over the text: what every latent of one or more SAEs does on it, in memory that does not grow with the text.

How strongly latents fire is kept as counts in bins of an eighth of an octave, for all characters and for those of each
concept; AUROC, precision and recall follow from the counts. Of the places where a latent fires the strongest are kept,
and some drawn at random, each with the latent's values around it.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsae.activations.extraction import StreamBatch
from jaxsae.features.concepts import ConceptMasks, true_text
from jaxsae.features.contexts import DRAWN, STRONGEST, Contexts
from jaxsae.features.histograms import Histograms
from jaxsae.sae.architectures import encode
from jaxsae.sae.autoencoder import SAE
from jaxsae.text.samples import Samples

DIRECTIONS = 256
"""Number of random directions of the residual stream that latents are compared with."""
WORD_POSITIONS = ("between words", "only character", "first", "second", "inner", "last")
"""The places of a character in its word; words are separated by spaces."""
DAMAGED = -1
"""Number that stands for every damaged character where firings are counted by character."""


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
    """Index into `PLACES`; -1 at padding."""
    has: Bool[np.ndarray, "concepts n"]
    """Which concepts each character has."""


@dataclass
class LatentStatistics:
    """What the latents of one SAE do on the text that was read so far."""

    d_sae: int
    character_ids: Int[np.ndarray, " characters"]
    """The characters that occur, as the model sees them: code points, or `DAMAGED`."""
    concepts: int
    """Number of concepts that latents are compared with."""
    rows: int = 0
    histograms: Histograms | None = None
    """How often each latent has which value; groups of rows: all, then those of each concept."""
    chance: Histograms | None = None
    """The same for random directions of the residual stream; None without concepts."""
    strongest: Contexts = field(init=False)
    drawn: Contexts = field(init=False)

    def __post_init__(self) -> None:
        self.fired, self.total = np.zeros(self.d_sae, np.int64), np.zeros(self.d_sae)
        self.peak = np.zeros(self.d_sae, np.float32)
        self.group_rows = np.zeros((2, 1 + self.concepts), np.int64)
        """Number of rows in each half of the texts: all rows, then those of each concept."""
        self.by_character = np.zeros((len(self.character_ids), self.d_sae), np.float32)
        """How often each latent fires on each of `character_ids`, and, in `by_place`, at each of `PLACES`."""
        self.by_place = np.zeros((len(WORD_POSITIONS), self.d_sae), np.float32)
        self.character_rows, self.place_rows = (
            np.zeros(len(self.character_ids), np.int64),
            np.zeros(len(WORD_POSITIONS), np.int64),
        )
        self.cofiring = np.zeros((self.d_sae, self.d_sae), np.float32)
        """On how many rows two latents both fire."""
        self.strongest, self.drawn = Contexts(STRONGEST, self.d_sae), Contexts(DRAWN, self.d_sae)
        self._rng = np.random.default_rng(0)
        self._centre: np.ndarray | None = None
        self._directions = np.zeros((0, 0), np.float32)

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

    def add(self, latents: Float[np.ndarray, "n d_sae"], characters: BatchCharacters) -> None:
        """Add the rows of a batch to the counts."""
        self.rows += len(latents)
        if self.histograms is None:
            self.histograms = Histograms(1 + self.concepts, self.d_sae)
        flat = np.flatnonzero(latents)
        row, column = np.divmod(flat, self.d_sae)
        values = latents.reshape(-1)[flat]
        self.fired += np.bincount(column, minlength=self.d_sae)
        self.total += np.bincount(column, values, self.d_sae)
        self.peak = np.maximum(self.peak, latents.max(axis=0))
        groups = np.concatenate([np.ones((1, len(latents)), bool), characters.has])
        half = characters.sample % 2
        self.histograms.add(row, column, values, half, groups)
        for h in (0, 1):
            self.group_rows[h] += groups[:, half == h].sum(axis=1)

        fires = (latents > 0).astype(np.float32)
        self.cofiring += fires.T @ fires
        for counts, rows, number in (
            (self.by_character, self.character_rows, characters.character),
            (self.by_place, self.place_rows, characters.place),
        ):
            is_number = number[:, None] == np.arange(len(rows))
            counts += is_number.T.astype(np.float32) @ fires
            rows += is_number.sum(axis=0)

        starts = np.flatnonzero(np.diff(characters.sample, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(latents)], strict=True):
            end = start + int(characters.real[start:end].sum())  # padding, where it is kept, is no context
            here = latents[start:end]
            if end > start:
                where = int(characters.sample[start]), int(characters.position[start])
                self.strongest.offer(here, here, *where)
                drawn = np.where(here > 0, 1 - self._rng.random((end - start, 1), np.float32), 0)
                self.drawn.offer(drawn, here, *where)

    def add_chance(self, x: Float[np.ndarray, "n d_in"], characters: BatchCharacters) -> None:
        """Add the projections of a batch's rows on random directions to the counts."""
        if self._centre is None:
            self._centre = x.mean(axis=0)
            self._directions = np.random.default_rng(0).standard_normal((x.shape[1], DIRECTIONS)).astype(np.float32)
        projected = (x - self._centre) @ self._directions
        if self.chance is None:
            self.chance = Histograms(1 + self.concepts, DIRECTIONS, signed=True)
        row, column = np.divmod(np.arange(projected.size), DIRECTIONS)
        groups = np.concatenate([np.ones((1, len(x)), bool), characters.has])
        self.chance.add(row, column, projected.reshape(-1), characters.sample % 2, groups)


class Collected(NamedTuple):
    """The result of one pass over the text."""

    statistics: list[LatentStatistics]
    """One for each SAE."""
    cofiring: list[Float[np.ndarray, "d_sae next_d_sae"]]
    """On how many rows a latent of an SAE and one of the next SAE both fire."""


def encode_stream(sae: SAE, x: Float[Array, "batch position d_in"]) -> Float[Array, "rows d_sae"]:
    """The latents of a residual stream: one row for each position."""
    # reshaped on the host: batches of all lengths have about as many rows, so there is less to compile for
    return _encode(sae, np.asarray(x).reshape(-1, x.shape[-1]))


_encode = jax.jit(encode)


def collect_statistics(
    batches: Iterable[StreamBatch],
    samples: Samples,
    saes: Sequence[LayerSAE],
    marks: ConceptMasks | None = None,
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Collected:
    """Read the text once and count what the latents of each SAE do.

    Args:
      batches: `extraction.stream` of the samples and of the SAEs' layers, or `extraction.stored`. A padded position,
        where it is kept, counts in the rates and means alone.
      marks: which concepts each character has; None: no concepts.
      on_rows: called with the number of rows made since the last call.
    """
    seen = np.where(samples.damaged, DAMAGED, samples.ids)
    character_ids = np.unique(seen[samples.real])
    concepts = len(marks(0)) if marks else 0
    statistics = [LatentStatistics(sae.d_sae, character_ids, concepts) for _, sae in saes]
    cofiring = [np.zeros((a.d_sae, b.d_sae), np.float32) for a, b in itertools.pairwise(statistics)]
    for batch in batches:
        characters = _characters(samples, batch.samples, batch.kept, seen, character_ids, marks, concepts)
        kept, fires = batch.kept.reshape(-1), []
        for (layer, sae), of_sae in zip(saes, statistics, strict=True):
            x = batch.values[layer]
            latents = np.asarray(encode_stream(sae, x))[kept]
            of_sae.add(latents, characters)
            if concepts:
                of_sae.add_chance(np.asarray(x).reshape(-1, x.shape[-1])[kept], characters)
            if cofiring:
                fires.append((latents > 0).astype(np.float32))
        for counts, (a, b) in zip(cofiring, itertools.pairwise(fires), strict=False):
            counts += a.T @ b
        on_rows(int(kept.sum()))
    return Collected(statistics, cofiring)


def _characters(
    samples: Samples,
    numbers: np.ndarray,
    kept: Bool[np.ndarray, "batch position"],
    seen: np.ndarray,
    character_ids: np.ndarray,
    marks: ConceptMasks | None,
    concepts: int,
) -> BatchCharacters:
    """The characters at the kept positions of a batch."""
    where, position = np.nonzero(kept)
    sample = numbers[where]
    real = samples.mask[sample, position] != 0
    character = np.where(real, np.searchsorted(character_ids, seen[sample, position]), -1)
    place, has = np.full(len(sample), -1), np.zeros((concepts, len(sample)), bool)
    for number in numbers.tolist():
        here = np.flatnonzero((sample == number) & real)
        place[here] = word_positions(true_text(samples, number)[0])
        if marks:
            has[:, here] = marks(number)
    return BatchCharacters(sample, position, real, character, place, has)


def word_positions(letters: str) -> Int[np.ndarray, " n"]:
    """Index into `PLACES` of each character."""
    out = np.zeros(len(letters), int)
    start = 0
    for word in letters.split(" "):
        n = len(word)
        if n == 1:
            out[start] = 1
        elif n > 1:
            out[start : start + n] = 4
            out[start : start + 2] = 2, 3
            out[start + n - 1] = 5
        start += n + 1
    return out
