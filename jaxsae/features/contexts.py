"""The places where latents fire most strongly, and some places drawn at random, with the values around them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

STRONGEST, DRAWN = 8, 12
"""How many contexts of each latent are kept; at most one in each sample."""
BEFORE, AFTER = 30, 18
"""How many characters before and after its place a context shows."""


@dataclass
class Contexts:
    """The `count` places of each latent with the highest scores so far, at most one in a sample."""

    count: int
    d_sae: int

    def __post_init__(self) -> None:
        shape = (self.count, self.d_sae)
        self.score = np.zeros(shape, np.float32)
        """By which places are compared; 0 in a slot that has no place yet."""
        self.sample, self.position = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
        self.values = np.zeros((*shape, BEFORE + 1 + AFTER), np.float16)
        """The latent's values, from `BEFORE` characters before the place to `AFTER` after it."""

    def offer(
        self,
        score: Float[np.ndarray, "n some"],
        latents: Float[np.ndarray, "n some"],
        some: Int[np.ndarray, " some"],
        sample: int,
        first: int,
    ) -> None:
        """Keep the best new place of each latent, if its score is higher than the lowest that is kept.

        Rows are positions `first`, `first` + 1, ... of one sample; columns are the latents `some`.
        """
        row, number = score.argmax(axis=0), np.arange(len(some))
        best, kept = score[row, number], self.score[:, some]
        slot = kept.argmin(axis=0)
        new = np.flatnonzero(best > kept[slot, number])
        if not len(new):
            return
        around = row[new, None] + np.arange(-BEFORE, AFTER + 1)
        inside = (around >= 0) & (around < len(latents))
        values = np.where(inside, latents[np.clip(around, 0, len(latents) - 1), new[:, None]], 0)
        at = (slot[new], some[new])
        self.score[at], self.sample[at], self.position[at] = best[new], sample, first + row[new]
        self.values[at] = np.minimum(values, np.finfo(np.float16).max)
