"""The sparse autoencoder: pure functions over its arrays.

    pre_acts = x @ W_enc + b_enc
    latents  = relu(pre_acts)                      relu
               relu(the k largest of a row)        topk                 (Gao et al. 2024, arXiv 2406.04093)
               relu(pre_acts) above a threshold    jumprelu             (Rajamanoharan et al. 2024, arXiv 2407.14435)
                                                   batchtopk            (Bussmann et al. 2024, arXiv 2412.06410)
                                                   matryoshka batchtopk (Bussmann et al. 2025, arXiv 2503.17547)
    x_hat    = latents @ W_dec + b_dec

`b_dec` is not subtracted from the input. In training a BatchTopK has no threshold yet: it keeps the batch_size * k
largest of a batch. Functions are written for one SAE; an ensemble carries a leading axis of members on every array and
runs them under `jax.vmap`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jaxsae.config import SAEConfig
from jaxsae.models.products import matmul, total
from jaxsae.sae import sparse as sparse_lib

AUX_COEF = 1 / 32
"""Weight of AuxK, as in its paper."""


class SAE(NamedTuple):
    """The arrays of an SAE file; rows of W_dec have unit norm."""

    W_enc: Float[Array, "*members d_in d_sae"]
    b_enc: Float[Array, "*members d_sae"]
    W_dec: Float[Array, "*members d_sae d_in"]
    b_dec: Float[Array, "*members d_in"]
    threshold: Float[Array, "*members d_sae"] | None = None
    """A latent fires where its pre-activation is above this; None: above 0, or the k largest."""


def unit_norm(W: Float[Array, "a b"], axis: int = -1) -> Float[Array, "a b"]:
    """Each row, or with axis 0 each column, divided by its Euclidean norm."""
    return W / jnp.linalg.norm(W, axis=axis, keepdims=True)


def init(key: Key[Array, ""], config: SAEConfig) -> SAE:
    """The guide's: W_enc ~ N(0, 0.01^2), rows of W_dec Gaussian then unit norm, biases and thresholds 0."""
    enc, dec = jax.random.split(key)
    return SAE(
        W_enc=0.01 * jax.random.normal(enc, (config.d_in, config.d_sae), jnp.float32),
        b_enc=jnp.zeros(config.d_sae, jnp.float32),
        W_dec=unit_norm(jax.random.normal(dec, (config.d_sae, config.d_in), jnp.float32)),
        b_dec=jnp.zeros(config.d_in, jnp.float32),
        threshold=jnp.zeros(config.d_sae, jnp.float32) if config.architecture == "jumprelu" else None,
    )


def init_tied(key: Key[Array, ""], config: SAEConfig) -> SAE:
    """The modern recipe's: as `init`, with W_enc the transpose of W_dec, so that a latent reads what it writes."""
    sae = init(key, config)
    return sae._replace(W_enc=sae.W_dec.T)


def pre_activations(sae: SAE, x: Float[Array, "n d_in"], dtype: str | None = None) -> Float[Array, "n d_sae"]:
    """x @ W_enc + b_enc."""
    return matmul(x, sae.W_enc, dtype) + sae.b_enc[None, :]


def top_k(pre_acts: Float[Array, "n d_sae"], k: int) -> Float[Array, "n d_sae"]:
    """ReLU of each row's k largest (ties: the lower index), 0 elsewhere."""
    values, indices = jax.lax.top_k(pre_acts, k)
    return jnp.put_along_axis(jnp.zeros_like(pre_acts), indices, jax.nn.relu(values), axis=-1, inplace=False)


def encode(
    sae: SAE, x: Float[Array, "n d_in"], k: int | None = None, dtype: str | None = None
) -> Float[Array, "n d_sae"]:
    """Latents of rows `x`, as every reader of the file computes them.

    Args:
      k: of the k largest pre-activations only, then ReLU; as `config.k` of the file says.
    """
    pre_acts = pre_activations(sae, x, dtype)
    if k is not None:
        return top_k(pre_acts, k)
    if sae.threshold is not None:
        return jnp.where(pre_acts > sae.threshold[None, :], jax.nn.relu(pre_acts), 0)
    return jax.nn.relu(pre_acts)


def decode(sae: SAE, latents: Float[Array, "n d_sae"], dtype: str | None = None) -> Float[Array, "n d_in"]:
    """Reconstructed rows."""
    return matmul(latents, sae.W_dec, dtype) + sae.b_dec[None, :]


def kth_largest(values: Float[Array, "..."], k: int | float | Float[Array, ""]) -> Float[Array, ""]:
    """The k-th largest of all `values`, 0 where fewer than k are positive. Has no gradient.

    The bits of positive numbers are ordered as the numbers are: the answer's bits are found from the highest down, by
    counting. On CPU that is faster than `lax.top_k`, which sorts on one thread.
    """
    bits = jnp.finfo(values.dtype).bits
    integer = jnp.int32 if bits == 32 else jnp.int64
    ordered = jax.lax.bitcast_convert_type(jax.nn.relu(jax.lax.stop_gradient(values)), integer)

    def lower(i: Array, found: Array) -> Array:
        trial = found | (jnp.ones((), integer) << (bits - 2 - i).astype(integer))
        return jnp.where(total((ordered >= trial).astype(jnp.int32)) >= k, trial, found)

    found = jax.lax.fori_loop(0, bits - 1, lower, jnp.zeros((), integer))
    return jax.lax.bitcast_convert_type(found, values.dtype)


@jax.custom_vjp
def jump(
    pre_acts: Float[Array, "n d_sae"], threshold: Float[Array, " d_sae"], bandwidth: Float[Array, ""]
) -> tuple[Float[Array, "n d_sae"], Float[Array, "n d_sae"]]:
    """(JumpReLU's latents, 1 where they fire), with the straight-through gradients of its paper for the threshold.

    Both jump at the threshold; there the rectangle kernel of width `bandwidth` stands for their derivative:
    d latents = -threshold / bandwidth, d fires = -1 / bandwidth, where |pre_act - threshold| < bandwidth / 2. To the
    pre-activations the latents' gradient goes where they fire, and none of the firing's.
    """
    fires = pre_acts > threshold[None, :]
    return jnp.where(fires, jax.nn.relu(pre_acts), 0), fires.astype(pre_acts.dtype)


def _jump_fwd(pre_acts: Array, threshold: Array, bandwidth: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    return jump(pre_acts, threshold, bandwidth), (pre_acts, threshold, bandwidth)


def _jump_bwd(kept: tuple[Array, ...], grads: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    pre_acts, threshold, bandwidth = kept
    d_latents, d_fires = grads
    above = (pre_acts > threshold[None, :]) & (pre_acts > 0)
    near = jnp.abs(pre_acts - threshold[None, :]) < bandwidth / 2
    d_threshold = -jnp.where(near, threshold[None, :] * d_latents + d_fires, 0).sum(axis=0) / bandwidth
    return jnp.where(above, d_latents, 0), d_threshold, jnp.zeros_like(bandwidth)


jump.defvjp(_jump_fwd, _jump_bwd)


def prefixes(d_sae: int) -> list[int]:
    """How many latents each nested SAE of a Matryoshka has: a sixteenth, an eighth, ... all of them."""
    return sorted({max(1, d_sae // 2**i) for i in range(5)})


class Seen(NamedTuple):
    """What a training step sees besides the gradient."""

    loss: Float[Array, ""]
    """Without what revives dead latents."""
    l0: Float[Array, ""]
    """Latents above 0 per row, mean."""
    fired: Bool[Array, " d_sae"]
    """On any row of the batch."""


def loss(
    sae: SAE,
    x: Float[Array, "n d_in"],
    penalty: Float[Array, ""],
    config: SAEConfig,
    *,
    target_l0: Float[Array, ""] | float | None = None,
    bandwidth: Float[Array, ""] | float = 1.0,
    dead: Bool[Array, " d_sae"] | None = None,
    sparse: bool = False,
    dtype: str | None = None,
) -> tuple[Float[Array, ""], Seen]:
    """The loss of a batch: mean((x_hat - x)^2) over all elements, plus what the architecture adds.

    Args:
      penalty: relu: weight of mean(|latents|); jumprelu: of (L0 / target_l0 - 1)^2; else not used.
      target_l0: latents per row, in the mean over the batch: batchtopk, matryoshka: that are kept; jumprelu: that the
        penalty draws to. None: as `config` says.
      bandwidth: of `jump`, in the units of x.
      dead: latents to revive by AuxK, whose gradient reaches those latents alone.
      sparse: topk: touch only the latents that fire; the same but for rounding.
    """
    if sparse:
        values, indices = sparse_lib.encode(x, sae.W_enc.T, sae.b_enc, config.k, dtype)
        x_hat = sparse_lib.decode(values, indices, sae.W_dec) + sae.b_dec[None, :]
        value = total((x_hat - x) ** 2) / x.size
        above = (jax.lax.stop_gradient(values) > 0).astype(x.dtype)
        firings = jnp.zeros_like(sae.b_enc).at[indices].add(above, mode="promise_in_bounds")
    else:
        x_hat, value, firings = _densely(sae, x, penalty, config, target_l0, bandwidth, dtype)
    seen = Seen(value, firings.sum() / x.shape[0], firings > 0)
    if dead is not None:
        value += AUX_COEF * aux_k(sae, x, jax.lax.stop_gradient(x - x_hat), dead, dtype)
    return value, seen


def _densely(
    sae: SAE,
    x: Float[Array, "n d_in"],
    penalty: Float[Array, ""],
    config: SAEConfig,
    target_l0: Float[Array, ""] | float | None,
    bandwidth: Float[Array, ""] | float,
    dtype: str | None,
) -> tuple[Float[Array, "n d_in"], Float[Array, ""], Float[Array, " d_sae"]]:
    """(x_hat, the loss, on how many rows each latent fires)."""
    pre_acts = pre_activations(sae, x, dtype)
    aim = target_l0 if target_l0 is not None else config.target_l0 or 1
    extra = jnp.zeros((), x.dtype)
    if config.architecture == "relu":
        latents = jax.nn.relu(pre_acts)
        extra = penalty * total(latents) / latents.size  # never negative: their mean is that of |latents|
    elif config.k is not None:
        latents = top_k(pre_acts, config.k)
    elif config.architecture == "jumprelu":
        latents, fires = jump(pre_acts, sae.threshold, jnp.asarray(bandwidth, x.dtype))
        extra = penalty * (fires.sum(axis=1).mean() / aim - 1) ** 2
    else:
        least = kth_largest(pre_acts, x.shape[0] * aim)
        latents = jnp.where(pre_acts >= least, jax.nn.relu(pre_acts), 0)

    if config.architecture == "matryoshka":
        ends = prefixes(config.d_sae)
        x_hat, squared_error = jnp.broadcast_to(sae.b_dec[None, :], x.shape), jnp.zeros((), x.dtype)
        for start, end in zip([0, *ends], ends, strict=False):
            x_hat += matmul(latents[:, start:end], sae.W_dec[start:end], dtype)
            squared_error += total((x_hat - x) ** 2) / x.size / len(ends)
    else:
        x_hat = decode(sae, latents, dtype)
        squared_error = total((x_hat - x) ** 2) / x.size
    firings = (jax.lax.stop_gradient(latents) > 0).astype(x.dtype).sum(axis=0)
    return x_hat, squared_error + extra, firings


def aux_k(
    sae: SAE,
    x: Float[Array, "n d_in"],
    left: Float[Array, "n d_in"],
    dead: Bool[Array, " d_sae"],
    dtype: str | None = None,
) -> Float[Array, ""]:
    """AuxK (Gao et al. 2024): how badly dead latents reconstruct what is left of x; 0 where none is dead.

    Its paper takes the d_in/2 of them that are largest on a row. Here it is all, or the first d_in where more are dead,
    so that a step touches no other latents and takes half the time. Squared error over the squares of `left`, which is
    a constant: nothing but dead latents has a gradient.

    Args:
      left: what the others leave of x, in its units.
      dead: which latents are.
    """
    some = jax.lax.top_k(dead.astype(x.dtype), min(left.shape[-1], len(dead)))[1]
    pre_acts = matmul(x, sae.W_enc.T[some].T, dtype) + sae.b_enc[some][None, :]
    latents = jnp.where(dead[some][None, :], jax.nn.relu(pre_acts), 0)
    error = total((matmul(latents, sae.W_dec[some], dtype) - left) ** 2)
    return jnp.where(dead.any(), error / jnp.maximum(total(left**2), jnp.finfo(left.dtype).tiny), 0)
