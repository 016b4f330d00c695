"""Rows in, a trained SAE out. Sees only arrays: knows neither text nor transformer.

Nothing in an epoch waits for the device: losses are summed there and read once, when the epoch ends.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxsae.activations.rows import RowsOnDisk, shuffled_batches
from jaxsae.config import THRESHOLDED, SAEConfig, TrainConfig
from jaxsae.errors import InputError, require
from jaxsae.sae import autoencoder as sae_lib
from jaxsae.sae import basis as basis_lib
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.basis import Basis, principal_basis
from jaxsae.sae.rows import AnyRows
from jaxsae.train.step import Members, Rows, Stepper, TrainState, members_at_once, optimizer

L0_WEIGHT = 1.0
"""Of JumpReLU's penalty (L0 / aim - 1)^2 beside an error that, of scaled rows, is their FVU; dictionary_learning's, in
the same units. A latent that fires at its threshold t takes t^2 / d_in off the error: the run settles at an L0 of
1 + aim t^2 / (2 weight d_in) times what is aimed at, and the factor that then makes it exact silences latents. With
0.03 that was 1.8 times where the FVU is 0.1 (64 dimensions, L0 16); with 3 the FVU of wide streams was worse."""
L1_START = 1e-3
"""Where ReLU's penalty begins that a target L0 determines, in the units of the rows: the guide's."""
L1_REACH = 32.0
"""How far it can then move in a whole run: by this over the steps, times log(L0 / the L0 aimed at), each step."""
CALIBRATION_ELEMENTS = 2**25
"""Pre-activations that thresholds are calibrated on."""


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


def firing_threshold(sae: SAE, rows: AnyRows, target_l0: int, basis: Basis | None = None) -> Float[Array, " d_sae"]:
    """Thresholds above which, on a sample of the rows, `target_l0` pre-activations per row are in the mean.

    One for all latents; or, where the SAE has thresholds, those multiplied by one factor.
    """
    n, d_sae = rows.shape[0], sae.b_enc.shape[0]
    some = np.random.default_rng(0).permutation(n)[: max(1, CALIBRATION_ELEMENTS // d_sae)]
    x = jnp.asarray(rows[np.sort(some)])
    unit = jnp.ones_like(sae.b_enc) if sae.threshold is None else jnp.maximum(sae.threshold, 1e-6)

    @jax.jit
    def factor(x: Array) -> Array:
        ratios = sae_lib.pre_activations(sae, x if basis is None else basis_lib.to_basis(basis, x)) / unit[None, :]
        # a latent fires where it is above: the next ratio below is the threshold
        return sae_lib.kth_largest(ratios, len(some) * target_l0 + 1)

    return unit * factor(x)


class Member(NamedTuple):
    """One SAE of a run of several: which rows it is trained on, and how."""

    layer: int
    config: TrainConfig


def train_sae(
    rows: AnyRows,
    config: TrainConfig,
    *,
    on_step: Callable[[int], None] = lambda steps: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Trained:
    """Train an SAE on `rows`; what comes out applies to the rows as they are, whatever the recipe scales.

    Args:
      rows: float32 activations, on the device that trains or on disk.
      config: how; its defaults are the guide's recipe.
      on_step: called with the number of steps of the epoch handed to the device so far.
      on_epoch: called at the end of each epoch.

    Raises:
      InputError: fewer rows than a batch, k above d_sae, or a loss that is no longer a number.
    """
    return train_saes({0: rows}, [Member(0, config)], on_step=on_step, on_epoch=lambda _, epoch: on_epoch(epoch))[0]


def train_saes(
    rows: Mapping[int, AnyRows],
    members: Sequence[Member],
    *,
    on_step: Callable[[int], None] = lambda steps: None,
    on_epoch: Callable[[int, Epoch], None] = lambda member, epoch: None,
) -> list[Trained]:
    """Train several SAEs, each as `train_sae` would alone, up to rounding.

    As `training`, which gives each as soon as it is trained.
    """
    found = dict(training(rows, members, on_step=on_step, on_epoch=on_epoch))
    return [found[number] for number in range(len(members))]


class Position(NamedTuple):
    """Where in its training a batch of members is: with its state, all there is to go on from."""

    epoch: int
    """The one under way, 1 for the first."""
    done: int
    """Steps of it that are done."""
    alive: tuple[int, ...]
    """Members that have not stopped."""
    epochs: dict[int, list[Epoch]]
    """Of each of these, the ones behind it."""


@runtime_checkable
class Checkpointer(Protocol):
    """What keeps the states of batches of members, each batch known by its members' numbers."""

    def is_through(self, members: Sequence[int]) -> bool:
        """Whether all of them were trained before."""

    def load(
        self, members: Sequence[int], like: Callable[[Position], TrainState]
    ) -> tuple[Position, TrainState] | None:
        """What was saved last; `like` tells its structure and shapes. None: nothing."""

    def due(self, epoch_ended: bool) -> bool:
        """Whether to save now, though the run goes on."""

    def save(self, members: Sequence[int], step: int, position: Position, state: TrainState) -> None:
        """Save a copy; `step` counts from the start of training."""

    def stopping(self) -> bool:
        """Whether to end here, the state being saved."""

    def through(self, members: Sequence[int]) -> None:
        """They are trained, and the caller has taken them."""


class Part(NamedTuple):
    """Members that train as one batched step."""

    members: tuple[int, ...]
    """Their numbers."""
    steps: int
    """Batched steps until the last of them has trained, where it does not stop early."""


def plan_parts(rows: Mapping[int, AnyRows], members: Sequence[Member]) -> list[list[Part]]:
    """In what parts `training` trains the members, in order; those listed together share a compiled step.

    Args:
      rows: as `training`.
      members: those to train.

    Raises:
      InputError: fewer rows than a batch, or k above d_sae.
    """
    groups: dict[tuple, list[int]] = {}
    shapes: dict[tuple, SAEConfig] = {}
    for number, (layer, config) in enumerate(members):
        n, d_in = rows[layer].shape
        enough = n >= config.batch_size
        require(enough, f"rows must be at least a batch, got {n} rows and --batch-size {config.batch_size}")
        free = {"seed": 0, "l1_coef": 0, "target_l0": config.target_l0 is None}
        alike = dataclasses.asdict(config) | free | {"k": config.sae(d_in).k, "n": n}
        groups.setdefault(tuple(alike.items()), []).append(number)
        shapes[tuple(alike.items())] = config.sae(d_in)
    out = []
    for alike_all, numbers in groups.items():
        at_once = members_at_once(shapes[alike_all])
        layer, config = members[numbers[0]]
        steps = config.epochs * (rows[layer].shape[0] // config.batch_size)
        starts = range(0, len(numbers), at_once)
        out.append([Part(tuple(numbers[start : start + at_once]), steps) for start in starts])
    return out


def training(
    rows: Mapping[int, AnyRows],
    members: Sequence[Member],
    *,
    keeper: Checkpointer | None = None,
    on_step: Callable[[int], None] = lambda steps: None,
    on_epoch: Callable[[int, Epoch], None] = lambda member, epoch: None,
    on_part: Callable[[Part], None] = lambda part: None,
) -> Iterator[tuple[int, Trained]]:
    """Train SAEs, and give each with its number as soon as it is trained.

    Those that differ in nothing but layer, seed, L1 coefficient and target L0 train as one batched step; one that has
    stopped leaves the batch.

    Args:
      rows: layer -> activations of the same text, on the device that trains or on disk.
      keeper: saves the state now and then, and gives one to go on from: what is trained is bit for bit the same.
        Members that were through, or had stopped when it was saved, are not given again.
      on_step: called with the number of steps of the epoch handed to the device so far; of each batch of members.
      on_epoch: called with a member's number and its epoch, at the end of each.
      on_part: called with each part of `planned` that is trained, or that was through; fewer steps than planned may
        have been handed to the device, where members were through or have stopped early.

    Raises:
      InputError: as `train_sae`.
    """
    for parts in plan_parts(rows, members):
        todo = [part for part in parts if keeper is None or not keeper.is_through(part.members)]
        for part in parts:
            if part not in todo:
                on_part(part)
        if not todo:
            continue
        run = _Run(rows, {i: members[i] for part in todo for i in part.members})
        for part in todo:
            yield from run.train(part.members, keeper, on_step, on_epoch)
            if keeper is not None:
                if keeper.stopping():
                    return
                keeper.through(part.members)
            on_part(part)


class _Run:
    """Members that differ in layer, seed, L1 coefficient and target L0 only: they share a compiled step."""

    def __init__(self, rows: Mapping[int, AnyRows], members: Mapping[int, Member]) -> None:
        self.rows, self.members = rows, members
        self.config = next(iter(members.values())).config
        self.modern = self.config.recipe == "modern"
        n, d_in = rows[next(iter(members.values())).layer].shape
        self.configs = {i: m.config.sae(d_in) for i, m in members.items()}
        self.steps = n // self.config.batch_size
        total = self.config.epochs * self.steps
        layers = dict.fromkeys(m.layer for m in members.values())
        self.bases = {layer: principal_basis(rows[layer]) for layer in layers} if self.modern else {}
        # penalties are in the units of the rows; scaled latents are as much larger, their errors by its square
        self.scales = {i: float(self.bases[m.layer].scale) if self.modern else 1.0 for i, m in members.items()}
        rate = schedule(self.config.lr, total, self.config.decay) if self.modern else self.config.lr
        self.total = total
        self.stepper = Stepper(
            next(iter(self.configs.values())),
            optimizer(rate, b2=0.95 if self.modern else 0.999),
            self.config.precision,
            l1_rate=max(0.01, L1_REACH / total),
            revive=self.modern,
        )

    def _sparsity(self, i: int) -> tuple[float, float, float]:
        """(penalty, the L0 aimed at, what that is multiplied by each step) at a member's start."""
        config, target = self.configs[i], float(self.configs[i].target_l0 or 0)
        if not config.penalised:
            return config.l1_coef * self.scales[i], target, 1.0
        relu = config.architecture == "relu"
        # once as many fire as there are dimensions nothing is left to learn: above, thresholds alone would move
        start = max(target, config.d_sae / 3 if relu else config.d_in / 2)
        return L1_START * self.scales[i] if relu else L0_WEIGHT, start, (target / start) ** (2 / self.total)

    def _begin(self, alive: Sequence[int]) -> TrainState:
        init = sae_lib.init_tied if self.modern else sae_lib.init
        saes = [init(jax.random.key(self.members[i].config.seed), self.configs[i]) for i in alive]
        penalty, aim, _ = np.array([self._sparsity(i) for i in alive]).T
        return self.stepper.begin(jax.tree.map(lambda *leaves: jnp.stack(leaves), *saes), penalty, aim)

    def _like(self, position: Position) -> TrainState:
        """Of the structure and shapes that the state has there."""
        shapes = jax.eval_shape(lambda: self._begin(position.alive))
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)

    def _given(self, alive: Sequence[int]) -> tuple[Members, bool]:
        """(what the step is told of those members, whether all see the same batches of the same rows)."""
        some = [self.members[i] for i in alive]
        shared = len({(m.layer, m.config.seed) for m in some}) == 1
        bases = [self.bases[m.layer] for m in some] if self.modern else []
        target_decay = np.array([self._sparsity(i)[2] for i in alive])
        return Members.of([self.configs[i] for i in alive], self.config.batch_size, target_decay, bases), shared

    def _fed(self, alive: Sequence[int], shared: bool, epoch: int) -> Iterator[tuple[Rows, Array]]:
        """(rows, which of them are the batch) for each step; rows on disk come batch by batch."""
        size = self.config.batch_size
        some = [self.members[i] for i in (alive[:1] if shared else alive)]
        rows = [self.rows[m.layer] for m in some]
        if isinstance(rows[0], RowsOnDisk):
            every = jnp.broadcast_to(jnp.arange(size), (size,) if shared else (len(some), size))
            streams = [
                shuffled_batches(of, size, m.config.seed, epoch)
                for of, m in zip(rows, some, strict=True)
                if isinstance(of, RowsOnDisk)
            ]
            for batch in zip(*streams, strict=True):
                taken = tuple(jnp.array(x) for x in batch)
                yield taken[0] if shared else taken, every
            return
        held: Rows = rows[0] if shared else tuple(rows)  # type: ignore[arg-type, assignment]
        orders = [batches(len(rows[0]), size, m.config.seed, epoch) for m in some]
        for numbers in zip(*orders, strict=True):
            yield held, jnp.asarray(numbers[0] if shared else np.stack(numbers))

    def train(
        self,
        part: Sequence[int],
        keeper: Checkpointer | None,
        on_step: Callable[[int], None],
        on_epoch: Callable[[int, Epoch], None],
    ) -> Iterator[tuple[int, Trained]]:
        """Those members, in one batched step; one that has stopped leaves it."""
        config = self.config
        kept = None if keeper is None else keeper.load(part, self._like)
        at = kept[0] if kept else Position(1, 0, tuple(part), {i: [] for i in part})
        # a buffer each, for all are donated
        state = jax.tree.map(jnp.array, kept[1]) if kept else self._begin(at.alive)
        progress = {
            i: _EarlyStopping(self.configs[i], config.patience, not self.modern, at.epochs[i]) for i in at.alive
        }
        alive, skipped = list(at.alive), at.done
        told, shared = self._given(alive)

        def ends_here(epoch: int, done: int, state: TrainState) -> bool:
            if keeper is None:
                return False
            ends = keeper.stopping()  # asked once: a signal may come at any moment, and nothing ends here unsaved
            if ends or keeper.due(epoch_ended=done == 0):
                self._check_finite(state, epoch, done)  # what is saved is good
                behind = {i: progress[i].epochs for i in alive}
                step = (epoch - 1) * self.steps + done
                keeper.save(part, step, Position(epoch, done, tuple(alive), behind), state)
            return ends

        for number in range(at.epoch, config.epochs + 1):
            fed = itertools.islice(self._fed(alive, shared, number), skipped, None)
            for done, (taken, batch) in enumerate(fed, start=skipped + 1):
                state = self.stepper.step(state, told, taken, batch)
                on_step(done)
                if done < self.steps and ends_here(number, done, state):
                    return
            self._check_finite(state, number, self.steps)
            skipped, stay = 0, []
            for place, i in enumerate(alive):
                loss, l0 = (float(total[place]) / self.steps for total in (state.loss_sum, state.l0_sum))
                epoch = Epoch(number, loss / self.scales[i] ** 2, l0)
                on_epoch(i, epoch)
                if progress[i].goes_on(epoch) and number < config.epochs:
                    stay.append(place)
                else:
                    one = jax.tree.map(lambda leaf, at=place: leaf[at], state)
                    yield i, self._finished(i, one, progress[i].epochs)
            if not stay:
                return
            state = state._replace(
                loss_sum=jnp.zeros_like(state.loss_sum),
                l0_sum=jnp.zeros_like(state.l0_sum),
                finite=jnp.zeros_like(state.finite),
            )
            if len(stay) < len(alive):
                state = jax.tree.map(lambda leaf, stay=stay: leaf[np.array(stay)], state)
                alive = [alive[place] for place in stay]
                told, shared = self._given(alive)
            if ends_here(number + 1, 0, state):
                return

    def _check_finite(self, state: TrainState, epoch: int, done: int) -> None:
        """Raise `InputError` unless loss and gradient were finite in the steps of the epoch that are done."""
        if (finite := int(state.finite.min())) < done:
            raise InputError(
                f"loss and gradient must stay finite, and did not in step {finite + 1} of epoch {epoch}; "
                f"try a lower --lr than {self.config.lr:g}"
            )

    def _finished(self, i: int, state: TrainState, epochs: list[Epoch]) -> Trained:
        """What leaves the batch: thresholds chosen, the basis folded in, the penalty that it ended with."""
        layer, config = self.members[i].layer, self.configs[i]
        sae, basis = self.stepper.saes(state.sae), self.bases.get(layer)
        if config.architecture in THRESHOLDED:
            sae = sae._replace(threshold=firing_threshold(sae, self.rows[layer], config.target_l0 or 1, basis))
        if config.penalised and config.architecture == "relu":
            config = dataclasses.replace(config, l1_coef=float(state.penalty) / self.scales[i])
        return Trained(sae if basis is None else basis_lib.fold_basis(sae, basis), config, epochs)


class _EarlyStopping:
    """A member's epochs so far, and whether another is worth it."""

    def __init__(self, config: SAEConfig, patience: int, stops: bool, epochs: Sequence[Epoch] = ()) -> None:
        self.config, self.patience, self.stops = config, patience, stops
        self.epochs: list[Epoch] = []
        self.best, self.since_best = math.inf, 0
        for epoch in epochs:
            self.goes_on(epoch)

    def goes_on(self, epoch: Epoch) -> bool:
        """After this epoch: a lowest loss is not too far back."""
        self.epochs.append(epoch)
        if self.config.penalised and not math.isclose(epoch.l0, self.config.target_l0 or 0, rel_tol=0.05):
            self.best, self.since_best = math.inf, 0  # losses under another penalty are not comparable
        lower = epoch.loss < self.best
        self.best, self.since_best = (epoch.loss, 0) if lower else (self.best, self.since_best + 1)
        return not self.stops or self.since_best < self.patience
