"""What `jaxsae compare` prints: the figures of a comparison as lines and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxsae.cli import terminal

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Sequence

    from jaxsae.features.comparison import Comparison, ConceptChange, Lone, Pair, Side

SHOWN = 10
"""Rows of a table of features; the files have all."""


def show(found: Comparison, names: Sequence[str], unit: str) -> None:
    """Both SAEs, what they have in common and what not; `names`: of the two, `unit`: what a token is called."""
    for word, name, side in zip(("first", "second"), names, (found.first, found.second), strict=True):
        line = f"{word:<8} {name}: layer {side.layer}, {side.d_sae:,} features; {side.l0:.1f} fire on a {unit}, "
        line += f"{side.fire:,} fire on this text, {side.named:,} of them are named by their captions"
        terminal.print_wrapped(line, indent=9)
    alike = f"in both  {_paired(found.first)} of the first and {_paired(found.second)} of the second are alike"
    terminal.print_wrapped(f"{alike}; {sum(pair.mutual for pair in found.matched):,} pairs are mutual", indent=9)
    for word, of, side in (("gone", "first", found.first), ("new", "second", found.second)):
        terminal.print_wrapped(
            f"{word:<8} {side.alone:,} of the {of} alone, {side.named_alone:,} of them named", indent=9
        )
    if found.same_sae:
        print("note     this is one SAE on two models: features are paired by firing alone")
    _show_pairs(found.matched)
    _show_lone("Gone: of the first alone", found.gone, "second")
    _show_lone("New: of the second alone", found.new, "first")
    _show_concepts(found.concepts)


def _paired(side: Side) -> str:
    return f"{side.paired:,} ({side.by_firing:,} by firing, {side.paired - side.by_firing:,} by direction alone)"


def _titled(title: str, count: int) -> str:
    return f"{title} ({count:,}{f', the first {SHOWN}' if count > SHOWN else ''})"


def _show_pairs(pairs: Sequence[Pair]) -> None:
    columns = ("first", "second", "Jaccard", "cosine", "by", "fires on", "then on", "caption", "then")
    rows = []
    for one in pairs[:SHOWN]:
        figures = f"{one.jaccard:.2f}", _figure(one.cosine), one.by, f"{one.first_rate:.2%}", f"{one.second_rate:.2%}"
        same = one.first_caption == one.second_caption
        rows.append((one.first, one.second, *figures, one.first_caption, "the same" if same else one.second_caption))
    if rows:
        terminal.print_table(_titled("In both", len(pairs)), columns, rows, key=2)


def _show_lone(title: str, latents: Sequence[Lone], other: str) -> None:
    columns = ("feature", "fires on", f"most alike of the {other}", "Jaccard", "nearest row", "cosine", "caption")
    rows = []
    for one in latents[:SHOWN]:
        nearest = ["-" if number is None else str(number) for number in (one.by_firing, one.by_direction)]
        figures = nearest[0], f"{one.jaccard:.2f}", nearest[1], _figure(one.cosine)
        rows.append((one.feature, f"{one.rate:.2%}", *figures, one.caption))
    if rows:
        terminal.print_table(_titled(title, len(latents)), columns, rows)


def _show_concepts(changes: Sequence[ConceptChange]) -> None:
    columns = ("concept", "n", "first", "run", "95 %", "second", "then", "then 95 %", "difference")
    rows = []
    for one in changes:
        first = one.first, f"{one.first_run:.2f}", f"{one.first_low:.2f}-{one.first_high:.2f}"
        second = one.second, f"{one.second_run:.2f}", f"{one.second_low:.2f}-{one.second_high:.2f}"
        difference = f"{'*' if one.clear else ''}{one.difference:+.2f}"
        rows.append((one.name, f"{one.instances:,}", *first, *second, difference))
    terminal.print_table("The best feature of each for a concept, chosen on texts of even number", columns, rows)
    terminal.print_wrapped(
        "run: F1 of the precision of characters and the recall of the n instances, on texts of odd number. *: the "
        "intervals lie apart. then: of the second."
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
