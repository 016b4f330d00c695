"""How good an SAE is on given rows. Sums are float64 on the host: they do not depend on how the rows are batched."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxsae.errors import require
from jaxsae.sae.active import rows_at_once
from jaxsae.sae.architectures import encode
from jaxsae.sae.autoencoder import SAE, decode
from jaxsae.sae.row_types import AnyRows

CHUNK = 1024
"""Rows encoded at once, fewer of a wide SAE: the full rows x latents matrix never exists."""


class Score(NamedTuple):
    """Figures of an SAE on some rows x, which it reconstructs as x_hat."""

    l0: float
    """Latents above 0 per row, mean."""
    fvu: float
    """Fraction of variance unexplained: squared error over squares about the mean of all rows (which scores 1)."""
    cosine: float
    """Of x and x_hat, mean over the rows that are not zero."""
    norm_ratio: float
    """|x_hat| / |x|, mean over the rows that are not zero; below 1 is shrinkage."""
    relative_reconstruction_bias: float
    """E|x_hat|^2 / E[x . x_hat]: 1 where scaling x_hat would not help (Rajamanoharan et al. 2024, equation 10)."""
    dead: float
    """Share of latents above 0 on none of the rows."""
    density: np.ndarray
    """[d_sae]: share of the rows on which each latent is above 0."""
    rows: int

    @property
    def explained_variance(self) -> float:
        """1 - FVU."""
        return 1 - self.fvu

    @property
    def dense(self) -> float:
        """Share of latents above 0 on more than a tenth of the rows."""
        return float(np.mean(self.density > 0.1))


@jax.jit
def _chunk(sae: SAE, x: Float[Array, "n d_in"]) -> tuple[Array, Array]:
    """Reconstruction error [n, d_in], and how many rows each latent fires on [d_sae]."""
    latents = encode(sae, x)
    return decode(sae, latents) - x, jnp.count_nonzero(latents, axis=0)


def score(sae: SAE, rows: AnyRows) -> Score:
    """Rate an SAE on `rows`.

    Raises:
      InputError: NaN or infinity in the rows.
    """
    n, d_in = rows.shape
    fired, total, squares = np.zeros(sae.b_enc.shape[0], np.int64), np.zeros(d_in), 0.0
    squared_error, hat_squares, products, cosines, ratios, nonzero = (0.0,) * 6
    step = rows_at_once(sae.d_sae, CHUNK)
    for start in range(0, n, step):
        error, count = (np.asarray(a) for a in _chunk(sae, rows[start : start + step]))
        fired += count
        x, error = np.asarray(rows[start : start + step], np.float64), error.astype(np.float64)
        x_hat = x + error
        total += x.sum(axis=0)
        dot, norm2, hat2 = (np.einsum("nd,nd->n", a, b) for a, b in ((x, x_hat), (x, x), (x_hat, x_hat)))
        squared_error += float((error**2).sum())
        squares += float(norm2.sum())
        hat_squares += float(hat2.sum())
        products += float(dot.sum())
        there = norm2 > 0
        nonzero += float(there.sum())
        ratio = np.sqrt(hat2[there] / norm2[there])
        ratios += float(ratio.sum())
        # an x_hat of zero has no direction: its cosine counts as 0
        cosines += float(np.sum(dot[there] / norm2[there] / np.where(ratio > 0, ratio, 1)))
    require(math.isfinite(squares), "rows must be finite numbers, got NaN or infinity in them")
    variance = squares - float(total @ total) / n
    return Score(
        l0=float(fired.sum()) / n,
        fvu=_ratio(squared_error, variance),
        cosine=_ratio(cosines, nonzero),
        norm_ratio=_ratio(ratios, nonzero),
        relative_reconstruction_bias=_ratio(hat_squares, products),
        dead=float(np.mean(fired == 0)),
        density=fired / n,
        rows=n,
    )


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 0 else float("nan")
