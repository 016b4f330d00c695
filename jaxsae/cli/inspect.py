"""What an SAE's features mean: how often they fire, where, on what, and what they do to the restorations.

Without further flags: the whole SAE at a glance. Features are numbered from 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, terminal
from jaxsae.config import DEMO_TEXT, DataConfig
from jaxsae.errors import listed, require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Sequence

    from jaxsae.features.concepts import Concept
    from jaxsae.features.feature_summary import Inspection
    from jaxsae.text.samples import Samples

MAX_PATTERN = 40


def main(args: argparse.Namespace) -> None:
    """One pass over the text, then what was asked for."""
    data = inputs.data_config(args, max_samples=100)
    for flag in ("text", "pattern"):
        require(getattr(args, flag) != "", f"--{flag} must have at least one character, got none")
    runtime.lean_memory()
    runtime.select_device(args.device)
    from convert import check_model, layer_of, load_sae, read_checkpoint
    from jaxsae.activations import store
    from jaxsae.activations.extraction import stored, stream
    from jaxsae.features import statistics
    from jaxsae.features.concepts import marks
    from jaxsae.features.feature_summary import Inspection, overview
    from jaxsae.files import atomic_path, write_json
    from jaxsae.text.samples import kept_positions

    files = find_files(args)
    loaded = {path: load_sae(path) for path in files}
    layers = [layer_of(path, loaded[path], given) for path, given in files.items()]
    checkpoint = read_checkpoint(data.checkpoint)
    for (path, file), layer in zip(loaded.items(), layers, strict=True):
        checkpoint.config.check_layer(layer)
        width, d_in = checkpoint.config.d_model, file.config.d_in
        require(d_in == width, f"{path}: d_in must be {width} (the model's d_model), got {d_in}")
        check_model(path, file, checkpoint.identity, checkpoint.sha256, args.other_model)
    several = len(files) > 1
    alone = [
        flag for flag in ("feature", "pattern", "text", "ablate", "clamp") if getattr(args, flag) not in (None, [])
    ]
    require(
        not several or not alone, f"--{(alone or ['feature'])[0]} takes one SAE, got {len(files)}; give one --layer"
    )
    for (path, file), layer in zip(loaded.items(), layers, strict=True):
        for latent in [*args.feature, *args.ablate, *(latent for latent, _ in args.clamp)]:
            most = file.config.d_sae - 1
            ok = 0 <= latent <= most
            require(
                ok, f"feature must be in 0..{most}, got {latent}; {path}, of layer {layer}, has {most + 1} features"
            )
    if args.text:
        check_text(args.text, checkpoint.config.vocab_size, checkpoint.config.max_position)
    needed = sorted(set(layers))
    rows = inputs.rows(args, data, needed[0], data.max_samples).only(needed) if inputs.is_rows(data.dataset) else None
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
    of_text = stored(rows.layers, samples, data.padding) if rows else stream(model, samples, needed, data.padding)
    chosen = concepts_of(args, data, samples)
    subjects = [statistics.LayerSAE(layer, file.sae) for layer, file in zip(layers, loaded.values(), strict=True)]
    n = int(kept_positions(samples, data.padding).sum())
    with terminal.Progress("read    ", n, "characters", quiet=False).shown() as progress:
        surveyed = statistics.collect_statistics(
            of_text, samples, subjects, marks(chosen, samples) if chosen else None, on_rows=progress.advance
        )
    inspections = [
        Inspection(model, samples, subject, one, chosen)
        for subject, one in zip(subjects, surveyed.surveys, strict=True)
    ]

    what = f"{'/'.join(Path(data.dataset).parts[-2:])}, {data.split} split, padding {data.padding}"
    print(f"text     {what}: {len(samples):,} samples, {inspections[0].survey.rows:,} characters")
    reports: list[dict[str, Any]] = []
    for path, file, of in zip(files, loaded.values(), inspections, strict=True):
        report = {"sae": path, "layer": of.subject.layer, "architecture": file.config.architecture, "split": data.split}
        report |= {"samples": len(samples), "padding": data.padding} | overview(of.survey)
        show_overview(report)
        report |= answer(args, of, path)
        reports.append(report)
    if args.html:
        from jaxsae.features import report as page

        with atomic_path(args.html) as aside:
            aside.write_text(page.build(inspections, list(files), surveyed.between, what), encoding="utf-8")
        print(f"wrote    {args.html} ({Path(args.html).stat().st_size / 1e6:.1f} MB); open it in a browser")
    if args.json:
        write_json(args.json, reports[0] if len(reports) == 1 else reports, indent=1)


def check_text(letters: str, vocab_size: int, max_position: int) -> None:
    """Raise `InputError` where the model cannot read a text."""
    n = len(letters)
    require(
        n <= max_position, f"--text must have at most {max_position} characters (the model's max_position), got {n}"
    )
    outside = [f"{letter!r} at {at}" for at, letter in enumerate(letters) if ord(letter) >= vocab_size]
    most = f"U+{vocab_size - 1:04X}"
    require(not outside, f"--text must have characters of the model's vocabulary (up to {most}), got {listed(outside)}")


def find_files(args: argparse.Namespace) -> dict[str, int | None]:
    """SAE file -> the layer that was given for it."""
    parts = args.layer.split(",") if args.layer else []
    require(all(p.isdigit() for p in parts), f"--layer must be numbers parted by commas, got {args.layer}")
    given = [int(part) for part in parts]
    if args.sae:
        require(
            len(given) in (0, 1, len(args.sae)), f"--layer must name one layer for each --sae, got {len(given)} layers"
        )
        require(len(set(args.sae)) == len(args.sae), "--sae must name different files, got one twice")
        layers: list[int | None] = [*given] if len(given) == len(args.sae) else [*given, *[None] * len(args.sae)]
        return dict(zip(args.sae, layers, strict=False))
    return {str(Path(args.output) / f"sae_layer{layer}_optimized.pt"): layer for layer in given or [8]}


def concepts_of(args: argparse.Namespace, data: DataConfig, samples: Samples) -> Sequence[Concept]:
    """What latents are compared with: a pattern's characters, or the concepts of a file, and what the demo knows."""
    from jaxsae.demo import dataset
    from jaxsae.features import concepts

    spelled: list[Concept] = []
    if args.pattern:
        n = len(args.pattern)
        require(n <= MAX_PATTERN, f"pattern must have at most {MAX_PATTERN} characters, got {n}; give a shorter one")
        spelled = concepts.of_spelling(args.pattern)
    if args.concepts is None and not args.html:
        return spelled
    chosen = spelled + concepts.load_concepts(args.concepts or concepts.BUILT_IN)
    if inputs.is_demo(data.dataset, "dataset"):
        n = int((samples.mask != 0).sum())
        truth = dataset.load_truth(DEMO_TEXT, data.split).properties()
        chosen += concepts.known({name: has[:n] for name, has in truth.items()})
    return chosen


def answer(args: argparse.Namespace, of: Inspection, path: str) -> dict[str, Any]:
    """What the flags ask of one SAE: printed, and as figures."""
    from jaxsae.features import detection, feature_summary
    from jaxsae.files import atomic_path

    out: dict[str, Any] = {}
    table = feature_summary.concept_table(of) if of.concepts else []
    left_out = feature_summary.left_out(of)
    if args.pattern:
        readings = [row for row in table if row["about"] == "spelling"]
        out["pattern"] = {"pattern": args.pattern, "readings": readings} | show_pattern(of, args.pattern, readings)
    if args.concepts is not None:
        others = [row for row in left_out if row["about"] != "spelling"]
        show_concepts([row for row in table if row["about"] != "spelling"], others)
    if of.concepts:
        out["concepts_left_out"] = [{key: row[key] for key in ("name", "reason")} for row in left_out]
    if table:
        out["concepts"] = [{key: value for key, value in row.items() if key != "aurocs"} for row in table]
    if args.feature:
        written, effect = of.written(), of.writes()
        near, cosines = detection.nearest(of.subject.sae)
        out["feature"] = []
        for latent in args.feature:
            one = feature_summary.feature(of, latent, table) | feature_summary.promoted_and_suppressed(
                written, effect[latent]
            )
            one["nearest"] = [
                {"feature": int(i), "cosine": float(c)} for i, c in zip(near[latent], cosines[latent], strict=True)
            ]
            show_feature(one)
            out["feature"].append(one)
    if args.text is not None:
        out["text"] = feature_summary.latents_on_text(of, args.text)
        show_text(out["text"])
    settings = [(latent, 0.0) for latent in args.ablate] + args.clamp
    if settings:
        out["causal"] = feature_summary.causal_effects(of, settings)
        show_causal(out["causal"])
    if args.histogram:
        from jaxsae.features.figures import latents_figure

        picture = Path(path).with_name(f"{Path(path).stem}_histogram.png")
        chosen = args.feature or [row["feature"] for row in strongest(feature_summary.overview(of.survey), 12)]
        with atomic_path(picture) as aside:
            latents_figure(aside, f"{Path(path).name}, layer {of.subject.layer}", of.survey, chosen)
        print(f"wrote    {picture}")
        out["histogram"] = str(picture)
    if "pattern" in out:
        for row in out["pattern"]["readings"]:
            row.pop("aurocs")
    return out


def strongest(report: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The latents with the largest mean among those that are neither dead nor dense; of all, where there are none."""
    columns = report["features"]
    numbered = zip(range(report["d_sae"]), *columns.values(), strict=True)
    rows = [dict(zip(("feature", *columns), row, strict=True)) for row in numbered]
    sparse = [row for row in rows if 0 < row["firing_rate"] <= 0.1] or rows
    return sorted(sparse, key=lambda row: -row["mean"])[:count]


def show_overview(report: dict[str, Any]) -> None:
    """The whole SAE."""
    terminal.print_wrapped(
        f"sae      {report['sae']}: layer {report['layer']}, {report['architecture']}, {report['d_sae']:,} features; "
        f"{report['l0']:.1f} fire on a character, {report['dead']:.1%} never, {report['dense']:.1%} on more than a tenth",
        indent=9,
    )
    counts, edges = report["density_histogram"], report["density_edges"]
    full, most = terminal.ramp()[-1], max(*counts, 1)
    rows: list[Sequence[object]] = [
        (f"up to {100 * edge:g}%", f"{count:,}", full * math.ceil(30 * count / most))
        for edge, count in zip(edges[1:], counts, strict=True)
    ]
    terminal.print_table("Features by firing rate", ("a feature fires on", "features", ""), rows)
    rows = [
        (row["feature"], f"{row['firing_rate']:.2%}", f"{row['mean']:.4g}", f"{row['max']:.4g}")
        for row in strongest(report, 10)
    ]
    title = "Largest mean among those that fire on at most a tenth"
    terminal.print_table(title, ("feature", "fires on", "mean", "max"), rows)


def show_concepts(table: Sequence[dict[str, Any]], left_out: Sequence[dict[str, str]]) -> None:
    """Concept by concept: the best latent and chance; then those of which nothing can be told, and why."""
    columns = ["concept", "of the text", "best by AUROC", "AUROC", "chance AUROC"]
    columns += ["best by F1", "F1", "chance F1", "precision", "recall"]
    rows = []
    for row in table:
        auroc, f1 = row["best"][0], row["best_f1"][0]
        rows.append((
            row["name"], f"{row['share']:.2%}", auroc["feature"], f"{auroc['auroc']:.3f}",
            f"{row['chance']['auroc']:.3f}", f"{'*' if row['clear'] else ''}{f1['feature']}", f"{f1['f1']:.2f}",
            f"{row['chance']['f1']:.2f}", f"{f1['precision']:.2f}", f"{f1['recall']:.2f}",
        ))  # fmt: skip
    terminal.print_table("Chosen on texts of even number, scored on those of odd number", columns, rows)
    for concept in left_out:
        terminal.print_wrapped(f"left out  {concept['name']}: {concept['reason']}", indent=10)
    terminal.print_wrapped(
        "chance: the best of 256 random directions, chosen and scored alike. *: clearly better by F1. Concepts are "
        "spellings, not a scholar's labels, but for damage, which the data knows, and those with =, known of the demo."
    )


def show_pattern(of: Inspection, pattern: str, table: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The latents that tell the pattern's characters best, and some occurrences."""
    from jaxsae.features.concepts import true_text

    texts = [true_text(of.samples, i)[0] for i in range(len(of.samples))]
    n = sum(text.count(pattern) for text in texts)
    print(f"pattern  {pattern!r}: {n} times in {sum(pattern in text for text in texts)} of {len(texts)} texts")
    found: dict[int, dict[str, Any]] = {}
    for row in table:
        for told in row["best"]:
            if told["feature"] not in found or told["auroc"] > found[told["feature"]]["auroc"]:
                found[told["feature"]] = told | {"on": row["title"], "chance": row["chance"]["auroc"]}
    ranked = sorted(found.values(), key=lambda told: -told["auroc"])[:10]
    if not ranked:
        print("         too few to choose features on half of the texts and score them on the other half")
        return {"occurrences": n, "features": []}
    columns = ("feature", "on", "AUROC", "chance", "precision", "recall", "F1", "fires on")
    rows = []
    for told in ranked:
        figures = (f"{told[key]:.3f}" for key in ("auroc", "chance", "precision", "recall", "f1"))
        rows.append((told["feature"], told["on"], *figures, f"{of.survey.rate[told['feature']]:.2%} of all"))
    terminal.print_table("On held-out texts", columns, rows, key=2)
    terminal.print_wrapped(
        "chosen on texts of even number, scored on those of odd number; chance: the best of 256 random directions"
    )
    return {"occurrences": n, "features": ranked}


def marked(context: dict[str, Any]) -> tuple[str, str]:
    """(the text, below it how strongly each character fires)."""
    top, ramp = max(context["values"]) or 1, terminal.ramp()
    return (
        "".join(terminal.shown(character, "?") for character in context["text"]),  # one for one: marks stand below
        "".join(ramp[round(8 * v / top) or 1] if v > 0 else " " for v in context["values"]),
    )


def show_feature(one: dict[str, Any]) -> None:
    """One latent."""
    print(
        f"\nfeature {one['feature']}: fires on {one['fired']:,} characters ({one['firing_rate']:.3%}), "
        f"mean {one['mean']:.4g}, largest {one['max']:.4g}"
    )
    if not one["fired"]:
        print("  it never fires on this text")
        return
    counts, ramp = one["histogram"]["counts"], terminal.ramp()
    bars = "".join(ramp[max(1, round(8 * count / max(counts)))] if count else " " for count in counts)
    low = one["histogram"]["edges"][0]
    print(f"  values      {low:.3g} {bars} {one['max']:.3g}  (eight bars an octave)")
    level = None
    for context in one["contexts"]:
        if context["level"] != level:
            level = context["level"]
            print(f"  {level}")
        text, marks = marked(context)
        left, right = (terminal.shown("…", "~") if cut else " " for cut in context["cut"])
        place = f"{context['sample']:>5}:{context['position']:<4}"
        indent = " " * (30 - context["at"])
        print(f"    {place} {indent}{left}{text}{right}  {max(context['values']):.3g}")
        print(f"    {' ' * len(place)} {indent} {marks}".rstrip())

    def listed(title: str, rows: Sequence[dict[str, Any]], how: Any) -> None:
        if rows:
            terminal.print_wrapped(f"  {title:<12}" + ", ".join(how(row) for row in rows), indent=14)

    listed(
        "fires on", one["by_character"], lambda r: f"{r['name']!r} {r['of_firings']:.0%} (on {r['rate']:.1%} of them)"
    )
    listed("in words", one["by_place"], lambda r: f"{r['name']} {r['of_firings']:.0%}")
    listed("promotes", one["promotes"], lambda r: f"{r['character']!r} {r['effect']:+.2f}")
    listed("suppresses", one["suppresses"], lambda r: f"{r['character']!r} {r['effect']:+.2f}")
    listed("concepts", one["concepts"], lambda r: f"{r['name']} {r['auroc']:.3f}")
    listed("fires with", one["together"], lambda r: f"{r['feature']} ({r['share']:.0%}, {r['lift']:.1f} x chance)")
    listed("nearest", one["nearest"], lambda r: f"{r['feature']} ({r['cosine']:.2f})")


def show_text(rows: Sequence[dict[str, Any]]) -> None:
    """Character by character."""
    shown = []
    for row in rows:
        strong = "  ".join(f"{f['feature']} ({f['value']:.3g})" for f in row["features"])
        visible = row["character"] if row["character"].strip() else repr(row["character"])
        shown.append((visible, row["l0"], strong))
    terminal.print_table("On the text given", ("character", "fire", "strongest features (value)"), shown)


def show_causal(rows: Sequence[dict[str, Any]]) -> None:
    """What setting latents does."""
    to = terminal.shown("→", "->")
    columns = ("feature", "set to", "damaged characters", "n", "top-1", "p(true)", "KL", "guesses changed")
    shown = []
    for row in rows:
        for where in ("where it fires", "elsewhere"):
            r = row[where]
            figures = (
                f"{r['top1_before']:.1%} {to} {r['top1_after']:.1%}",
                f"{r['probability_before']:.4f} {to} {r['probability_after']:.4f}",
                f"{r['kl']:.4f}", r["guesses_changed"],
            )  # fmt: skip
            none = ("-",) * len(figures)  # of no characters there is nothing to tell
            first = (row["feature"], f"{row['value']:g}", where, f"{r['positions']:,}")
            shown.append((*first, *(figures if r["positions"] else none)))
    terminal.print_table("Restorations with a feature set, the rest of the stream kept", columns, shown, key=3)
    print("guesses that changed most")
    for row in rows:
        swaps = ", ".join(f"{a!r} {to} {b!r} {n} x" for a, b, n in row["swaps"])
        set_to = f"{row['feature']} set to {row['value']:g}"
        terminal.print_wrapped(f"  {set_to:<20}  {swaps or 'none changed'}", indent=24)


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
