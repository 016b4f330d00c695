"""Descriptions of several places at once: what a character is and what stands near it.

"spaces with a hyphen three before and a capital right after". What a character has at one place is counted with
the other descriptions; here places are put together, one after another, as long as that tells a latent better.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxsae.features.descriptions import (
    COMPLEXITY,
    DAMAGED,
    MOST_JOINED,
    Family,
    Label,
    Words,
    classes_of,
    family_of,
    hidden_families,
    joined,
    letters_of,
)
from jaxsae.features.judged_text import JudgedText

REACH = 3
"""Places before and after a character that are looked at."""
MOST_PLACES = 3
"""Of a description, at most."""
BEAM = 6
"""Descriptions of so many places that are tried with one more."""
AT_ONCE = 2**26
"""Bytes of counts that are held."""


class Found(NamedTuple):
    """A description of a latent's firings."""

    members: list[int]
    """Labels: those of one place are joined, and each place must have one of its own."""
    chosen: float
    """F1 of description against firing where descriptions compete, less what the complexity costs."""


@dataclass(frozen=True)
class Surroundings:
    """What stands at each character and at the places near it: each column is one place, seen in one way."""

    name: ClassVar[str] = "surroundings"
    unit: str
    value: Int[np.ndarray, "n columns"]
    """An index into `labels`; `len(labels)`: there is none."""
    labels: list[Label]
    column: Int[np.ndarray, " labels"]
    """Of each label."""
    offset: Int[np.ndarray, " columns"]
    """The place of each column: 0 is the character itself, -1 what stands before it."""

    @classmethod
    def of(cls, text: JudgedText) -> "Surroundings":
        """Those of a text."""
        labels: list[Label] = []
        columns: list[np.ndarray] = []
        column: list[int] = []
        offset: list[int] = []
        for at, family in _columns(text):
            columns.append(np.where(family.value < 0, -1, family.value + len(labels)))
            column += [len(offset)] * len(family.labels)
            labels += family.labels
            offset.append(at)
        value = np.stack(columns, axis=1)
        value[value < 0] = len(labels)
        return cls(text.samples.tokenizer.unit, value.astype(np.int32), labels, np.array(column, int), np.array(offset))

    def words(self, members: Sequence[int]) -> str:
        """A description in words."""
        of_place: dict[int, list[Label]] = {}
        for i in members:
            of_place.setdefault(int(self.offset[self.column[i]]), []).append(self.labels[i])
        it = joined(of_place.pop(0)) if 0 in of_place else f"{self.unit}s"
        near = [
            labels[0].form.format(" or ".join(label.parts[0] for label in labels))
            for _, labels in sorted(of_place.items())
        ]
        return f"{it} with {' and '.join(near)}" if near else it

    def holds(self, members: Sequence[int]) -> Bool[np.ndarray, " n"]:
        """The characters that a description is true of."""
        out = np.ones(len(self.value), bool)
        for group in self._groups(members):
            out &= _one_of(self.value[:, self.column[group[0]]], group)
        return out

    def _groups(self, members: Sequence[int]) -> list[list[int]]:
        of_column: dict[int, list[int]] = {}
        for i in members:
            of_column.setdefault(int(self.column[i]), []).append(i)
        return list(of_column.values())


def _one_of(value: Int[np.ndarray, " m"], group: Sequence[int]) -> Bool[np.ndarray, " m"]:
    return value == group[0] if len(group) == 1 else np.isin(value, group)


def _columns(text: JudgedText) -> Iterator[tuple[int, Family]]:
    """(place, what stands there), by its class, and as a character that is no class by itself."""
    words, half, n = Words(text.samples.tokenizer.unit), text.half, len(text)
    _, seen = letters_of(text)
    by_class = classes_of(seen)
    alone = [None if s in (DAMAGED, " ", "-") else s for s in seen]
    for at in range(-REACH, REACH + 1):
        if at:
            there = np.clip(np.arange(n) + at, 0, n - 1)
            inside = (np.arange(n) + at == there) & (text.sample[there] == text.sample)
            place = np.where(inside, there, -1).tolist()
            form = f"{{}} {_distance(at)}"
            yield at, family_of("class", _at(place, by_class), words.one_of_class(form), 0, half)
            yield at, family_of("character", _at(place, alone), words.one(form), 0, half)
        else:
            yield at, family_of("class", by_class, words.one("{}"), 0, half)
            yield at, family_of("character", alone, words.one("{}"), 0, half)
            yield from ((at, family) for family in hidden_families(text))


def _at(place: Sequence[int], keys: Sequence[str | None]) -> list[str | None]:
    return [None if i < 0 else keys[i] for i in place]


def _distance(at: int) -> str:
    """A place, in words."""
    side = "before" if at < 0 else "after"
    return f"{('right', 'two', 'three')[abs(at) - 1]} {side}"


class Search:
    """Finds the descriptions that predict where latents fire best, on the characters of one half of the texts.

    A beam search: the best descriptions of one place are tried with each second place, and so on; the values of one
    place of the best are then joined, as those of a family are.
    """

    def __init__(self, near: Surroundings, rows: Int[np.ndarray, " m"]) -> None:
        """Search on the characters `rows`."""
        self.near, self.value = near, near.value[rows]
        place = near.offset[near.column]
        self.of_place = [slice(*np.searchsorted(place, [at, at + 1])) for at in place]
        size = 8 * len(near.labels)
        self._places = lru_cache(maxsize=max(64, AT_ONCE // max(size, 1)))(self._count_places)
        self._rows = lru_cache(maxsize=1024)(self._find_rows)

    def _find_rows(self, members: tuple[int, ...]) -> Int[np.ndarray, " k"]:
        """The characters that all members are true of, each of a column of its own."""
        if not members:
            return np.arange(len(self.value))
        return self._within(self._rows(members[:-1]), members[-1:])

    def _within(self, rows: Int[np.ndarray, " k"], members: Sequence[int]) -> Int[np.ndarray, " j"]:
        for i in members:
            rows = rows[self.value[rows, self.near.column[i]] == i]
        return rows

    def _counts(self, rows: Int[np.ndarray, " k"]) -> Int[np.ndarray, " labels"]:
        """How many of some characters each label is true of."""
        labels = len(self.near.labels)
        return np.bincount(self.value[rows].ravel(), minlength=labels + 1)[:labels]

    def _count_places(self, members: tuple[int, ...]) -> Int[np.ndarray, " labels"]:
        return self._counts(self._rows(members))

    def best(self, fires: Int[np.ndarray, " k"]) -> Found:
        """The best description of a latent that fires on some of the characters."""
        found = Found([], -1.0)
        beam: list[tuple[int, ...]] = [()]
        for steps in range(1, MOST_PLACES + 1):
            tried: dict[tuple[int, ...], float] = {}
            for members in beam:
                f1 = 2 * self._counts(self._within(fires, members)) / (len(fires) + self._places(members))
                for i in members:  # one label of a place is enough
                    f1[self.of_place[i]] = -1
                for i in np.argsort(-f1, kind="stable")[:BEAM].tolist():
                    tried[tuple(sorted((*members, i)))] = float(f1[i])
            beam = sorted(tried, key=lambda members: -tried[members])[:BEAM]
            if beam and tried[beam[0]] - COMPLEXITY * steps > found.chosen:
                found = Found(list(beam[0]), tried[beam[0]] - COMPLEXITY * steps)
        every = [self._joined(found, fires, at) for at in range(len(found.members))]
        return max(every, key=lambda one: one.chosen, default=found)

    def _joined(self, found: Found, fires: Int[np.ndarray, " k"], at: int) -> Found:
        """With more values of one of its places, as long as each is worth it."""
        first, others = found.members[at], found.members[:at] + found.members[at + 1 :]
        other_values = self.near.column != self.near.column[first]
        hits, places = (self._counts(rows) for rows in (self._within(fires, others), self._rows(tuple(others))))
        members, said = found.members, [first]
        while len(said) < MOST_JOINED:
            f1 = 2 * (hits[said].sum() + hits) / (len(fires) + places[said].sum() + places)
            f1[other_values] = f1[said] = -1
            i = int(f1.argmax())
            chosen = float(f1[i]) - COMPLEXITY * (len(members) + 1)
            if chosen <= found.chosen:
                break
            said, members = [*said, i], [*members, i]
            found = Found(members, chosen)
        return found
