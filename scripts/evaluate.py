#!/usr/bin/env python3
"""Rate SAE files on held-out text: how sparse, how faithful, and what the model restores with the SAE in its place."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsae import cli
from jaxsae.config import DataConfig, require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from convert.sae_files import SAEFile
    from jaxsae.data import Samples
    from jaxsae.model import RestorationModel

COLUMNS = {
    "L0": ("l0", ".1f"),
    "FVU": ("fvu", ".4f"),
    "cosine": ("cosine", ".3f"),
    "norm": ("norm_ratio", ".3f"),
    "dead": ("dead", ".1%"),
    "dense": ("dense", ".1%"),
    "CE": ("ce_sae", ".4f"),
    "rec. 0": ("ce_recovered_zero", ".4f"),
    "rec. mean": ("ce_recovered_mean", ".4f"),
    "KL": ("kl", ".4f"),
    "top-1": ("top1_sae", ".1%"),
    "top-5": ("top5_sae", ".1%"),
}
DENSITY_BINS = [10.0**exponent for exponent in range(-6, 1)]


def main(args: argparse.Namespace) -> None:
    """One row of the table for each file."""
    data = cli.config_from(args, DataConfig, split="test")
    cli.select_device(args.device)
    from rich.console import Console
    from rich.table import Table

    from convert import layer_of, load_sae, read_checkpoint
    from jaxsae import demo, load_samples
    from jaxsae.files import whole

    checkpoint = read_checkpoint(data.checkpoint)
    files = {path: load_sae(path) for path in args.sae}
    layers = {path: layer_of(path, file, args.layer) for path, file in files.items()}
    for path, file in files.items():
        checkpoint.config.check_layer(layers[path])
        width = checkpoint.config.d_model
        require(
            file.config.d_in == width, f"{path}: d_in must be {width} (the model's d_model), got {file.config.d_in}"
        )
    demo.ensure_demo(data.dataset)
    samples = load_samples(data.dataset, data.split, data.max_samples)
    model = checkpoint.model()
    found: dict[str, dict] = {}
    for layer in sorted(set(layers.values())):
        found |= rate(model, samples, layer, {path: file for path, file in files.items() if layers[path] == layer})
    reports = [found[path] for path in args.sae]

    first = reports[0]
    print(f"text     {data.dataset}, {data.split}: {len(samples):,} samples, {first['rows']:,} characters")
    print(
        f"model    {first['positions']:,} of them damaged: cross-entropy {first['ce_clean']:.4f}, restored right",
        end=" ",
    )
    print(f"{first['top1_clean']:.1%} at the first guess, {first['top5_clean']:.1%} within five")
    table = Table("SAE", "layer", title="With the SAE in place of the layer's residual stream, at damaged positions")
    for title in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for report in reports:
        cells = [format(report[key], how) for key, how in COLUMNS.values()]
        table.add_row(short_name(report["sae"], args.sae), str(report["layer"]), *cells)
    Console(width=None if Console().is_terminal else 160).print(table)
    print("dead: fires on none of these characters; dense: on more than a tenth. rec.: share of the cross-entropy that")
    print("setting the layer to zero, or to its mean, loses and the SAE keeps.")
    if args.json:
        with whole(Path(args.json)) as aside:
            aside.write_text(json.dumps(reports, indent=2))


def rate(model: RestorationModel, samples: Samples, layer: int, files: dict[str, SAEFile]) -> dict[str, dict]:
    """Path -> figures, of SAEs on one layer."""
    import jax.numpy as jnp
    import numpy as np

    from jaxsae import extract, score, splice

    rows = extract(model, samples, [layer]).values[layer]
    mean = jnp.asarray(np.asarray(rows, np.float64).mean(axis=0), rows.dtype)
    changes: dict[str, splice.Change] = {"zero": jnp.zeros_like, "mean": lambda x: jnp.broadcast_to(mean, x.shape)}
    for path, file in files.items():
        changes[path] = lambda x, file=file: splice.reconstruct(file.sae, x, file.config.k)  # type: ignore[misc]
    effects = splice.effects(model, samples, layer, changes)
    clean, zero, mean_effect = effects["clean"], effects["zero"], effects["mean"]
    out = {}
    for path, file in files.items():
        s, effect = score(file.sae, file.config.k, rows), effects[path]
        out[path] = {
            "sae": path,
            "layer": layer,
            "architecture": file.config.architecture,
            "d_sae": file.config.d_sae,
            "l0": s.l0,
            "fvu": s.fvu,
            "explained_variance": s.explained_variance,
            "cosine": s.cosine,
            "norm_ratio": s.norm_ratio,
            "relative_reconstruction_bias": s.relative_reconstruction_bias,
            "dead": s.dead,
            "dense": s.dense,
            # latents that fire on at most 1e-6, 1e-5, ... of the rows, the dead left out
            "density_histogram": np.histogram(s.density[s.density > 0], [0.0, *DENSITY_BINS])[0].tolist(),
            "density_edges": [0.0, *DENSITY_BINS],
            "rows": s.rows,
            "ce_clean": clean.ce,
            "ce_sae": effect.ce,
            "ce_zero": zero.ce,
            "ce_mean": mean_effect.ce,
            "ce_recovered_zero": splice.recovered(clean, effect, zero),
            "ce_recovered_mean": splice.recovered(clean, effect, mean_effect),
            "kl": effect.kl,
            "top1_clean": clean.top1,
            "top1_sae": effect.top1,
            "top5_clean": clean.top5,
            "top5_sae": effect.top5,
            "positions": effect.positions,
        }
    return out


def short_name(path: str, paths: list[str]) -> str:
    """As much of the path's end as tells it from the others."""
    parts = Path(path).parts
    for n in range(1, len(parts)):
        name = Path(*parts[-n:])
        if sum(Path(other).parts[-n:] == name.parts for other in paths) == 1:
            return str(name)
    return path


if __name__ == "__main__":
    parser = cli.Parser(__doc__ or "")
    parser.add_argument("--sae", nargs="+", required=True, metavar="FILE", help="SAE files, of this or another program")
    parser.add_config(DataConfig, only=("checkpoint", "dataset", "split", "max_samples"), split="test")
    parser.add_argument("--layer", type=int, help="where a file does not say its layer itself")
    cli.add_device(parser)
    parser.add_argument("--json", metavar="OUT", help="also write the figures, one object per file")
    cli.run(main, parser)
