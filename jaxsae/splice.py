"""What a change of the residual stream does to the restorations: an SAE, or an ablation, spliced in after a layer.

Measured at damaged positions alone: at the others the model only has to copy what it sees. Padding is left as it is.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsae import sae as sae_lib
from jaxsae import text
from jaxsae.activations import check_samples, plan
from jaxsae.config import require
from jaxsae.data import Samples
from jaxsae.model import RestorationModel
from jaxsae.sae import SAE

Change = Callable[[Float[Array, "batch position d_model"]], Float[Array, "batch position d_model"]]


class Effect(NamedTuple):
    """Means over damaged positions."""

    ce: float
    """Cross-entropy of the true character, in nats."""
    kl: float
    """KL divergence from the unchanged model's distribution to this one, in nats."""
    top1: float
    """Share of positions whose most probable character is the true one."""
    top5: float
    positions: int


@jax.jit
def _per_position(
    clean: Float[Array, "n vocab"], logits: Float[Array, "n vocab"], true_ids: Int[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"], Int[Array, " n"]]:
    """Cross-entropy, KL divergence, and how many characters are more probable than the true one."""
    log_p, log_q = jax.nn.log_softmax(clean), jax.nn.log_softmax(logits)
    true = jnp.take_along_axis(log_q, true_ids[:, None], axis=-1)
    kl = (jnp.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    return -true[:, 0], kl, (log_q > true).sum(axis=-1)


def effects(model: RestorationModel, samples: Samples, layer: int, changes: Mapping[str, Change]) -> dict[str, Effect]:
    """How the model restores with each change made to its residual stream after block `layer`, and `clean` without.

    Args:
      changes: name -> function of the stream [batch, position, d_model]; what it gives at padding is not used.
    """
    model.config.check_layer(layer)
    check_samples(samples, model.config.vocab_size, model.config.max_position)
    damaged = samples.labels != text.NO_LABEL
    require(bool(damaged.any()), "samples must have damaged positions (labels other than -100), got none")
    sums = {name: np.zeros(4) for name in ("clean", *changes)}
    for rows, length in plan(samples.lengths, samples.ids.shape[1]):
        ids, mask = (jnp.asarray(a[rows, :length]) for a in (samples.ids, samples.mask))
        x = model.resid_post(ids, mask, layer=layer)
        where = np.flatnonzero(damaged[rows, :length])
        if not len(where):
            continue
        room = -(-len(where) // 64) * 64  # few shapes to compile for
        at = jnp.asarray(np.resize(where, room))
        true_ids = jnp.asarray(samples.labels[rows, :length].reshape(-1)[np.resize(where, room)])

        def restore(x: Array, mask: Array = mask, at: Array = at) -> Array:
            final = model.resume(x, mask, layer=layer)
            return model.unembed(final.reshape(1, -1, final.shape[-1])[:, at])[0]

        clean = restore(x)
        for name, total in sums.items():
            logits = clean if name == "clean" else restore(_where_real(mask != 0, changes[name](x), x))
            ce, kl, above = (np.asarray(a, np.float64)[: len(where)] for a in _per_position(clean, logits, true_ids))
            total += [ce.sum(), kl.sum(), (above == 0).sum(), (above < 5).sum()]
    positions = int(damaged.sum())
    means = {name: (total / positions).tolist() for name, total in sums.items()}
    return {name: Effect(ce, kl, top1, top5, positions) for name, (ce, kl, top1, top5) in means.items()}


@jax.jit
def _where_real(real: Bool[Array, "batch position"], changed: Array, x: Array) -> Array:
    return jnp.where(real[:, :, None], changed, x)


@partial(jax.jit, static_argnames="k")
def reconstruct(sae: SAE, x: Float[Array, "batch position d_in"], k: int | None) -> Float[Array, "batch position d_in"]:
    """The SAE's reconstruction of a residual stream."""
    rows = x.reshape(-1, x.shape[-1])
    return sae_lib.decode(sae, sae_lib.encode(sae, rows, k)).reshape(x.shape)


def recovered(clean: Effect, changed: Effect, ablated: Effect) -> float:
    """Share of the cross-entropy lost by an ablation that `changed` keeps: 1 as without change, 0 as ablated.

    Not clipped: below 0 where it is worse than the ablation. NaN where the ablation loses nothing.
    """
    lost = ablated.ce - clean.ce
    return (ablated.ce - changed.ce) / lost if lost else float("nan")
