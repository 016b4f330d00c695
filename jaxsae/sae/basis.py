"""The coordinates that the modern recipe trains in: rows along their principal directions, scaled, perhaps whitened."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxsae.errors import require
from jaxsae.models.products import matmul
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.row_types import AnyRows


class Basis(NamedTuple):
    """Coordinates to train in: (scale * (x - centre) @ rotation) * stretch."""

    centre: Float[Array, " d_in"]
    rotation: Float[Array, "d_in d_in"]
    """Orthogonal, so that norms and angles, and with them the order of a row's pre-activations, stay as they are."""
    scale: Float[Array, ""]
    stretch: Float[Array, " d_in"]
    """1 in each direction where nothing is whitened."""


def to_basis(basis: Basis, x: Float[Array, "n d_in"]) -> Float[Array, "n d_in"]:
    """Rows in the basis."""
    return matmul((x - basis.centre[None, :]) * basis.scale, basis.rotation) * basis.stretch[None, :]


LATENTS = 8192
"""Latents folded at once, so that the float64 copies stay small."""


def fold_basis(sae: SAE, basis: Basis) -> SAE:
    """The SAE of rows x that does what `sae` does on rows in `basis`, its latents divided by `basis.scale`.

    Where that is whitened, each is multiplied, with its threshold, by the norm that its decoder row would have outside:
    that stays of unit norm. Computed in float64, on the host, some latents at once.

    Raises:
      InputError: a whitened basis and an SAE with `k`, which of such latents would keep others.
    """
    centre, rotation, scale, stretch = (np.asarray(a, np.float64) for a in basis)
    W_enc, b_enc, W_dec = (np.array(a) for a in (sae.W_enc, sae.b_enc, sae.W_dec))
    b_dec, whitened = np.asarray(sae.b_dec, np.float64), bool((stretch != 1).any())
    threshold = None if sae.threshold is None else np.array(sae.threshold / basis.scale)
    require(not whitened or sae.k is None, f"a whitened basis needs an SAE without k, got k {sae.k}")
    for start in range(0, sae.d_sae, LATENTS):
        some = slice(start, start + LATENTS)
        folded = rotation @ (stretch[:, None] * W_enc[:, some].astype(np.float64))
        decoder = (W_dec[some].astype(np.float64) / stretch[None, :]) @ rotation.T
        norm = np.linalg.norm(decoder, axis=1) if whitened else np.ones(len(decoder))
        W_enc[:, some] = folded * norm[None, :]
        b_enc[some] = (b_enc[some].astype(np.float64) / scale - centre @ folded) * norm
        W_dec[some] = decoder / norm[:, None]
        if threshold is not None:
            threshold[some] = threshold[some] * norm
    return sae.replace(
        W_enc=jnp.asarray(W_enc),
        b_enc=jnp.asarray(b_enc),
        W_dec=jnp.asarray(W_dec),
        b_dec=jnp.asarray((b_dec / stretch) @ rotation.T / scale + centre, sae.b_enc.dtype),
        threshold=None if threshold is None else jnp.asarray(threshold),
    )


CHUNK = 4096
"""Rows summed at once in float64."""
FAINT = 1e-9
"""Share of the strongest direction's variance below which one is whitened as if it had so much: it is rounding."""


def principal_basis(
    rows: AnyRows,
    share: tuple[int, int] = (0, 1),
    combine: Callable[[np.ndarray], np.ndarray] = lambda of_share: of_share,
    d_in: int | None = None,
    whiten: float = 0.0,
) -> Basis:
    """The rows' principal directions, strongest first, about their mean; scaled to a variance of 1 over all elements.

    Adam's step is the same in each coordinate. Along the rows' own directions it so reaches the many of little
    variance, in which latents differ, as soon as the few of much; in the model's coordinates each holds some of all.
    Summed in float64; rows that are all the same keep their scale.

    A squared error is about the directions of much variance. Whitened, each direction is divided by a power of its
    standard deviation, so that the others count as well.

    Args:
      whiten: that power; 0: they stay as they are; 1: all then have the same variance.
      share: (index, count): of the chunks of all rows, every count-th from number `index` on is summed here.
      combine: gives the sum of a float64 array over all shares, in each of them; called twice.
      d_in: of what stands in a row the first so many numbers; all, if not given.

    Raises:
      InputError: NaN or infinity in the rows.
    """
    n, d_in = rows.shape[0], rows.shape[1] if d_in is None else d_in
    total, products = np.zeros(d_in), np.zeros((d_in, d_in))
    index, count = share
    chunks = [slice(start, start + CHUNK) for start in range(0, n, CHUNK)][index::count]
    for chunk in chunks:
        total += np.asarray(rows[chunk], np.float64)[:, :d_in].sum(axis=0)
    total = combine(total)
    require(bool(np.isfinite(total).all()), "rows must be finite numbers, got NaN or infinity in them")
    centre = total / n
    for chunk in chunks:
        x = np.asarray(rows[chunk], np.float64)[:, :d_in] - centre
        products += x.T @ x
    variances, directions = np.linalg.eigh(combine(products) / n)
    mean_variance = float(variances.mean())
    scale = 1 / math.sqrt(mean_variance) if mean_variance > 0 else 1.0
    stretch = np.ones(d_in)
    if whiten and mean_variance > 0:
        relative = np.maximum(variances, FAINT * variances[-1])[::-1] / mean_variance
        stretch = relative ** (-whiten / 2)
        stretch /= math.sqrt(np.mean(relative * stretch**2))
    return Basis(*(jnp.asarray(a, rows.dtype) for a in (centre, directions[:, ::-1], scale, stretch)))


def directions(rows: Float[np.ndarray, "n d_in"]) -> float:
    """In how many directions the rows vary, as it were: the participation ratio of their covariance's eigenvalues.

    (sum of the variances)^2 / sum of their squares: d_in where all directions vary alike, 1 where only one does, and 0
    where none does. Of a sample of n rows it is below n.
    """
    x = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    products = x @ x.T if len(x) < x.shape[1] else x.T @ x  # which have the same eigenvalues, but for zeros
    squares = float((products**2).sum())
    return float((x**2).sum()) ** 2 / squares if squares > 0 else 0.0
