"""What training a wide SAE would take of many devices: the step compiled for them, on a machine that has none of them.

Nothing is allocated and nothing runs: memory and exchanged bytes are those of the compiled program, and the time of a
step follows from a card's published rates. The table of docs/devices.md is made with

    python scripts/plan_mesh.py
"""

from __future__ import annotations

import argparse
import os
from typing import NamedTuple

from jaxsae.cli import arguments, process, terminal
from jaxsae.config import MeshShape
from jaxsae.errors import require


class Card(NamedTuple):
    """Published rates of an accelerator, dense."""

    float32: float
    """Operations a second; products at full precision."""
    bfloat16: float
    memory: float
    """Bytes a second."""
    near: float
    """Bytes a second that a device sends to those of its own host, and `far`, to others."""
    far: float
    host: int
    """Devices of a host."""
    size: int
    """Bytes that it holds."""


CARDS = {
    "h100": Card(67e12, 989e12, 3.35e12, 450e9, 50e9, 8, 80 * 10**9),
    "a100": Card(19.5e12, 312e12, 2.04e12, 300e9, 25e9, 8, 80 * 10**9),
}
"""NVIDIA's data sheets, SXM; between hosts, a port of 400 or 200 Gbit/s for each card."""
MESHES = {
    8: ("latents=8", "data=8", "data=2,latents=4"),
    64: ("latents=64", "data=8,latents=8"),
    256: ("latents=256", "data=32,latents=8", "data=4,latents=64"),
}


def main(args: argparse.Namespace) -> None:
    """Compile, and print a table."""
    shapes = args.meshes or [MeshShape.parse(text) for texts in MESHES.values() for text in texts]
    os.environ["JAX_NUM_CPU_DEVICES"] = str(max(shape.size for shape in shapes))
    from jaxsae import runtime

    runtime.select_device("cpu")
    import jax

    from jaxsae.config import TrainConfig
    from jaxsae.mesh import make_mesh
    from jaxsae.train.footprint import footprint

    card, rows = CARDS[args.card], []
    for d_sae in args.d_sae:
        require(d_sae % args.d_in == 0, f"d_sae must be a multiple of d_in, got {d_sae} and {args.d_in}")
        for shape in shapes:
            sparsity = {"k_sparse" if args.architecture == "topk" else "target_l0": 64}
            config = TrainConfig(
                architecture=args.architecture,
                recipe="modern",
                batch_size=args.batch_size * (shape.data if args.weak else 1),
                expansion=d_sae // args.d_in,
                **sparsity,  # type: ignore[arg-type]
            )
            found = footprint(config, args.d_in, make_mesh(shape, jax.devices()))
            weights = found.state / 3
            exchange = sum(one.bytes * one.times for one in found.exchanges)
            link = card.near if shape.size <= card.host else card.far
            # a ring gives each device twice what it holds, and takes as long; Adam reads four arrays and writes three
            others = 7 * weights / card.memory + 2 * exchange / link
            times = [found.flops / rate + others for rate in (card.float32, card.bfloat16)]
            takes = found.state + found.temporary
            rate = config.batch_size / times[1]
            rows.append(
                (
                    f"{d_sae:,}",
                    str(shape),
                    f"{config.batch_size:,}",
                    f"{found.state / 2**30:.2f}",
                    f"{found.temporary / 2**30:.2f}",
                    "yes" if takes < 0.9 * card.size else "no",
                    f"{exchange / 1e9:.3f}",
                    *(f"{1e3 * seconds:.1f}" for seconds in times),
                    f"{2e3 * exchange / link:.1f}",
                    f"{rate / 1e6:.2f}",
                )
            )
    columns: tuple[str, ...] = (
        "d_sae",
        "mesh",
        "batch",
        "state GiB",
        "temporary GiB",
        f"fits {args.card}",
        "exchanged GB",
    )
    columns += ("step ms float32", "step ms bfloat16", "of it exchange", "million rows/s bfloat16")
    terminal.print_table(f"{args.architecture}, d_in {args.d_in:,}: on each device, for one step", columns, rows, key=2)


def numbers(text: str) -> list[int]:
    """`131072,1048576`."""
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    parser = arguments.Parser(__doc__ or "")
    parser.add_argument("--d-in", type=int, default=4096, help="width of the rows")
    parser.add_argument("--d-sae", type=numbers, default=[131_072, 1_048_576], metavar="N[,N...]", help="latents")
    parser.add_argument("--batch-size", type=int, default=4096, help="rows in a step")
    parser.add_argument("--weak", action="store_true", help="so many rows for each part of the data axis")
    parser.add_argument("--architecture", default="batchtopk", choices=("topk", "batchtopk", "matryoshka", "jumprelu"))
    parser.add_argument("--card", default="h100", choices=tuple(CARDS), help="whose rates are taken")
    parser.add_argument(
        "--meshes",
        type=lambda text: [MeshShape.parse(part) for part in text.split(";")],
        metavar="data=N,latents=M[;...]",
        help="meshes, separated by semicolons; default: of 8, 64 and 256 devices",
    )
    process.run(main, parser)
