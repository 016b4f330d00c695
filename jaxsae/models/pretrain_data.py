"""What a restoration model is trained on in each epoch: new damage, pieces of texts, batches of like length."""

import random
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxsae.config import PretrainConfig
from jaxsae.text import preparation
from jaxsae.text.batching import Batch, plan_batches, run_lengths
from jaxsae.text.samples import Samples


class CharacterSet(NamedTuple):
    """The characters that occur, which alone are trained on: a dense stand-in for token ids."""

    ids: np.ndarray
    """Ascending token ids."""
    place: np.ndarray
    """Token id -> place in `ids`; 0 where it does not occur."""

    @classmethod
    def of(cls, *given: Samples) -> "CharacterSet":
        """Those of some texts, damage and padding included."""
        marks = [np.array([preparation.SINGLE, preparation.SPAN, preparation.PADDING_ID])]
        ids = np.unique(np.concatenate([*(s.ids.ravel() for s in given), *(s.labels.ravel() for s in given), *marks]))
        ids = ids[ids != preparation.NO_LABEL]
        place = np.zeros(ids.max() + 1, np.int32)
        place[ids] = np.arange(len(ids))
        return cls(ids, place)


def redamage(samples: Samples, seed: int, epoch: int) -> Samples:
    """The same texts with new damage, drawn as the preparation draws it: a function of (seed, epoch)."""
    rng = random.Random(f"{seed} {epoch}")
    truth = samples.true_ids
    ids, labels = truth.copy(), np.full_like(samples.labels, preparation.NO_LABEL)
    for row, n in enumerate(samples.lengths):
        damaged = preparation.mask_text(int(n), rng)
        where = np.fromiter(damaged, np.int64)
        labels[row, where] = truth[row, where]
        ids[row, where] = np.fromiter(damaged.values(), np.int32)
    return Samples(ids, labels, samples.mask)


class Pieces(NamedTuple):
    """Stretches of texts: characters `start` to `stop` of sample `row`."""

    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Characters of each."""
        return self.stop - self.start

    def of(self, samples: Samples) -> Samples:
        """The pieces as samples, as wide as the longest."""
        out = samples.ids, samples.labels, samples.mask
        within = np.arange(self.lengths.max())
        at = np.minimum(self.start[:, None] + within, samples.ids.shape[1] - 1)
        real = within < self.lengths[:, None]
        fill = (preparation.PADDING_ID, preparation.NO_LABEL, 0)
        ids, labels, mask = (np.where(real, a[self.row[:, None], at], f) for a, f in zip(out, fill, strict=True))
        return Samples(ids, labels, mask)


def cut(lengths: np.ndarray, crop: int | None, seed: int, epoch: int) -> Pieces:
    """Each text cut into pieces of `crop` characters, the first one shorter by chance; uncut where it is no longer."""
    rng = np.random.default_rng((seed, epoch, 1))
    pieces = []
    for row, n in enumerate(lengths.tolist()):
        cuts = [] if crop is None or n <= crop else [*range(int(rng.integers(1, crop + 1)), n, crop)]
        pieces += list(zip([row] * (len(cuts) + 1), [0, *cuts], [*cuts, n], strict=True))
    return Pieces(*np.array(pieces).T)


def epoch_batches(lengths: np.ndarray, tokens: int, seed: int, epoch: int) -> list[Batch]:
    """Batches of about `tokens` characters, each of samples of like length, in random order: fixed by (seed, epoch)."""
    rng = np.random.default_rng((seed, epoch))
    order, width = rng.permutation(len(lengths)), int(lengths.max())
    steps = np.array(run_lengths(width))
    like = steps[
        np.searchsorted(steps, lengths[order])
    ]  # equal within a batch's length, so that the order stays random
    batches = [Batch(order[batch.samples], batch.length) for batch in plan_batches(like, width, tokens)]
    return [batches[i] for i in rng.permutation(len(batches))]


def epoch_plan(lengths: np.ndarray, recipe: PretrainConfig, epoch: int) -> tuple[Pieces, list[Batch]]:
    """What is trained on in an epoch (1-based), and its steps."""
    pieces = cut(lengths, recipe.crop_of(epoch), recipe.seed, epoch)
    return pieces, epoch_batches(pieces.lengths, recipe.batch_chars, recipe.seed, epoch)


def total_steps(lengths: np.ndarray, recipe: PretrainConfig) -> int:
    """Steps of all epochs."""
    return sum(len(epoch_plan(lengths, recipe, epoch)[1]) for epoch in range(1, recipe.epochs + 1))


def arrays(samples: Samples, batch: Batch, characters: CharacterSet) -> tuple[Array, Array, Array]:
    """ids, labels and mask of a batch, each [batch, length]; ids and labels are places in `characters`."""
    ids, labels, mask = (part[batch.samples, : batch.length] for part in (samples.ids, samples.labels, samples.mask))
    places = np.where(labels == preparation.NO_LABEL, preparation.NO_LABEL, characters.place[np.maximum(labels, 0)])
    return jnp.asarray(characters.place[ids]), jnp.asarray(places), jnp.asarray(mask)
