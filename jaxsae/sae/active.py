"""The active latents of rows: a sparse matrix, made of a bounded number of rows at once."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsae.sae.architectures import encode
from jaxsae.sae.autoencoder import SAE

AT_ONCE = 2**26
"""Bytes of a float32 matrix rows x latents that is held at once: 1,024 rows of 16,384 latents, 128 rows of 131,072.
An architecture needs about three such."""


def rows_at_once(d_sae: int, most: int) -> int:
    """How many rows, of `most`, have a row of `d_sae` float32 numbers each in `AT_ONCE` bytes; at least one."""
    return max(1, min(most, AT_ONCE // (4 * d_sae)))


class ActiveLatents(NamedTuple):
    """The latents that are not 0, row by row."""

    row: Int[np.ndarray, " m"]
    """Ascending, and of one row the latents are."""
    latent: Int[np.ndarray, " m"]
    value: Float[np.ndarray, " m"]
    rows: int
    d_sae: int

    def of_rows(self, kept: Bool[np.ndarray, " rows"]) -> "ActiveLatents":
        """Those of some rows, which are numbered anew."""
        if kept.all():
            return self
        here, number = kept[self.row], np.cumsum(kept) - 1
        return ActiveLatents(number[self.row[here]], self.latent[here], self.value[here], int(kept.sum()), self.d_sae)

    def between(self, start: int, end: int) -> "ActiveLatents":
        """Those of the rows `start`..`end` - 1, which are numbered anew."""
        some = slice(*np.searchsorted(self.row, (start, end)))
        return ActiveLatents(self.row[some] - start, self.latent[some], self.value[some], end - start, self.d_sae)

    def dense(self) -> Float[np.ndarray, "rows d_sae"]:
        """All latents of all rows."""
        out = np.zeros((self.rows, self.d_sae), np.float32)
        out[self.row, self.latent] = self.value
        return out


_encode = jax.jit(encode)


def active_latents(sae: SAE, x: Float[Array | np.ndarray, "*n d_in"]) -> ActiveLatents:
    """The active latents of rows, or of a residual stream: one row for each position."""
    # reshaped on the host: batches of all lengths have about as many rows, so there is less to compile for
    every = np.asarray(x).reshape(-1, x.shape[-1])
    step = rows_at_once(sae.d_sae, len(every))
    parts = []
    for start in range(0, len(every), step):
        latents = np.asarray(_encode(sae, every[start : start + step]))
        flat = np.flatnonzero(latents)
        row, latent = np.divmod(flat, sae.d_sae)
        parts.append(((row + start).astype(np.int32), latent.astype(np.int32), latents.reshape(-1)[flat]))
    row, latent, value = (np.concatenate(of) for of in zip(*parts, strict=True))
    return ActiveLatents(row, latent, value, len(every), sae.d_sae)


def by_rows(
    of_rows: Callable[[Float[Array, "n d_in"]], Float[Array, "n d"]], x: Float[Array, "n d_in"], d_sae: int
) -> Float[Array, "n d"]:
    """`of_rows(x)`, inside a compiled function, of as many rows at once as `rows_at_once` says.

    Args:
      of_rows: treats each row by itself, and makes a matrix rows x latents on the way.
    """
    n, step = len(x), rows_at_once(d_sae, max(len(x), 1))
    if step >= n:
        return of_rows(x)
    pieces = -(-n // step)
    padded = jnp.pad(x, ((0, pieces * step - n), (0, 0))).reshape(pieces, step, -1)
    return jax.lax.map(of_rows, padded).reshape(pieces * step, -1)[:n]
