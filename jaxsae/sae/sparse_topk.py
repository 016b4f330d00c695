"""A TopK's products on a CPU: only the latents that fire on a row are computed with, where they are few.

Of the three products of encoder and decoder beside `x @ W_enc`, and of all five of the gradient, what is left is k rows
of d_in for each row of the batch. XLA's gather is fast on CPU; its scatter is where it adds few rows at once.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxsae.models.products import matmul

PIECES = 32
"""A batch is worked on in so many: what is fetched or added then lies in the cache."""

Values = Float[Array, "n k"]
Indices = Int[Array, "n k"]


def _pieces(a: Array) -> Array:
    """The rows of a batch, in `PIECES` pieces where these are even."""
    n = a.shape[0]
    pieces = PIECES if n % PIECES == 0 else 1
    return a.reshape(pieces, n // pieces, *a.shape[1:])


def fetched(W: Float[Array, "d_sae d_in"], indices: Int[Array, "*n"]) -> Float[Array, "*n d_in"]:
    """Rows of `W`."""
    return W.at[indices].get(mode="promise_in_bounds")


def scattered(
    vectors: Float[Array, "n d_in"], values: Values, indices: Indices, d_sae: int
) -> Float[Array, "d_sae d_in"]:
    """Row j: the sum of `vectors`, each times the value of latent j in its row; latents^T @ vectors."""
    d_in = vectors.shape[1]

    def add(found: Array, piece: tuple[Array, ...]) -> tuple[Array, None]:
        x, v, i = piece
        products = (v[:, :, None] * x[:, None, :]).reshape(-1, d_in)
        return found.at[i.reshape(-1)].add(products, mode="promise_in_bounds"), None

    parts = tuple(_pieces(a) for a in (vectors, values, indices))
    return jax.lax.scan(add, jnp.zeros((d_sae, d_in), vectors.dtype), parts)[0]


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def encode(
    x: Float[Array, "n d_in"],
    W_enc: Float[Array, "d_sae d_in"],
    b_enc: Float[Array, " d_sae"],
    k: int,
    dtype: str | None = None,
) -> tuple[Values, Indices]:
    """ReLU of each row's k largest pre-activations, and of which latents they are.

    Args:
      W_enc: transposed: a row for each latent.
    """
    # XLA makes a sort of a top_k that is then sliced, which takes fifty times longer: it must not see the slices
    values, indices = jax.lax.optimization_barrier(jax.lax.top_k(matmul(x, W_enc.T, dtype) + b_enc[None, :], k))
    return jax.nn.relu(values), indices


def _encode_fwd(
    x: Array, W_enc: Array, b_enc: Array, k: int, dtype: str | None
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    values, indices = encode(x, W_enc, b_enc, k, dtype)
    return (values, indices), (x, W_enc, values, indices)


def _encode_bwd(k: int, dtype: str | None, kept: tuple[Array, ...], grads: tuple[Array, Array]) -> tuple:
    x, W_enc, values, indices = kept
    d_values = jnp.where(values > 0, grads[0], 0)
    d_b = jnp.zeros(len(W_enc), x.dtype).at[indices].add(d_values, mode="promise_in_bounds")
    return decode(d_values, indices, W_enc), scattered(x, d_values, indices, len(W_enc)), d_b


encode.defvjp(_encode_fwd, _encode_bwd)


@jax.custom_vjp
def decode(values: Values, indices: Indices, W_dec: Float[Array, "d_sae d_in"]) -> Float[Array, "n d_in"]:
    """latents @ W_dec."""

    def add(part: tuple[Array, Array]) -> Array:
        v, i = part
        # written out: a sum over k of what is fetched is a loop that XLA does not make fast
        return sum(v[:, j, None] * fetched(W_dec, i[:, j]) for j in range(v.shape[1]))  # type: ignore[return-value]

    # in pieces, so that what becomes of the result is not fused with all this, and all this done again for each use
    found = jax.lax.map(add, tuple(_pieces(a) for a in (values, indices)))
    return found.reshape(len(values), W_dec.shape[1])


def _decode_fwd(values: Array, indices: Array, W_dec: Array) -> tuple[Array, tuple[Array, ...]]:
    return decode(values, indices, W_dec), (values, indices, W_dec)


def _decode_bwd(kept: tuple[Array, ...], grad: Array) -> tuple[Array, None, Array]:
    values, indices, W_dec = kept
    products = jax.lax.optimization_barrier(grad[:, None, :] * fetched(W_dec, indices))  # else summed on the slow path
    return products.sum(axis=-1), None, scattered(grad, values, indices, len(W_dec))


decode.defvjp(_decode_fwd, _decode_bwd)
