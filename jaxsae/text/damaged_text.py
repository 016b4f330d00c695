"""A text as an editor writes it -> what the model sees of it, with its damaged places, and back.

What counts as damage:

`#`                     one character; a run of them is one gap
`...`, `…`              an unknown number of characters, 1 to 20
`x`                     a sign: it stands alone, between separators. `x x x`, `x-x`: so many signs, each of 1 to 4
                        characters, with a separator between them
`xxx`                   so many characters, two or more

each within square brackets or outside them; within square brackets, `(x)` is a sign that may not have been there. What
else stands in square brackets is an editor's restoration: the model was trained without these, and sees a space.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from jaxsae.errors import require
from jaxsae.text.cleaning import AFTER_BRACKETS, BRACKETED, Traced, traced_through

LONGEST = 20
"""The most characters that are tried for a gap of unknown length."""
DAMAGED = "#"
"""What stands for a damaged character in what the model sees: what training put there for spans of them."""

_ELLIPSIS = r"(?:…|\.(?: ?\.){2,})"
_SIGNS = r"(?<![\w@×/+|%&~])x+(?![\w@×/+|%&~])"
_UNIT = re.compile(rf"{_ELLIPSIS}|{_SIGNS}")
_RUN = re.compile(rf"#+|(?:{_UNIT.pattern})(?:(?:[^\S\n]|[-.])*(?:{_UNIT.pattern}))*")
_RUN_IN_BRACKETS = re.compile(rf"#+|\(?(?:{_UNIT.pattern})(?:(?:[^\S\n]|[-.()?!*])*(?:{_UNIT.pattern}))*[?!*]*\)?")
_SEPARATORS, _FLAGS = re.compile(r"[\s.-]*"), re.compile(r"[\s.()?!*-]*")
_NO_TEXT = re.compile(r"^[&@$#][^\n]*", re.MULTILINE)
"""Lines of an ATF file that are about the text: its number, its surfaces, its state, notes."""
_DAMAGE_FLAG = re.compile(r"(?<=[\w⸣?!*])#(?![\w#])")
"""In an ATF file: the sign before it is damaged, and read."""


@dataclass(frozen=True)
class Gap:
    """A damaged place."""

    start: int
    """Where it begins in `DamagedText.cleaned`."""
    end: int
    """Where it ends there; between them stands `#`, once for each damaged character."""
    lengths: range
    """How many characters may have stood there; one number where that is known."""
    written: tuple[int, int]
    """Start and end in `DamagedText.written` of what it is written with; brackets around it do not belong to it."""
    needs_brackets: bool
    """Whether a filling is to be marked as such: it replaces neither `#` nor what stands in square brackets."""


@dataclass(frozen=True)
class DamagedText:
    """A text with its damaged places."""

    written: str
    """The user's own."""
    cleaned: str
    """What the model sees: cleaned as in training, with `#` for each damaged character."""
    origin: Int[np.ndarray, " n"]
    """For each character of `cleaned` its place in `written`; of a gap, where that begins."""
    gaps: tuple[Gap, ...]
    """In their order."""
    unseen: tuple[tuple[int, int], ...]
    """Start and end in `written` of damaged places that the model cannot see: cleaning removes what they stand in."""

    def filled(self, fillings: Sequence[str | None]) -> str:
        """The user's own text with the gaps replaced, one filling for each; None leaves one as it is.

        A filling of `...` or `x` outside brackets stands in square brackets. Outside the gaps nothing is changed.
        """
        marked = [
            f"[{filling}]" if gap.needs_brackets and filling is not None else filling
            for gap, filling in zip(self.gaps, fillings, strict=True)
        ]
        return self.replaced(marked)

    def replaced(self, pieces: Sequence[str | None]) -> str:
        """As `filled`, without brackets."""
        out, at = [], 0
        for gap, piece in zip(self.gaps, pieces, strict=True):
            start, end = gap.written
            out += [self.written[at:start], self.written[start:end] if piece is None else piece]
            at = end
        return "".join([*out, self.written[at:]])

    def place_of(self, position: int) -> int:
        """Where a character of `written` stands in `cleaned`.

        Raises:
          InputError: there is no such character, or the model does not see it.
        """
        last = len(self.written) - 1
        require(0 <= position <= last, f"position must be in 0..{last}, got {position}")
        for gap in self.gaps:
            start, end = gap.written
            if start <= position < end:
                return min(gap.start + position - start, gap.end - 1)
        found = np.flatnonzero(self.origin == position)
        seen = f"position must be of a character that the model sees, got {position}: {self.written[position]!r}"
        require(len(found) > 0, f"{seen} is left out of what it reads")
        return int(found[0])

    def resized(self, gap: int, length: int) -> "DamagedText":
        """The same text with so many damaged characters in one gap."""
        it = self.gaps[gap]
        shift = length - (it.end - it.start)
        gaps = [*self.gaps[:gap], dataclasses.replace(it, end=it.end + shift)]
        gaps += [dataclasses.replace(g, start=g.start + shift, end=g.end + shift) for g in self.gaps[gap + 1 :]]
        of_gap = np.full(length, it.written[0])
        return dataclasses.replace(
            self,
            cleaned=self.cleaned[: it.start] + DAMAGED * length + self.cleaned[it.end :],
            origin=np.concatenate([self.origin[: it.start], of_gap, self.origin[it.end :]]),
            gaps=tuple(gaps),
        )


def read_damaged(text: str, *, atf: bool = False) -> DamagedText:
    """Find the damaged places of a text and clean the rest as in training; any text can be read.

    A gap of unknown length has in `cleaned` as many characters as the middle of its `lengths`.

    Args:
      text: one line or several.
      atf: the text is that of an ATF file: lines that begin with `&`, `@`, `$` or `#` are no text, and one `#` at the
        end of a sign is an editor's flag that says it is damaged and was read.
    """
    source = Traced(text, np.arange(len(text)))
    if atf:
        source = source.replaced(_NO_TEXT, "").replaced(_DAMAGE_FLAG, "")
    marks: dict[int, Gap] = {}
    pieces: list[str] = []
    origins: list[np.ndarray] = []

    def add_text(piece: str, origin: np.ndarray) -> None:
        pieces.append(piece)
        origins.append(origin)

    def add_gap(start: int, end: int, in_brackets: bool) -> None:
        written = int(source.origin[start]), int(source.origin[end - 1]) + 1
        lengths = _lengths(source.text[start:end])
        needs_brackets = not in_brackets and source.text[start] != DAMAGED
        marks[written[0]] = Gap(0, 0, lengths, written, needs_brackets)
        n = (lengths[0] + lengths[-1]) // 2
        add_text(DAMAGED * n, np.full(n, written[0]))

    at = 0
    for start, end in [*(found.span() for found in BRACKETED.finditer(source.text)), (len(source.text),) * 2]:
        for begin, stop in _runs(_RUN, source.text, at, start):
            add_text(source.text[at:begin], source.origin[at:begin])
            add_gap(begin, stop, in_brackets=False)
            at = stop
        add_text(source.text[at:start], source.origin[at:start])
        runs = list(_runs(_RUN_IN_BRACKETS, source.text, start + 1, end - 1))
        at = start + 1
        for begin, stop in [*runs, (end - 1, end - 1)] if runs else []:
            if _SEPARATORS.fullmatch(source.text, at, begin):
                add_text(source.text[at:begin], source.origin[at:begin])
            elif not _FLAGS.fullmatch(source.text, at, begin):
                add_text(" ", source.origin[at : at + 1])
            if stop > begin:
                add_gap(begin, stop, in_brackets=True)
            at = stop
        if not runs and end > start:
            add_text(" ", source.origin[start : start + 1])
        at = end
    cleaned = traced_through(Traced("".join(pieces), np.concatenate(origins)), AFTER_BRACKETS)
    where: dict[int, list[int]] = {}
    for position in np.flatnonzero([character == DAMAGED for character in cleaned.text]).tolist():
        where.setdefault(int(cleaned.origin[position]), []).append(position)
    gaps = [dataclasses.replace(marks[at], start=of[0], end=of[-1] + 1) for at, of in where.items()]
    unseen = tuple(mark.written for at, mark in marks.items() if at not in where)
    return DamagedText(text, cleaned.text, cleaned.origin, tuple(gaps), unseen)


def _runs(pattern: re.Pattern[str], text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Start and end of every damaged place between two places of a text."""
    for found in pattern.finditer(text, start, max(start, end)):
        if found[0].count("(") == found[0].count(")"):
            yield found.span()
        else:  # brackets that end elsewhere are no part of it
            yield from _runs(_RUN, text, *found.span())


def _lengths(written: str) -> range:
    """How many characters may have stood where an editor writes this."""
    if written[0] == DAMAGED or re.fullmatch("xx+", written):
        return range(len(written), len(written) + 1)
    required = [found[0] for found in _UNIT.finditer(re.sub(r"\([^)]*\)", " ", written))]
    every = [found[0] for found in _UNIT.finditer(written)]
    least = max(1, sum(len(unit) if unit[0] == "x" else 1 for unit in required) + len(required) - 1)
    most = sum(len(unit) + 1 if len(unit) > 1 else 4 for unit in every)
    if any(unit[0] != "x" for unit in every):
        most = LONGEST
    return range(least, max(least, min(LONGEST, most)) + 1)
