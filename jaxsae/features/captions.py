"""A caption for each latent, from counts alone: the simplest description that predicts where it fires.

Descriptions compete on the texts of even number; the one that is taken is measured on those of odd number, both ways:
the share of the firings that it is true of (precision), and the share of the places it is true of on which the latent
fires (recall).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsae.features.concept_scores import MarkedText
from jaxsae.features.descriptions import COMPLEXITY, MOST_JOINED, Family, Label, families
from jaxsae.features.firings import Firings
from jaxsae.features.judged_text import JudgedText
from jaxsae.features.surroundings import MOST_PLACES, Search, Surroundings

CLEAR = 0.5
"""Held-out F1 from which a caption says what a latent is; below, the caption is "unclear". And so much of the way from
the F1 of saying "everywhere" to 1, which for dense latents is more."""
HINT = 0.7
"""Share of the firings that a hint is true of, at least; what most of the text is gives no hint."""
DENSE = 0.1
"""Of a latent that fires on a larger share of the characters, what stands near is not looked at."""
FEWEST_FIRINGS = 5
"""A latent needs so many firings in each half of the texts."""
UNCLEAR, SILENT = "unclear", "never fires here"


class Caption(NamedTuple):
    """What a latent fires on, in words, and how well they predict it on texts on which they were not chosen."""

    text: str
    """The best description, without figures; it says what the latent is only where the caption is `named`."""
    family: str
    """Of descriptions; empty where there is none."""
    precision: float
    """Share of the firings that the description is true of."""
    recall: float
    """Share of the places that the description is true of on which the latent fires."""
    firings: int
    """Held-out firings, and `places`, the held-out characters that the description is true of."""
    places: int
    members: tuple[int, ...] = ()
    """Values of the family that are joined."""
    chosen: float = 0.0
    """F1 where descriptions compete, less what the complexity costs, and `single`, F1 of the best single character."""
    single: float = 0.0
    rate: float = 0.0
    """Share of the held-out characters on which the latent fires."""
    strong: bool = False
    """Of the strongest quarter of the firings alone: no description predicts all of them."""

    @property
    def f1(self) -> float:
        """Of description against firing."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    @property
    def clear(self) -> bool:
        """Whether the words predict every firing."""
        return self.named and not self.strong

    @property
    def named(self) -> bool:
        """Whether they predict every firing, or else the strong ones."""
        everywhere = 2 * self.rate / (1 + self.rate)
        return bool(self.family) and self.f1 >= max(CLEAR, everywhere + CLEAR * (1 - everywhere))

    def __str__(self) -> str:
        if not self.family:
            return self.text
        if self.clear:
            return f"{self.text} ({self.precision:.0%} of firings, {self.recall:.0%} of places)"
        if self.named:
            return (
                f"strongest on {self.text} ({self.precision:.0%} of the strongest quarter of firings, "
                f"{self.recall:.0%} of places)"
            )
        return f"{UNCLEAR}; {self.precision:.0%} of firings on {self.text}" if self.precision >= HINT else UNCLEAR

    def as_json(self) -> dict[str, Any]:
        """Its words and figures."""
        figures = {
            name: value for name, value in self._asdict().items() if name not in ("text", "members", "chosen", "single")
        }
        return {
            "caption": str(self),
            "description": self.text if self.named else None,
            **figures,
            "f1": self.f1,
            "clear": self.clear,
            "named": self.named,
        }


class _Candidate(NamedTuple):
    """The best description of one family for each latent."""

    family: Family | Surroundings
    members: Int[np.ndarray, "columns joined"]
    """Of the description; -1: fewer."""
    single: Float[np.ndarray, " columns"]
    """F1 of the best single value on the texts on which is chosen."""
    chosen: Float[np.ndarray, " columns"]
    """F1 of the description there, less what its complexity costs."""
    precision: Float[np.ndarray, "halves columns"]
    """On both halves."""
    recall: Float[np.ndarray, "halves columns"]
    places: Float[np.ndarray, " columns"]
    """Held-out characters that it is true of, and `share`, their share of the first half."""
    share: Float[np.ndarray, " columns"]


def captions(firings: Firings, marked: MarkedText) -> list[Caption]:
    """A caption for each latent; the concepts of the text are among the descriptions.

    Where none predicts its firings, one may predict the strongest quarter of them.
    """
    every = (*families(marked.text), *_concept_families(marked))
    near = Search(Surroundings.of(marked.text), np.flatnonzero(firings.judged & (marked.text.half == 0)))
    found = _best(firings, marked.text, every, near)
    for column, strong in enumerate(_best(_strongest(firings, marked.text), marked.text, every, near)):
        if not found[column].clear and strong.clear:
            found[column] = strong._replace(strong=True)
    return found


def _strongest(firings: Firings, text: JudgedText) -> Firings:
    """The firings above the value that a quarter of a latent's firings exceed where descriptions compete."""
    here = _in(firings, text, 0)
    column, code = firings.column[here], firings.code[here]
    order = np.lexsort((code, column))
    fired = np.bincount(column, minlength=firings.columns)
    at = np.cumsum(fired) - np.ceil(fired / 4).astype(int)
    least = np.full(firings.columns, 1 << 16)
    least[fired > 0] = code[order][at[fired > 0]]
    kept = firings.code >= least[firings.column]
    return dataclasses.replace(firings, row=firings.row[kept], column=firings.column[kept], code=firings.code[kept])


AT_ONCE = 2**27
"""Bytes of counts of one family's values and latents that are held at once."""


def _best(firings: Firings, text: JudgedText, every: Sequence[Family], near: Search) -> list[Caption]:
    """For each latent the best description of its firings, or a hint."""
    fired = np.stack(
        [np.bincount(firings.column[_in(firings, text, half)], minlength=firings.columns) for half in (0, 1)]
    )
    out = [
        Caption(f"{UNCLEAR}; fires too rarely" if before or n else SILENT, "", 0.0, 0.0, n, 0)
        for before, n in fired.T.tolist()
    ]
    enough = np.flatnonzero(fired.min(axis=0) >= FEWEST_FIRINGS)
    step = max(1, AT_ONCE // (16 * max(1, *(len(family.labels) for family in every))))  # 16: see `_of_family`
    for start in range(0, len(enough), step):
        some = enough[start : start + step]
        described = _best_of_some(firings.of(some), text, every, near, fired[:, some])
        for column, caption in zip(some.tolist(), described, strict=True):
            out[column] = caption
    return out


def _best_of_some(
    firings: Firings,
    text: JudgedText,
    every: Sequence[Family],
    near: Search,
    fired: Int[np.ndarray, "halves columns"],
) -> list[Caption]:
    """As `_best`, of latents that fire often enough."""
    rate = fired[1] / max(int(((text.half == 1) & firings.judged).sum()), 1)
    found = [_of_family(firings, text, family, fired) for family in every]
    found.append(_of_surroundings(firings, text, near, fired))
    chosen = np.stack([one.chosen for one in found])
    hints = np.stack([np.where((one.precision[0] >= HINT) & (one.share <= 0.35), one.chosen, -1) for one in found])
    best, hint = chosen.argmax(axis=0), hints.argmax(axis=0)
    (single,) = (one.single for one in found if one.family.name == "character")
    out = []
    for column in range(firings.columns):
        n = int(fired[1, column])
        caption = _caption(found[best[column]], column, n, single[column], rate[column])
        if not caption.clear and hints[hint[column], column] > 0:
            other = _caption(found[hint[column]], column, n, single[column], rate[column])
            caption = caption if other.named else other  # a hint says no more than that
        out.append(caption)
    return out


def _in(firings: Firings, text: JudgedText, half: int) -> Bool[np.ndarray, " m"]:
    return text.half[firings.row] == half


def _caption(one: _Candidate, column: int, firings: int, single: float, rate: float) -> Caption:
    members = tuple(int(i) for i in one.members[column] if i >= 0)
    figures = float(one.precision[1, column]), float(one.recall[1, column])
    text = one.family.words(members)
    chosen = float(one.chosen[column]), float(single), float(rate)
    return Caption(text, one.family.name, *figures, firings, int(one.places[column]), members, *chosen)


def described(captions: Sequence[Caption], text: JudgedText, marked: MarkedText) -> Bool[np.ndarray, "captions n"]:
    """Which characters the description of each caption is true of."""
    out = np.zeros((len(captions), len(text)), bool)
    every: list[Family | Surroundings] = [*families(text), *_concept_families(marked), Surroundings.of(text)]
    for family in every:
        for row, caption in zip(out, captions, strict=True):
            if caption.family == family.name:
                row |= family.holds(caption.members)
    return out


def _of_family(
    firings: Firings, text: JudgedText, family: Family, fired: Int[np.ndarray, "halves columns"]
) -> _Candidate:
    """Join values, one after another, as long as that raises F1 by more than it costs."""
    values, columns = len(family.labels), firings.columns
    hits = np.zeros((2, values, columns), np.int32)
    places = np.zeros((2, values))
    for half in (0, 1):
        of_half = family.value[(text.half == half) & firings.judged]
        places[half] = np.bincount(of_half[of_half >= 0], minlength=values)
        here = _in(firings, text, half)
        value = family.value[firings.row[here]]
        column = firings.column[here][value >= 0].astype(np.int64)
        flat = np.bincount(value[value >= 0] * columns + column, minlength=values * columns)
        hits[half] = flat.reshape(values, columns)
    members = np.full((columns, MOST_JOINED), -1)
    score = np.full(columns, -1.0)
    sum_hits, sum_places = np.zeros((2, columns)), np.zeros((2, columns))
    cell_value, cell_column = np.nonzero(hits[0])
    order = np.argsort(cell_column, kind="stable")
    cell_value, cell_column = cell_value[order], cell_column[order]
    cell_hits = hits[0, cell_value, cell_column].astype(np.float64)
    growing = np.ones(columns, bool)
    single = np.zeros(columns)
    for joined_so_far in range(MOST_JOINED):
        left = growing[cell_column]
        cell_value, cell_column, cell_hits = cell_value[left], cell_column[left], cell_hits[left]
        if not len(cell_column):
            break
        with_it = 2 * (sum_hits[0, cell_column] + cell_hits)
        with_it /= fired[0, cell_column] + sum_places[0, cell_column] + places[0, cell_value]
        starts = np.flatnonzero(np.diff(cell_column, prepend=-1))
        there = cell_column[starts]
        top = np.maximum.reduceat(with_it, starts)
        first = np.full(columns, -1)
        is_top = np.flatnonzero(with_it == np.repeat(top, np.diff([*starts, len(cell_column)])))
        first[cell_column[is_top[::-1]]] = is_top[::-1]  # the first one of equals is written last
        if not joined_so_far:
            single[there] = top
        worth = np.full(columns, -1.0)
        worth[there] = top - COMPLEXITY * (family.cost + joined_so_far)
        better = worth > score
        growing &= better
        at = first[better]
        members[better, joined_so_far] = cell_value[at]
        score[better] = worth[better]
        for half in (0, 1):
            sum_hits[half, better] += hits[half, cell_value[at], np.flatnonzero(better)]
            sum_places[half, better] += places[half, cell_value[at]]
        keep = np.ones(len(cell_column), bool)
        keep[at] = False
        cell_value, cell_column, cell_hits = cell_value[keep], cell_column[keep], cell_hits[keep]
    n = ((text.half == 0) & firings.judged).sum()
    return _Candidate(
        family,
        members,
        single,
        score,
        sum_hits / np.maximum(fired, 1),
        sum_hits / np.maximum(sum_places, 1),
        sum_places[1],
        sum_places[0] / max(n, 1),
    )


def _of_surroundings(
    firings: Firings, text: JudgedText, search: Search, fired: Int[np.ndarray, "halves columns"]
) -> _Candidate:
    """Put places together, as long as that raises F1 by more than it costs; not of dense latents."""
    in_half = [(text.half == half) & firings.judged for half in (0, 1)]
    near, number = search.near, np.cumsum(in_half[0]) - 1
    members = np.full((firings.columns, MOST_PLACES + MOST_JOINED - 1), -1)
    chosen = np.full(firings.columns, -1.0)
    hits, places = np.zeros((2, 2, firings.columns))
    of_half, of_column = text.half[firings.row], np.argsort(firings.column, kind="stable")
    ends = np.append(0, np.cumsum(firings.fired))
    for column in np.flatnonzero(fired[0] <= DENSE * in_half[0].sum()).tolist():
        here = of_column[ends[column] : ends[column + 1]]
        found = search.best(number[firings.row[here[of_half[here] == 0]]])
        members[column, : len(found.members)], chosen[column] = found.members, found.chosen
        holds = near.holds(found.members)
        for half in (0, 1):
            hits[half, column] = holds[firings.row[here[of_half[here] == half]]].sum()
            places[half, column] = (holds & in_half[half]).sum()
    n = max(int(in_half[0].sum()), 1)
    none = np.zeros(firings.columns)
    figures = hits / np.maximum(fired, 1), hits / np.maximum(places, 1)
    return _Candidate(near, members, none, chosen, *figures, places[1], places[0] / n)


def _concept_families(marked: MarkedText) -> Iterator[Family]:
    """Each concept is a family by itself: a character may have several."""
    for number, (concept, rows) in enumerate(zip(marked.concepts, marked.has, strict=True)):
        if concept.about == "spelling":  # is asked for, and says nothing of others
            continue
        yield Family(f"concept {number}", np.where(rows, 0, -1), [Label("{}", (concept.title,))], 1)
