"""Rows in, a trained SAE out. Sees only arrays: knows neither text nor transformer.

The step is written for one SAE and mapped over a leading axis of members; one SAE is an ensemble of one. Nothing in an
epoch waits for the device: losses are summed there and read once, when the epoch ends.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxsae import sae as sae_lib
from jaxsae.config import THRESHOLDED, InputError, SAEConfig, TrainConfig, require
from jaxsae.sae import SAE

BANDWIDTH = 0.05
"""Of JumpReLU's straight-through gradients, where the rows' elements have variance 1."""
PENALTY_RATE = 0.01
"""How fast the penalty moves towards a target L0: by this times log(L0 / target) a step."""
START_PENALTY = 1e-3
"""Where a penalty begins that the target L0 alone determines."""
DEAD_AFTER = 50
"""Steps without firing after which AuxK revives a latent."""
CALIBRATION_ELEMENTS = 2**25
"""Pre-activations that thresholds are calibrated on."""
CHUNK = 4096
"""Rows summed at once in float64."""
SMALL = 1e-6


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
    penalty: Float[Array, " members"]
    """The weight of sparsity in the loss; where there is a target L0, moved towards it."""
    idle: Int[Array, "members d_sae"]
    """Steps since each latent last fired."""
    loss_sum: Float[Array, " members"]
    """Of the batch losses since the epoch began."""
    l0_sum: Float[Array, " members"]


LearningRate: TypeAlias = float | optax.Schedule


def optimizer(lr: LearningRate) -> optax.GradientTransformation:
    """Adam with PyTorch's defaults, after clipping to norm 1."""
    return optax.chain(clip_by_global_norm(1.0), optax.adam(lr, b1=0.9, b2=0.999, eps=1e-8))


def init_state(saes: SAE, configs: Sequence[SAEConfig], lr: LearningRate) -> TrainState:
    """A fresh state around the members' starting weights."""
    dtype, (members, d_sae) = saes.b_enc.dtype, saes.b_enc.shape
    # two zeros, not one: both buffers are donated
    sums = (jnp.zeros(members, dtype) for _ in range(2))
    penalty = jnp.asarray([config.l1_coef or START_PENALTY for config in configs], dtype)
    return TrainState(saes, jax.vmap(optimizer(lr).init)(saes), penalty, jnp.zeros((members, d_sae), jnp.int32), *sums)


class Scaling(NamedTuple):
    """What is trained on: (rows - centre) * scale."""

    centre: Float[Array, " d_in"]
    scale: Float[Array, ""]


def scaling(rows: Float[Array, "n d_in"]) -> Scaling:
    """To mean 0 and, over all elements, variance 1, summed in float64; rows that are all the same keep their scale."""
    n, d_in = rows.shape
    total, squares = np.zeros(d_in), 0.0
    for start in range(0, n, CHUNK):
        total += np.asarray(rows[start : start + CHUNK], np.float64).sum(axis=0)
    centre = total / n
    for start in range(0, n, CHUNK):
        squares += float(((np.asarray(rows[start : start + CHUNK], np.float64) - centre) ** 2).sum())
    scale = math.sqrt(n * d_in / squares) if squares > 0 else 1.0
    return Scaling(jnp.asarray(centre, rows.dtype), jnp.asarray(scale, rows.dtype))


Step = Callable[[TrainState, Float[Array, "n d_in"], Int[Array, " batch"]], TrainState]


def make_step(
    configs: Sequence[SAEConfig],
    lr: LearningRate,
    precision: str = "float32",
    *,
    scaled: Scaling | None = None,
    bandwidth: float = BANDWIDTH,
    revive: bool = False,
) -> Step:
    """The jitted step: `step(state, rows, batch)` trains every member on `rows[batch]` and gives the next state.

    The state is donated: the one passed in is gone. Members differ in `l1_coef` and `target_l0`; they share
    architecture and `k`.

    Args:
      scaled: train on rows scaled so.
      bandwidth: of JumpReLU's straight-through gradients, in the units of what is trained on.
      revive: AuxK, for latents that fired in none of the last `DEAD_AFTER` steps.
    """
    config, dtype = configs[0], None if precision == "float32" else precision
    controlled = config.architecture in ("relu", "jumprelu") and config.target_l0 is not None
    targets = np.array([c.target_l0 or 0 for c in configs])
    transform = optimizer(lr)

    def member_step(
        state: TrainState, target: Float[Array, ""], x: Float[Array, "batch d_in"], aux: bool
    ) -> TrainState:
        def loss(sae: SAE) -> tuple[Array, sae_lib.Step]:
            dead = state.idle >= DEAD_AFTER if aux else None
            return sae_lib.loss(sae, x, state.penalty, config, bandwidth=bandwidth, dead=dead, dtype=dtype)

        grads, seen = jax.grad(loss, has_aux=True)(state.sae)
        updates, opt_state = transform.update(grads, state.opt_state, state.sae)
        sae = optax.apply_updates(state.sae, updates)
        sae = sae._replace(W_dec=sae_lib.unit_rows(sae.W_dec))
        if sae.threshold is not None:
            sae = sae._replace(threshold=jax.nn.relu(sae.threshold))
        penalty = state.penalty
        if controlled:
            penalty *= jnp.exp(PENALTY_RATE * jnp.clip(jnp.log(jnp.maximum(seen.l0, 1e-3) / target), -1, 1))
        idle = jnp.where(seen.fired, 0, state.idle + 1)
        return TrainState(sae, opt_state, penalty, idle, state.loss_sum + seen.loss, state.l0_sum + seen.l0)

    def step(state: TrainState, rows: Float[Array, "n d_in"], batch: Int[Array, " batch"]) -> TrainState:
        x = rows.at[batch].get(mode="promise_in_bounds")
        if scaled is not None:
            x = (x - scaled.centre[None, :]) * scaled.scale
        target = jnp.asarray(targets, rows.dtype)

        def run(state: TrainState, aux: bool) -> TrainState:
            return jax.vmap(partial(member_step, aux=aux), in_axes=(0, 0, None))(state, target, x)

        if not revive:
            return run(state, False)
        # asked outside the vmap, so that steps without dead latents do not pay for AuxK
        any_dead = (state.idle >= DEAD_AFTER).any()
        return jax.lax.cond(any_dead, partial(run, aux=True), partial(run, aux=False), state)

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


def schedule(lr: float, steps: int) -> optax.Schedule:
    """Up to `lr` over the first twentieth of the steps, constant, and down to 0 over the last third."""
    rise, fall = max(1, steps // 20), max(1, steps // 3)
    parts = [optax.linear_schedule(lr / rise, lr, rise - 1 or 1), optax.linear_schedule(lr, 0.0, fall)]
    return optax.join_schedules(parts, [steps - fall])


def calibrated(sae: SAE, rows: Float[Array, "n d_in"], target_l0: int, scaled: Scaling | None = None) -> SAE:
    """Thresholds of which, on a sample of the rows, `target_l0` latents per row fire in the mean.

    A BatchTopK gets one for all its latents; those of a JumpReLU are multiplied by one factor.
    """
    n, d_sae = rows.shape[0], sae.b_enc.shape[0]
    some = np.random.default_rng(0).permutation(n)[: max(1, CALIBRATION_ELEMENTS // d_sae)]
    x = rows[jnp.asarray(np.sort(some))]
    if scaled is not None:
        x = (x - scaled.centre[None, :]) * scaled.scale
    threshold = jnp.ones_like(sae.b_enc) if sae.threshold is None else sae.threshold
    ratio = jax.jit(lambda x: sae_lib.pre_activations(sae, x) / jnp.maximum(threshold, SMALL)[None, :])(x)
    # fires where above: the next one below is the threshold
    factor = jax.jit(sae_lib.kth_largest)(ratio, len(some) * target_l0 + 1)
    return sae._replace(threshold=jnp.maximum(threshold, SMALL) * factor)


def train_sae(
    rows: Float[Array, "n d_in"],
    config: TrainConfig,
    *,
    on_step: Callable[[int], None] = lambda steps: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Trained:
    """Train an SAE on `rows`; what comes out applies to the rows as they are, whatever the recipe scales.

    Args:
      rows: float32 activations, on the device that trains.
      config: how; its defaults are the guide's recipe.
      on_step: called with the number of steps of the epoch handed to the device so far.
      on_epoch: called at the end of each epoch.

    Raises:
      InputError: fewer rows than a batch, k above d_sae, or a loss that is no longer a number.
    """
    n, d_in = rows.shape
    require(n >= config.batch_size, f"rows must be at least a batch, got {n} rows and --batch-size {config.batch_size}")
    sae_config = config.sae(d_in)
    modern, architecture = config.recipe == "modern", config.architecture
    target = config.target_l0 or 0
    controlled = architecture in ("relu", "jumprelu") and target > 0
    steps = n // config.batch_size
    found = scaling(rows)
    scaled, unit = (found, 1.0) if modern else (None, 1 / float(found.scale))
    lr = schedule(config.lr, config.epochs * steps) if modern else config.lr
    init = sae_lib.init_tied if modern else sae_lib.init
    saes = jax.vmap(lambda key: init(key, sae_config))(jax.random.key(config.seed)[None])
    state = init_state(saes, [sae_config], lr)
    step = make_step([sae_config], lr, config.precision, scaled=scaled, bandwidth=BANDWIDTH * unit, revive=modern)

    epochs: list[Epoch] = []
    best, since_best = math.inf, 0
    for number in range(1, config.epochs + 1):
        for done, batch in enumerate(batches(n, config.batch_size, config.seed, number), start=1):
            state = step(state, rows, jnp.asarray(batch))
            on_step(done)
        # back in the units of the rows, where a scale is trained in
        loss = float(state.loss_sum[0]) / steps / (float(found.scale) ** 2 if modern else 1)
        epoch = Epoch(number, loss, float(state.l0_sum[0]) / steps)
        if not math.isfinite(epoch.loss):
            raise InputError(
                f"the loss must stay finite, got {epoch.loss} in epoch {number}; try a lower --lr than {config.lr:g}"
            )
        state = state._replace(loss_sum=jnp.zeros_like(state.loss_sum), l0_sum=jnp.zeros_like(state.l0_sum))
        epochs.append(epoch)
        on_epoch(epoch)
        if controlled and not math.isclose(epoch.l0, target, rel_tol=0.05):
            best, since_best = math.inf, 0  # losses under another penalty are not comparable
        best, since_best = (epoch.loss, 0) if epoch.loss < best else (best, since_best + 1)
        if since_best >= config.patience and not modern:
            break
    sae = jax.tree.map(lambda leaf: leaf[0], state.sae)
    if architecture in THRESHOLDED:
        sae = calibrated(sae, rows, target, scaled)
    if controlled and architecture == "relu":
        # the penalty of (x - centre) * scale, whose latents are as much larger
        penalty = float(state.penalty[0]) / (float(found.scale) if modern else 1)
        sae_config = dataclasses.replace(sae_config, l1_coef=penalty)
    if scaled is not None:
        sae = sae_lib.unscaled(sae, *scaled)
    return Trained(sae, sae_config, epochs)
