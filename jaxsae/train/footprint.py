"""What a training step takes of each device of a mesh, from the compiled program alone: nothing is allocated."""

import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsae.config import TrainConfig
from jaxsae.mesh import lying
from jaxsae.sae.architectures import init
from jaxsae.sae.basis import Basis
from jaxsae.train.step import MemberConstants, Stepper, optimizer


class Exchange(NamedTuple):
    """One exchange between devices in the compiled step."""

    kind: str
    """As XLA calls it, such as `all-reduce`."""
    shape: str
    """Of what comes out of it on a device, such as `f32[256,384]`; of several at once, all."""
    bytes: int
    """Of the same."""
    times: int
    """How often a step does it."""


class Footprint(NamedTuple):
    """A training step on one of a mesh's devices."""

    state: int
    """Bytes of weights and moments."""
    rows: int
    """Bytes of the rows that are held."""
    temporary: int
    """Bytes besides, while the step runs."""
    flops: float
    """As XLA counts them."""
    exchanges: list[Exchange]

    @property
    def exchanged(self) -> int:
        """Bytes that a step's exchanges give each device."""
        return sum(one.bytes * one.times for one in self.exchanges)


def footprint(config: TrainConfig, d_in: int, mesh: Mesh, rows: int | None = None) -> Footprint:
    """Compile the step of one SAE for a mesh, which may be larger than what this machine has, of simulated devices.

    Args:
      rows: how many are held in memory; None: each step is given its batch.
    """
    sae_config, modern = config.sae(d_in), config.recipe != "guide"
    stepper = Stepper(sae_config, optimizer(config.lr), config.precision, revive=float(modern), mesh=mesh)

    def shaped(tree, where):  # type: ignore[no-untyped-def]
        return jax.tree.map(lambda a, lies: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=lies), tree, where)

    def start():  # type: ignore[no-untyped-def]
        return stepper.begin(jax.tree.map(lambda a: a[None], init(jax.random.key(0), sae_config)))

    state = jax.eval_shape(start)
    basis = [Basis(jnp.zeros(d_in), jnp.zeros((d_in, d_in)), jnp.ones(()), jnp.ones(d_in))] if modern else []
    members = jax.eval_shape(lambda: MemberConstants.of([sae_config], config.batch_size, bases=basis))
    n = config.batch_size if rows is None else rows
    held = jax.ShapeDtypeStruct((n, d_in), jnp.float32, sharding=lying(mesh, "batch" if rows is None else "rows", None))
    which = None if rows is None else jax.ShapeDtypeStruct((config.batch_size,), jnp.int32, sharding=lying(mesh))
    given = shaped(state, stepper.lying(state)), shaped(members, jax.tree.map(lambda a: lying(mesh), members))
    compiled = stepper.step.lower(*given, held, which).compile()
    memory, state_bytes = compiled.memory_analysis(), _bytes_on_a_device(given[0])
    cost = compiled.cost_analysis() or {}
    return Footprint(
        state_bytes,
        0 if rows is None else _bytes_on_a_device(held),
        int(memory.temp_size_in_bytes),
        float(cost.get("flops", 0)),
        exchanges_of(compiled.as_text()),
    )


def _bytes_on_a_device(tree) -> int:  # type: ignore[no-untyped-def]
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}


def exchanges_of(program: str) -> list[Exchange]:
    """The exchanges between devices in a compiled program's text; those in a loop as often as it runs."""
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in program.splitlines():
        if begun := re.match(r"(?:ENTRY )?%?([\w.-]+) .*\{$", line):
            name = begun[1]
        bodies.setdefault(name, []).append(line)
    entry = re.search(r"^ENTRY %?([\w.-]+)", program, re.MULTILINE)

    def of(computation: str, times: int) -> list[Exchange]:
        found = []
        for line in bodies.get(computation, []):
            kind = re.search(rf" = (.*?) ({'|'.join(KINDS)})(?:-start)?\(", line)
            if kind:
                shapes = re.findall(r"(\w+)\[([\d,]*)\]", kind[1])
                size = sum(SIZES[t] * math.prod(map(int, filter(None, dims.split(",")))) for t, dims in shapes)
                shape = ", ".join(f"{t}[{dims}]" for t, dims in shapes)
                found.append(Exchange(kind[2], shape, size, times))
            loop = re.search(r" while\(.*body=%?([\w.-]+)", line)
            if loop:
                trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                found += of(loop[1], times * (int(trips[1]) if trips else 1))
            for called in re.findall(r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.-]+)", line):
                found += of(called, times) if not kind else []
            if branches := re.search(r"branch_computations=\{([^}]*)\}", line):
                for branch in branches[1].split(","):
                    found += of(branch.strip().lstrip("%"), times)
        return found

    return of(entry[1], 1) if entry else []
