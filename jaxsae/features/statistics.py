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

from jaxsae.activations.extraction import Stream
from jaxsae.features.concepts import Marks, true_text
from jaxsae.features.contexts import DRAWN, STRONGEST, Contexts
from jaxsae.features.levels import Levels
from jaxsae.sae import autoencoder as sae_lib
from jaxsae.sae.autoencoder import SAE
from jaxsae.text import preparation
from jaxsae.text.samples import Samples

DIRECTIONS = 256
"""Random ones, to compare with."""
PLACES = ("between words", "only character", "first", "second", "inner", "last")
"""Of a character in its word, words being what spaces part."""
DAMAGED = -1
"""Stands for any damaged character where latents are counted by character."""


class LayerSAE(NamedTuple):
    """An SAE and where it reads."""

    layer: int
    sae: SAE
    k: int | None = None
    """As `config.k` of its file."""


class Characters(NamedTuple):
    """What is known of the rows of a batch, in their order: sample after sample."""

    sample: Int[np.ndarray, " n"]
    position: Int[np.ndarray, " n"]
    real: Bool[np.ndarray, " n"]
    """Not padding."""
    kind: Int[np.ndarray, " n"]
    """Number of the character among those that occur; -1 at padding."""
    place: Int[np.ndarray, " n"]
    """Index into `PLACES`; -1 at padding."""
    marks: Bool[np.ndarray, "concepts n"]


@dataclass
class LatentStatistics:
    """What one SAE's latents do on the text so far."""

    d_sae: int
    kinds: Int[np.ndarray, " kinds"]
    """The characters that occur, as the model sees them: code points, or `DAMAGED`."""
    concepts: int
    rows: int = 0
    levels: Levels | None = None
    """Groups: all rows, then those of each concept."""
    chance: Levels | None = None
    """The same of random directions; None without concepts."""
    strongest: Contexts = field(init=False)
    drawn: Contexts = field(init=False)

    def __post_init__(self) -> None:
        self.fired, self.total = np.zeros(self.d_sae, np.int64), np.zeros(self.d_sae)
        self.peak = np.zeros(self.d_sae, np.float32)
        self.of_group = np.zeros((2, 1 + self.concepts), np.int64)
        """Rows in each half, of all and of each concept."""
        self.by_kind = np.zeros((len(self.kinds), self.d_sae), np.float32)
        self.by_place = np.zeros((len(PLACES), self.d_sae), np.float32)
        self.kind_rows, self.place_rows = np.zeros(len(self.kinds), np.int64), np.zeros(len(PLACES), np.int64)
        self.together = np.zeros((self.d_sae, self.d_sae), np.float32)
        """On how many rows both latents fire."""
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
        """Of each latent over all rows."""
        return self.total / self.rows

    @property
    def l0(self) -> float:
        """Latents that fire on a row, mean."""
        return float(self.fired.sum() / self.rows)

    def add(self, latents: Float[np.ndarray, "n d_sae"], about: Characters) -> None:
        """Count a batch's rows."""
        self.rows += len(latents)
        if self.levels is None:
            self.levels = Levels(1 + self.concepts, self.d_sae)
        flat = np.flatnonzero(latents)
        row, column = np.divmod(flat, self.d_sae)
        values = latents.reshape(-1)[flat]
        self.fired += np.bincount(column, minlength=self.d_sae)
        self.total += np.bincount(column, values, self.d_sae)
        self.peak = np.maximum(self.peak, latents.max(axis=0))
        groups = np.concatenate([np.ones((1, len(latents)), bool), about.marks])
        half = about.sample % 2
        self.levels.add(row, column, values, half, groups)
        for h in (0, 1):
            self.of_group[h] += groups[:, half == h].sum(axis=1)

        fires = (latents > 0).astype(np.float32)
        self.together += fires.T @ fires
        for counts, rows, number in (
            (self.by_kind, self.kind_rows, about.kind),
            (self.by_place, self.place_rows, about.place),
        ):
            is_number = number[:, None] == np.arange(len(rows))
            counts += is_number.T.astype(np.float32) @ fires
            rows += is_number.sum(axis=0)

        starts = np.flatnonzero(np.diff(about.sample, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(latents)], strict=True):
            end = start + int(about.real[start:end].sum())  # padding, where it is kept, is no context
            here = latents[start:end]
            if end > start:
                where = int(about.sample[start]), int(about.position[start])
                self.strongest.offer(here, here, *where)
                drawn = np.where(here > 0, 1 - self._rng.random((end - start, 1), np.float32), 0)
                self.drawn.offer(drawn, here, *where)

    def add_chance(self, x: Float[np.ndarray, "n d_in"], about: Characters) -> None:
        """Count how large the rows are along random directions."""
        if self._centre is None:
            self._centre = x.mean(axis=0)
            self._directions = np.random.default_rng(0).standard_normal((x.shape[1], DIRECTIONS)).astype(np.float32)
        projected = (x - self._centre) @ self._directions
        if self.chance is None:
            self.chance = Levels(1 + self.concepts, DIRECTIONS, signed=True)
        row, column = np.divmod(np.arange(projected.size), DIRECTIONS)
        groups = np.concatenate([np.ones((1, len(x)), bool), about.marks])
        self.chance.add(row, column, projected.reshape(-1), about.sample % 2, groups)


class Collected(NamedTuple):
    """What the pass over the text found."""

    surveys: list[LatentStatistics]
    """One for each SAE."""
    between: list[Float[np.ndarray, "d_sae next_d_sae"]]
    """On how many rows a latent of an SAE and one of the next SAE both fire."""


def encode(sae: SAE, x: Float[Array, "batch position d_in"], k: int | None) -> Float[Array, "rows d_sae"]:
    """Latents of a residual stream, one row a position."""
    # reshaped on the host: batches of all lengths have about as many rows, so there is less to compile for
    return _encode(sae, np.asarray(x).reshape(-1, x.shape[-1]), k)


_encode = jax.jit(sae_lib.encode, static_argnames="k")


def collect_statistics(
    batches: Iterable[Stream],
    samples: Samples,
    subjects: Sequence[LayerSAE],
    marks: Marks | None = None,
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Collected:
    """Pass once over the text.

    Args:
      batches: `activations.stream` of the samples and the subjects' layers, or `activations.stored`. A padded position,
        where it is kept, counts in the rates and means alone.
      marks: which concepts each character has; None: no concepts.
      on_rows: called with the number of rows made since the last call.
    """
    real = samples.mask != 0
    seen = np.where(samples.labels == preparation.NO_LABEL, samples.ids, DAMAGED)
    kinds = np.unique(seen[real])
    concepts = len(marks(0)) if marks else 0
    surveys = [LatentStatistics(s.sae.b_enc.shape[0], kinds, concepts) for s in subjects]
    between = [np.zeros((a.d_sae, b.d_sae), np.float32) for a, b in itertools.pairwise(surveys)]
    for batch in batches:
        about = _characters(samples, batch.samples, batch.kept, seen, kinds, marks, concepts)
        kept, fires = batch.kept.reshape(-1), []
        for subject, one in zip(subjects, surveys, strict=True):
            x = batch.values[subject.layer]
            latents = np.asarray(encode(subject.sae, x, subject.k))[kept]
            one.add(latents, about)
            if concepts:
                one.add_chance(np.asarray(x).reshape(-1, x.shape[-1])[kept], about)
            if between:
                fires.append((latents > 0).astype(np.float32))
        for counts, (a, b) in zip(between, itertools.pairwise(fires), strict=False):
            counts += a.T @ b
        on_rows(int(kept.sum()))
    return Collected(surveys, between)


def _characters(
    samples: Samples,
    numbers: np.ndarray,
    kept: Bool[np.ndarray, "batch position"],
    seen: np.ndarray,
    kinds: np.ndarray,
    marks: Marks | None,
    concepts: int,
) -> Characters:
    """What is known of a batch's kept positions."""
    where, position = np.nonzero(kept)
    sample = numbers[where]
    real = samples.mask[sample, position] != 0
    kind = np.where(real, np.searchsorted(kinds, seen[sample, position]), -1)
    place, has = np.full(len(sample), -1), np.zeros((concepts, len(sample)), bool)
    for number in numbers.tolist():
        here = np.flatnonzero((sample == number) & real)
        place[here] = places(true_text(samples, number)[0])
        if marks:
            has[:, here] = marks(number)
    return Characters(sample, position, real, kind, place, has)


def places(letters: str) -> Int[np.ndarray, " n"]:
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
