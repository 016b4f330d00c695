"""Rows in, a trained SAE out. Sees only arrays: knows neither text nor transformer.

Nothing in an epoch waits for the device: losses are summed there and read once, when the epoch ends.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxsae import sae as sae_lib
from jaxsae.config import THRESHOLDED, InputError, SAEConfig, TrainConfig, require
from jaxsae.rows import RowsOnDisk, shuffled_batches
from jaxsae.sae import SAE, Basis
from jaxsae.step import Members, Rows, Stepper, TrainState, members_at_once, optimizer

AnyRows = Float[Array, "n d_in"] | RowsOnDisk
"""On the device that trains, or on disk."""

L0_WEIGHT = 0.03
"""Of JumpReLU's penalty on the L0, there too."""
L1_START = 1e-3
"""Where ReLU's penalty begins that a target L0 determines, in the units of the rows: the guide's."""
L1_REACH = 32.0
"""How far it can then move in a whole run: by this over the steps, times log(L0 / the L0 aimed at), each step."""
CALIBRATION_ELEMENTS = 2**25
"""Pre-activations that thresholds are calibrated on."""
CHUNK = 4096
"""Rows summed at once in float64."""


def principal_basis(rows: AnyRows) -> Basis:
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
        ratios = sae_lib.pre_activations(sae, x if basis is None else sae_lib.into(basis, x)) / unit[None, :]
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

    Those that differ in nothing but layer, seed, L1 coefficient and target L0 train as one batched step; one that has
    stopped leaves the batch.

    Args:
      rows: layer -> activations of the same text, on the device that trains or on disk.
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
        some = [members[i] for i in numbers]
        run = _Run(rows, some)
        at_once = members_at_once(run.configs[0])
        for start in range(0, len(numbers), at_once):
            part = range(start, min(start + at_once, len(numbers)))
            for i, trained in run.train(part, on_step, lambda j, e, n=numbers: on_epoch(n[j], e)).items():  # type: ignore[misc]
                found[numbers[i]] = trained
    return [found[number] for number in range(len(members))]


class _Run:
    """Members that differ in layer, seed, L1 coefficient and target L0 only: they share a compiled step."""

    def __init__(self, rows: Mapping[int, AnyRows], members: Sequence[Member]) -> None:
        self.rows, self.members, self.config = rows, members, members[0].config
        self.modern = self.config.recipe == "modern"
        n, d_in = rows[members[0].layer].shape
        self.configs = [m.config.sae(d_in) for m in members]
        self.steps = n // self.config.batch_size
        total = self.config.epochs * self.steps
        layers = dict.fromkeys(m.layer for m in members)
        self.bases = {layer: principal_basis(rows[layer]) for layer in layers} if self.modern else {}
        # penalties are in the units of the rows; scaled latents are as much larger, their errors by its square
        self.scales = np.array([float(self.bases[m.layer].scale) if self.modern else 1.0 for m in members])
        self.penalty, self.sink = np.array([c.l1_coef for c in self.configs]) * self.scales, np.ones(len(members))
        self.aim = np.array([float(c.target_l0 or 0) for c in self.configs])
        if self.configs[0].penalised:
            relu = self.config.architecture == "relu"
            self.penalty = L1_START * self.scales if relu else np.full(len(members), L0_WEIGHT)
            start = np.maximum(self.aim, self.configs[0].d_sae / 3)
            self.aim, self.sink = start, (self.aim / start) ** (2 / total)
        rate = schedule(self.config.lr, total, self.config.decay) if self.modern else self.config.lr
        self.stepper = Stepper(
            self.configs[0],
            optimizer(rate, b2=0.95 if self.modern else 0.999),
            self.config.precision,
            l1_rate=max(0.01, L1_REACH / total),
            revive=self.modern,
        )

    def _given(self, alive: Sequence[int]) -> tuple[Members, bool]:
        """(what the step is told of those members, whether all see the same batches of the same rows)."""
        some = [self.members[i] for i in alive]
        shared = len({(m.layer, m.config.seed) for m in some}) == 1
        bases = [self.bases[m.layer] for m in some] if self.modern else []
        told = Members.of([self.configs[i] for i in alive], self.config.batch_size, self.sink[list(alive)], bases)
        return told, shared

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
        held: Rows = rows[0] if shared else tuple(rows)  # type: ignore[arg-type]
        orders = [batches(len(rows[0]), size, m.config.seed, epoch) for m in some]
        for numbers in zip(*orders, strict=True):
            yield held, jnp.asarray(numbers[0] if shared else np.stack(numbers))

    def train(
        self, alive: Sequence[int], on_step: Callable[[int], None], on_epoch: Callable[[int, Epoch], None]
    ) -> dict[int, Trained]:
        """Those members, in one batched step; one that has stopped leaves it."""
        config, init = self.config, sae_lib.init_tied if self.modern else sae_lib.init
        saes = [init(jax.random.key(self.members[i].config.seed), self.configs[i]) for i in alive]
        state = self.stepper.begin(
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *saes), self.penalty[list(alive)], self.aim[list(alive)]
        )
        told, shared = self._given(alive)
        progress = {i: _Progress(self.configs[i], config.patience, not self.modern) for i in alive}
        out: dict[int, Trained] = {}
        for number in range(1, config.epochs + 1):
            for done, (taken, batch) in enumerate(self._fed(alive, shared, number), start=1):
                state = self.stepper.step(state, told, taken, batch)
                on_step(done)
            stay = []
            for place, i in enumerate(alive):
                loss, l0 = (float(total[place]) / self.steps for total in (state.loss_sum, state.l0_sum))
                epoch = Epoch(number, loss / self.scales[i] ** 2, l0)
                if not math.isfinite(epoch.loss):
                    lr = f"try a lower --lr than {config.lr:g}"
                    raise InputError(f"the loss must stay finite, got {epoch.loss} in epoch {number}; {lr}")
                on_epoch(i, epoch)
                if progress[i].goes_on(epoch) and number < config.epochs:
                    stay.append(place)
                else:
                    out[i] = self._finished(i, jax.tree.map(lambda leaf, at=place: leaf[at], state), progress[i].epochs)
            if not stay:
                break
            state = state._replace(loss_sum=jnp.zeros_like(state.loss_sum), l0_sum=jnp.zeros_like(state.l0_sum))
            if len(stay) < len(alive):
                state = jax.tree.map(lambda leaf, stay=stay: leaf[np.array(stay)], state)
                alive = [alive[place] for place in stay]
                told, shared = self._given(alive)
        return out

    def _finished(self, i: int, state: TrainState, epochs: list[Epoch]) -> Trained:
        """What leaves the batch: thresholds chosen, the basis folded in, the penalty that it ended with."""
        layer, config = self.members[i].layer, self.configs[i]
        sae, basis = self.stepper.saes(state.sae), self.bases.get(layer)
        if config.architecture in THRESHOLDED:
            sae = sae._replace(threshold=firing_threshold(sae, self.rows[layer], config.target_l0 or 1, basis))
        if config.penalised and config.architecture == "relu":
            config = dataclasses.replace(config, l1_coef=float(state.penalty) / self.scales[i])
        return Trained(sae if basis is None else sae_lib.folded(sae, basis), config, epochs)


class _Progress:
    """A member's epochs so far, and whether another is worth it."""

    def __init__(self, config: SAEConfig, patience: int, stops: bool) -> None:
        self.config, self.patience, self.stops = config, patience, stops
        self.epochs: list[Epoch] = []
        self.best, self.since_best = math.inf, 0

    def goes_on(self, epoch: Epoch) -> bool:
        """After this epoch: a lowest loss is not too far back."""
        self.epochs.append(epoch)
        if self.config.penalised and not math.isclose(epoch.l0, self.config.target_l0 or 0, rel_tol=0.05):
            self.best, self.since_best = math.inf, 0  # losses under another penalty are not comparable
        lower = epoch.loss < self.best
        self.best, self.since_best = (epoch.loss, 0) if lower else (self.best, self.since_best + 1)
        return not self.stops or self.since_best < self.patience
