#!/usr/bin/env python3
"""Time this project beside PyTorch doing the same work, on the same machine, in turns; a table, and JSON.

peak     the machine's fastest matrix product: the limit of everything below
step     a training step over an epoch of rows, shuffling included, and the share of the peak that its products come to
extract  a layer's rows of the first samples, and the share of the peak that the model's products come to
run      train.py end to end, cross-check included, each run a process of its own; with --guide beside that script
start    one epoch on the demo, and a feature asked about again, from command to prompt, without and with the cache
many     all layers, or eight penalties, in one command and one by one
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsae import runtime
from jaxsae.cli import arguments, process, terminal
from jaxsae.config import DataConfig, TrainConfig
from jaxsae.errors import require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Callable

    from jaxsae.text.samples import Samples

HERE = Path(__file__).parent
PARTS = ("peak", "step", "extract", "run", "start", "many")
STEPS = {
    "L1": TrainConfig(),
    "L1, bfloat16": TrainConfig(precision="bfloat16"),
    "TopK 20": TrainConfig(architecture="topk", k_sparse=20),
    "TopK 20, bfloat16": TrainConfig(architecture="topk", k_sparse=20, precision="bfloat16"),
}
TOPK = ["--recipe", "modern", "--k-sparse", "20"]
RUNS = {
    "keep, as the guide's": ["--padding", "keep"],
    "keep, bfloat16": ["--padding", "keep", "--precision", "bfloat16"],
    "our defaults (less work: no padding)": [],
    "modern, dense": ["--recipe", "modern", "--decay", "0.7", "--l1-coef", "1e-4", "--epochs", "14"],
}


class Table:
    """What was measured: medians of our times and PyTorch's, their ratio, and a note."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.shown = 0
        """So many of the lines are printed."""
        self.peak = 0.0
        """GFLOP/s of the fastest float32 product; 0 where it was not measured."""

    def add(self, what: str, unit: str, ours: list[float], theirs: list[float] | None = None, note: str = "") -> None:
        """Add one line; the ratio, PyTorch's time over ours, is how many times faster we are."""
        line: dict[str, Any] = {"what": what, "unit": unit, "ours": ours, "theirs": theirs, "note": note}
        if theirs:
            line["ratio"] = statistics.median(theirs) / statistics.median(ours)
        self.lines.append(line)

    def show(self) -> None:
        """Print the lines that were added since the last time."""
        rows = [
            (
                f"{line['what']}, {line['unit']}",
                f"{statistics.median(line['ours']):.2f}",
                f"{statistics.median(line['theirs']):.2f}" if line["theirs"] else "",
                f"{line['ratio']:.2f}x" if line["theirs"] else "",
                line["note"],
            )
            for line in self.lines[self.shown :]
        ]
        self.shown = len(self.lines)
        terminal.print_table(None, ("", "ours", "PyTorch", "ratio", "note"), rows)
        sys.stdout.flush()


def main(args: argparse.Namespace) -> None:
    """Measure the parts that are asked for, in their order."""
    require(args.rounds >= 1, f"rounds must be at least 1, got {args.rounds}")
    require(args.guide is None or Path(args.guide).is_file(), f"--guide must be a Python file, got {args.guide}")
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.config_from(args, DataConfig)
        if args.synthetic:
            from convert.pytorch_baseline import write_synthetic

            data = DataConfig(*write_synthetic(Path(folder)))
        runtime.select_device(args.device)
        from jaxsae.demo import dataset
        from jaxsae.text.loading import load_samples

        dataset.ensure_demo(data.dataset)
        samples = load_samples(data.dataset, data.split, data.max_samples)
        table = Table()
        measure = {
            "peak": lambda: measure_peak(table),
            "step": lambda: measure_steps(table, args, data, samples),
            "extract": lambda: measure_extraction(table, args, data, samples),
            "run": lambda: measure_runs(table, args, data, Path(folder)),
            "start": lambda: measure_starts(table, args, Path(folder)),
            "many": lambda: measure_many(table, args, data, samples, Path(folder)),
        }
        for part in sorted(set(args.part), key=PARTS.index):
            measure[part]()
            table.show()
    if args.json:
        from jaxsae.files import write_json

        write_json(args.json, {"command": sys.argv, "lines": table.lines}, indent=1)


def theirs(args: argparse.Namespace) -> Any:
    """`extract` and `train` in PyTorch: of the guide's script, or our own copy of its work; None on another device."""
    if args.device != "cpu":
        return None
    if args.guide is None:
        from convert import pytorch_baseline

        return pytorch_baseline
    spec = importlib.util.spec_from_file_location("guide", args.guide)
    require(spec is not None and spec.loader is not None, f"--guide must be a Python file (.py), got {args.guide}")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes; what it prints is swallowed."""
    began = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        work()
    return time.perf_counter() - began


def measure_peak(table: Table) -> None:
    """GFLOP/s of a 2,048 x 2,048 product, the best of three libraries."""
    for number_type in ("float32", "bfloat16"):
        rates = product_rates(2048, number_type)
        best, note = max(rates.values()), ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
        table.add(f"matrix product, {number_type}", "GFLOP/s", [best], note=note)
        table.peak = table.peak or best


def product_rates(n: int, number_type: str) -> dict[str, float]:
    """Library -> GFLOP/s of an n x n product."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from convert.pytorch_baseline import product

    a = jnp.ones((n, n), number_type)
    ours = jax.jit(lambda a: jnp.matmul(a, a, precision="highest", preferred_element_type=jnp.float32))
    ways: dict[str, Callable[[], Any]] = {
        "JAX": lambda: jax.block_until_ready(ours(a)),
        "torch": product(n, number_type),
    }
    if number_type == "float32":
        ways["NumPy"] = partial(np.matmul, *[np.ones((n, n), np.float32)] * 2)
    for way in ways.values():
        way()  # the first call compiles
    return {name: 2e-9 * n**3 / min(seconds(way) for _ in range(7)) for name, way in ways.items()}


def measure_steps(table: Table, args: argparse.Namespace, data: DataConfig, samples: Samples) -> None:
    """An epoch over all rows of the samples, in turns; the share of the peak is that of five dense products."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from convert import load_restoration_model
    from jaxsae.activations.extraction import extract
    from jaxsae.sae.architectures import init
    from jaxsae.train.group import batch_indices
    from jaxsae.train.step import MemberConstants, Stepper, optimizer

    rows = extract(load_restoration_model(data.checkpoint), samples, [args.layer], "keep").values[args.layer]
    rival = theirs(args)
    if rival:
        from convert.pytorch_baseline import tensor

        torch_rows = tensor(np.array(rows))
    for name, how in STEPS.items():
        config, steps = how.sae(rows.shape[1]), len(rows) // how.batch_size
        stepper, members = (
            Stepper(config, optimizer(how.lr), how.precision),
            MemberConstants.of([config], how.batch_size),
        )
        saes = jax.tree.map(lambda leaf: leaf[None], init(jax.random.key(0), config))
        state, ours, pytorch = stepper.begin(saes, config.l1_coef), [], []
        for epoch in range(args.rounds + 1):
            began = time.perf_counter()
            for batch in batch_indices(len(rows), how.batch_size, 0, epoch):
                state = stepper.step(state, members, rows, jnp.asarray(batch))
            jax.block_until_ready(state)
            ours.append(1e3 * (time.perf_counter() - began) / steps)
            if rival:
                given = (torch_rows, config.d_sae, config.l1_coef, config.k, how.batch_size, 1)
                pytorch.append(1e3 * seconds(partial(rival.train, *given)) / steps)
        flops = 5 * 2 * how.batch_size * config.d_in * config.d_sae
        share = (
            f"{flops / statistics.median(ours[1:]) / 1e6 / table.peak:.0%} of the float32 peak" if table.peak else ""
        )
        table.add(f"step, {name}", "ms", ours[1:], pytorch[1:] or None, share)  # the first round compiled


def measure_extraction(table: Table, args: argparse.Namespace, data: DataConfig, samples: Samples) -> None:
    """The same samples: `keep` as PyTorch's hooks see them, and `drop`, which is less work."""
    import jax

    from convert.checkpoints import read_checkpoint
    from jaxsae.activations.extraction import extract

    some = samples[: args.samples]
    checkpoint, rival = read_checkpoint(data.checkpoint), theirs(args)
    model, torch_model = checkpoint.model(), None
    if rival:
        from convert.reference import build

        torch_model = rival.load_model(data.checkpoint) if args.guide else build(checkpoint)
    times: dict[str, list[float]] = {"keep": [], "drop": [], "PyTorch": []}
    for _ in range(args.rounds + 1):
        for padding in ("keep", "drop"):
            began = time.perf_counter()
            jax.block_until_ready(extract(model, some, [args.layer], padding).values)
            times[padding].append(time.perf_counter() - began)
        if rival:
            times["PyTorch"].append(seconds(partial(rival.extract, torch_model, some.ids, args.layer)))
    for padding in ("keep", "drop"):  # the first round compiled
        title = f"extract {len(some)} samples, layer {args.layer}, {padding}"
        note, took = f"{places_that_are_real(some, padding):.0%} of the places are real", times[padding][1:]
        if table.peak:
            lengths = some.lengths if padding == "drop" else [some.ids.shape[1]] * len(some)
            work = sum(flops_of(checkpoint.config, int(n), args.layer + 1) for n in lengths)
            note += f", {work / statistics.median(took) / 1e9 / table.peak:.0%} of the float32 peak"
        table.add(title, "s", took, times["PyTorch"][1:] or None, note)


def flops_of(config: Any, length: int, blocks: int) -> float:
    """Of the products of so many blocks on a text of that length: projections, neurons, attention."""
    each = 4 * config.d_model**2 + 2 * config.d_model * config.d_ff + 2 * length * config.d_model
    return 2.0 * blocks * length * each


def places_that_are_real(samples: Samples, padding: str) -> float:
    """The share of the positions that are run which have a character."""
    from jaxsae.text.batching import pack

    width = samples.ids.shape[1]
    run = samples.ids.size if padding == "keep" else sum(one.sample.size for one in pack(samples.lengths, width))
    return float(samples.real.sum() / run)


def run(command: list[str], **environment: str) -> tuple[float, float]:
    """(seconds, peak MiB) of a process."""
    began = time.perf_counter()
    env = {**os.environ, "JAXSAE_CACHE": "off", **environment}  # else the first of several compiles for the others
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=env)
        peak = 0
        while process.poll() is None:
            peak = max(peak, runtime.peak_of(process.pid))
            time.sleep(0.02)
        took = time.perf_counter() - began
        said.seek(0)
        error = said.read().decode(errors="replace").strip()[-300:]
    require(process.returncode == 0, f"{' '.join(command[:3])} must succeed, got {error}")
    return took, peak / 2**20


def train_command(
    args: argparse.Namespace, data: DataConfig, output: Path, *flags: str, layer: Any = None
) -> list[str]:
    """The command line of one training run."""
    flags_of = {
        "--layer": args.layer if layer is None else layer,
        "--checkpoint": data.checkpoint,
        "--dataset": data.dataset,
        "--split": data.split,
        "--device": args.device,
        "--max-samples": "all" if data.max_samples is None else data.max_samples,
        "--output": output,
    }
    given = [str(part) for pair in flags_of.items() for part in pair]
    return [sys.executable, str(HERE / "train.py"), *given, "--quiet", "--overwrite", *flags]


def measure_runs(table: Table, args: argparse.Namespace, data: DataConfig, folder: Path) -> None:
    """Wall time and peak memory of whole runs, start included; L0 and FVU on the same held-out rows."""
    epochs = ["--epochs", str(args.epochs)] if args.epochs else []
    their: tuple[float, float] | None = None
    if args.guide:
        command = [sys.executable, args.guide, "train", "--checkpoint", data.checkpoint, "--dataset", data.dataset]
        command += ["--split", data.split, "--layer", str(args.layer), *epochs, "--output", str(folder / "guide.pt")]
        command += ["--max-samples", str(data.max_samples or 10**9)]
        their = run(command)
        note = f"{their[1]:,.0f} MiB, {figures_of(folder / 'guide.pt', args, data)}"
        table.add("run, the guide's script", "s", [their[0]], note=note)
    for number, (name, flags) in enumerate(RUNS.items()):
        took, alone = run(train_command(args, data, folder / f"run{number}", *flags, *epochs))
        file = folder / f"run{number}" / f"sae_layer{args.layer}_optimized.pt"
        report = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        peak = max(alone, report["peak_memory_bytes"] / 2**20)  # of all processes together
        memory = f" ({peak / their[1]:.0%})" if their and their[1] else ""
        note = f"{peak:,.0f} MiB{memory}, {figures_of(file, args, data)}"
        table.add(f"run, {name}", "s", [took], [their[0]] if their else None, note)


def measure_starts(table: Table, args: argparse.Namespace, folder: Path) -> None:
    """Short commands on the demo, each in a process of its own: what is compiled is kept in a folder that is new."""
    demo = DataConfig()
    train = train_command(args, demo, folder / "start", "--epochs", "1")
    file = folder / "start" / f"sae_layer{args.layer}_optimized.pt"
    ask = [sys.executable, str(HERE / "inspect_sae.py"), "--sae", str(file), "--feature", "3", "--device", args.device]
    for what, command in (("one epoch on the demo", train), ("a feature of it", ask)):
        times: dict[str, list[float]] = {"first": [], "again": []}
        for _ in range(args.rounds):
            for kept in (folder / "start" / ".jaxsae_cache", folder / "cache"):
                shutil.rmtree(kept, ignore_errors=True)
            for which in times:
                took, _ = run(command, JAXSAE_CACHE=str(folder / "cache"))
                times[which].append(took)
        for which, took_each in times.items():
            table.add(f"{what}, {which}", "s", took_each)


def figures_of(file: Path, args: argparse.Namespace, data: DataConfig) -> str:
    """Epochs, L0 and FVU of an SAE file, on the first 20 test samples without padding."""
    from convert import load_restoration_model, load_sae
    from jaxsae import extract, load_samples, score

    samples = load_samples(data.dataset, "test", 20)
    rows = extract(load_restoration_model(data.checkpoint), samples, [args.layer]).values[args.layer]
    sae = load_sae(file)
    result = score(sae.sae, rows)
    return f"{len(sae.losses)} epochs, L0 {result.l0:.1f}, FVU {result.fvu:.6f}"


def measure_many(table: Table, args: argparse.Namespace, data: DataConfig, samples: Samples, folder: Path) -> None:
    """One command against one for each SAE; and what extracting all layers costs beside the last alone."""
    import jax

    from convert import load_restoration_model
    from jaxsae.activations.extraction import extract

    model, some = load_restoration_model(data.checkpoint), samples[: args.samples]
    every = range(model.n_layers)

    def extraction(layers: list[int]) -> float:
        return seconds(lambda: jax.block_until_ready(extract(model, some, layers).values))

    times = [(extraction(list(every)), extraction([every[-1]])) for _ in range(args.rounds + 1)][1:]
    all_of_them, last = ([pair[i] for pair in times] for i in (0, 1))
    more = statistics.median(all_of_them) / statistics.median(last)
    table.add(f"extract all {len(every)} layers", "s", all_of_them, note=f"{more:.2f} times as long as the last alone")

    few = ["--epochs", str(args.epochs)] if args.epochs else []
    topk, penalties = [*TOPK, *few], [f"{2**i}e-4" for i in range(8)]
    jobs: dict[str, list[list[tuple[Any, list[str]]]]] = {
        "all layers": [[("all", topk)], [(layer, topk) for layer in every]],
        "8 penalties": [
            [(args.layer, [*few, "--l1-coef", ",".join(penalties)])],
            [(args.layer, [*few, "--l1-coef", penalty]) for penalty in penalties],
        ],
    }
    for name, ways in jobs.items():
        found = []
        for way in ways:
            ran = [run(train_command(args, data, folder / "many", *flags, layer=layer)) for layer, flags in way]
            found.append((sum(took for took, _ in ran), max(peak for _, peak in ran)))
        (together, peak), (alone, alone_peak) = found
        note = f"one by one {alone:.1f} s, {alone / together:.2f} x; {peak:,.0f} MiB, {alone_peak:,.0f} one by one"
        table.add(f"{name}, in one command", "s", [together], note=note)


if __name__ == "__main__":
    parser = arguments.Parser(__doc__ or "")
    parser.add_config(DataConfig, only=("checkpoint", "dataset", "split", "max_samples"))
    parser.add_argument("--layer", type=int, default=8, help="0-based: the residual stream after this block")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS[:3], help="what to measure: %(default)s")
    parser.add_argument("--guide", metavar="FILE.py", help="the PyTorch script to compare with; it is run")
    parser.add_argument("--synthetic", action="store_true", help="random weights of full size and random text")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is timed, in turns")
    parser.add_argument("--samples", type=int, default=40, help="that are extracted")
    parser.add_argument("--epochs", type=int, help="of whole runs, where not their own number")
    arguments.add_device(parser)
    parser.add_output("--json", "also write every figure as JSON; - is standard output")
    process.run(main, parser)
