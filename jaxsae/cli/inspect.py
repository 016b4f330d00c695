"""What an SAE's features mean: how often they fire, where, on what, and what they do to the restorations.

Without further flags: the whole SAE at a glance. Features are numbered from 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsae import runtime
from jaxsae.cli import arguments, csv_tables, inputs, inspect_tables, saes, terminal
from jaxsae.errors import require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Iterable, Sequence

    from convert.sae_files import SAEFile
    from convert.stored import AnyCheckpoint
    from jaxsae.features.inspection import Inspection
    from jaxsae.features.statistics import LayerSAE
    from jaxsae.text.samples import Samples


USUAL_SAMPLES = 100
"""That are read where no flag says how many."""


def main(args: argparse.Namespace) -> None:
    """One pass over the text, then what was asked for."""
    data = inputs.data_config(args, max_samples=USUAL_SAMPLES)
    for flag in ("text", "pattern"):
        require(getattr(args, flag) != "", f"--{flag} must have at least one character, got none")
    csv_tables.check_folder(args.csv)
    runtime.select_device(args.device)
    from jaxsae.files import atomic_path, write_json
    from jaxsae.models.protocol import LazyModel

    files, read = saes.read(args)
    layers = [layer for layer, _ in read.values()]
    needed = sorted(set(layers))
    rows = (
        inputs.open_stored_rows(args, data, needed[0], data.max_samples).only(needed)
        if inputs.is_rows(data.dataset)
        else None
    )
    checkpoint = inputs.checkpoint(data) if rows is None else inputs.model_of_rows(args, data, rows)
    check(args, files, read, checkpoint)
    beside = {path: saes.alike(path, file, checkpoint, args.other_model) for path, file in files.items()}
    if rows is not None:
        saes.check_places(files, read, rows)
        samples = inputs.text_of_rows(checkpoint, rows)
        data = dataclasses.replace(data, split=str(rows.about.get("split")), padding=rows.about["padding"])
    elif not isinstance(checkpoint, inputs.ModelOfRows):
        data = inputs.held_out(args, data, checkpoint.config)
        samples = inputs.text(data, checkpoint.config)
    require(
        bool(samples.scored.any()) or not (args.ablate or args.clamp),
        "--ablate and --clamp need damaged characters to restore, got text that has none",
    )
    alone = not (
        args.html or args.json or args.csv or args.concepts or args.feature or args.text or args.ablate or args.clamp
    )
    if args.pattern and alone and not _stands_in(args.pattern, samples):
        more = "--num-samples all reads more" if rows is None and data.max_samples else "another split may"
        print(f"pattern  {args.pattern!r}: in none of these {len(samples)} texts; {more}")
        return
    seen = saes.training_texts(files, data, checkpoint, rows)
    whole_model = bool(args.ablate or args.clamp or args.html)  # else what comes after the layer is not needed
    hook = saes.hook_of(files, {path: at.layer for path, at in read.items()})
    checkpoint, hook = inputs.read_at(checkpoint, hook, layers)
    n_layers = None if whole_model else max(layers) + 1
    load = None
    if not isinstance(checkpoint, inputs.ModelOfRows):
        load = functools.partial(checkpoint.model, n_layers=n_layers, hook=hook)
    model, identity = LazyModel(checkpoint.config, load), saes.kept_by(checkpoint)
    del checkpoint, load
    inspections = saes.read_text(
        model,
        samples,
        data,
        read,
        identity,
        hook,
        concepts=saes.concepts_of(args.concepts, data, samples),
        pattern=args.pattern,
        rows=rows.layers if rows else None,
        other_seeds=[[other.sae for other in beside[path].values()] for path in files],
        compare=args.concepts is not None or bool(args.html or args.pattern or args.csv),
    )

    what = f"{'/'.join(Path(data.dataset).parts[-2:])}, {data.split} split, padding {data.padding}"
    print(f"text     {what}: {len(samples):,} samples, {inspections[0].statistics.rows:,} {samples.tokenizer.unit}s")
    saes.warn_of_training_text(seen)
    reports: list[dict[str, Any]] = []
    for path, inspection in zip(files, inspections, strict=True):
        names = [other.name for other in beside[path]]
        inspect_tables.show_overview(path, inspection, seen[path], names, tables=not asks(args))
        about = {"sae": path, "layer": inspection.layer, "architecture": inspection.sae.architecture}
        about |= {
            "trained_on": seen[path]._asdict(),
            "split": data.split,
            "samples": len(samples),
            "padding": data.padding,
        }
        reports.append(about | inspection.as_json() | print_requested(args, inspection, path))
    if args.html:
        from jaxsae.features.report import page

        with terminal.working("answers for the page"), atomic_path(args.html) as unfinished:
            unfinished.write_text(page(inspections, list(files), saes.said_of(what, seen)), encoding="utf-8")
        print(f"wrote    {args.html} ({Path(args.html).stat().st_size / 1e6:.1f} MB); open it in a browser")
    if args.csv:
        write_csv(args.csv, files, inspections)
    if not asks(args) and len(files) == 1:
        (path,) = files
        flags: list[object] = [] if args.html else ["--html", Path(path).with_name("report.html")]
        if data.max_samples != USUAL_SAMPLES and rows is None:
            flags = ["--num-samples", data.max_samples or "all", *flags]
        print(f"next     {arguments.typed(args, 'inspect', '--sae', path, '--feature', first(inspections[0]), *flags)}")
    if args.json:
        write_json(args.json, reports[0] if len(reports) == 1 else reports, indent=1)


def check(
    args: argparse.Namespace,
    files: dict[str, SAEFile],
    read: dict[str, LayerSAE],
    checkpoint: AnyCheckpoint | inputs.ModelOfRows,
) -> None:
    """See before the pass over the text that files, model and flags fit together.

    Raises:
      InputError: they do not; the file or the flag is named.
    """
    from jaxsae.features.inspection import check_text

    saes.check_files(files, read, checkpoint, other_model=args.other_model)
    layers = [layer for layer, _ in read.values()]
    for flag in ("feature", "pattern", "text", "ablate", "clamp"):
        alone = getattr(args, flag) in (None, []) or len(files) == 1
        require(alone, f"--{flag} takes one SAE, got {len(files)}; give one --layer")
    for path in files:
        saes.check_latents([*args.feature, *(latent for latent, _ in saes.settings_of(args))], path, read[path])
    require(
        not args.html or len(set(layers)) == len(layers),
        f"--html takes one SAE of each layer, got layers {', '.join(map(str, layers))}; other seeds beside a file are found "
        "without being named",
    )
    if args.text:
        check_text(args.text, checkpoint.config)


def print_requested(args: argparse.Namespace, inspection: Inspection, path: str) -> dict[str, Any]:
    """What the flags ask of one SAE: printed, and as figures."""
    out: dict[str, Any] = {}
    unit = inspection.samples.tokenizer.unit
    if args.pattern:
        found = inspection.pattern_detectors()
        inspect_tables.show_pattern(found, inspection)
        out["pattern"] = found.as_json()
    if args.concepts is not None:
        inspect_tables.show_concepts(inspection)
    if args.concepts is not None or args.html or args.csv:
        out["concepts_left_out"] = [one.as_json() for one in inspection.left_out]
        out["concepts"] = [one.as_json() for one in inspection.concept_scores]
        out["discoveries"] = [one.as_json() for one in inspection.discoveries]
    if args.feature:
        summaries = [inspection.feature(latent) for latent in args.feature]
        for summary in summaries:
            inspect_tables.show_feature(summary, unit)
        out["feature"] = [summary.as_json() for summary in summaries]
    if args.text is not None:
        characters = inspection.on_text(args.text)
        inspect_tables.show_text(characters, unit)
        out["text"] = [one.as_json() for one in characters]
    settings = saes.settings_of(args)
    if settings:
        with terminal.working("restore "):
            effects = inspection.causal_effects(settings)
        inspect_tables.show_causal(effects, f"next {unit}" if inspection.samples.causal else f"damaged {unit}s")
        out["causal"] = [effect.as_json() for effect in effects]
    if args.histogram:
        out["histogram"] = str(draw(inspection, path, args.feature))
    return out


def asks(args: argparse.Namespace) -> bool:
    """Whether something is asked of single features, rather than the whole SAE."""
    return bool(args.feature or args.pattern or args.text or args.ablate or args.clamp) or args.concepts is not None


def _stands_in(pattern: str, samples: Samples) -> bool:
    """Whether any of the texts has that spelling."""
    return any(pattern in samples.text_of(sample) for sample in range(len(samples)))


def first(inspection: Inspection) -> int:
    """A feature to begin with: the strongest discovery, where features were compared, or the one that is read best."""
    found = inspection.discoveries if inspection.compared is not None else []
    return max(found, key=lambda one: one.margin).best[0].latent if found else inspection.reading_order[0]


def write_csv(folder: str, paths: Iterable[str], inspections: Sequence[Inspection]) -> None:
    """The tables of all SAEs: each row begins with the file and its layer."""
    from jaxsae.features.tables import TABLES, tables_of

    rows: dict[str, list[Sequence[Any]]] = {name: [] for name in TABLES}
    for path, inspection in zip(paths, inspections, strict=True):
        for name, found in tables_of(inspection).items():
            rows[name] += [(path, inspection.layer, *row) for row in found]
    tables = {name: csv_tables.Table(("sae", "layer", *TABLES[name]._fields), rows[name]) for name in TABLES}
    csv_tables.write(folder, tables)


def draw(inspection: Inspection, path: str, latents: Sequence[int]) -> Path:
    """A picture beside the SAE file: of the latents given, else of the strongest."""
    from jaxsae.features.plots import latents_plot
    from jaxsae.files import atomic_path

    picture = Path(path).with_name(f"{Path(path).stem}_histogram.png")
    title = f"{Path(path).name}, layer {inspection.layer}"
    with atomic_path(picture) as unfinished:
        chosen = latents or inspection.strongest_latents(12)
        latents_plot(unfinished, title, inspection.statistics, chosen, inspection.samples.tokenizer.unit)
    print(f"wrote    {picture}")
    return picture


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    saes.add_files(parser)
    saes.add_corpus(parser)
    parser.add_argument("--histogram", action="store_true", help="a picture of how strongly features fire")
    parser.add_argument("--feature", type=int, nargs="+", default=[], metavar="N", help="everything about a feature")
    parser.add_text("--pattern", metavar="STR", help="features that fire on this spelling and not elsewhere")
    parser.add_text("--text", metavar="STR", help="which features fire on this text, character by character")
    parser.add_argument(
        "--concepts", nargs="?", const="", metavar="FILE", help="what tells damage, languages, endings, ...; or yours"
    )
    saes.add_settings(parser, "what is restored without a feature", "what is restored with it set")
    parser.add_output("--html", "all of this as one page to read")
    parser.add_output("--json", "also write the figures; - is standard output")
    csv_tables.add_flag(parser, "features, concepts and discoveries")
    arguments.add_other_model(parser)
    arguments.add_device(parser)
