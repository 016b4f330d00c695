"""Rows in, a trained SAE out. Sees only arrays: knows neither text nor transformer.

The step is written for one SAE and mapped over a leading axis of members; one SAE is an ensemble of one. Nothing in an
epoch waits for the device: losses are summed there and read once, when the epoch ends.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxsae import sae as sae_lib
from jaxsae.config import InputError, SAEConfig, TrainConfig, require
from jaxsae.sae import SAE


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """g * min(1, max_norm / (norm + 1e-6)) as PyTorch's clip_grad_norm_; optax's own lacks the 1e-6."""

    def update(grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
        scale = jnp.minimum(max_norm / (optax.tree.norm(grads) + 1e-6), 1.0)
        return jax.tree.map(lambda g: g * scale, grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class TrainState(NamedTuple):
    """Everything a step changes; each array has a leading axis of members."""

    sae: SAE
    opt_state: optax.OptState
    loss_sum: Float[Array, " members"]
    """Of the batch losses since the epoch began."""
    l0_sum: Float[Array, " members"]


def optimizer(lr: float) -> optax.GradientTransformation:
    """Adam with PyTorch's defaults, after clipping to norm 1."""
    return optax.chain(clip_by_global_norm(1.0), optax.adam(lr, b1=0.9, b2=0.999, eps=1e-8))


def init_state(saes: SAE, lr: float) -> TrainState:
    """A fresh state around the members' starting weights."""
    members = saes.b_dec.shape[0]
    zero = jnp.zeros(members, saes.b_dec.dtype)
    return TrainState(saes, jax.vmap(optimizer(lr).init)(saes), zero, zero.copy())  # two buffers: both are donated


Step = Callable[[TrainState, Float[Array, "n d_in"], Int[Array, " batch"]], TrainState]


def make_step(configs: list[SAEConfig], lr: float, precision: str = "float32") -> Step:
    """The jitted step: `step(state, rows, batch)` trains every member on `rows[batch]` and gives the next state.

    The state is donated: the one passed in is gone. Members differ in `l1_coef`; they share `k`.
    """
    l1_coefs, k = np.array([c.l1_coef for c in configs]), configs[0].k
    dtype = None if precision == "float32" else precision
    transform = optimizer(lr)

    def member_step(state: TrainState, l1_coef: Float[Array, ""], x: Float[Array, "batch d_in"]) -> TrainState:
        (loss, l0), grads = jax.value_and_grad(sae_lib.loss, has_aux=True)(state.sae, x, l1_coef, k, dtype)
        updates, opt_state = transform.update(grads, state.opt_state, state.sae)
        sae = optax.apply_updates(state.sae, updates)
        sae = sae._replace(W_dec=sae_lib.unit_rows(sae.W_dec))
        return TrainState(sae, opt_state, state.loss_sum + loss, state.l0_sum + l0)

    def step(state: TrainState, rows: Float[Array, "n d_in"], batch: Int[Array, " batch"]) -> TrainState:
        x = rows.at[batch].get(mode="promise_in_bounds")
        return jax.vmap(member_step, in_axes=(0, 0, None))(state, jnp.asarray(l1_coefs, rows.dtype), x)

    return jax.jit(step, donate_argnums=0)


class Epoch(NamedTuple):
    """What an epoch was like: means over its batches."""

    number: int
    """1 for the first."""
    loss: float
    l0: float


class Trained(NamedTuple):
    """A trained SAE: the weights after the last epoch, and every epoch's figures."""

    sae: SAE
    config: SAEConfig
    epochs: list[Epoch]


def batches(n: int, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Row indices of an epoch's batches: a permutation fixed by (seed, epoch), its last partial batch dropped."""
    order = np.random.default_rng((seed, epoch)).permutation(n).astype(np.int32)
    for start in range(0, n - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


def train_sae(
    rows: Float[Array, "n d_in"],
    config: TrainConfig,
    *,
    on_step: Callable[[int], None] = lambda steps: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Trained:
    """Train an SAE on `rows` by the guide's recipe, until `epochs` or `patience` ends it.

    Args:
      rows: float32 activations, on the device that trains.
      config: how; its defaults are the guide's.
      on_step: called with the number of steps of the epoch handed to the device so far.
      on_epoch: called at the end of each epoch.

    Raises:
      InputError: fewer rows than a batch, k above d_sae, or a loss that is no longer a number.
    """
    n, d_in = rows.shape
    require(n >= config.batch_size, f"rows must be at least a batch, got {n} rows and --batch-size {config.batch_size}")
    sae_config = config.sae(d_in)
    keys = jax.random.key(config.seed)[None]
    state = init_state(jax.vmap(lambda key: sae_lib.init(key, sae_config))(keys), config.lr)
    step = make_step([sae_config], config.lr, config.precision)
    steps = n // config.batch_size

    epochs: list[Epoch] = []
    best, since_best = math.inf, 0
    for number in range(1, config.epochs + 1):
        for done, batch in enumerate(batches(n, config.batch_size, config.seed, number), start=1):
            state = step(state, rows, jnp.asarray(batch))
            on_step(done)
        epoch = Epoch(number, float(state.loss_sum[0]) / steps, float(state.l0_sum[0]) / steps)
        if not math.isfinite(epoch.loss):
            raise InputError(
                f"the loss must stay finite, got {epoch.loss} in epoch {number}; try a lower --lr than {config.lr:g}"
            )
        state = state._replace(loss_sum=jnp.zeros_like(state.loss_sum), l0_sum=jnp.zeros_like(state.l0_sum))
        epochs.append(epoch)
        on_epoch(epoch)
        best, since_best = (epoch.loss, 0) if epoch.loss < best else (best, since_best + 1)
        if since_best >= config.patience:
            break
    return Trained(jax.tree.map(lambda leaf: leaf[0], state.sae), sae_config, epochs)
