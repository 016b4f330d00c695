"""Where latents fire: an entry of eight bytes for each firing on the judged characters."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from jaxsae.features.judged_text import JudgedText

MOST_FIRINGS = 30_000_000
"""Of dense latents fewer texts are kept: 240 MB, and about as much again while they are sorted."""


def value_code(values: Float[np.ndarray, " m"]) -> Integer[np.ndarray, " m"]:
    """The upper half of a positive float32: a whole number that rises with the value, in steps of under a hundredth."""
    return np.maximum(np.asarray(values, np.float32).view(np.uint32) >> 16, 1).astype(np.uint16)


def value_of(code: Integer[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """The least value that has the code: `v >= value_of(c)` exactly where `value_code(v) >= c`, above 1e-40."""
    return (np.asarray(code).astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class Firings:
    """Entries of a sparse matrix, characters x columns, of what is above 0."""

    row: Int[np.ndarray, " m"]
    """The judged character."""
    column: Integer[np.ndarray, " m"]
    """The latent."""
    code: Integer[np.ndarray, " m"]
    """`value_code` of its value."""
    columns: int
    judged: Bool[np.ndarray, " n"]
    """The characters that are judged on: the entries of others were dropped."""

    def within(self, judged: Bool[np.ndarray, " n"]) -> "Firings":
        """Those on some of the judged characters, which are then all that are judged on."""
        kept = judged[self.row]
        return Firings(self.row[kept], self.column[kept], self.code[kept], self.columns, judged)

    def of(self, columns: Int[np.ndarray, " some"]) -> "Firings":
        """Those of some columns, ascending, which are numbered anew."""
        number = np.full(self.columns, -1)
        number[columns] = np.arange(len(columns))
        at = number[self.column]
        kept = at >= 0
        column = at[kept].astype(self.column.dtype)  # a narrow one is faster
        return Firings(self.row[kept], column, self.code[kept], len(columns), self.judged)

    @property
    def fired(self) -> Int[np.ndarray, " columns"]:
        """On how many judged characters each latent fires."""
        return np.bincount(self.column, minlength=self.columns)


@dataclass
class FiringLog:
    """Collects firings batch by batch; where they become too many, every second pair of texts is given up."""

    text: JudgedText
    columns: int
    most: int = MOST_FIRINGS
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    entries: int = 0
    step: int = 1

    def add(self, row: np.ndarray, column: np.ndarray, values: np.ndarray) -> None:
        """Add firings on judged characters; `row` may be -1 for others, which are left out."""
        kept = row >= 0
        if self.step > 1:
            kept &= self._judged[row]
        narrow = np.uint16 if self.columns <= 1 << 16 else np.uint32
        part = row[kept].astype(np.int32), column[kept].astype(narrow), value_code(values[kept])
        self.parts.append(part)
        self.entries += len(part[0])
        while self.entries > self.most and self.step < len(self.text.samples):
            self.step *= 2
            judged = self._judged
            self.parts = [(r[judged[r]], c[judged[r]], v[judged[r]]) for r, c, v in self.parts]
            self.entries = sum(len(part[0]) for part in self.parts)

    @cached_property
    def _pair(self) -> Int[np.ndarray, " n"]:
        """The pair of texts that each character is in, numbered without gaps."""
        return np.unique(self.text.sample // 2, return_inverse=True)[1]

    @property
    def _judged(self) -> Bool[np.ndarray, " n"]:
        return self._pair % self.step == 0

    def firings(self) -> Firings:
        """All that was added, sorted by column and then by character."""
        empty = (np.zeros(0, np.int32), np.zeros(0, np.uint16), np.zeros(0, np.uint16))
        row, column, code = (np.concatenate(of) for of in zip(*(self.parts or [empty]), strict=True))
        order = np.lexsort((row, column))
        return Firings(row[order], column[order], code[order], self.columns, self._judged)
