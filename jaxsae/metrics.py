"""How good an SAE is on given rows. Sums are float64 on the host: they do not depend on how the rows are batched."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxsae import sae as sae_lib
from jaxsae.sae import SAE

CHUNK = 1024
"""Rows encoded at once: the full rows x latents matrix never exists."""


class Score(NamedTuple):
    """Figures of an SAE on some rows."""

    l0: float
    """Latents above 0 per row, mean."""
    fvu: float
    """Fraction of variance unexplained: squared error over squares about the mean of all rows (which scores 1)."""
    dead: float
    """Share of latents above 0 on none of the rows."""
    density: np.ndarray
    """[d_sae]: share of the rows on which each latent is above 0."""
    rows: int


@partial(jax.jit, static_argnames="k")
def _chunk(sae: SAE, x: Float[Array, "n d_in"], k: int | None) -> tuple[Array, Array]:
    """Reconstruction error [n, d_in], and how many rows each latent fires on [d_sae]."""
    latents = sae_lib.encode(sae, x, k)
    return sae_lib.decode(sae, latents) - x, jnp.count_nonzero(latents, axis=0)


def score(sae: SAE, k: int | None, rows: Float[Array, "n d_in"]) -> Score:
    """Rate an SAE on `rows`; `k` as its file's config says."""
    n, d_in = rows.shape
    squared_error, fired = 0.0, np.zeros(sae.b_enc.shape[0], np.int64)
    total, squares = np.zeros(d_in), 0.0
    for start in range(0, n, CHUNK):
        x = rows[start : start + CHUNK]
        error, count = _chunk(sae, x, k)
        squared_error += float(np.sum(np.asarray(error, np.float64) ** 2))
        fired += np.asarray(count)
        x64 = np.asarray(x, np.float64)
        total += x64.sum(axis=0)
        squares += float(np.sum(x64**2))
    variance = squares - float(total @ total) / n
    return Score(
        l0=float(fired.sum()) / n,
        fvu=squared_error / variance if variance > 0 else float("nan"),
        dead=float(np.mean(fired == 0)),
        density=fired / n,
        rows=n,
    )
