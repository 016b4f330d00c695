"""Texts -> passages of whole words: what is compared when parallels are looked for."""

from typing import NamedTuple

LENGTH = 60
"""Characters that a passage has at least, where its text has as many: a formula or two, a line on the screen."""
STEP = 30
"""Characters from the start of a passage to that of the next, at least: each place stands well within a passage."""


class Passage(NamedTuple):
    """A stretch of one text: characters `start` to `end`, the last not included."""

    text: int
    start: int
    end: int


def words(text: str) -> list[tuple[int, int]]:
    """(start, end) of each word; words are separated by spaces."""
    found, start = [], 0
    for word in text.split(" "):
        if word:
            found.append((start, start + len(word)))
        start += len(word) + 1
    return found


def passages(text: str, number: int = 0, length: int = LENGTH, step: int = STEP) -> list[Passage]:
    """The passages of a text, which overlap and together hold all of its words.

    Each ends with the first word that brings it to `length` characters, and the last one with the text.

    Args:
      number: of the text.
    """
    found, out, first = words(text), [], 0
    while first < len(found):
        start = found[first][0]
        last = next((i for i in range(first, len(found)) if found[i][1] - start >= length), len(found) - 1)
        out.append(Passage(number, start, found[last][1]))
        if last == len(found) - 1:
            break
        first = next((i for i in range(first + 1, last + 1) if found[i][0] - start >= step), last + 1)
    return out


def passage_around(text: str, position: int, length: int = LENGTH) -> Passage:
    """The passage whose middle is the word at `position`, or beside it: words are added on the shorter side first."""
    found = words(text)
    at = next((i for i, (_, end) in enumerate(found) if position < end), len(found) - 1)
    first = last = at
    while found[last][1] - found[first][0] < length and (first > 0 or last < len(found) - 1):
        before, after = position - found[first][0], found[last][1] - position
        if last == len(found) - 1 or (first > 0 and before <= after):
            first -= 1
        else:
            last += 1
    return Passage(0, found[first][0], found[last][1])
