"""What an SAE's features mean: how often they fire, where, on what, and what they do to the restorations.

Without further flags: the whole SAE at a glance. Features are numbered from 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, inspect_tables, terminal
from jaxsae.config import DEMO_TEXT, DataConfig
from jaxsae.errors import require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Sequence

    from convert.restoration import Checkpoint
    from convert.sae_files import SAEFile
    from jaxsae.features.concepts import Concept
    from jaxsae.features.inspection import Inspection
    from jaxsae.text.samples import Samples


def main(args: argparse.Namespace) -> None:
    """One pass over the text, then what was asked for."""
    data = inputs.data_config(args, max_samples=100)
    for flag in ("text", "pattern"):
        require(getattr(args, flag) != "", f"--{flag} must have at least one character, got none")
    runtime.lean_memory()
    runtime.select_device(args.device)
    from convert import layer_of, load_sae, read_checkpoint
    from jaxsae.activations import store
    from jaxsae.features.inspection import inspect_all
    from jaxsae.features.statistics import LayerSAE
    from jaxsae.files import atomic_path, write_json
    from jaxsae.text.samples import kept_positions

    given = find_files(args)
    files = {path: load_sae(path) for path in given}
    saes = [LayerSAE(layer_of(path, file, given[path]), file.sae) for path, file in files.items()]
    checkpoint = read_checkpoint(data.checkpoint)
    layers = [layer for layer, _ in saes]
    check(args, files, layers, checkpoint)
    beside = {path: alike(path, file, checkpoint, args.other_model) for path, file in files.items()}
    needed = sorted(set(layers))
    rows = (
        inputs.open_stored_rows(args, data, needed[0], data.max_samples).only(needed)
        if inputs.is_rows(data.dataset)
        else None
    )
    if rows is None:
        samples = inputs.text(data)
    else:
        samples = store.text_of(rows, checkpoint.identity, checkpoint.sha256)
        data = dataclasses.replace(data, split=str(rows.about.get("split")), padding=rows.about["padding"])
    require(
        bool(samples.damaged.any()) or not (args.ablate or args.clamp),
        "--ablate and --clamp need damaged characters to restore, got text that has none",
    )
    whole_model = bool(args.ablate or args.clamp or args.html)  # else what comes after the layer is not needed
    model = checkpoint.model(n_layers=None if whole_model else max(layers) + 1)
    del checkpoint
    n = int(kept_positions(samples, data.padding).sum())
    with terminal.Progress("read    ", n, "characters", quiet=False).shown() as progress:
        inspections = inspect_all(
            model,
            samples,
            saes,
            concepts=concepts_of(args, data, samples),
            pattern=args.pattern,
            padding=data.padding,
            rows=rows.layers if rows else None,
            other_seeds=[[other.sae for other in beside[path].values()] for path in files],
            compare=args.concepts is not None or bool(args.html or args.pattern),
            on_rows=progress.advance,
        )

    what = f"{'/'.join(Path(data.dataset).parts[-2:])}, {data.split} split, padding {data.padding}"
    print(f"text     {what}: {len(samples):,} samples, {inspections[0].statistics.rows:,} characters")
    reports: list[dict[str, Any]] = []
    for path, inspection in zip(files, inspections, strict=True):
        inspect_tables.show_overview(path, inspection, [other.name for other in beside[path]])
        about = {"sae": path, "layer": inspection.layer, "architecture": inspection.sae.architecture}
        about |= {"split": data.split, "samples": len(samples), "padding": data.padding}
        reports.append(about | inspection.as_json() | print_requested(args, inspection, path))
    if args.html:
        from jaxsae.features.report import page

        with atomic_path(args.html) as unfinished:
            unfinished.write_text(page(inspections, list(files), what), encoding="utf-8")
        print(f"wrote    {args.html} ({Path(args.html).stat().st_size / 1e6:.1f} MB); open it in a browser")
    if args.json:
        write_json(args.json, reports[0] if len(reports) == 1 else reports, indent=1)


def check_files(files: dict[str, SAEFile], layers: Sequence[int], checkpoint: Checkpoint, *, other_model: bool) -> None:
    """See before the pass over the text that SAEs of some layers fit a model.

    Raises:
      InputError: one does not; the file is named.
    """
    from convert import check_model

    shape = checkpoint.config
    for (path, file), layer in zip(files.items(), layers, strict=True):
        shape.check_layer(layer)
        width, d_in = shape.d_model, file.config.d_in
        require(d_in == width, f"{path}: d_in must be {width} (the model's d_model), got {d_in}")
        check_model(path, file, checkpoint.identity, checkpoint.sha256, other_model)


def check(args: argparse.Namespace, files: dict[str, SAEFile], layers: Sequence[int], checkpoint: Checkpoint) -> None:
    """See before the pass over the text that files, model and flags fit together.

    Raises:
      InputError: they do not; the file or the flag is named.
    """
    from jaxsae.features.inspection import check_text

    check_files(files, layers, checkpoint, other_model=args.other_model)
    for flag in ("feature", "pattern", "text", "ablate", "clamp"):
        alone = getattr(args, flag) in (None, []) or len(files) == 1
        require(alone, f"--{flag} takes one SAE, got {len(files)}; give one --layer")
    for (path, file), layer in zip(files.items(), layers, strict=True):
        for latent in [*args.feature, *args.ablate, *(latent for latent, _ in args.clamp)]:
            last = file.config.d_sae - 1
            require(
                0 <= latent <= last,
                f"feature must be in 0..{last}, got {latent}; {path}, of layer {layer}, has {last + 1} features",
            )
    require(
        not args.html or len(set(layers)) == len(layers),
        f"--html takes one SAE of each layer, got layers {', '.join(map(str, layers))}; other seeds beside a file are found "
        "without being named",
    )
    if args.text:
        check_text(args.text, checkpoint.config)


def find_files(args: argparse.Namespace) -> dict[str, int | None]:
    """SAE file -> the layer that was given for it."""
    found = [arguments.layer_number(part) for part in args.layer.split(",")] if args.layer else []
    given = [layer for layer in found if layer is not None and layer >= 0]
    require(len(given) == len(found), f"--layer must be numbers separated by commas, got {args.layer}")
    if args.sae:
        require(
            len(given) in (0, 1, len(args.sae)), f"--layer must name one layer for each --sae, got {len(given)} layers"
        )
        require(len(set(args.sae)) == len(args.sae), "--sae must name different files, got one twice")
        layers: list[int | None] = [*given] if len(given) == len(args.sae) else [*given, *[None] * len(args.sae)]
        return dict(zip(args.sae, layers, strict=False))
    return {str(Path(args.output) / f"sae_layer{layer}_optimized.pt"): layer for layer in given or [8]}


def other_seeds(path: str) -> list[Path]:
    """The files beside an SAE file that differ from it in the seed alone, as training names them."""
    stem, mark, seed = Path(path).stem.rpartition("_seed")
    if not mark or not seed.isdigit():
        return []
    named = Path(path).parent.glob(f"{glob.escape(stem)}_seed*{Path(path).suffix}")
    beside = {other: other.stem.rpartition("_seed")[2] for other in named if other != Path(path)}
    return sorted((other for other, seed in beside.items() if seed.isdigit()), key=lambda other: int(beside[other]))


def alike(path: str, file: SAEFile, checkpoint: Checkpoint, other_model: bool) -> dict[Path, SAEFile]:
    """The SAEs of other seeds beside a file: of the same model, and trained with the same settings."""
    from convert import check_model, load_sae

    found = {other: load_sae(other) for other in other_seeds(path)}
    for other, its in found.items():
        check_model(other, its, checkpoint.identity, checkpoint.sha256, other_model)
    return {other: its for other, its in found.items() if its.config == file.config}


def concepts_of(args: argparse.Namespace, data: DataConfig, samples: Samples) -> Sequence[Concept]:
    """The concepts that latents are compared with: those of a file, and what is known of the demo's characters."""
    from jaxsae.demo import dataset
    from jaxsae.features import concepts

    chosen = concepts.load_concepts(args.concepts or concepts.BUILT_IN)
    if not args.concepts:
        chosen += concepts.sign_concepts(samples)
    if inputs.is_demo(data.dataset, "dataset"):
        properties = dataset.load_truth(DEMO_TEXT, data.split).properties()
        n = int(samples.real.sum())
        chosen += concepts.concepts_from_truth(properties, dataset.properties_about(properties), n)
    return chosen


def print_requested(args: argparse.Namespace, inspection: Inspection, path: str) -> dict[str, Any]:
    """What the flags ask of one SAE: printed, and as figures."""
    out: dict[str, Any] = {}
    if args.pattern:
        found = inspection.pattern_detectors()
        inspect_tables.show_pattern(found, inspection)
        out["pattern"] = found.as_json()
    if args.concepts is not None:
        inspect_tables.show_concepts(inspection)
    if args.concepts is not None or args.html:
        out["concepts_left_out"] = [one.as_json() for one in inspection.left_out]
        out["concepts"] = [one.as_json() for one in inspection.concept_scores]
        out["discoveries"] = [one.as_json() for one in inspection.discoveries]
    if args.feature:
        summaries = [inspection.feature(latent) for latent in args.feature]
        for summary in summaries:
            inspect_tables.show_feature(summary)
        out["feature"] = [summary.as_json() for summary in summaries]
    if args.text is not None:
        characters = inspection.on_text(args.text)
        inspect_tables.show_text(characters)
        out["text"] = [one.as_json() for one in characters]
    settings = [(latent, 0.0) for latent in args.ablate] + args.clamp
    if settings:
        effects = inspection.causal_effects(settings)
        inspect_tables.show_causal(effects)
        out["causal"] = [effect.as_json() for effect in effects]
    if args.histogram:
        out["histogram"] = str(draw(inspection, path, args.feature))
    return out


def draw(inspection: Inspection, path: str, latents: Sequence[int]) -> Path:
    """A picture beside the SAE file: of the latents given, else of the strongest."""
    from jaxsae.features.plots import latents_plot
    from jaxsae.files import atomic_path

    picture = Path(path).with_name(f"{Path(path).stem}_histogram.png")
    title = f"{Path(path).name}, layer {inspection.layer}"
    with atomic_path(picture) as unfinished:
        latents_plot(unfinished, title, inspection.statistics, latents or inspection.strongest_latents(12))
    print(f"wrote    {picture}")
    return picture


def clamped(text: str) -> tuple[int, float]:
    """`N=VALUE`."""
    latent, _, value = text.partition("=")
    try:
        number, setting = int(latent), float(value)
    except ValueError:
        setting = math.nan
    if not math.isfinite(setting):
        raise argparse.ArgumentTypeError(f"must be N=VALUE, a feature's number and a finite value, got {text}")
    return number, setting


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_argument("--sae", nargs="+", metavar="FILE", help="SAE files; left out: those of --layer in --output")
    parser.add_config(
        DataConfig,
        only=("checkpoint", "dataset", "split", "max_samples", "padding"),
        names={"checkpoint": ("--checkpoint", "--model"), "max_samples": ("--num-samples", "--max-samples")},
        max_samples=100,
    )
    parser.add_argument("--layer", metavar="L[,L...]", help="as the file says; needed where it does not (files: 8)")
    parser.add_argument(
        "--output", default="checkpoints/sae_results", metavar="DIR", help="where training left the SAE files"
    )
    parser.add_argument("--histogram", action="store_true", help="a picture of how strongly features fire")
    parser.add_argument("--feature", type=int, nargs="+", default=[], metavar="N", help="everything about a feature")
    parser.add_text("--pattern", metavar="STR", help="features that fire on this spelling and not elsewhere")
    parser.add_text("--text", metavar="STR", help="which features fire on this text, character by character")
    parser.add_argument(
        "--concepts", nargs="?", const="", metavar="FILE", help="what tells damage, languages, endings, ...; or yours"
    )
    parser.add_argument(
        "--ablate", type=int, nargs="+", default=[], metavar="N", help="what is restored without a feature"
    )
    parser.add_argument(
        "--clamp", type=clamped, nargs="+", default=[], metavar="N=VALUE", help="what is restored with it set"
    )
    parser.add_output("--html", "all of this as one page to read")
    parser.add_output("--json", "also write the figures; - is standard output")
    arguments.add_other_model(parser)
    arguments.add_device(parser)
