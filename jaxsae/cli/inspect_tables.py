"""What `jaxsae inspect` prints: the figures of an inspection as tables and lines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from jaxsae.cli import terminal

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Callable, Sequence

    from jaxsae.features.causal import CausalEffect
    from jaxsae.features.detection import DetectionScore
    from jaxsae.features.feature_summary import Context, FeatureSummary
    from jaxsae.features.inspection import CharacterLatents, Inspection, PatternDetectors


def show_overview(path: str, inspection: Inspection) -> None:
    """The whole SAE."""
    figures, statistics = inspection.as_json(), inspection.statistics
    terminal.print_wrapped(
        f"sae      {path}: layer {inspection.layer}, {inspection.sae.architecture}, {figures['d_sae']:,} features; "
        f"{figures['l0']:.1f} fire on a character, {figures['dead']:.1%} never, {figures['dense']:.1%} on more than a "
        "tenth",
        indent=9,
    )
    counts, edges = figures["density_histogram"], figures["density_edges"]
    full, most = terminal.ramp()[-1], max(*counts, 1)
    bars: list[Sequence[object]] = [
        (f"up to {100 * edge:g}%", f"{count:,}", full * math.ceil(30 * count / most))
        for edge, count in zip(edges[1:], counts, strict=True)
    ]
    terminal.print_table("Features by firing rate", ("a feature fires on", "features", ""), bars)
    rows: list[Sequence[object]] = [
        (
            latent,
            f"{statistics.rate[latent]:.2%}",
            f"{statistics.mean[latent]:.4g}",
            f"{statistics.peak[latent]:.4g}",
        )
        for latent in inspection.strongest_latents(10)
    ]
    title = "Largest mean among those that fire on at most a tenth"
    terminal.print_table(title, ("feature", "fires on", "mean", "max"), rows)


def score_cells(score: DetectionScore, names: Sequence[str], digits: int) -> list[str]:
    """Figures of a score as cells of a table."""
    return [f"{getattr(score, name):.{digits}f}" for name in names]


def show_concepts(inspection: Inspection) -> None:
    """Concept by concept the best latent and chance; then the concepts that cannot be scored, and why."""
    columns = ["concept", "of the text", "best by AUROC", "AUROC", "chance AUROC"]
    columns += ["best by F1", "F1", "chance F1", "precision", "recall"]
    rows = []
    for one in inspection.concept_scores:
        if one.concept.about == "spelling":
            continue
        by_auroc, by_f1 = one.best[0], one.best_f1[0]
        row: list[object] = [one.name, f"{one.share:.2%}"]
        row += [by_auroc.latent, *score_cells(by_auroc, ["auroc"], 3), f"{one.chance_auroc:.3f}"]
        row += [f"{'*' if one.clear else ''}{by_f1.latent}", *score_cells(by_f1, ["f1"], 2), f"{one.chance_f1:.2f}"]
        rows.append([*row, *score_cells(by_f1, ["precision", "recall"], 2)])
    terminal.print_table("Chosen on texts of even number, scored on those of odd number", columns, rows)
    for concept, reason in inspection.left_out:
        if concept.about != "spelling":
            terminal.print_wrapped(f"left out  {concept.name}: {reason}", indent=10)
    terminal.print_wrapped(
        "chance: the best of 256 random directions, chosen and scored alike. *: clearly better by F1. Concepts are "
        "spellings, not a scholar's labels, but for damage, which the data knows, and those with =, known of the demo."
    )


def show_pattern(found: PatternDetectors, inspection: Inspection) -> None:
    """How often the pattern occurs, and the latents that detect it or one of its characters best."""
    n = len(inspection.samples)
    print(f"pattern  {found.pattern!r}: {found.occurrences} times in {found.texts} of {n} texts")
    if not found.detectors:
        print("         too few to choose features on half of the texts and score them on the other half")
        return
    columns = ("feature", "on", "AUROC", "chance", "precision", "recall", "F1", "fires on")
    rows: list[Sequence[object]] = []
    for score, on, chance in found.detectors:
        figures = [*score_cells(score, ["auroc"], 3), f"{chance:.3f}"]
        figures += score_cells(score, ["precision", "recall", "f1"], 3)
        rows.append((score.latent, on, *figures, f"{inspection.statistics.rate[score.latent]:.2%} of all"))
    terminal.print_table("On held-out texts", columns, rows, key=2)
    terminal.print_wrapped(
        "chosen on texts of even number, scored on those of odd number; chance: the best of 256 random directions"
    )


def marked(context: Context) -> tuple[str, str]:
    """(the text, marks that stand below it and show how strongly the latent fires on each character)."""
    top, ramp = max(context.values) or 1, terminal.ramp()
    return (
        "".join(terminal.shown(character, "?") for character in context.text),  # one for one: marks stand below
        "".join(ramp[round(8 * v / top) or 1] if v > 0 else " " for v in context.values),
    )


def show_feature(summary: FeatureSummary) -> None:
    """One latent."""
    print(
        f"\nfeature {summary.feature}: fires on {summary.fired:,} characters ({summary.firing_rate:.3%}), "
        f"mean {summary.mean:.4g}, largest {summary.max:.4g}"
    )
    if not summary.fired:
        print("  it never fires on this text")
        return
    counts, ramp = summary.bin_counts, terminal.ramp()
    bars = "".join(ramp[max(1, round(8 * count / max(counts)))] if count else " " for count in counts)
    print(f"  values      {summary.bin_edges[0]:.3g} {bars} {summary.max:.3g}  (eight bars an octave)")
    level = None
    for context in summary.contexts:
        if context.level != level:
            level = context.level
            print(f"  {level}")
        show_context(context)

    def print_row(title: str, rows: Sequence[Any], style: Callable[[Any], str]) -> None:
        if rows:
            terminal.print_wrapped(f"  {title:<12}" + ", ".join(style(row) for row in rows), indent=14)

    print_row("fires on", summary.by_character, lambda r: f"{r.name!r} {r.of_firings:.0%} (on {r.rate:.1%} of them)")
    print_row("in words", summary.by_place, lambda r: f"{r.name} {r.of_firings:.0%}")
    print_row("promotes", summary.promotes, lambda r: f"{r.character!r} {r.effect:+.2f}")
    print_row("suppresses", summary.suppresses, lambda r: f"{r.character!r} {r.effect:+.2f}")
    print_row("concepts", summary.concepts, lambda r: f"{r.name} {r.auroc:.3f}")
    print_row("fires with", summary.fires_with, lambda r: f"{r.feature} ({r.share:.0%}, {r.lift:.1f} x chance)")
    print_row("nearest", summary.nearest, lambda r: f"{r.feature} ({r.cosine:.2f})")


def show_context(context: Context) -> None:
    """Two lines: the text around the place, and below it how strongly each character fires."""
    text, marks = marked(context)
    left, right = (terminal.shown("…", "~") if cut else " " for cut in context.cut)
    place = f"{context.sample:>5}:{context.position:<4}"
    indent = " " * (30 - context.at)
    print(f"    {place} {indent}{left}{text}{right}  {max(context.values):.3g}")
    print(f"    {' ' * len(place)} {indent} {marks}".rstrip())


def show_text(characters: Sequence[CharacterLatents]) -> None:
    """Character by character."""
    rows: list[Sequence[object]] = []
    for character, l0, strongest in characters:
        visible = character if character.strip() else repr(character)
        rows.append((visible, l0, "  ".join(f"{latent} ({value:.3g})" for latent, value in strongest)))
    terminal.print_table("On the text given", ("character", "fire", "strongest features (value)"), rows)


def show_causal(effects: Sequence[CausalEffect]) -> None:
    """What setting latents does."""
    to = terminal.shown("→", "->")
    columns = ("feature", "set to", "damaged characters", "n", "top-1", "p(true)", "KL", "guesses changed")
    rows: list[Sequence[object]] = []
    for effect in effects:
        for where, change in (("where it fires", effect.where_it_fires), ("elsewhere", effect.elsewhere)):
            figures = (
                f"{change.top1_before:.1%} {to} {change.top1_after:.1%}",
                f"{change.probability_before:.4f} {to} {change.probability_after:.4f}",
                f"{change.kl:.4f}",
                change.guesses_changed,
            )
            none = ("-",) * len(figures)  # where there are no characters there is nothing to measure
            first = (effect.feature, f"{effect.value:g}", where, f"{change.positions:,}")
            rows.append((*first, *(figures if change.positions else none)))
    terminal.print_table("Restorations with a feature set, the rest of the stream kept", columns, rows, key=3)
    print("guesses that changed most")
    for effect in effects:
        swaps = ", ".join(f"{before!r} {to} {after!r} {n} x" for before, after, n in effect.swaps)
        set_to = f"{effect.feature} set to {effect.value:g}"
        terminal.print_wrapped(f"  {set_to:<20}  {swaps or 'none changed'}", indent=24)
