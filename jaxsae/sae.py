"""The sparse autoencoder: pure functions over four arrays.

    latents = relu(x @ W_enc + b_enc)          (TopK: the k largest pre-activations only)
    x_hat   = latents @ W_dec + b_dec

`b_dec` is not subtracted from the input. Functions are written for one SAE; an ensemble carries a leading axis of
members on every array and runs them under `jax.vmap`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxsae.config import SAEConfig

HIGHEST = jax.lax.Precision.HIGHEST


class SAE(NamedTuple):
    """The four arrays of an SAE file; rows of W_dec have unit norm."""

    W_enc: Float[Array, "*members d_in d_sae"]
    b_enc: Float[Array, "*members d_sae"]
    W_dec: Float[Array, "*members d_sae d_in"]
    b_dec: Float[Array, "*members d_in"]


def unit_rows(W_dec: Float[Array, "d_sae d_in"]) -> Float[Array, "d_sae d_in"]:
    """Each row divided by its Euclidean norm."""
    return W_dec / jnp.linalg.norm(W_dec, axis=-1, keepdims=True)


def init(key: Key[Array, ""], config: SAEConfig) -> SAE:
    """The guide's: W_enc ~ N(0, 0.01^2), rows of W_dec Gaussian then unit norm, biases 0."""
    enc, dec = jax.random.split(key)
    return SAE(
        W_enc=0.01 * jax.random.normal(enc, (config.d_in, config.d_sae), jnp.float32),
        b_enc=jnp.zeros(config.d_sae, jnp.float32),
        W_dec=unit_rows(jax.random.normal(dec, (config.d_sae, config.d_in), jnp.float32)),
        b_dec=jnp.zeros(config.d_in, jnp.float32),
    )


def _product(a: Float[Array, "n i"], b: Float[Array, "i o"], dtype: str | None) -> Float[Array, "n o"]:
    a_, b_ = (a, b) if dtype is None else (a.astype(dtype), b.astype(dtype))
    return jnp.matmul(a_, b_, precision=HIGHEST, preferred_element_type=a.dtype)


def _product_in_halves(a: Float[Array, "n i"], b: Float[Array, "i o"], dtype: str | None) -> Float[Array, "n o"]:
    half = a.shape[1] // 2
    return _product(a[:, :half], b[:half], dtype) + _product(a[:, half:], b[half:], dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(a: Float[Array, "n i"], b: Float[Array, "i o"], dtype: str | None = None) -> Float[Array, "n o"]:
    """a @ b at full precision, or with the operands rounded to `dtype` and sums kept in a's own type.

    The sum over i is taken in two halves: XLA's sums on CPU run straight through their length and round more than
    PyTorch's, and what a product leads to here is the small difference x_hat - x. The two products of the gradient hold
    to the same types. There, a's transpose is laid out before it is multiplied: XLA on CPU has no fast product with a
    transposed left side (10 % of a training step).
    """
    return _product_in_halves(a, b, dtype)


def _matmul_fwd(a: Array, b: Array, dtype: str | None) -> tuple[Array, tuple[Array, Array]]:
    return _product_in_halves(a, b, dtype), (a, b)


def _matmul_bwd(dtype: str | None, operands: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    a, b = operands
    return _product(grad, b.T, dtype), _product(jax.lax.optimization_barrier(a.T), grad, dtype)


matmul.defvjp(_matmul_fwd, _matmul_bwd)


def encode(
    sae: SAE, x: Float[Array, "n d_in"], k: int | None = None, dtype: str | None = None
) -> Float[Array, "n d_sae"]:
    """Latents of rows `x`. With `k`: of the k largest pre-activations (ties: the lower index), then ReLU."""
    pre_acts = matmul(x, sae.W_enc, dtype) + sae.b_enc[None, :]
    if k is None:
        return jax.nn.relu(pre_acts)
    values, indices = jax.lax.top_k(pre_acts, k)
    return jnp.put_along_axis(jnp.zeros_like(pre_acts), indices, jax.nn.relu(values), axis=-1, inplace=False)


def decode(sae: SAE, latents: Float[Array, "n d_sae"], dtype: str | None = None) -> Float[Array, "n d_in"]:
    """Reconstructed rows."""
    return matmul(latents, sae.W_dec, dtype) + sae.b_dec[None, :]


def loss(
    sae: SAE, x: Float[Array, "n d_in"], l1_coef: Float[Array, ""], k: int | None = None, dtype: str | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(mean((x_hat - x)^2) + l1_coef * mean(|latents|), L0): means over all elements; L0 is latents above 0 per row."""
    latents = encode(sae, x, k, dtype)
    squared_error = jnp.mean((decode(sae, latents, dtype) - x) ** 2)
    l0 = jnp.count_nonzero(latents, axis=-1).astype(x.dtype).mean()
    return squared_error + l1_coef * jnp.mean(
        latents
    ), l0  # latents are never negative: their mean is that of |latents|
