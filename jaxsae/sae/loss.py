"""The loss of a training step: reconstruction, what the architecture adds, and what revives dead latents."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxsae.mesh import parts
from jaxsae.models.products import matmul, total
from jaxsae.sae import sparse_topk as sparse_lib
from jaxsae.sae.architectures import Aim, architecture
from jaxsae.sae.autoencoder import SAE, UNDAMAGED, pre_activations

AUX_COEF = 1 / 32
"""Weight of AuxK, as in its paper."""


class StepMetrics(NamedTuple):
    """What a training step sees besides the gradient."""

    loss: Float[Array, ""]
    """Without what revives dead latents, and what denoises."""
    l0: Float[Array, ""]
    """Latents above 0 per row, mean."""
    fired: Bool[Array, " d_sae"]
    """On any row of the batch."""


def loss(
    sae: SAE,
    x: Float[Array, "n d_in"],
    aim: Aim,
    *,
    dead: Bool[Array, " d_sae"] | None = None,
    sparse: bool = False,
    dtype: str | None = None,
    undamaged: Float[Array, "n d_in"] | None = None,
    denoise: float = 0.0,
) -> tuple[Float[Array, ""], StepMetrics]:
    """The loss of a batch: mean((x_hat - x)^2) over all elements, plus what the architecture adds.

    With `undamaged`, plus the same error of these rows as a decoder of their own, `UNDAMAGED` of `sae.training`, makes
    them of the latents of x: as in a denoising autoencoder (Vincent et al. 2008), whose latents so hold what can be
    known of the undamaged text, but that x is reconstructed as well.

    Args:
      aim: the sparsity that is aimed at.
      dead: latents to revive by AuxK, whose gradient reaches those latents alone.
      sparse: topk: touch only the latents that fire; the same but for rounding.
      dtype: the operands of products are rounded to it.
      undamaged: the rows of the same places when the model is given the text undamaged, and `denoise`, the weight of
        their error.
    """
    told: Array | None = None
    if sparse:
        assert sae.k is not None
        values, indices = sparse_lib.encode(x, sae.W_enc.T, sae.b_enc, sae.k, dtype)
        x_hat = sparse_lib.decode(values, indices, sae.W_dec) + sae.b_dec[None, :]
        value = total((x_hat - x) ** 2) / x.size
        if undamaged is not None:
            told = sparse_lib.decode(values, indices, sae.training[UNDAMAGED])
        above = (jax.lax.stop_gradient(values) > 0).astype(x.dtype)
        firings = jnp.zeros_like(sae.b_enc).at[indices].add(above, mode="promise_in_bounds")
    else:
        x_hat, value, latents, firings = _densely(sae, x, aim, dtype)
        if undamaged is not None:
            told = matmul(latents, sae.training[UNDAMAGED], dtype)
    figures = StepMetrics(value, firings.sum() / x.shape[0], firings > 0)
    if dead is not None:
        value += AUX_COEF * aux_k(sae, x, jax.lax.stop_gradient(x - x_hat), dead, dtype)
    if undamaged is not None and told is not None:
        value += denoise * total((told + sae.b_dec[None, :] - undamaged) ** 2) / x.size
    return value, figures


def _densely(
    sae: SAE, x: Float[Array, "n d_in"], aim: Aim, dtype: str | None
) -> tuple[Float[Array, "n d_in"], Float[Array, ""], Float[Array, "n d_sae"], Float[Array, " d_sae"]]:
    """(x_hat, the loss, the latents, on how many rows each fires)."""
    record = architecture(sae.architecture)
    latents, extra = record.train(sae, x, pre_activations(sae, x, dtype), aim)
    ends = record.prefixes(latents.shape[-1])
    x_hat, squared_error = jnp.broadcast_to(sae.b_dec[None, :], x.shape), jnp.zeros((), x.dtype)
    for start, end in zip([0, *ends], ends, strict=False):
        x_hat += matmul(_between(latents, start, end, axis=1), _between(sae.W_dec, start, end, axis=0), dtype)
        squared_error += total((x_hat - x) ** 2) / x.size / len(ends)
    firings = (jax.lax.stop_gradient(latents) > 0).astype(x.dtype).sum(axis=0)
    return x_hat, squared_error + extra, latents, firings


def _between(a: Array, start: int, end: int, axis: int) -> Array:
    """The latents `start` to `end` of the axis; where that is split, from each part its share, see `dealt`."""
    split = parts("latents")
    a = a.reshape(*a.shape[:axis], split, -1, *a.shape[axis + 1 :])
    a = jax.lax.slice_in_dim(a, start // split, end // split, axis=axis + 1)
    return a.reshape(*a.shape[:axis], -1, *a.shape[axis + 2 :])


def dealt(a: Array, split: int, axis: int) -> Array:
    """Latents dealt to so many parts of the axis in turn: each part then has its share of every nested SAE.

    Else the first of them would all be on one device, and be sent to the others in each step.
    """
    axis %= a.ndim
    parted = a.reshape(*a.shape[:axis], -1, split, *a.shape[axis + 1 :])
    return parted.swapaxes(axis, axis + 1).reshape(a.shape)


def in_order(a: Array, split: int, axis: int) -> Array:
    """What was `dealt`, as it was."""
    return dealt(a, a.shape[axis] // split, axis)


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
    split = parts("latents")
    is_dealt = split > 1 and len(architecture(sae.architecture).prefixes(len(dead))) > 1
    flags = in_order(dead, split, 0) if is_dealt else dead
    some = jax.lax.top_k(flags.astype(x.dtype), min(left.shape[-1], len(dead)))[1]
    if is_dealt:
        some = in_order(jnp.arange(len(dead)), split, 0)[some]  # where the latent of that number is held
    pre_acts = matmul(x, sae.W_enc.T[some].T, dtype) + sae.b_enc[some][None, :]
    latents = jnp.where(dead[some][None, :], jax.nn.relu(pre_acts), 0)
    error = total((matmul(latents, sae.W_dec[some], dtype) - left) ** 2)
    return jnp.where(dead.any(), error / jnp.maximum(total(left**2), jnp.finfo(left.dtype).tiny), 0)
