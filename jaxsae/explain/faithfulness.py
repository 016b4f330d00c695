"""How much of a restoration few parts of the residual stream carry: all others are taken out, and the model goes on.

The share that the first n parts keep is (m(n) - m(0)) / (m - m(0)), m(n) being the logit difference with these parts
alone (Marks et al. 2024, arXiv 2403.19647). What is no part stays: for latents the SAE's error and its bias.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxsae.explain.latents import Parts
from jaxsae.explain.readout import Stream

COUNTS = (0, 1, 2, 3, 5, 8, 13, 20, 32, 50, 100)
"""Of how many parts the share is measured."""
ENOUGH = 0.8
"""Share of the logit difference from which parts are said to carry it."""

LEAST = 0.02
"""Of a logit difference, what parts must carry for it to be said which of them carry it."""
LITTLE = 0.1
"""The same, below which shares of it are many times what is there, and not shown."""


class Kept(NamedTuple):
    """What the first parts keep of the logit difference."""

    share: Float[np.ndarray, " counts"]
    """Of the way from all parts taken out to none; may exceed 1, and be below 0. NaN: they carry hardly anything."""
    without: float
    """The logit difference with all parts taken out."""
    little: bool = False
    """Whether the parts carry less than `LITTLE` of the logit difference."""

    @classmethod
    def of(cls, differences: Float[np.ndarray, " counts"], whole: float) -> "Kept":
        """Of what `only_first` gave, and the logit difference of the whole stream."""
        without = float(differences[0])
        scale = whole - without
        most = max(abs(whole), abs(without))
        share = (differences - without) / scale if abs(scale) > LEAST * most else np.full(len(differences), np.nan)
        return cls(share, without, abs(scale) <= LITTLE * most)

    def needed(self, counts: Sequence[int]) -> int | None:
        """The fewest parts that keep `ENOUGH`; None: not so many as were tried."""
        return next((n for n, share in zip(counts, self.share, strict=True) if share >= ENOUGH), None)


def only_first(x: Stream, parts: Parts, order: Int[np.ndarray, " parts"], counts: Sequence[int]) -> Iterator[Stream]:
    """The stream in which only the first parts of `order` are left.

    Args:
      counts: how many are left; ascending, the first one 0.
    """
    empty = x - parts.written(order, len(x))
    for count in counts:
        yield empty + parts.written(order[:count], len(x))
