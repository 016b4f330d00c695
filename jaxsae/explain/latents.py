"""Which latents at which characters a restoration rests on: a fast attribution of all, the first ones ablated exactly.

Taking out latent j at position p changes the logit difference m by m(x) - m(x - d), d = value * W_dec[j] at row p. To
first order that is d times the gradient of m. Where the gradient is taken matters. Integrated gradients (Sundararajan
et al. 2017, arXiv 1703.01365) take it on the way from a stream without any latents, where the model is another one.
Here it is taken halfway through the removal itself: at every fourth position one latent is halved, in the first passes
the strongest ones of these positions, then the second ones. So a pass over the network gives the attributions of many
latents, which disturb each other little; `scripts/rate_explanations.py` compares with the exact effects.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from jaxsae.explain.readout import Readout, Stream
from jaxsae.sae.active import active_latents, rows_at_once
from jaxsae.sae.autoencoder import SAE

RANKS = 16
"""Latents of a position that have passes of their own, at most; those that come after are halved together."""
APART = 4
"""Positions between those at which latents are halved in one pass."""
EXACT = 100
"""Latents that are ablated exactly."""


class Parts(NamedTuple):
    """What a residual stream is made of: parts that can be taken out of it, each at one position."""

    position: Int[np.ndarray, " parts"]
    number: Int[np.ndarray, " parts"]
    """Of the latent, or of the neuron."""
    value: Float[np.ndarray, " parts"]
    directions: Float[np.ndarray, "numbers d_model"]
    """What a value of 1 of each number writes into the stream."""

    @property
    def size(self) -> Float[np.ndarray, " parts"]:
        """Norm of what each part writes."""
        return np.abs(self.value) * np.linalg.norm(self.directions, axis=1)[self.number]

    def written(self, some: Int[np.ndarray, " some"], positions: int) -> Stream:
        """What some parts write together into a stream of so many positions."""
        shape = positions, len(self.directions)
        values = csr_array((self.value[some], (self.position[some], self.number[some])), shape)
        return values @ self.directions

    def along(self, some: Int[np.ndarray, " some"], gradient: Stream) -> Float[np.ndarray, " some"]:
        """What each of some parts writes, times a gradient there."""
        position, number = self.position[some], self.number[some]
        fits = rows_at_once(len(self.directions), len(gradient)) == len(gradient)
        if fits and 8 * len(some) > len(self.directions):  # then the product with all directions is quicker
            return self.value[some] * (gradient @ self.directions.T)[position, number]
        step = rows_at_once(gradient.shape[1], max(len(some), 1))
        parts = [slice(start, start + step) for start in range(0, len(some), step)]
        products = [np.einsum("nd,nd->n", self.directions[number[part]], gradient[position[part]]) for part in parts]
        return self.value[some] * np.concatenate([np.zeros(0, np.float32), *products])


def latent_parts(sae: SAE, x: Stream) -> Parts:
    """The latents that are active in a stream."""
    active = active_latents(sae, x)
    return Parts(active.row, active.latent, active.value, np.asarray(sae.W_dec, np.float32))


def attribution(
    readout: Readout, layer: int, x: Stream, parts: Parts, *, ranks: int = RANKS, apart: int = APART
) -> Float[np.ndarray, " parts"]:
    """About how much the logit difference falls when each part is taken out, see the module's head.

    Args:
      x: the residual stream after block `layer`.
      ranks: parts of a position that have passes of their own.
      apart: positions between those at which parts are halved in one pass.
    """
    order = np.lexsort((-parts.size, parts.position))
    first = np.searchsorted(parts.position[order], np.arange(len(x)))
    rank = np.zeros(len(order), int)
    rank[order] = np.arange(len(order)) - first[parts.position[order]]
    turn = np.minimum(rank, ranks - 1) * apart + parts.position % apart
    groups = [np.flatnonzero(turn == number) for number in np.unique(turn)]
    gradients = readout.gradients(layer, (x - parts.written(group, len(x)) / 2 for group in groups))
    out = np.zeros(len(order), np.float32)
    for group, gradient in zip(groups, gradients, strict=True):
        out[group] = parts.along(group, gradient)
    return out


def ablated(x: Stream, parts: Parts, some: Int[np.ndarray, " some"]) -> Iterator[Stream]:
    """The stream without each of some parts, one at a time."""
    for i in range(len(some)):
        yield x - parts.written(some[i : i + 1], len(x))
