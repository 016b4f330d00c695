"""Where a run's arrays lie on devices: the axes that are split over a mesh, by name.

Code that computes names logical axes alone. Inside `computing_on`, which a step enters when it is traced, it may ask
into how many parts one is split, and say how an array is to lie; elsewhere everything is whole.
"""

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from jaxsae.config import MeshShape
from jaxsae.errors import require

MESH_AXES = MeshShape._fields
AXES: dict[str | None, tuple[str, ...]] = {"batch": ("data",), "latents": ("latents",), "rows": MESH_AXES, None: ()}
"""Logical axis -> the mesh axes that it is split over. `batch` are the rows of a step, `rows` all that are held: of
these each device has as few as it can. What has no name is whole on every device."""


ONE = MeshShape()


def make_mesh(shape: MeshShape = ONE, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over the first devices; of one device, it is what a plain `jit` runs on."""
    some = list(jax.local_devices() if devices is None else devices)[: shape.size]
    # said, as ways to make a mesh differ in what is usual: XLA divides the work by what is said of some arrays
    return Mesh(np.array(some).reshape(shape), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def spec(*axes: str | None) -> P:
    """How an array lies whose axes have these names."""
    return P(*(AXES[axis] or None for axis in axes))


def lying(mesh: Mesh, *axes: str | None) -> NamedSharding:
    """The same on a mesh."""
    return NamedSharding(mesh, spec(*axes))


def on_host(mesh: Mesh, value: Any) -> np.ndarray:
    """An array of a mesh, whole, on the host of every process: all must ask for it in the same order."""
    if isinstance(value, jax.Array) and not (value.is_fully_addressable or value.is_fully_replicated):
        value = jax.jit(lambda a: a, out_shardings=lying(mesh))(value)
    return np.asarray(value)


def place(mesh: Mesh, value: np.ndarray | Array, *axes: str | None) -> Array:
    """A host's array on a mesh: each device takes its own part of it, without asking other processes for theirs.

    Where a device of this process has all of it already, nothing is copied.
    """
    where = lying(mesh, *axes)
    if mesh.is_multi_process or isinstance(value, np.ndarray):
        return jax.make_array_from_callback(value.shape, where, lambda index: np.asarray(value[index]))
    return jax.device_put(value, where)


@contextlib.contextmanager
def computing_on(mesh: Mesh) -> Iterator[None]:
    """Within the block, which may be of a function that is traced, logical axes are those of this mesh."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        yield


def parts(axis: str) -> int:
    """Into how many parts a logical axis is split where the code runs; 1: it is whole."""
    mesh: AbstractMesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape.get(name, 1) for name in AXES[axis])


def lay(x: Array, *axes: str | None) -> Array:
    """Have an array lie as its axes' names say; where everything is whole, it is left as it is."""
    return jax.lax.with_sharding_constraint(x, spec(*axes)) if parts("rows") > 1 else x


def share_of(mesh: Mesh, parts: int, axis: str = "batch") -> tuple[int, int]:
    """(which, of how many equal parts) of a logical axis holds all that this process's devices have of it.

    Args:
      parts: into how many the axis can be cut at most.
    """
    n = math.prod(mesh.shape[name] for name in AXES[axis])
    shards = lying(mesh, axis).addressable_devices_indices_map((n,)).values()
    held = {place for where in shards if where is not None for place in range(n)[where[0]]}
    return smallest_part(held, n, parts)


def smallest_part(held: Collection[int], n: int, parts: int) -> tuple[int, int]:
    """(which, of how many equal parts) of n places is the smallest part that has all those held.

    Places that lie across the border of two parts are together in larger ones only, at last in the whole: (0, 1).

    Args:
      parts: how many there may be at most; their number divides this.
    """
    first, last = min(held), max(held)
    for count in (count for count in range(parts, 0, -1) if parts % count == 0):
        index = first * count // n
        if (last + 1) * count <= (index + 1) * n:
            return index, count
    raise AssertionError("all are in the whole")


def place_share(mesh: Mesh, part: np.ndarray, share: tuple[int, int], *axes: str | None) -> Array:
    """An array on a mesh of whose first axis this process has a part, in which is all that its devices are to have.

    Args:
      share: (which, of how many equal parts) it is.
    """
    index, count = share
    first, shape = index * len(part), (count * len(part), *part.shape[1:])

    def taken(where: tuple[slice, ...] | None) -> np.ndarray:
        start, stop, _ = (where[0] if where else slice(None)).indices(shape[0])
        return part[start - first : stop - first]

    return jax.make_array_from_callback(shape, lying(mesh, *axes), taken)


class Arrangement(NamedTuple):
    """What the devices of all processes do."""

    meshes: list[Mesh]
    """Of this process: they train side by side, each some of the SAEs."""
    apart: bool
    """Whether each process trains SAEs of its own, and knows nothing of the others."""


def arrange(shape: MeshShape | None, saes: int, latents: int, batch_size: int) -> Arrangement:
    """Divide the devices among SAEs, and where there are fewer of these, the SAEs among devices.

    Args:
      shape: of each mesh that trains an SAE; None: what is left to it, along its latents as far as they can be divided.
      saes: how many are to be trained.
      latents: what the parts along them must divide: d_sae, or what all nested sizes have in common.

    Raises:
      InputError: the shape takes more devices than there are, or part of several processes.
    """
    here, every, processes = jax.local_devices(), jax.devices(), jax.process_count()
    apart = processes > 1 and saes >= processes and (shape is None or shape.size <= len(here))
    devices, mine = (here, -(-saes // processes)) if apart or processes == 1 else (every, 1)
    if shape is None:
        groups = next(n for n in range(min(mine, len(devices)), 0, -1) if len(devices) % n == 0)
        each = len(devices) // groups
        along = math.gcd(each, latents)
        shape = MeshShape(math.gcd(each // along, batch_size), along)
    groups = max(1, min(mine, len(devices) // shape.size))
    require(
        shape.size <= len(devices),
        f"mesh must take at most the {len(devices)} devices there are, got {shape} (of {shape.size}); give a smaller one",
    )
    require(
        apart or processes == 1 or shape.size == len(devices),
        f"mesh must take all {len(every)} devices of the {processes} processes for {saes} SAEs, got {shape} (of "
        f"{shape.size}); give another, or a batch_size that it divides",
    )
    require(
        batch_size % shape.data == 0,
        f"mesh must divide a batch evenly, got data={shape.data} for a batch_size of {batch_size}; give another",
    )
    starts = range(0, groups * shape.size, shape.size)
    return Arrangement([make_mesh(shape, devices[start : start + shape.size]) for start in starts], apart)
