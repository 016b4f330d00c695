"""Rows in, a trained SAE out. Sees only arrays: knows neither text nor transformer.

The step is written for one SAE and mapped over a leading axis of members; one SAE is an ensemble of one. Nothing in an
epoch waits for the device: losses are summed there and read once, when the epoch ends.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jaxsae import sae as sae_lib
from jaxsae.config import THRESHOLDED, InputError, SAEConfig, TrainConfig, require
from jaxsae.sae import SAE, Basis

BANDWIDTH = 0.5
"""Of JumpReLU's straight-through gradients, where the rows' elements have variance 1."""
L0_WEIGHT = 0.03
"""Of JumpReLU's penalty on the L0, there too."""
L1_START = 1e-3
"""Where ReLU's penalty begins that a target L0 determines, in the units of the rows: the guide's."""
L1_REACH = 32.0
"""How far it can then move in a whole run: by this over the steps, times log(L0 / the L0 aimed at), each step."""
DEAD_AFTER, DEAD_SHARE = 25, 130
"""Steps without firing after which a latent is to be revived: at least so many, and enough to have fired so often if
all fired alike. With fewer, runs with an L0 of 16 of 1,536 ran away: what was revived silenced the rest."""
LIFT = 0.01
"""What the bias of such a latent gains a step, where the rows' elements have variance 1."""
LIFT_TO_THRESHOLD, LOWER = 0.003, 0.97
"""The same where it has a threshold, and what that is multiplied by."""
CALIBRATION_ELEMENTS = 2**25
"""Pre-activations that thresholds are calibrated on."""
CHUNK = 4096
"""Rows summed at once in float64."""


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
    """The weight of sparsity in the loss; ReLU's moves where there is a target L0."""
    aim: Float[Array, " members"]
    """The target L0; that of a penalty begins at a third of d_sae and sinks to the target in half of the run."""
    idle: Int[Array, "members d_sae"]
    """Steps since each latent last fired."""
    loss_sum: Float[Array, " members"]
    """Of the batch losses since the epoch began."""
    l0_sum: Float[Array, " members"]


def optimizer(lr: float | optax.Schedule, b2: float = 0.999) -> optax.GradientTransformation:
    """Adam, after clipping to norm 1; PyTorch's defaults but for the learning rate, and `b2` where it is given."""
    return optax.chain(clip_by_global_norm(1.0), optax.adam(lr, b1=0.9, b2=b2, eps=1e-8))


def init_state(
    saes: SAE, transform: optax.GradientTransformation, penalty: ArrayLike = 0.0, aim: ArrayLike = 0.0
) -> TrainState:
    """A fresh state around the members' starting weights; penalty and aim are theirs, or one for all."""
    dtype, (members, d_sae) = saes.b_enc.dtype, saes.b_enc.shape
    # a buffer each, for all are donated
    return TrainState(
        saes,
        jax.vmap(transform.init)(saes),
        penalty=jnp.full(members, penalty, dtype),
        aim=jnp.full(members, aim, dtype),
        idle=jnp.zeros((members, d_sae), jnp.int32),
        loss_sum=jnp.zeros(members, dtype),
        l0_sum=jnp.zeros(members, dtype),
    )


def principal_basis(rows: Float[Array, "n d_in"]) -> Basis:
    """The rows' principal directions, strongest first, about their mean; scaled to a variance of 1 over all elements.

    Adam's step is the same in each coordinate. Along the rows' own directions it so reaches the many of little
    variance, in which latents differ, as soon as the few of much; in the model's coordinates each holds some of all.
    Summed in float64; rows that are all the same keep their scale.

    Raises:
      InputError: NaN or infinity in the rows.
    """
    n, d_in = rows.shape
    total, products = np.zeros(d_in), np.zeros((d_in, d_in))
    chunks = [slice(start, start + CHUNK) for start in range(0, n, CHUNK)]
    for chunk in chunks:
        total += np.asarray(rows[chunk], np.float64).sum(axis=0)
    require(bool(np.isfinite(total).all()), "rows must be finite numbers, got NaN or infinity in them")
    centre = total / n
    for chunk in chunks:
        x = np.asarray(rows[chunk], np.float64) - centre
        products += x.T @ x
    variances, directions = np.linalg.eigh(products / n)
    mean_variance = float(variances.mean())
    scale = 1 / math.sqrt(mean_variance) if mean_variance > 0 else 1.0
    return Basis(*(jnp.asarray(a, rows.dtype) for a in (centre, directions[:, ::-1], scale)))


def dead_after(config: SAEConfig, batch_size: int) -> int:
    """Steps without firing after which a latent counts as dead; in rows, that times `batch_size`."""
    l0 = config.k or config.target_l0 or config.d_sae
    # every prefix of a Matryoshka leans on its first latents: it runs away sooner
    share = 1.5 * DEAD_SHARE if config.architecture == "matryoshka" else DEAD_SHARE
    return max(DEAD_AFTER, math.ceil(share * config.d_sae / (batch_size * l0)))


Rows = Float[Array, "n d_in"] | tuple[Float[Array, "n d_in"], ...]
Step = Callable[[TrainState, Rows, Int[Array, "*members batch"]], TrainState]


def make_step(
    configs: Sequence[SAEConfig],
    transform: optax.GradientTransformation,
    precision: str = "float32",
    *,
    basis: Basis | None = None,
    l1_rate: float = 0.01,
    sink: ArrayLike = 1.0,
    revive: bool = False,
) -> Step:
    """The jitted step: `step(state, rows, batch)` trains every member on `rows[batch]` and gives the next state.

    The state is donated: the one passed in is gone. Members differ in penalty and `target_l0`; they share architecture
    and `k`. With a tuple of rows, one for each member, `batch` has a row for each too, and `basis` an axis of members.

    Args:
      basis: train on the rows in this basis.
      l1_rate: how fast a ReLU's penalty moves where there is a target L0.
      sink: what the L0 aimed at is multiplied by each step, until it is the target; of each member, or of all.
      revive: latents that fired in none of the last `dead_after` steps: by AuxK, and by raising their bias (and
        lowering their threshold) a little each step until they fire, as idle experts are brought back into a mixture
        (Wang et al. 2024, arXiv 2408.15664).
    """
    config, dtype = configs[0], None if precision == "float32" else precision
    targets = np.array([c.target_l0 or 0 for c in configs])
    sinks = np.broadcast_to(np.asarray(sink), targets.shape)

    def member_step(
        state: TrainState,
        target: Float[Array, ""],
        sink: Float[Array, ""],
        dead: Bool[Array, " d_sae"],
        x: Float[Array, "batch d_in"],
        aux: bool,
    ) -> TrainState:
        def loss(sae: SAE) -> tuple[Array, sae_lib.Step]:
            return sae_lib.loss(
                sae,
                x,
                state.penalty,
                config,
                target_l0=state.aim,
                bandwidth=BANDWIDTH,
                dead=dead if aux else None,
                dtype=dtype,
            )

        grads, seen = jax.grad(loss, has_aux=True)(state.sae)
        updates, opt_state = transform.update(grads, state.opt_state, state.sae)
        sae = optax.apply_updates(state.sae, updates)
        sae = sae._replace(W_dec=sae_lib.unit_rows(sae.W_dec))
        if sae.threshold is not None:
            sae = sae._replace(threshold=jax.nn.relu(sae.threshold))
        if aux:
            idle = dead & ~seen.fired
            lift = LIFT if sae.threshold is None else LIFT_TO_THRESHOLD
            sae = sae._replace(b_enc=sae.b_enc + jnp.where(idle, lift, 0.0))
            if sae.threshold is not None:
                sae = sae._replace(threshold=sae.threshold * jnp.where(idle, LOWER, 1.0))
        penalty, aim = state.penalty, jnp.maximum(target, state.aim * sink)
        if config.penalised and config.architecture == "relu":
            penalty *= jnp.exp(l1_rate * jnp.clip(jnp.log(jnp.maximum(seen.l0, 1e-3) / aim), -1, 1))
        return TrainState(
            sae,
            opt_state,
            penalty,
            aim,
            idle=jnp.where(seen.fired, 0, state.idle + 1),
            loss_sum=state.loss_sum + seen.loss,
            l0_sum=state.l0_sum + seen.l0,
        )

    def step(state: TrainState, rows: Rows, batch: Int[Array, "*members batch"]) -> TrainState:
        if isinstance(rows, tuple):
            x = jnp.stack([r.at[b].get(mode="promise_in_bounds") for r, b in zip(rows, batch, strict=True)])
            x, axis = (x if basis is None else jax.vmap(sae_lib.into)(basis, x)), 0
        else:
            x = rows.at[batch].get(mode="promise_in_bounds")
            x, axis = (x if basis is None else sae_lib.into(basis, x)), None
        target, sink = (jnp.asarray(a, x.dtype) for a in (targets, sinks))
        dead = state.idle >= np.array([dead_after(c, x.shape[-2]) for c in configs])[:, None]

        def run(state: TrainState, aux: bool) -> TrainState:
            return jax.vmap(partial(member_step, aux=aux), in_axes=(0, 0, 0, 0, axis))(state, target, sink, dead, x)

        if not revive:
            return run(state, False)
        # asked outside the vmap, so that steps without dead latents do not pay for AuxK
        return jax.lax.cond(dead.any(), partial(run, aux=True), partial(run, aux=False), state)

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


def schedule(lr: float, steps: int, decay: float = 1 / 3) -> optax.Schedule:
    """Up to `lr` over the first twentieth of the steps, constant, and down to 0 over the last `decay` of them."""
    rise, fall = max(1, steps // 20), max(1, int(steps * decay))
    parts = [optax.linear_schedule(lr / rise, lr, rise - 1 or 1), optax.linear_schedule(lr, 0.0, fall)]
    return optax.join_schedules(parts, [steps - fall])


def firing_threshold(
    sae: SAE, rows: Float[Array, "n d_in"], target_l0: int, basis: Basis | None = None
) -> Float[Array, " d_sae"]:
    """Thresholds above which, on a sample of the rows, `target_l0` pre-activations per row are in the mean.

    One for all latents; or, where the SAE has thresholds, those multiplied by one factor.
    """
    n, d_sae = rows.shape[0], sae.b_enc.shape[0]
    some = np.random.default_rng(0).permutation(n)[: max(1, CALIBRATION_ELEMENTS // d_sae)]
    x = rows[jnp.asarray(np.sort(some))]
    unit = jnp.ones_like(sae.b_enc) if sae.threshold is None else jnp.maximum(sae.threshold, 1e-6)

    @jax.jit
    def factor(x: Array) -> Array:
        ratios = sae_lib.pre_activations(sae, x if basis is None else sae_lib.into(basis, x)) / unit[None, :]
        # a latent fires where it is above: the next ratio below is the threshold
        return sae_lib.kth_largest(ratios, len(some) * target_l0 + 1)

    return unit * factor(x)


class Member(NamedTuple):
    """One SAE of a run of several: which rows it is trained on, and how."""

    layer: int
    config: TrainConfig


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
    return train_saes({0: rows}, [Member(0, config)], on_step=on_step, on_epoch=lambda _, epoch: on_epoch(epoch))[0]


def train_saes(
    rows: Mapping[int, Float[Array, "n d_in"]],
    members: Sequence[Member],
    *,
    on_step: Callable[[int], None] = lambda steps: None,
    on_epoch: Callable[[int, Epoch], None] = lambda member, epoch: None,
) -> list[Trained]:
    """Train several SAEs, each as `train_sae` would alone, up to rounding.

    Those that differ in nothing but layer, seed, L1 coefficient and target L0 train as one batched step; one that has
    stopped leaves the batch.

    Args:
      rows: layer -> activations of the same text, on the device that trains.
      on_step: called with the number of steps of the epoch handed to the device so far; of each batch of members.
      on_epoch: called with a member's number and its epoch, at the end of each.

    Raises:
      InputError: as `train_sae`.
    """
    groups: dict[tuple, list[int]] = {}
    for number, (layer, config) in enumerate(members):
        n, d_in = rows[layer].shape
        enough = n >= config.batch_size
        require(enough, f"rows must be at least a batch, got {n} rows and --batch-size {config.batch_size}")
        free = {"seed": 0, "l1_coef": 0, "target_l0": config.target_l0 is None}
        alike = dataclasses.asdict(config) | free | {"k": config.sae(d_in).k, "n": n}
        groups.setdefault(tuple(alike.items()), []).append(number)
    found: dict[int, Trained] = {}
    for numbers in groups.values():
        trained = _train_alike(rows, [members[i] for i in numbers], on_step, lambda j, e, n=numbers: on_epoch(n[j], e))  # type: ignore[misc]
        found |= dict(zip(numbers, trained, strict=True))
    return [found[number] for number in range(len(members))]


def _train_alike(
    rows: Mapping[int, Float[Array, "n d_in"]],
    members: Sequence[Member],
    on_step: Callable[[int], None],
    on_epoch: Callable[[int, Epoch], None],
) -> list[Trained]:
    """Members of one batched step."""
    config, modern = members[0].config, members[0].config.recipe == "modern"
    n, d_in = rows[members[0].layer].shape
    configs = [m.config.sae(d_in) for m in members]
    steps = n // config.batch_size
    total = config.epochs * steps
    bases = {layer: principal_basis(rows[layer]) for layer in dict.fromkeys(m.layer for m in members)} if modern else {}
    scales = np.array([float(bases[m.layer].scale) if modern else 1.0 for m in members])
    # penalties are in the units of the rows; scaled latents are as much larger, their errors by its square
    penalty, sink = np.array([c.l1_coef for c in configs]) * scales, np.ones(len(members))
    aim = np.array([float(c.target_l0 or 0) for c in configs])
    if configs[0].penalised:
        penalty = L1_START * scales if config.architecture == "relu" else np.full(len(members), L0_WEIGHT)
        start = np.maximum(aim, configs[0].d_sae / 3)
        aim, sink = start, (aim / start) ** (2 / total)
    init = sae_lib.init_tied if modern else sae_lib.init
    saes = [init(jax.random.key(m.config.seed), c) for m, c in zip(members, configs, strict=True)]
    transform = optimizer(schedule(config.lr, total, config.decay), b2=0.95) if modern else optimizer(config.lr)
    l1_rate = max(0.01, L1_REACH / total)

    def stepper(alive: Sequence[int]) -> tuple[Step, Rows, bool]:
        """(the step of those members, the rows it takes, whether they are shared)."""
        some = [members[i] for i in alive]
        shared = len({(m.layer, m.config.seed) for m in some}) == 1
        basis: Basis | None = None
        if modern:
            one = [bases[m.layer] for m in some]
            basis = one[0] if shared else jax.tree.map(lambda *leaves: jnp.stack(leaves), *one)
        of = [configs[i] for i in alive]
        step = make_step(
            of, transform, config.precision, basis=basis, l1_rate=l1_rate, sink=sink[list(alive)], revive=modern
        )
        return step, rows[some[0].layer] if shared else tuple(rows[m.layer] for m in some), shared

    alive: Sequence[int] = range(len(members))
    state = init_state(jax.tree.map(lambda *leaves: jnp.stack(leaves), *saes), transform, penalty, aim)
    step, taken, shared = stepper(alive)
    epochs: list[list[Epoch]] = [[] for _ in members]
    best, since_best = [math.inf] * len(members), [0] * len(members)
    out: dict[int, Trained] = {}
    for number in range(1, config.epochs + 1):
        orders = [batches(n, config.batch_size, members[i].config.seed, number) for i in alive]
        for done, batch in enumerate(orders[0] if shared else map(np.stack, zip(*orders, strict=True)), start=1):
            state = step(state, taken, jnp.asarray(batch))
            on_step(done)
        stay = []
        for place, i in enumerate(alive):
            loss, l0 = (float(total[place]) / steps for total in (state.loss_sum, state.l0_sum))
            epoch = Epoch(number, loss / scales[i] ** 2, l0)
            if not math.isfinite(epoch.loss):
                lr = f"try a lower --lr than {config.lr:g}"
                raise InputError(f"the loss must stay finite, got {epoch.loss} in epoch {number}; {lr}")
            epochs[i].append(epoch)
            on_epoch(i, epoch)
            if configs[i].penalised and not math.isclose(epoch.l0, configs[i].target_l0 or 0, rel_tol=0.05):
                best[i], since_best[i] = math.inf, 0  # losses under another penalty are not comparable
            best[i], since_best[i] = (epoch.loss, 0) if epoch.loss < best[i] else (best[i], since_best[i] + 1)
            if number < config.epochs and (modern or since_best[i] < config.patience):
                stay.append(place)
                continue
            basis = bases.get(members[i].layer)
            sae = jax.tree.map(lambda leaf, place=place: leaf[place], state.sae)
            final = float(state.penalty[place]) / scales[i] if configs[i].penalised else 0.0
            out[i] = _finished(sae, configs[i], epochs[i], rows[members[i].layer], basis, final)
        if not stay:
            break
        state = state._replace(loss_sum=jnp.zeros_like(state.loss_sum), l0_sum=jnp.zeros_like(state.l0_sum))
        if len(stay) < len(alive):
            state = jax.tree.map(lambda leaf, stay=stay: leaf[np.array(stay)], state)
            alive = [alive[place] for place in stay]
            step, taken, shared = stepper(alive)
    return [out[i] for i in range(len(members))]


def _finished(
    sae: SAE,
    config: SAEConfig,
    epochs: list[Epoch],
    rows: Float[Array, "n d_in"],
    basis: Basis | None,
    penalty: float,
) -> Trained:
    """What leaves the batch: thresholds chosen, the basis folded in, the penalty that it ended with."""
    if config.architecture in THRESHOLDED:
        sae = sae._replace(threshold=firing_threshold(sae, rows, config.target_l0 or 1, basis))
    if config.penalised and config.architecture == "relu":
        config = dataclasses.replace(config, l1_coef=penalty)
    return Trained(sae if basis is None else sae_lib.folded(sae, basis), config, epochs)
