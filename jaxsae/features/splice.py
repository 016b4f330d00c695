"""What a change of the residual stream does to the restorations: an SAE, or an ablation, spliced in after a layer.

Measured at damaged positions alone: at the others the model only has to copy what it sees. Padding is left as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsae.errors import listed, require
from jaxsae.models.changes import Change, where_real
from jaxsae.models.products import matmul
from jaxsae.models.protocol import ResidualModel
from jaxsae.sae.active import by_rows
from jaxsae.sae.architectures import encode
from jaxsae.sae.autoencoder import SAE, decode
from jaxsae.text.batching import plan_batches
from jaxsae.text.samples import Samples, check_samples


class Effect(NamedTuple):
    """Figures of restorations, as means over damaged positions."""

    ce: float
    """Cross-entropy of the true character, in nats."""
    kl: float
    """KL divergence from the unchanged model's distribution to this one, in nats."""
    top1: float
    """Share of positions whose most probable character is the true one."""
    top5: float
    positions: int


class Restored(NamedTuple):
    """What the model predicts at each damaged position, in the order of the text."""

    ce: Float[np.ndarray, " positions"]
    """Cross-entropy of the true character, in nats."""
    kl: Float[np.ndarray, " positions"]
    """KL divergence from the unchanged model's distribution, in nats."""
    above: Int[np.ndarray, " positions"]
    """How many characters are more probable than the true one."""
    guess: Int[np.ndarray, " positions"]
    """The most probable character."""

    def effect(self, where: Bool[np.ndarray, " positions"] | slice = slice(None)) -> Effect:
        """Means over the positions, or over those `where`; NaN where there is none."""
        ce, kl, above = self.ce[where], self.kl[where], self.above[where]
        if not len(ce):
            return Effect(*(float("nan"),) * 4, 0)
        means = (ce.mean(), kl.mean(), (above == 0).mean(), (above < 5).mean())
        return Effect(*map(float, means), len(ce))  # type: ignore[call-arg, arg-type]

    def probability(self, where: Bool[np.ndarray, " positions"] | slice = slice(None)) -> float:
        """Mean probability of the true character."""
        return float(np.exp(-self.ce[where]).mean()) if len(self.ce[where]) else float("nan")


@jax.jit
def _per_position(
    clean: Float[Array, "n vocab"], logits: Float[Array, "n vocab"], true_ids: Int[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"], Int[Array, " n"], Int[Array, " n"]]:
    """The fields of `Restored`."""
    log_p, log_q = jax.nn.log_softmax(clean), jax.nn.log_softmax(logits)
    true = jnp.take_along_axis(log_q, true_ids[:, None], axis=-1)
    kl = (jnp.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    above = ~(log_q <= true)  # a NaN is above: it is never restored right
    return -true[:, 0], kl, above.sum(axis=-1), log_q.argmax(axis=-1)


def restorations(
    model: ResidualModel,
    samples: Samples,
    layer: int,
    changes: Mapping[str, Change],
    observe: Callable[[Float[Array, "batch position d_model"]], Float[Array, "batch position m"]] | None = None,
) -> tuple[dict[str, Restored], Float[np.ndarray, "positions m"]]:
    """What the model predicts with each change made to its residual stream after block `layer`, and `clean` without.

    Args:
      changes: name -> function of the stream [batch, position, d_model]; what it gives at padding, and at tokens that
        are no text, is not used: SAEs have not seen these.
      observe: what else to take from the unchanged stream; its values at the damaged positions are the second result.
    """
    model.check_layer(layer)
    check_samples(samples, model.tokenizer, model.max_position)
    scored = samples.scored
    require(bool(scored.any()), "samples must have damaged positions (labels other than -100), got none")
    positions = int(scored.sum())
    number = scored.reshape(-1).cumsum().reshape(scored.shape) - 1
    found = {name: [np.zeros(positions) for _ in Restored._fields] for name in ("clean", *changes)}
    observed = None
    for rows, length in plan_batches(samples.lengths, samples.ids.shape[1]):
        ids, mask = (jnp.asarray(a[rows, :length]) for a in (samples.ids, samples.mask))
        x = model.activations(ids, mask, layer=layer)
        where = np.flatnonzero(scored[rows, :length])
        if not len(where):
            continue
        here = number[rows, :length].reshape(-1)[where]
        if observe is not None:
            values = np.asarray(observe(x)).reshape(x.shape[0] * x.shape[1], -1)[where]
            observed = np.zeros((positions, values.shape[1]), np.float32) if observed is None else observed
            observed[here] = values
        room = -(-len(where) // 64) * 64  # few shapes to compile for
        at = jnp.asarray(np.resize(where, room))
        true_ids = jnp.asarray(samples.labels[rows, :length].reshape(-1)[np.resize(where, room)])

        text = jnp.asarray(samples.real[rows, :length])

        def restore(x: Array, ids: Array = ids, mask: Array = mask, at: Array = at) -> Array:
            return model.logits(ids, mask, places=at, layer=layer, x=x)

        clean = restore(x)
        for name, columns in found.items():
            logits = clean if name == "clean" else restore(where_real(text, changes[name](x), x))
            for column, values in zip(columns, _per_position(clean, logits, true_ids), strict=True):
                column[here] = np.asarray(values)[: len(where)]
    out = {
        name: Restored(ce, kl, above.astype(int), guess.astype(int)) for name, (ce, kl, above, guess) in found.items()
    }
    return out, np.zeros((positions, 0), np.float32) if observed is None else observed


def effects(model: ResidualModel, samples: Samples, layer: int, changes: Mapping[str, Change]) -> dict[str, Effect]:
    """The means of `restorations` over the damaged positions."""
    return {name: one.effect() for name, one in restorations(model, samples, layer, changes)[0].items()}


@jax.jit
def reconstruct(sae: SAE, x: Float[Array, "batch position d_in"]) -> Float[Array, "batch position d_in"]:
    """The SAE's reconstruction of a residual stream."""
    rows = x.reshape(-1, x.shape[-1])
    return by_rows(lambda some: decode(sae, encode(sae, some)), rows, sae.d_sae).reshape(x.shape)


@jax.jit
def some_latents(
    sae: SAE, x: Float[Array, "batch position d_in"], latents: Int[Array | np.ndarray, " m"]
) -> Float[Array, "rows m"]:
    """The values of some latents on a residual stream: one row for each position."""
    return by_rows(lambda some: encode(sae, some)[:, latents], x.reshape(-1, x.shape[-1]), sae.d_sae)


@jax.jit
def with_latents(
    sae: SAE,
    x: Float[Array, "batch position d_in"],
    latents: Int[Array | np.ndarray, " m"],
    values: Float[Array | np.ndarray, " m"],
    where_active: bool | Bool[Array, ""] = False,
) -> Float[Array, "batch position d_in"]:
    """A residual stream with latents set to values everywhere; all else is kept, the SAE's error too.

    x + (values - latents of x) @ W_dec[latents]; a value of 0 removes a latent, NaN leaves it as it is.

    Args:
      where_active: change a latent only where it is above 0.
    """
    rows = x.reshape(-1, x.shape[-1])
    now = by_rows(lambda some: encode(sae, some)[:, latents], rows, sae.d_sae)
    left = jnp.isnan(values)[None] | (where_active & (now <= 0))
    change = jnp.where(left, 0, values[None] - now)
    return (rows + matmul(change, sae.W_dec[latents])).reshape(x.shape)


def steer(sae: SAE, settings: Sequence[tuple[int, float]], *, where_active: bool = False) -> Change:
    """The change that sets each (latent, value) everywhere; a value of 0 removes the latent.

    Args:
      where_active: only where the latent is active.

    Raises:
      InputError: there is no such latent, or one is set twice.
    """
    set_to = dict(settings)
    for latent in set_to:
        require(0 <= latent < sae.d_sae, f"feature must be in 0..{sae.d_sae - 1}, got {latent}")
    require(len(set_to) == len(settings), f"a feature must be set once, got {listed(n for n, _ in settings)}")
    room = -(-len(set_to) // 8) * 8  # few shapes to compile for
    latents, values = np.zeros(room, int), np.full(room, np.nan, np.float32)
    latents[: len(set_to)], values[: len(set_to)] = list(set_to), list(set_to.values())
    return lambda x: with_latents(sae, x, latents, values, where_active)


def recovered(clean: Effect, changed: Effect, ablated: Effect) -> float:
    """Share of the cross-entropy lost by an ablation that `changed` keeps: 1 as without change, 0 as ablated.

    Not clipped: below 0 where it is worse than the ablation. NaN where the ablation loses nothing.
    """
    lost = ablated.ce - clean.ce
    return (ablated.ce - changed.ce) / lost if lost else float("nan")
