#!/usr/bin/env python3
"""How well SAEs find directions that rows are known to be made of; jaxsae beside the rivals of compare_rivals.py."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from typing import Any

from jaxsae.cli import arguments, process, terminal
from jaxsae.config import TrainConfig
from jaxsae.errors import require

SETS: dict[str, dict[str, Any]] = {
    "256 in 64, 5 active": {"features": 256, "d_in": 64, "active": 5},
    "1,024 in 128, 10 active, power law, noise": {
        "features": 1024, "d_in": 128, "active": 10, "power": 0.5, "noise": 0.05
    },
}  # fmt: skip
ROWS, EPOCHS, BATCH = 400_000, 5, 256
OURS = ("topk", "batchtopk", "jumprelu", "matryoshka", "relu")
THEIRS = ("topk", "batchtopk")


def main(args: argparse.Namespace) -> None:
    """A row of the table for each set, library and architecture; what is in the folder is not trained again."""
    import jax.numpy as jnp
    import numpy as np

    from convert import load_sae, save_sae
    from jaxsae.sae.planted import plant, recovery
    from jaxsae.train.loop import train_sae

    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict] = {}
    shown = []
    for title, how in SETS.items():
        planted, path = plant(**how), folder / f"rows-{how['features']}.npy"
        if not path.exists():
            np.save(path, planted.rows(ROWS, seed=0))
        runs = [("jaxsae", architecture) for architecture in OURS]
        runs += [(library, a) for library in ("saelens", "dictionary_learning") for a in THEIRS if args.rival_python]
        for library, architecture in runs:
            print(f"{title}: {library}, {architecture}", flush=True)
            target = folder / f"{library}_{architecture}_{how['features']}.pt"
            if not target.exists() and library == "jaxsae":
                config = TrainConfig(
                    recipe="modern",
                    architecture=architecture,
                    target_l0=how["active"],
                    expansion=how["features"] // how["d_in"],
                    epochs=EPOCHS,
                    batch_size=BATCH,
                )
                trained = train_sae(jnp.asarray(np.load(path)), config)
                save_sae(target, trained.sae, trained.config)
            elif not target.exists():
                flags = ["--library", library, "--architecture", architecture, "--rows", path, "--l0", how["active"]]
                flags += ["--d-sae", how["features"], "--steps", EPOCHS * (ROWS // BATCH) + 1, "--output", target]
                script = Path(__file__).with_name("train_rival.py")
                ran = subprocess.run([args.rival_python, script, *map(str, flags)], capture_output=True, text=True)
                require(ran.returncode == 0, f"{library}'s training must succeed, got {ran.stderr.strip()[-300:]}")
            file = load_sae(target)
            result = recovery(file.sae, planted)
            found[target.stem] = result._asdict()
            shown.append((title, library, architecture, *(f"{figure:.3f}" for figure in result)))
    columns = ("rows", "library", "architecture", "mean max cosine", "precision", "recall", "shrinkage")
    terminal.print_table("Known directions, found again", columns, shown, key=3)
    if args.json:
        from jaxsae.files import write_json

        write_json(args.json, found)


if __name__ == "__main__":
    parser = arguments.Parser(__doc__ or "")
    parser.add_argument("folder", metavar="DIR", help="for rows and SAE files")
    parser.add_argument(
        "--rival-python", metavar="FILE", help="that has the rivals (see compare_rivals.py); else only ours"
    )
    parser.add_output("--json", "also write the figures as JSON; - is standard output")
    process.run(main, parser)
