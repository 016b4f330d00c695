"""Rate SAE files on held-out text: how sparse, how faithful, and what the model restores with the SAE in its place."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, terminal
from jaxsae.config import DataConfig
from jaxsae.errors import note, require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Callable

    from jax import Array

    from convert.restoration import Checkpoint
    from convert.sae_files import SAEFile
    from jaxsae.models.restoration import RestorationModel
    from jaxsae.text.samples import Samples

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
    data = inputs.data_config(args, split="test")
    runtime.select_device(args.device)
    from convert import check_model, layer_of, load_sae
    from jaxsae.files import write_json

    require(len(set(args.sae)) == len(args.sae), "--sae must name different files, got one twice")
    files = {path: load_sae(path) for path in args.sae}
    layers = {path: layer_of(path, file, args.layer) for path, file in files.items()}
    source = from_stores(args, data, files, layers) if inputs.is_rows(data.dataset) else from_text(data, files, layers)
    if source.checkpoint:
        for path, file in files.items():
            check_model(path, file, source.checkpoint.identity, source.checkpoint.sha256, args.other_model)
    restores = source.model is not None and source.samples is not None and bool(source.samples.damaged.any())
    if source.model and not restores:
        note(f"{data.dataset} has no damaged characters: what is restored with an SAE is left out")
    found: dict[str, dict] = {}
    for layer in sorted(set(layers.values())):
        found |= rate(source, layer, {path: file for path, file in files.items() if layers[path] == layer})
    reports = [found[path] for path in args.sae]

    first = reports[0]
    print(f"text     {source.what}, {first['rows']:,} {'characters' if source.samples else 'rows'}")
    if restores:
        print(f"model    {first['positions']:,} of them damaged: cross-entropy {first['ce_clean']:.4f}, ", end="")
        print(f"restored right {first['top1_clean']:.1%} at the first guess, {first['top5_clean']:.1%} within five")
    effect = "With the SAE in place of the layer's residual stream, at damaged positions" if restores else None
    columns = {title: (key, how) for title, (key, how) in COLUMNS.items() if key in first}
    rows = [
        [short_name(report["sae"], args.sae), report["layer"], *(format(report[k], how) for k, how in columns.values())]
        for report in reports
    ]
    terminal.print_table(effect, ["SAE", "layer", *columns], rows)
    terminal.print_wrapped("dead: fires on none of these; dense: on more than a tenth.")
    if restores:
        terminal.print_wrapped(
            "rec.: share of the cross-entropy that setting the layer to zero, or to its mean, loses and the SAE keeps."
        )
    elif not source.model:
        terminal.print_wrapped(
            "These rows do not say what model and text they are of: what is restored with an SAE cannot be told."
        )
    if args.json:
        write_json(args.json, reports)


@dataclasses.dataclass(frozen=True)
class Source:
    """What the files are rated on."""

    what: str
    rows: Callable[[int], Array]
    """Of a layer."""
    model: RestorationModel | None
    """None: rows of a model that is not known, of which the text is not known either."""
    samples: Samples | None
    checkpoint: Checkpoint | None


def from_text(data: DataConfig, files: dict[str, SAEFile], layers: dict[str, int]) -> Source:
    """A model, and text that it is given."""
    from convert import read_checkpoint
    from jaxsae.activations.extraction import extract

    checkpoint = read_checkpoint(data.checkpoint)
    for layer in layers.values():
        checkpoint.config.check_layer(layer)
    check_width(files, checkpoint.config.d_model, "the model's d_model")
    samples, model = inputs.text(data), checkpoint.model()
    what = f"{data.dataset}, {data.split}: {len(samples):,} samples"
    return Source(what, lambda layer: extract(model, samples, [layer]).values[layer], model, samples, checkpoint)


def from_stores(
    args: argparse.Namespace, data: DataConfig, files: dict[str, SAEFile], layers: dict[str, int]
) -> Source:
    """Rows that were extracted before, with their model and text where they say what these are."""
    import jax.numpy as jnp

    from convert import read_checkpoint
    from jaxsae.activations.store import model_of, text_of

    needed = sorted(set(layers.values()))
    stored = inputs.rows(args, data, needed[0], data.max_samples).only(needed)
    check_width(files, stored.d_in, "the width of the rows")

    def of_layer(layer: int) -> Array:
        return jnp.asarray(stored.layers[layer][:])

    if model_of(stored.about) is None:
        return Source(data.dataset, of_layer, None, None, None)
    checkpoint = read_checkpoint(data.checkpoint)
    samples = text_of(stored, checkpoint.identity, checkpoint.sha256)
    what = f"{data.dataset}: {len(samples):,} samples of the {stored.about.get('split')} split"
    return Source(what, of_layer, checkpoint.model(), samples, checkpoint)


def check_width(files: dict[str, SAEFile], width: int, what: str) -> None:
    """Of every SAE, against that of the rows."""
    for path, file in files.items():
        require(file.config.d_in == width, f"{path}: d_in must be {width} ({what}), got {file.config.d_in}")


def rate(source: Source, layer: int, files: dict[str, SAEFile]) -> dict[str, dict]:
    """Path -> figures, of SAEs on one layer."""
    import numpy as np

    from jaxsae.sae.metrics import score

    rows, out = source.rows(layer), {}
    for path, file in files.items():
        s = score(file.sae, rows)
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
        }
    if source.model and source.samples and source.samples.damaged.any():
        for path, effect in effects_on(source.model, source.samples, layer, files, rows).items():
            out[path] |= effect
    return out


def effects_on(
    model: RestorationModel, samples: Samples, layer: int, files: dict[str, SAEFile], rows: Array
) -> dict[str, dict]:
    """Path -> what the model restores with the SAE in place of the layer's stream."""
    import jax.numpy as jnp
    import numpy as np

    from jaxsae.features import splice

    mean = jnp.asarray(np.asarray(rows, np.float64).mean(axis=0), rows.dtype)
    changes: dict[str, splice.Change] = {"zero": jnp.zeros_like, "mean": lambda x: jnp.broadcast_to(mean, x.shape)}
    for path, file in files.items():
        changes[path] = lambda x, file=file: splice.reconstruct(file.sae, x)  # type: ignore[misc]
    effects = splice.effects(model, samples, layer, changes)
    clean, zero, mean_effect = effects["clean"], effects["zero"], effects["mean"]
    return {
        path: {
            "ce_clean": clean.ce,
            "ce_sae": effects[path].ce,
            "ce_zero": zero.ce,
            "ce_mean": mean_effect.ce,
            "ce_recovered_zero": splice.recovered(clean, effects[path], zero),
            "ce_recovered_mean": splice.recovered(clean, effects[path], mean_effect),
            "kl": effects[path].kl,
            "top1_clean": clean.top1,
            "top1_sae": effects[path].top1,
            "top5_clean": clean.top5,
            "top5_sae": effects[path].top5,
            "positions": clean.positions,
        }
        for path in files
    }


def short_name(path: str, paths: list[str]) -> str:
    """As much of the path's end as tells it from the others."""
    parts = Path(path).parts
    for n in range(1, len(parts)):
        name = Path(*parts[-n:])
        if sum(Path(other).parts[-n:] == name.parts for other in paths) == 1:
            return str(name)
    return path


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--sae", nargs="+", required=True, metavar="FILE", help="SAEs: .pt files, or folders of other libraries"
    )
    parser.add_config(DataConfig, only=("checkpoint", "dataset", "split", "max_samples"), split="test")
    parser.add_argument("--layer", type=int, help="where a file does not say its layer itself")
    arguments.add_device(parser)
    arguments.add_other_model(parser)
    parser.add_output("--json", "also write the figures, one object per file; - is standard output")
