"""Rows in, trained SAEs out. Sees only arrays: knows neither text nor transformer, neither files nor clocks.

Nothing in an epoch waits for the device: losses are summed there and read once, when the epoch ends.
"""

import functools
import itertools
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsae import processes
from jaxsae.config import SAEConfig, TrainConfig
from jaxsae.mesh import make_mesh
from jaxsae.sae.basis import Basis, principal_basis
from jaxsae.sae.row_types import AnyRows
from jaxsae.train.events import (
    Begin,
    Epoch,
    EpochEnd,
    Event,
    Finished,
    PartEnd,
    Position,
    Resumable,
    Resumed,
    StepEnd,
    Trained,
)
from jaxsae.train.group import Group
from jaxsae.train.plan import Member, Part, plan_parts
from jaxsae.train.step import TrainState, has_target_by_penalty

LoadState = Callable[[Part, Callable[[Position], TrainState]], tuple[Position, TrainState] | None]
"""(a part, position -> any state of the structure and shapes saved there) -> what was saved last; None: nothing."""


def train_sae(rows: AnyRows, config: TrainConfig, mesh: Mesh | None = None) -> Trained:
    """Train an SAE on `rows`; what comes out applies to the rows as they are, whatever the recipe scales.

    Args:
      rows: float32 activations [n, d_in], on the device that trains or on disk; where `config` says `denoise`, each
        beside the row of the same place in the undamaged text, [n, 2 * d_in], in memory.
      config: how; its defaults are the guide's recipe.
      mesh: the devices that share the work, of `jaxsae.mesh.make_mesh`; the first one alone, if not given.

    Raises:
      InputError: fewer rows than a batch, k above d_sae, or a loss that is no longer a number.
    """
    return train_saes({0: rows}, [Member(0, config)], [mesh or make_mesh()])[0]


def train_saes(
    rows: Mapping[int, AnyRows], members: Sequence[Member], meshes: Sequence[Mesh] | None = None
) -> list[Trained]:
    """Train several SAEs, each as `train_sae` would alone, up to rounding.

    Args:
      rows: layer -> its rows.
      meshes: as `train`.

    Raises:
      InputError: as `train_sae`.
    """
    named = {str(number): member for number, member in enumerate(members)}
    found = {event.member: event.trained for event in train(rows, named, meshes=meshes) if isinstance(event, Finished)}
    return [found[name] for name in named]


def train(
    rows: Mapping[int, AnyRows],
    members: Mapping[str, Member],
    *,
    load: LoadState = lambda part, like: None,
    done: Collection[str] = (),
    together: Collection[Sequence[str]] = (),
    meshes: Sequence[Mesh] | None = None,
    streamed: bool | None = None,
) -> Iterator[Event]:
    """Train SAEs, and tell what happens; each is given as soon as it is trained (`Finished`).

    Those that differ in nothing but layer, seed, L1 coefficient and target L0 train as one batched step; one that has
    stopped leaves the batch. A caller that has seen enough stops asking for events.

    Args:
      rows: layer -> activations of the same text, on the device that trains or on disk.
      members: key -> member.
      load: gives the state to go on from: what is trained is then bit for bit the same as without a stop.
      done: members that were trained before. Those that had stopped when a state was saved are not given again.
      together: members whose states were saved together.
      meshes: devices that train side by side, each some of the SAEs, of which the others know nothing; the first device
        alone, if not given.
      streamed: rows are read from disk as they are used, not held on the devices; where they are on disk, if not given.

    Raises:
      InputError: as `train_sae`.
    """
    meshes = [make_mesh()] if meshes is None else meshes
    planned = plan_parts(rows, members, len(meshes), together)
    first = next(iter(members.values()))
    epoch_steps = rows[first.layer].shape[0] // first.config.batch_size
    yield Begin([part for parts in planned for part in parts], epoch_steps)
    waiting: deque[tuple[Part, tuple[str, ...]]] = deque()
    for parts in planned:
        todo = [part for part in parts if not set(part.members) <= set(done)]
        for part in parts:
            if part not in todo:
                yield PartEnd(part)
        alike = tuple(key for part in todo for key in part.members)
        waiting.extend((part, alike) for part in todo)
    widths = {layer: config.d_in(rows[layer].shape[1]) for layer, config in members.values()}
    bases = functools.cache(lambda layer, whiten: basis_of(rows[layer], widths[layer], whiten))

    def on(mesh: Mesh) -> Iterator[Event]:
        group, of = None, None
        while waiting:
            part, alike = waiting.popleft()
            if group is None or of != alike:
                group, of = Group(rows, {key: members[key] for key in alike}, bases, mesh, streamed), alike
            yield from _train_part(group, part, load)
            yield PartEnd(part)

    yield from _in_turn([on(mesh) for mesh in meshes])


def basis_of(rows: AnyRows, d_in: int, whiten: float) -> Basis:
    """The coordinates that the modern recipe trains in, the same bits in all processes that train together."""
    found = principal_basis(rows, processes.share(), processes.summed, d_in, whiten)
    # machines may find other signs, or turn directions of like variance: all take those of the first
    return Basis(*(jnp.asarray(processes.of_process(0, np.asarray(leaf))) for leaf in found))


def _in_turn(streams: list[Iterator[Event]]) -> Iterator[Event]:
    """An event of each: while one device computes, the next is given its work."""
    while streams:
        for stream in list(streams):
            try:
                yield next(stream)
            except StopIteration:
                streams.remove(stream)


def _train_part(group: Group, part: Part, load: LoadState) -> Iterator[Event]:
    """The members of a part, in one batched step; one that has stopped leaves it."""
    config = group.config
    saved = load(part, group.saved_like)
    at = saved[0] if saved else Position(1, 0, part.members, {key: [] for key in part.members})
    if saved:
        yield Resumed(part, at)
    state = group.stepper.from_saved(saved[1]) if saved else group.begin(at.alive)
    stopping = {key: EarlyStopping(group.configs[key], config.patience, at.epochs[key]) for key in at.alive}
    alive, skipped = list(at.alive), at.done
    constants, shared = group.constants(alive)

    def resumable(epoch: int, done: int, state: TrainState) -> Resumable:
        position = Position(epoch, done, tuple(alive), {key: stopping[key].epochs for key in alive})
        step = (epoch - 1) * group.steps + done
        return Resumable(part, position, step, lambda: group.to_saved(state, epoch, done))

    for number in range(at.epoch, config.epochs + 1):
        fed = itertools.islice(group.feed(alive, shared, number), skipped, None)
        for done, (taken, batch) in enumerate(fed, start=skipped + 1):
            state = group.stepper.step(state, constants, taken, batch)
            if group.waits:
                jax.block_until_ready(state.finite)
            yield StepEnd(part, number, done)
            if done < group.steps:
                yield resumable(number, done, state)
        group.check_finite(state, number, group.steps)
        skipped, stay = 0, []
        for place, key in enumerate(alive):
            loss, l0 = (float(total[place]) / group.steps for total in (state.loss_sum, state.l0_sum))
            epoch = Epoch(number, loss / group.scales[key] ** 2, l0)
            goes_on = stopping[key].goes_on(epoch)
            yield EpochEnd(key, epoch)
            if goes_on and number < config.epochs:
                stay.append(place)
            else:
                one = jax.tree.map(lambda leaf, at=place: leaf[at], state)
                yield Finished(key, group.finish(key, one, stopping[key].epochs))
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
            constants, shared = group.constants(alive)
        yield resumable(number + 1, 0, state)


class EarlyStopping:
    """A member's epochs so far, and whether another is worth it.

    Args:
      patience: epochs in a row without a new lowest loss after which it is not; None: it always is.
      epochs: those behind it.
    """

    def __init__(self, config: SAEConfig, patience: int | None, epochs: Sequence[Epoch] = ()) -> None:
        self.config, self.patience = config, patience
        self.epochs: list[Epoch] = []
        self.best, self.since_best = math.inf, 0
        for epoch in epochs:
            self.goes_on(epoch)

    def goes_on(self, epoch: Epoch) -> bool:
        """After this epoch: whether a lowest loss is not too far back."""
        self.epochs.append(epoch)
        if has_target_by_penalty(self.config) and not math.isclose(epoch.l0, self.config.target_l0 or 0, rel_tol=0.05):
            self.best, self.since_best = math.inf, 0  # losses under another penalty are not comparable
        lower = epoch.loss < self.best
        self.best, self.since_best = (epoch.loss, 0) if lower else (self.best, self.since_best + 1)
        return self.patience is None or self.since_best < self.patience
