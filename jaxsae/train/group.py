"""The parts of a run that share a compiled step: their start states, their batches, and the SAEs that they become."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from jaxsae.activations.rows import RowsOnDisk, batches_from_disk, lanes
from jaxsae.errors import InputError
from jaxsae.mesh import computing_on, lying, make_mesh, on_host, place, place_share, share_of
from jaxsae.sae.architectures import architecture, init, init_tied
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.basis import Basis, fold_basis, to_basis
from jaxsae.sae.row_types import AnyRows
from jaxsae.train.events import Epoch, Position, Trained
from jaxsae.train.plan import Member
from jaxsae.train.step import MemberConstants, RowsPerMember, Stepper, TrainState, has_target_by_penalty, optimizer

L1_REACH = 32.0
"""How far a penalty that moves can move in a whole run: by this over the steps, times log(L0 / the L0 aimed at), each
step."""
CALIBRATION_ELEMENTS = 2**25
"""Pre-activations that thresholds are calibrated on."""


def batch_indices(n: int, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Row indices of an epoch's batches: a permutation fixed by (seed, epoch), its last partial batch dropped."""
    order = np.random.default_rng((seed, epoch)).permutation(n).astype(np.int32)
    for start in range(0, n - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


def schedule(lr: float, steps: int, decay: float = 1 / 3) -> optax.Schedule:
    """Up to `lr` over the first twentieth of the steps, constant, and down to 0 over the last `decay` of them."""
    rise, fall = max(1, steps // 20), max(1, int(steps * decay))
    parts = [optax.linear_schedule(lr / rise, lr, rise - 1 or 1), optax.linear_schedule(lr, 0.0, fall)]
    return optax.join_schedules(parts, [steps - fall])


def sample_of(rows: AnyRows, d_sae: int) -> np.ndarray:
    """The rows that thresholds of `d_sae` latents are calibrated on, in their order."""
    some = np.random.default_rng(0).permutation(rows.shape[0])[: max(1, CALIBRATION_ELEMENTS // d_sae)]
    return np.asarray(rows[np.sort(some)])


class Group:
    """Members that differ in layer, seed, L1 coefficient and target L0 only: they share a compiled step.

    Args:
      rows: layer -> its rows.
      members: key -> member.
      basis: (layer, how far whitened) -> the coordinates that the modern recipe trains in.
      mesh: the devices; the first one alone, if not given.
      streamed: as `loop.train`.
    """

    def __init__(
        self,
        rows: Mapping[int, AnyRows],
        members: Mapping[str, Member],
        basis: Callable[[int, float], Basis],
        mesh: Mesh | None = None,
        streamed: bool | None = None,
    ) -> None:
        self.rows, self.members, self.mesh = rows, members, mesh or make_mesh()
        self.config = next(iter(members.values())).config
        self.modern = self.config.recipe != "guide"
        n, width = rows[next(iter(members.values())).layer].shape
        self.d_in = d_in = self.config.d_in(width)
        self.configs = {key: m.config.sae(d_in) for key, m in members.items()}
        self.steps = n // self.config.batch_size
        self.total_steps = self.config.epochs * self.steps
        layers = dict.fromkeys(m.layer for m in members.values())
        self.bases = {layer: basis(layer, self.config.whiten or 0.0) for layer in layers} if self.modern else {}
        # penalties are in the units of the rows; scaled latents are as much larger, their errors by its square
        self.scales = {key: float(self.bases[m.layer].scale) if self.modern else 1.0 for key, m in members.items()}
        decay, falls = self.config.decay, architecture(self.config.architecture).lift_falls
        self.stepper = Stepper(
            next(iter(self.configs.values())),
            optimizer(self.config.lr)
            if decay is None
            else optimizer(schedule(self.config.lr, self.total_steps, decay), b2=0.95),
            self.config.precision,
            l1_rate=max(0.01, L1_REACH / self.total_steps),
            revive=0.0 if decay is None else schedule(1.0, self.total_steps, decay) if falls else 1.0,
            denoise=self.config.denoise or 0.0,
            mesh=self.mesh,
        )
        self.waits = self.mesh.size > 1 and self.mesh.devices.flat[0].platform == "cpu"
        """Whether each step is waited for. Devices that a processor simulates share its threads: those of one that wait
        for the others, in steps handed over ahead, can take them all, and none is left to these."""
        self.held: dict[int, Array] = {}
        """Layer -> its rows, of which each device has its share; empty where they are streamed."""
        of_disk = isinstance(rows[next(iter(layers))], RowsOnDisk)
        if not (of_disk if streamed is None else streamed):
            self.held = {layer: self._spread(rows[layer]) for layer in layers}

    def _spread(self, rows: AnyRows) -> Array:
        """Rows on the devices, with as many more of zeros as are missing to equal shares."""
        missing = -rows.shape[0] % self.mesh.size
        if isinstance(rows, jax.Array):
            return place(self.mesh, jnp.pad(rows, ((0, missing), (0, 0))) if missing else rows, "rows", None)

        def part(where: tuple[slice, ...] | None) -> np.ndarray:
            start, stop, _ = (where[0] if where else slice(None)).indices(rows.shape[0] + missing)
            some = np.asarray(rows[start:stop])
            return np.pad(some, ((0, stop - start - len(some)), (0, 0)))

        shape = (rows.shape[0] + missing, rows.shape[1])
        return jax.make_array_from_callback(shape, lying(self.mesh, "rows", None), part)

    def _sparsity(self, key: str) -> tuple[float, float, float]:
        """(penalty, the L0 aimed at, what that is multiplied by each step) at a member's start."""
        config, target = self.configs[key], float(self.configs[key].target_l0 or 0)
        penalty = architecture(config.architecture).penalty
        if penalty is None or not has_target_by_penalty(config):
            return config.l1_coef * self.scales[key], target, 1.0
        start = max(target, penalty.l0(config))
        weight = penalty.weight * (self.scales[key] if penalty.in_units_of_rows else 1.0)
        return weight, start, (target / start) ** (2 / self.total_steps)

    def begin(self, alive: Sequence[str]) -> TrainState:
        """The state that those members start from."""
        start = init_tied if self.modern else init

        def saes() -> SAE:
            each = [start(jax.random.key(self.members[key].config.seed), self.configs[key]) for key in alive]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

        penalty, aim, _ = np.array([self._sparsity(key) for key in alive]).T
        return self.stepper.begin(saes, penalty, aim)

    def saved_like(self, position: Position) -> TrainState:
        """The shapes of the state that was saved there, and where its arrays are to lie."""
        shapes = jax.eval_shape(lambda: self.stepper.to_saved(self.begin(position.alive)))
        where = self.stepper.lying(shapes, saved=True)
        return jax.tree.map(lambda a, lies: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=lies), shapes, where)

    def to_saved(self, state: TrainState, epoch: int, done: int) -> TrainState:
        """The state as it is saved, if it was finite in the steps of the epoch that are done."""
        self.check_finite(state, epoch, done)
        return self.stepper.to_saved(state)

    def constants(self, alive: Sequence[str]) -> tuple[MemberConstants, bool]:
        """(what the step is given of those members, whether all see the same batches of the same rows)."""
        some = [self.members[key] for key in alive]
        shared = len({(m.layer, m.config.seed) for m in some}) == 1
        bases = [self.bases[m.layer] for m in some] if self.modern else []
        decay = np.array([self._sparsity(key)[2] for key in alive])
        constants = MemberConstants.of([self.configs[key] for key in alive], self.config.batch_size, decay, bases)
        return jax.tree.map(lambda leaf: place(self.mesh, leaf), constants), shared

    def feed(self, alive: Sequence[str], shared: bool, epoch: int) -> Iterator[tuple[RowsPerMember, Array | None]]:
        """(rows, which of them are the batch) for each step; rows on disk come batch by batch."""
        size = self.config.batch_size
        some = [self.members[key] for key in (alive[:1] if shared else alive)]
        if not self.held:
            share = share_of(self.mesh, lanes(size))
            streams = [
                batches_from_disk(of, size, m.config.seed, epoch, share)
                for of, m in ((self.rows[m.layer], m) for m in some)
                if isinstance(of, RowsOnDisk)
            ]
            for batch in zip(*streams, strict=True):
                taken = tuple(place_share(self.mesh, x, share, "batch", None) for x in batch)
                yield taken[0] if shared else taken, None
            return
        held = tuple(self.held[m.layer] for m in some)
        orders = [batch_indices(self.rows[m.layer].shape[0], size, m.config.seed, epoch) for m in some]
        for numbers in zip(*orders, strict=True):
            yield held[0] if shared else held, place(self.mesh, numbers[0] if shared else np.stack(numbers))

    def check_finite(self, state: TrainState, epoch: int, done: int) -> None:
        """Raise `InputError` unless loss and gradient were finite in the steps of the epoch that are done."""
        if (finite := int(np.min(state.finite))) < done:
            raise InputError(
                f"loss and gradient must stay finite, and did not in step {finite + 1} of epoch {epoch}; "
                f"try a lower lr than {self.config.lr:g}"
            )

    def finish(self, key: str, state: TrainState, epochs: list[Epoch]) -> Trained:
        """What leaves the batch: thresholds chosen, the basis folded in, the penalty that it ended with.

        Args:
          state: of this member alone, without the axis of members.
        """
        layer, config = self.members[key].layer, self.configs[key]
        record = architecture(config.architecture)
        sae, basis = self.stepper.saes(state.sae), self.bases.get(layer)
        if record.finish is not None:
            x = place(self.mesh, sample_of(self.rows[layer], config.d_sae)[:, : self.d_in])
            with computing_on(self.mesh):
                sae = record.finish(sae, x if basis is None else to_basis(basis, x), config.target_l0 or 1)
        sae = jax.tree.map(lambda leaf: on_host(self.mesh, leaf), sae.replace(training={}))
        if record.penalty is not None and record.penalty.moves and has_target_by_penalty(config):
            config = dataclasses.replace(config, l1_coef=float(state.penalty) / self.scales[key])
        whole = jax.tree.map(jnp.asarray, sae) if basis is None else fold_basis(sae, basis)
        return Trained(whole, config, epochs)
