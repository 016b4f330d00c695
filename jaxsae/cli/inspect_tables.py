"""What `jaxsae inspect` prints: the figures of an inspection as tables and lines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from jaxsae.cli import terminal

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Callable, Sequence

    from jaxsae.cli.saes import TrainingText
    from jaxsae.features.causal import CausalEffect
    from jaxsae.features.detection import DetectionScore
    from jaxsae.features.feature_summary import Context, FeatureSummary
    from jaxsae.features.inspection import Inspection
    from jaxsae.features.lookups import CharacterLatents, PatternDetectors


SHOWN = 10
"""Features of the overview's last table, each of another caption."""


def show_overview(
    path: str, inspection: Inspection, trained: TrainingText, others: Sequence[str] = (), *, tables: bool = True
) -> None:
    """The whole SAE.

    Args:
      trained: what it was trained on.
      others: the files of other seeds that it is compared with.
      tables: how often features fire, and those that are read best; not where something else was asked.
    """
    from jaxsae.features.pair_counts import MOST_PAIRS
    from jaxsae.features.stability import each_other_seed
    from jaxsae.sae.consistency import pw_mcc_in_words

    figures, statistics = inspection.as_json(), inspection.statistics
    unit = inspection.samples.tokenizer.unit
    terminal.print_wrapped(
        f"sae      {path}: layer {inspection.layer}, {inspection.sae.architecture}, {figures['d_sae']:,} features; "
        f"{figures['l0']:.1f} fire on a {unit}, {figures['dead']:.1%} never, {figures['dense']:.1%} on more than a "
        f"tenth; {trained}",
        indent=9,
    )
    counts, edges = figures["density_histogram"], figures["density_edges"]
    full, most = terminal.ramp()[-1], max(*counts, 1)
    bars: list[Sequence[object]] = [
        (f"up to {100 * edge:g}%", f"{count:,}", full * math.ceil(30 * count / most))
        for edge, count in zip(edges[1:], counts, strict=True)
    ]
    if tables:
        terminal.print_table("Features by firing rate", ("a feature fires on", "features", ""), bars)
    named, stability = sum(one.clear for one in inspection.captions), inspection.stability
    line = f"captions {named:,} features have one that predicts where they fire on held-out texts (F1 of 0.5 or more)"
    terminal.print_wrapped(line, indent=9)
    if stability is not None:
        fires = statistics.fired > 0
        again = int((fires & (stability.found == 1)).sum())
        line = f"seeds    beside {', '.join(others)}: of {int(fires.sum()):,} features that fire, {again:,} are found again in "
        line += f"{each_other_seed(stability.seeds)} ({pw_mcc_in_words(stability.pw_mcc)})"
        terminal.print_wrapped(line, indent=9)
    if statistics.cofiring.left_out:
        line = f"together left out: more than {MOST_PAIRS:,} pairs of features fire together"
        terminal.print_wrapped(line, indent=9)
    if say_dense(inspection) or not tables:
        return
    rows: list[Sequence[object]] = []
    told: set[str] = set()  # many latents may fire on spaces: one is enough here
    for latent in inspection.reading_order:
        words = str(inspection.captions[latent]).partition(" (")[0]  # without their figures
        if words in told:
            continue
        told.add(words)
        sizes = f"{statistics.rate[latent]:.2%}", f"{statistics.mean[latent]:.4g}", f"{statistics.peak[latent]:.4g}"
        seeds = () if stability is None else (f"{stability.found[latent]:.0%}",)
        rows.append((latent, inspection.captions[latent], *seeds, *sizes))
        if len(rows) == SHOWN:
            break
    columns = ("feature", "caption", *(() if stability is None else ("in other seeds",)), "fires on", "mean", "max")
    terminal.print_table("Best predicted by their captions", columns, rows)


def say_dense(inspection: Inspection) -> bool:
    """Say of an SAE whose features cannot be read that it is one; whether it is."""
    l0, named = inspection.statistics.l0, any(one.clear for one in inspection.captions)
    if named or l0 <= inspection.sae.d_sae / 10:
        return False
    line = f"note     {l0:.1f} of {inspection.sae.d_sae:,} features fire on a row: too dense to be read, so that what is said "
    line += "of one says little. --sae names another SAE; train.py --recipe reading makes one for that"
    terminal.print_wrapped(line, indent=9)
    return True


def score_cells(score: DetectionScore, names: Sequence[str]) -> list[str]:
    """Figures of a score as cells of a table."""
    return [f"{getattr(score, name):.2f}" for name in names]


def figure(value: float | None) -> str:
    """A score; a dash where there is none."""
    return "-" if value is None else f"{value:.2f}"


def show_concepts(inspection: Inspection) -> None:
    """Concept by concept the best latent and what no SAE made; then the concepts that cannot be scored, and why."""
    from jaxsae.features.baselines import MOST_DIRECTIONS
    from jaxsae.text.pieces import in_units, of_tablets

    columns = ["concept", "of the text", "n", "best", "run", "95 %", "random", "windows", "neurons"]
    columns += ["precision", "recall", "char", "word", "AUROC", "caption"]
    rows = []
    for one in inspection.concept_scores:
        if one.concept.about == "spelling":
            continue
        best = one.best[0]
        row: list[object] = [one.name, f"{one.share:.2%}", f"{one.instances:,}"]
        row += [f"{'*' if one.clear else ''}{best.latent}", f"{best.run:.2f}", f"{best.low:.2f}-{best.high:.2f}"]
        row += map(figure, (one.random, one.windows, one.neurons))
        row += score_cells(best, ["precision", "recall", "character", "word", "auroc"])
        rows.append([*row, inspection.captions[best.latent]])
    terminal.print_table("Chosen on texts of even number, scored on those of odd number", columns, rows)
    for concept, reason in inspection.left_out:
        if concept.about != "spelling":
            unit = inspection.samples.tokenizer.unit
            terminal.print_wrapped(f"left out  {concept.name}: {in_units(reason, unit)}", indent=10)
    few = inspection.sae.d_sae <= MOST_DIRECTIONS
    directions = "as many random directions as features" if few else f"{MOST_DIRECTIONS:,} random directions"
    what = "run: F1 of the precision of characters and the recall of instances, of which there are n. random, windows, "
    what += f"neurons: the best of {directions}, of windows of up to three characters, of feed-forward "
    what += "neurons, chosen and scored alike. *: clearly better than random directions."
    if of_tablets(inspection.samples.tokenizer):
        what += (
            " Concepts are spellings, not a scholar's labels, but for damage, which the data knows, and those with =, "
        )
        what += "known of the demo or said by the dataset's columns."
    terminal.print_wrapped(in_units(what, inspection.samples.tokenizer.unit))


def _verdict(found: PatternDetectors) -> str:
    """What is to be said of a pattern: of the feature that is best where features are chosen, on the other half."""
    reading = max(found.readings, key=lambda one: one.chosen[one.best[0].latent])
    best = reading.best[0]
    few = "" if reading.enough else f"; {reading.instances:,} held-out occurrences are few"
    figures = f"{best.run:.2f}, {best.low:.2f} to {best.high:.2f}"
    if reading.ahead:
        return f"feature {best.latent} finds it ({figures}), better than what is no feature ({reading.beside:.2f}){few}"
    return (
        f"no feature is clearly better than what is none ({reading.beside:.2f}); best is {best.latent} ({figures}){few}"
    )


def show_pattern(found: PatternDetectors, inspection: Inspection) -> None:
    """How often the pattern occurs, and the latents that find it or one of its characters best."""
    n = len(inspection.samples)
    print(f"pattern  {found.pattern!r}: {found.occurrences} times in {found.texts} of {n} texts")
    if not found.detectors:
        print("         too few to choose features on half of the texts and score them on the other half")
        return
    columns = ("feature", "on", "n", "run", "95 %", "random", "windows", "precision", "recall", "fires on", "caption")
    rows: list[Sequence[object]] = []
    for one in found.detectors:
        score = one.score
        figures = [f"{score.run:.2f}", f"{score.low:.2f}-{score.high:.2f}", *map(figure, (one.random, one.windows))]
        figures += score_cells(score, ["precision", "recall"])
        rate = f"{inspection.statistics.rate[score.latent]:.2%} of all"
        rows.append((score.latent, one.on, f"{one.instances:,}", *figures, rate, one.caption))
    terminal.print_table("On held-out texts", columns, rows, key=2)
    print(f"verdict  {_verdict(found)}")
    terminal.print_wrapped(
        "run: F1 of the precision of characters and the recall of the n occurrences; chosen on texts of even number, "
        "scored on those of odd number, as are the best random direction and window of up to three characters"
    )


LEAD = 34
"""Characters before the place of a context, with brackets."""


def marked(context: Context) -> tuple[str, str, int]:
    """(the text, marks below it that show how strongly the latent fires on each character, where its place is).

    What is damaged stands in brackets, as editions have it, with nothing below these.
    """
    top, ramp = max(context.values) or 1, terminal.ramp()
    letters = [[terminal.shown(character, "?") for character in piece] for piece in context.text]  # marks stand below
    marks = [ramp[round(8 * v / top) or 1] if v > 0 else " " for v in context.values]
    text, below, at, hidden = "", "", 0, set(context.damaged)
    for i, (mark, piece) in enumerate(zip(marks, letters, strict=True)):
        opens, closes = "[" * (i in hidden and i - 1 not in hidden), "]" * (i in hidden and i + 1 not in hidden)
        at = len(text + opens) if i == context.at else at
        text += opens + "".join(piece) + closes
        below += " " * len(opens) + mark * len(piece) + " " * len(closes)
    return text, below, at


def show_feature(summary: FeatureSummary, unit: str) -> None:
    """One latent; `unit`: what a token is called."""
    from jaxsae.features.stability import found_again

    print(f"\nfeature {summary.feature}: {summary.caption}")
    print(
        f"  fires on {summary.fired:,} {unit}s ({summary.firing_rate:.3%}), mean {summary.mean:.4g}, largest "
        f"{summary.max:.4g}"
    )
    if found := summary.found_again:
        told = found_again(found.share, found.seeds)
        print(f"  {told} (cosine of the most alike decoder row {found.cosine:.2f}, Jaccard {found.jaccard:.2f})")
    if not summary.fired:
        print("  it never fires on this text")
        return
    heights, ramp = summary.bin_densities, terminal.ramp()
    bars = "".join(ramp[max(1, round(8 * height / max(heights)))] if height else " " for height in heights)
    print(f"  values      {summary.bin_edges[0]:.3g} {bars} {summary.max:.3g}  ({unit}s per octave, eight bars each)")
    if any(context.damaged for context in summary.contexts):
        print("  [ ]: damaged, the model does not see it")
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
    print_row("finds", summary.concepts, lambda r: f"{r.name} {r.run:.2f}")
    print_row("fires with", summary.fires_with, lambda r: f"{r.feature} ({r.share:.0%}, {r.lift:.1f} x chance)")
    print_row("nearest", summary.nearest, lambda r: f"{r.feature} ({r.cosine:.2f})")


def show_context(context: Context) -> None:
    """Two lines: the text around the place, and below it how strongly each character fires."""
    text, marks, at = marked(context)
    left, right = (terminal.shown("…", "~") if cut else " " for cut in context.cut)
    place = f"{context.sample:>5}:{context.position:<4}"
    indent = " " * max(0, LEAD - at)
    print(f"    {place} {indent}{left}{text}{right}  {max(context.values):.3g}")
    print(f"    {' ' * len(place)} {indent} {marks}".rstrip())


def show_text(characters: Sequence[CharacterLatents], unit: str) -> None:
    """Token by token; `unit`: what these are called."""
    rows: list[Sequence[object]] = []
    for character, l0, strongest in characters:
        visible = character if character.strip() else repr(character)
        rows.append((visible, l0, "  ".join(f"{latent} ({value:.3g})" for latent, value in strongest)))
    terminal.print_table("On the text given", (unit, "fire", "strongest features (value)"), rows)


def show_causal(effects: Sequence[CausalEffect], scored: str) -> None:
    """What setting latents does; `scored`: what is predicted."""
    to = terminal.shown("→", "->")
    columns = ("feature", "set to", scored, "n", "top-1", "p(true)", "KL", "guesses changed")
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
