"""Which visible words a restoration rests on: each is taken out, and the model restores the place without it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxsae.explain.readout import Readout
from jaxsae.text.pieces import begins_word, is_space, part, pieces_of
from jaxsae.text.tokenizer import Tokenizer


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


def words_of(tokenizer: Tokenizer, ids: Int[np.ndarray, " n"]) -> list[tuple[int, int]]:
    """(start, end) of each word of a text of which something is visible: its tokens."""
    pieces = pieces_of(tokenizer, ids)
    starts = np.flatnonzero(begins_word(pieces))
    hidden = is_space(pieces) | (np.asarray(ids) == tokenizer.damaged_id)
    spans = zip(starts.tolist(), [*starts[1:].tolist(), len(pieces)], strict=True)
    return [(start, end) for start, end in spans if not hidden[start:end].all()]


def word_effects(readout: Readout) -> list[WordEffect]:
    """Every visible word damaged in turn, exactly, the strongest effect first."""
    tokenizer = readout.model.tokenizer
    pieces, spans = pieces_of(tokenizer, readout.ids), words_of(tokenizer, readout.ids)
    places = np.arange(len(readout.ids))
    found = readout.without((start <= places) & (places < end) for start, end in spans)
    effects = [
        WordEffect(
            word="".join(part(pieces, start, end)),
            start=start,
            end=end,
            effect=readout.difference - float(difference),
            guess=int(guess),
            own=start <= readout.position < end,
        )
        for (start, end), difference, guess in zip(spans, found.difference, found.guess, strict=True)
    ]
    return sorted(effects, key=lambda one: -abs(one.effect))
