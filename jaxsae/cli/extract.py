"""Write the rows of one or more layers to disk, with where each comes from, for training to take as --dataset.

The layout is described in docs/rows.md; other models' rows in it train as well.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, launch, terminal
from jaxsae.config import DataConfig
from jaxsae.errors import require


def main(args: argparse.Namespace) -> None:
    """One pass through the model for all layers; nothing is kept in memory but a batch."""
    data = inputs.data_config(args)
    runtime.select_device(args.device)
    from jaxsae import processes
    from jaxsae.activations import together
    from jaxsae.text.samples import kept_positions

    checkpoint = inputs.checkpoint(data)
    shape = checkpoint.config
    layers, hook = arguments.points_of(args, range(shape.n_layers))
    checkpoint, hook = inputs.read_at(checkpoint, hook, layers)
    shape = checkpoint.config
    for layer in layers:
        shape.check_layer(layer)
    there = processes.from_first(lambda: Path(args.output).exists())
    require(not there, f"the output must not exist, got {args.output}; give another or remove it")
    samples = inputs.text(data, shape)
    about = {
        "split": data.split,
        "max_samples": len(samples),
        "model_name": checkpoint.name,
        "model_sha256": checkpoint.identity,
        "checkpoint_sha256": checkpoint.sha256,
        "dataset_sha256": ",".join(map(shape.datasets.fingerprint, inputs.paths_of(data.dataset))),
    }
    processes.agree(about, "all processes must read the same")
    total = int(kept_positions(samples, data.padding).sum())
    gigabytes = 4e-9 * total * shape.d_model * len(layers)
    print(
        f"rows     {total:,} of {len(layers)} layers, of width {shape.d_model}: {gigabytes:.2f} GB on disk", flush=True
    )
    began = time.monotonic()
    with terminal.Progress("extract ", total, "rows", args.quiet or not processes.is_first()).shown() as progress:
        model = checkpoint.model(n_layers=max(layers) + 1, hook=hook)
        together.write(Path(args.output), model, samples, layers, data.padding, about, on_rows=progress.advance)
    peak = runtime.peak_memory() / 2**20
    print(f"took     {time.monotonic() - began:.1f} s, {progress.rate:,.0f} rows/s, peak memory {peak:,.0f} MiB")
    print(f"wrote    {args.output}")


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    arguments.add_layers(parser)
    parser.add_config(DataConfig)
    arguments.add_device(parser)
    launch.add_flags(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write; must not exist")
    parser.add_argument("--quiet", action="store_true", help="no progress")
