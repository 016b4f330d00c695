#!/usr/bin/env python3
"""jaxsae beside SAELens and dictionary_learning: the same rows to train on, the same held-out text to be rated on.

The rivals train in an environment of their own (`make rivals`). What is there already is not made again: after an
interruption, start the same command once more.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from jaxsae.cli import arguments, process, terminal
from jaxsae.config import DataConfig, TrainConfig
from jaxsae.errors import require

HERE = Path(__file__).resolve().parent
RATED_SAMPLES = 120
EPOCHS = 3
ARCHITECTURES = ("relu", "topk", "batchtopk", "jumprelu", "matryoshka")


@dataclasses.dataclass(frozen=True)
class Run:
    """One SAE to train."""

    library: str
    architecture: str
    l0: int = 0
    """What it is told; 0 where a penalty is given instead."""
    l0_coef: float = 0.0
    """SAELens's JumpReLU in its default mode: the penalty."""
    lr_factor: int = 1
    """Times the learning rate that the library recommends."""
    seed: int = 0

    @property
    def name(self) -> str:
        """Of its file."""
        told = f"l0-{self.l0}" if self.l0 else f"coef-{self.l0_coef:g}"
        return f"{self.library}_{self.architecture}_{told}_lr-{self.lr_factor}_seed{self.seed}"


def planned() -> list[Run]:
    """All runs; at L0 32 with three seeds, the rivals also with three times their learning rate."""
    runs = []
    for l0, seed in ((32, 0), (16, 0), (64, 0), (32, 1), (32, 2)):
        runs += [Run("jaxsae", architecture, l0, seed=seed) for architecture in ARCHITECTURES]
        for library, architecture in itertools.product(("dictionary_learning", "saelens"), ("topk", "batchtopk")):
            runs += [
                Run(library, architecture, l0, lr_factor=factor, seed=seed) for factor in ((1, 3) if l0 == 32 else (1,))
            ]
        if seed == 0:
            runs += [Run("dictionary_learning", "jumprelu", l0, lr_factor=factor) for factor in (1, 3)]
    return runs + [Run("saelens", "jumprelu", l0_coef=coef) for coef in (0.01, 0.03, 0.1, 0.3)]


def main(args: argparse.Namespace) -> None:
    """Rows, ours, the rivals', ratings, table."""
    data = arguments.config_from(args, DataConfig, split="train", max_samples=None)
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / "train_rows.npy"
    if not rows.exists():
        make_rows(data, args.layer, rows)
    runs = [run for run in planned() if run.library in args.library and run.architecture in args.architecture]
    for run in runs:
        target = folder / f"{run.name}.pt"
        if target.exists():
            continue
        print(run.name, flush=True)
        if run.library == "jaxsae":
            train_ours(run, rows, args.layer, target)
        else:
            train_rival(run, rows, args.rival_python, target)
    rate(data, args.layer, folder)
    show(folder)


def make_rows(data: DataConfig, layer: int, target: Path) -> None:
    """Activations of the training split, as a `.npy`."""
    import numpy as np

    from convert import load_restoration_model
    from jaxsae.activations.extraction import extract
    from jaxsae.files import atomic_path
    from jaxsae.text.loading import load_samples

    samples = load_samples(data.dataset, data.split, data.max_samples)
    with terminal.Progress("extract ", int(samples.mask.sum()), "rows", quiet=False).shown() as progress:
        rows = extract(load_restoration_model(data.checkpoint), samples, [layer], on_rows=progress.advance)
    with atomic_path(target) as aside:
        np.save(aside, np.asarray(rows.values[layer]))


def train_ours(run: Run, rows: Path, layer: int, target: Path) -> None:
    """By the modern recipe."""
    import jax.numpy as jnp
    import numpy as np

    from convert import save_sae
    from jaxsae.train.loop import train_sae

    config = TrainConfig(recipe="modern", architecture=run.architecture, target_l0=run.l0, seed=run.seed, epochs=EPOCHS)
    values = jnp.asarray(np.load(rows))
    began = time.perf_counter()
    trained = train_sae(values, config)
    extra = {"layer": layer, "library": run.library, "seconds": time.perf_counter() - began, "lr": config.lr}
    save_sae(target, trained.sae, trained.config, [epoch.loss for epoch in trained.epochs], extra)


def train_rival(run: Run, rows: Path, python: str, target: Path) -> None:
    """In its own environment, with one step more than we take."""
    import numpy as np

    steps = math.ceil(EPOCHS * len(np.load(rows, mmap_mode="r")) / 256)
    flags = ["--library", run.library, "--architecture", run.architecture, "--rows", rows, "--steps", steps]
    flags += ["--lr-factor", run.lr_factor, "--seed", run.seed]
    flags += ["--l0", run.l0] if run.l0 else ["--l0-coef", run.l0_coef]
    aside = target.with_suffix(".part")
    ran = subprocess.run(
        [python, str(HERE / "train_rival.py"), *map(str, flags), "--output", str(aside)], capture_output=True, text=True
    )
    require(ran.returncode == 0, f"{run.name}: the rival's training must succeed, got {ran.stderr.strip()[-300:]}")
    os.replace(aside, target)


def rate(data: DataConfig, layer: int, folder: Path) -> None:
    """What evaluate.py says of each file, in `rated.json`."""
    store = folder / "rated.json"
    rated = json.loads(store.read_text()) if store.exists() else {}
    todo = [path for path in sorted(folder.glob("*.pt")) if path.stem not in rated]
    for start in range(0, len(todo), 8):
        some, out = todo[start : start + 8], folder / "some.json"
        command = [sys.executable, HERE / "evaluate.py", "--sae", *some, "--layer", layer, "--json", out]
        command += ["--checkpoint", data.checkpoint, "--dataset", data.dataset, "--max-samples", RATED_SAMPLES]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        rated |= {Path(report["sae"]).stem: report for report in json.loads(out.read_text())}
        store.write_text(json.dumps(rated, indent=1))


def show(folder: Path) -> None:
    """A row of the table for each library, architecture, L0 and learning rate; seeds as mean and spread."""
    from convert import load_sae

    reports = json.loads((folder / "rated.json").read_text())
    seeds: dict[tuple, list[dict]] = defaultdict(list)
    for run in planned():
        if run.name in reports:
            seconds = load_sae(folder / f"{run.name}.pt").extra["seconds"]
            key = (run.architecture, run.l0 or 1000 * run.l0_coef, run.library, run.lr_factor)
            seeds[key].append(reports[run.name] | {"seconds": seconds})
    titles = ("architecture", "library", "lr", "L0", "FVU", "dead", "CE recovered", "top-1, points", "seeds", "seconds")
    rows = []

    def of(some: list[dict], key: str, how: str) -> str:
        values = [report[key] for report in some]
        mean, spread = sum(values) / len(values), max(values) - min(values)
        return format(mean, how) + (f" ({format(spread, how)})" if len(values) > 1 else "")

    for (architecture, _, library, factor), some in sorted(seeds.items(), key=lambda item: item[0][:2]):
        some = [report | {"points": 100 * (report["top1_sae"] - report["top1_clean"])} for report in some]
        cells = [
            architecture,
            library,
            f"x{factor}",
            of(some, "l0", ".1f"),
            of(some, "fvu", ".5f"),
            of(some, "dead", ".1%"),
        ]
        cells += [
            of(some, "ce_recovered_mean", ".4f"),
            of(some, "points", "+.2f"),
            str(len(some)),
            of(some, "seconds", ".0f"),
        ]
        rows.append(cells)
    terminal.print_table("Beside each other: mean (spread over seeds)", titles, rows, key=4)


if __name__ == "__main__":
    parser = arguments.Parser(__doc__ or "")
    parser.add_argument("folder", metavar="DIR", help="for rows, SAE files and ratings")
    parser.add_config(DataConfig, only=("checkpoint", "dataset"))
    parser.add_argument("--layer", type=int, default=8, help="0-based: the residual stream after this block")
    libraries = ("jaxsae", "saelens", "dictionary_learning")
    parser.add_argument("--library", nargs="+", choices=libraries, default=libraries, help="only these")
    parser.add_argument("--architecture", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES, help="only these")
    parser.add_argument("--rival-python", default=".venv-rivals/bin/python", metavar="FILE", help="that has the rivals")
    process.run(main, parser)
