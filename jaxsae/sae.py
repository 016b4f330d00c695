"""The sparse autoencoder: pure functions over four arrays.

    latents = relu(x @ W_enc + b_enc)          (TopK: the k largest pre-activations only)
    x_hat   = latents @ W_dec + b_dec

`b_dec` is not subtracted from the input. Functions are written for one SAE; an ensemble carries a leading axis of
members on every array and runs them under `jax.vmap`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxsae.config import SAEConfig
from jaxsae.products import matmul


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
