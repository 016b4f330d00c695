"""Which visible words a restoration rests on: each is taken out, and the model restores the place without it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxsae.explain.readout import Readout
from jaxsae.text.damaged_text import DAMAGED
from jaxsae.text.preparation import SPAN


class WordEffect(NamedTuple):
    """What a word does to the logit difference of two candidates."""

    word: str
    """As the model sees it, `#` where it is damaged."""
    start: int
    """Its first character in the text, and `end`, the one after its last."""
    end: int
    effect: float
    """The logit difference with the word less the one without it: above 0, the word speaks for the candidate."""
    guess: int
    """The most probable token without the word."""
    own: bool
    """Whether the place stands in it: then what is visible of it besides is taken out."""


def words_of(pieces: Sequence[str]) -> list[tuple[int, int]]:
    """(start, end) of each word of which something is visible; words are parted by spaces.

    Args:
      pieces: what each token of the text is shown as, one character each.
    """
    return [word.span() for word in re.finditer(r"\S+", "".join(pieces)) if word[0].strip(DAMAGED)]


def word_effects(readout: Readout) -> list[WordEffect]:
    """Every visible word damaged in turn, exactly, the strongest effect first."""
    pieces = readout.model.tokenizer.pieces(readout.ids)
    spans = words_of(pieces)
    without = np.repeat(readout.ids[None], len(spans), axis=0)
    for row, (start, end) in zip(without, spans, strict=True):
        row[start:end] = SPAN
    found = readout.of_texts(without)
    effects = [
        WordEffect(
            word="".join(pieces[start:end]),
            start=start,
            end=end,
            effect=readout.difference - float(difference),
            guess=int(guess),
            own=start <= readout.position < end,
        )
        for (start, end), difference, guess in zip(spans, found.difference, found.guess, strict=True)
    ]
    return sorted(effects, key=lambda one: -abs(one.effect))
