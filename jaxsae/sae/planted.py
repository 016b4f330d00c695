"""Synthetic rows with known directions, to measure whether an SAE finds them."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import linear_sum_assignment

from jaxsae.sae.architectures import encode
from jaxsae.sae.autoencoder import SAE

CHUNK = 4096
"""Rows made or encoded at once."""


class Planted(NamedTuple):
    """Sparse combinations of directions."""

    directions: Float[np.ndarray, "features d_in"]
    """Unit vectors."""
    frequency: Float[np.ndarray, " features"]
    """Share of the rows in which each takes part."""
    noise: float
    """Standard deviation of what is added to each element."""

    def sample(self, n: int, seed: int) -> tuple[Float[Array, "n d_in"], Float[np.ndarray, "n features"]]:
        """Rows, and the coefficients they are made with: 0, or uniform in 0.5..1.5."""
        rng = np.random.default_rng((seed, 1))
        shape = (n, len(self.frequency))
        coefficients = ((rng.random(shape) < self.frequency) * rng.uniform(0.5, 1.5, shape)).astype(np.float32)
        rows = coefficients @ self.directions
        return jnp.asarray(rows + self.noise * rng.standard_normal(rows.shape), jnp.float32), coefficients

    def rows(self, n: int, seed: int) -> Float[Array, "n d_in"]:
        """Rows alone, made piece by piece: their coefficients would be many times as large."""
        starts = range(0, n, CHUNK)
        return jnp.concatenate([self.sample(min(CHUNK, n - start), seed + 7919 * start)[0] for start in starts])


def plant(features: int, d_in: int, active: float, *, power: float = 0.0, noise: float = 0.0, seed: int = 0) -> Planted:
    """Random directions of which `active` take part in a row on average; the i-th as often as i^-power says."""
    directions = np.random.default_rng((seed, 0)).standard_normal((features, d_in))
    weight = np.arange(1, features + 1) ** -power
    frequency = np.minimum(active * weight / weight.sum(), 1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Planted(directions.astype(np.float32), frequency, noise)


class Recovery(NamedTuple):
    """What an SAE has found of planted directions; each direction is matched with one latent."""

    mean_max_cosine: float
    """Of a direction and its latent's decoder row, the pairs chosen for the largest sum (Hungarian method)."""
    precision: float
    """Mean over the pairs: where the latent fires, the share of rows in which the direction takes part."""
    recall: float
    """Mean over the pairs: where the direction takes part, the share of rows on which the latent fires."""
    shrinkage: float
    """Where both, the latents' sum over the coefficients' sum: 1 where nothing is shrunk."""


def recovery(sae: SAE, planted: Planted, n: int = 20000, seed: int = 1) -> Recovery:
    """Rate an SAE on n rows that it was not trained on."""
    norm = np.linalg.norm(sae.W_dec, axis=1)  # not 1 in every library's files; latents are counted in its units
    cosine = planted.directions @ (np.asarray(sae.W_dec) / norm[:, None]).T
    direction, latent = linear_sum_assignment(-cosine)
    counts, sums = np.zeros((3, len(direction))), np.zeros(2)
    for start in range(0, n, CHUNK):
        rows, coefficients = planted.sample(min(CHUNK, n - start), seed + 7919 * start)
        found = (np.asarray(encode(sae, rows)) * norm)[:, latent]
        true = coefficients[:, direction]
        both = (found > 0) & (true > 0)
        counts += [both.sum(axis=0), (found > 0).sum(axis=0), (true > 0).sum(axis=0)]
        sums += [found[both].sum(dtype=np.float64), true[both].sum(dtype=np.float64)]
    hits, fired, there = counts
    return Recovery(
        mean_max_cosine=float(cosine[direction, latent].mean()),
        precision=float((hits / np.maximum(fired, 1)).mean()),
        recall=float((hits / np.maximum(there, 1)).mean()),
        shrinkage=float(sums[0] / sums[1]) if sums[1] else float("nan"),
    )
