"""One training step of SAEs that are trained alike: the state, the optimizer, and what revives latents.

The step is written for one SAE and mapped over a leading axis of members; one SAE is an ensemble of one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jaxsae.config import MeshShape, SAEConfig
from jaxsae.errors import listed, require
from jaxsae.mesh import computing_on, lay, lying, make_mesh
from jaxsae.models.products import total
from jaxsae.sae import basis as basis_lib
from jaxsae.sae import loss as loss_lib
from jaxsae.sae.architectures import Aim, architecture, init
from jaxsae.sae.autoencoder import SAE, UNDAMAGED, unit_norm
from jaxsae.sae.basis import Basis
from jaxsae.sae.loss import StepMetrics, dealt, in_order

BANDWIDTH = 0.5
"""Of JumpReLU's straight-through gradients, where the rows' elements have variance 1."""
DEAD_AFTER = 25
"""Steps without firing after which a latent is to be revived, at least."""


RowsPerMember = Float[Array, "n d_in"] | tuple[Float[Array, "n d_in"], ...]


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """g * min(1, max_norm / (norm + 1e-6)) as PyTorch's clip_grad_norm_; optax's own lacks the 1e-6."""

    def update(grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
        norm = jnp.sqrt(sum(total(g**2) for g in jax.tree.leaves(grads)))
        scale = jnp.minimum(max_norm / (norm + 1e-6), 1.0)
        return jax.tree.map(lambda g: g * scale, grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class TrainState(NamedTuple):
    """Everything a step changes; each array has a leading axis of members."""

    sae: SAE
    opt_state: optax.OptState
    penalty: Float[Array, " members"]
    """The weight of sparsity in the loss; ReLU's moves where there is a target L0."""
    aim: Float[Array, " members"]
    """The target L0; that of a penalty begins higher and sinks to the target in half of the run."""
    idle: Int[Array, "members d_sae"]
    """Steps since each latent last fired."""
    loss_sum: Float[Array, " members"]
    """Of the batch losses since the epoch began."""
    l0_sum: Float[Array, " members"]
    finite: Int[Array, " members"]
    """Steps since the epoch began, up to the first whose loss or gradient is not finite: no later one is."""


def optimizer(lr: float | optax.Schedule, b2: float = 0.999) -> optax.GradientTransformation:
    """Adam, after clipping to norm 1; PyTorch's defaults but for the learning rate, and `b2` where it is given."""
    return optax.chain(clip_by_global_norm(1.0), optax.adam(lr, b1=0.9, b2=b2, eps=1e-8))


def dead_after(config: SAEConfig, batch_size: int) -> int:
    """Steps without firing after which a latent counts as dead; in rows, that times `batch_size`."""
    l0 = config.k or config.target_l0 or config.d_sae
    share = architecture(config.architecture).dead_share
    return max(DEAD_AFTER, math.ceil(share * config.d_sae / (batch_size * l0)))


def has_target_by_penalty(config: SAEConfig) -> bool:
    """Whether a penalty, moved while training, brings about the target L0."""
    return config.target_l0 is not None and architecture(config.architecture).penalty is not None


SPARSE_SHARE = 20
"""A TopK's step touches only the latents that fire where they are at most one in so many: measured on CPU."""
AT_ONCE = 2**23
"""Bytes of weights and moments that one step moves at most on CPU, if it can: as many as its caches hold."""


def members_at_once(config: SAEConfig) -> int:
    """How many SAEs to train in one step; on CPU, products of large stacks are slower than one product a member."""
    bytes_each = 3 * 2 * config.d_in * config.d_sae * 4
    return max(1, AT_ONCE // bytes_each) if jax.default_backend() == "cpu" else 2**10


def divisor_of_latents(config: SAEConfig) -> int:
    """What the parts must divide into which a mesh cuts an SAE's latents: of nested SAEs each device has its share."""
    return math.gcd(config.d_sae, *architecture(config.architecture).prefixes(config.d_sae))


def check_latents(config: SAEConfig, shape: MeshShape) -> None:
    """Raise `InputError` unless a mesh of this shape divides the latents evenly."""
    nested, each = architecture(config.architecture).prefixes(config.d_sae), divisor_of_latents(config)
    require(
        each % shape.latents == 0,
        f"mesh must divide the {config.d_sae} latents evenly, got latents={shape.latents} for "
        f"{f'nested SAEs of {listed(nested)}' if len(nested) > 1 else f'd_sae {config.d_sae}'}; "
        f"give latents={math.gcd(each, shape.latents)}",
    )


def sparse_pays(config: SAEConfig) -> bool:
    """Whether a step is faster that gathers and scatters the k latents of a row.

    Not elsewhere than on CPU: a GPU adds scattered rows in an order that changes.
    """
    few = config.k is not None and config.k * SPARSE_SHARE <= config.d_sae
    return few and jax.default_backend() == "cpu" and members_at_once(config) == 1


class MemberConstants(NamedTuple):
    """What differs between members and no step changes; an axis of members on each."""

    target: Float[Array, " members"]
    """Target L0; 0 where there is none."""
    target_decay: Float[Array, " members"]
    """What the L0 aimed at is multiplied by each step, until it is the target."""
    patience: Int[Array, " members"]
    """Steps without firing after which a latent is revived."""
    basis: Basis | None = None
    """Train on the rows in this basis."""

    @classmethod
    def of(
        cls, configs: Sequence[SAEConfig], batch_size: int, target_decay: ArrayLike = 1.0, bases: Sequence[Basis] = ()
    ) -> "MemberConstants":
        """The constants of these members; `bases` has one for each, or none."""
        return cls(
            jnp.array([float(c.target_l0 or 0) for c in configs]),
            jnp.broadcast_to(jnp.asarray(target_decay, float), len(configs)),
            jnp.array([dead_after(c, batch_size) for c in configs], jnp.int32),
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *bases) if bases else None,
        )


def _taken(rows: Float[Array, "n d_in"], batch: Int[Array, " batch"] | None) -> Float[Array, "batch d_in"]:
    """Of rows that lie on several devices each gives those that it has: they are never together."""
    return rows if batch is None else rows.at[batch].get(mode="promise_in_bounds")


@dataclass(frozen=True)
class Stepper:
    """Members that share architecture, width and k: their start, their step, and the SAEs they are.

    Args:
      config: of any member.
      transform: the optimizer.
      precision: of the operands of products.
      l1_rate: how fast a ReLU's penalty moves where there is a target L0.
      revive: latents that have been silent for long: by AuxK, and by raising their bias (and lowering their
        threshold) a little each step until they fire, as idle experts are brought back into a mixture (Wang et al.
        2024, arXiv 2408.15664). How much of that little, from 0 to 1: by the number of the step, or always alike.
      denoise: the weight of telling undamaged rows, see `jaxsae.sae.loss.loss`; above 0, a step is given each row and
        beside it the undamaged one, [n, 2 * d_in].
      sparse: a TopK's step gathers and scatters the k latents of a row; None: where that pays.
      mesh: the devices; batches and latents are split over them, see `jaxsae.mesh`.

    Raises:
      InputError: the latents cannot be divided evenly among the devices.
    """

    config: SAEConfig
    transform: optax.GradientTransformation
    precision: str = "float32"
    l1_rate: float = 0.01
    revive: optax.ScalarOrSchedule = 0.0
    denoise: float = 0.0
    sparse: bool | None = None
    mesh: Mesh = field(default_factory=make_mesh)

    def __post_init__(self) -> None:
        check_latents(self.config, MeshShape(**self.mesh.shape))

    @property
    def sparsely(self) -> bool:
        """`sparse`, or whether it pays; rows of single latents are not fetched over devices."""
        if self.mesh.size > 1:
            return False
        return sparse_pays(self.config) if self.sparse is None else self.sparse

    def _layout(self, saes: SAE) -> SAE:
        """SAEs <-> what the state holds: all matrices [d_in, d_sae], so that every product of the gradient comes out
        as it is kept; or, where rows of single latents are fetched, all [d_sae, d_in]."""
        return self._transposed(saes, lambda matrices: matrices.swapaxes(-1, -2))

    def _transposed(self, saes: SAE, transpose: Callable[[Any], Any]) -> SAE:
        if self.sparsely:
            return saes.replace(W_enc=transpose(saes.W_enc))
        held = {name: transpose(leaf) if name == UNDAMAGED else leaf for name, leaf in saes.training.items()}
        return saes.replace(W_dec=transpose(saes.W_dec), training=held)

    def begin(self, saes: SAE | Callable[[], SAE], penalty: ArrayLike = 0.0, aim: ArrayLike = 0.0) -> TrainState:
        """A fresh state around the members' starting weights; penalty and aim are theirs, or one for all.

        Args:
          saes: the weights, or what makes them: then each device makes its own part.
        """
        made = saes if callable(saes) else lambda: saes
        return jax.jit(lambda: self._fresh(made(), penalty, aim), out_shardings=self.lying(self._like))()

    def _fresh(self, saes: SAE, penalty: ArrayLike, aim: ArrayLike) -> TrainState:
        dtype, (members, d_sae) = saes.b_enc.dtype, saes.b_enc.shape
        if self.denoise:
            saes = saes.replace(training=saes.training | {UNDAMAGED: saes.W_dec})
        weights = self._layout(self._ordered(saes, dealt))
        return TrainState(
            weights,
            jax.vmap(self.transform.init)(weights),
            penalty=jnp.full(members, penalty, dtype),
            aim=jnp.full(members, aim, dtype),
            idle=jnp.zeros((members, d_sae), jnp.int32),
            loss_sum=jnp.zeros(members, dtype),
            l0_sum=jnp.zeros(members, dtype),
            finite=jnp.zeros(members, jnp.int32),
        )

    @cached_property
    def _like(self) -> TrainState:
        """The structure of a state, of one member; its arrays have shapes alone."""
        one = partial(jax.tree.map, lambda a: a[None])
        return jax.eval_shape(lambda: self._fresh(one(init(jax.random.key(0), self.config)), 0, 0))

    def lying(self, tree: Any, saved: bool = False) -> Any:
        """Where each array of a state lies, or of its weights alone; see `_axes`."""

        def is_axes(node: Any) -> bool:
            return type(node) is tuple and all(one is None or isinstance(one, str) for one in node)

        return jax.tree.map(lambda axes: lying(self.mesh, *axes), self._axes(tree, saved), is_leaf=is_axes)

    def _axes(self, tree: Any, saved: bool) -> Any:
        """The names of the axes of each array.

        Args:
          saved: matrices are as an SAE has them, not as the state holds them.
        """

        def of(path: tuple, node: Any) -> Any:
            if not isinstance(node, SAE):
                is_idle = path and getattr(path[-1], "name", None) == "idle"
                return (None, "latents") if is_idle else (None,) * node.ndim
            vectors = jax.tree.map(lambda leaf: (None, "latents"), node)
            decoder = (None, "latents", None)
            more = {name: decoder if name == UNDAMAGED else axes for name, axes in vectors.training.items()}
            sae = vectors.replace(W_enc=(None, None, "latents"), W_dec=decoder, b_dec=(None, None), training=more)
            return sae if saved else self._transposed(sae, lambda axes: (axes[0], *axes[:0:-1]))

        return jax.tree_util.tree_map_with_path(of, tree, is_leaf=lambda node: isinstance(node, SAE))

    def _ordered(self, tree: Any, order: Callable[[Array, int, int], Array]) -> Any:
        """A state as it is saved, or SAEs, with the latents `dealt` to devices or `in_order`, where they are dealt."""
        split = self.mesh.shape["latents"]
        if split == 1 or len(architecture(self.config.architecture).prefixes(self.config.d_sae)) == 1:
            return tree
        return jax.tree.map(
            lambda leaf, axes: order(leaf, split, axes.index("latents") - len(axes)) if "latents" in axes else leaf,
            tree,
            self._axes(tree, saved=True),
        )

    def to_saved(self, state: TrainState) -> TrainState:
        """The state in the one layout that is saved, whatever the devices: matrices as an SAE has them."""
        return self._to_saved(state)

    @cached_property
    def _to_saved(self) -> Callable[[TrainState], TrainState]:
        where = self.lying(self._like, saved=True)
        return jax.jit(lambda state: self._ordered(self._relaid(state), in_order), out_shardings=where)

    def from_saved(self, state: TrainState) -> TrainState:
        """The state to go on from, of one that was saved, which is gone then: its buffers are used."""
        where = self.lying(self._like)
        return jax.jit(lambda state: self._relaid(self._ordered(state, dealt)), out_shardings=where)(state)

    def _relaid(self, state: TrainState) -> TrainState:
        return jax.tree.map(
            lambda node: self._layout(node) if isinstance(node, SAE) else node,
            state,
            is_leaf=lambda node: isinstance(node, SAE),
        )

    def saes(self, weights: SAE) -> SAE:
        """The SAEs that a state's weights (or gradients, or moments) are of."""
        return self._ordered(self._layout(weights), in_order)

    @cached_property
    def step(self) -> Any:
        """Jitted: `step(state, members, rows, batch)` trains every member on `rows[batch]` and gives the next state.

        The state is donated: the one passed in is gone. With a tuple of rows, one for each member, `batch` has a row
        for each too; else all see the same. Without `batch`, the rows are the batch.
        """
        # said, so that the state comes out as it went in, and its buffers are used again
        return jax.jit(self._step, donate_argnums=0, out_shardings=self.lying(self._like))

    def _step(self, *given: Any) -> TrainState:
        with computing_on(self.mesh):
            return self._compute(*given)

    def _compute(
        self,
        state: TrainState,
        members: MemberConstants,
        rows: RowsPerMember,
        batch: Int[Array, "*members batch"] | None,
    ) -> TrainState:
        of_each = isinstance(rows, tuple)
        if isinstance(rows, tuple):
            each = [None] * len(rows) if batch is None else list(batch)
            x = jnp.stack([_taken(of, which) for of, which in zip(rows, each, strict=True)])
        else:
            x = _taken(rows, batch)[None]
        x = lay(x, None, "batch", None)
        if members.basis is not None:
            basis = members.basis if of_each else jax.tree.map(lambda a: a[:1], members.basis)
            both = x.reshape(len(x), -1, self.config.d_in)  # a row, and beside it the undamaged one, if there is one
            x = jax.vmap(basis_lib.to_basis)(basis, both).reshape(x.shape)
        dead = state.idle >= members.patience[:, None]

        given = (state.sae, state.penalty, state.aim, dead)
        if len(state.penalty) > 1 and of_each:
            found = jax.vmap(self._gradient)(x, *given)
        elif len(state.penalty) > 1:
            found = jax.vmap(partial(self._gradient, x[0]))(*given)
        else:  # XLA on CPU has a faster product for matrices than for a stack of one
            found = jax.tree.map(lambda a: a[None], self._gradient(x[0], *jax.tree.map(lambda a: a[0], given)))
        return jax.vmap(self._update)(state, members, dead, *found)

    def _gradient(
        self,
        x: Float[Array, "batch width"],
        weights: SAE,
        penalty: Float[Array, ""],
        aim: Float[Array, ""],
        dead: Bool[Array, " d_sae"],
    ) -> tuple[SAE, StepMetrics]:
        d_in = self.config.d_in

        def loss(weights: SAE) -> tuple[Array, StepMetrics]:
            return loss_lib.loss(
                self._layout(weights),
                x[:, :d_in],
                Aim(penalty, aim, BANDWIDTH),
                dead=dead if self.revive else None,
                sparse=self.sparsely,
                dtype=None if self.precision == "float32" else self.precision,
                undamaged=x[:, d_in:] if self.denoise else None,
                denoise=self.denoise,
            )

        return jax.grad(loss, has_aux=True)(weights)

    def _update(
        self, state: TrainState, members: MemberConstants, dead: Bool[Array, " d_sae"], grads: SAE, seen: StepMetrics
    ) -> TrainState:
        updates, opt_state = self.transform.update(grads, state.opt_state, state.sae)
        sae = optax.apply_updates(state.sae, updates)
        record = architecture(sae.architecture)
        sae = record.constrain(sae.replace(W_dec=unit_norm(sae.W_dec, axis=1 if self.sparsely else 0)))
        if self.revive:
            step = optax.tree_utils.tree_get(state.opt_state, "ScaleByAdamState").count
            lift = self.revive(step) if callable(self.revive) else self.revive
            sae = record.revive(sae, jnp.where(dead & ~seen.fired, lift, 0.0).astype(sae.b_enc.dtype))
        penalty, dtype = state.penalty, state.aim.dtype
        aim = jnp.maximum(members.target.astype(dtype), state.aim * members.target_decay.astype(dtype))
        if record.penalty is not None and record.penalty.moves and has_target_by_penalty(self.config):
            penalty *= jnp.exp(self.l1_rate * jnp.clip(jnp.log(jnp.maximum(seen.l0, 1e-3) / aim), -1, 1))
        loss_sum = state.loss_sum + seen.loss
        return TrainState(
            sae,
            opt_state,
            penalty,
            aim,
            idle=jnp.where(seen.fired, 0, state.idle + 1),
            loss_sum=loss_sum,
            l0_sum=state.l0_sum + seen.l0,
            # all gradients are scaled by the norm of all: one that is not finite is in every parameter
            finite=state.finite + jnp.isfinite(loss_sum + sae.b_dec.sum()),
        )
