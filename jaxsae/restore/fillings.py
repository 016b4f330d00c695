"""What may have stood in a whole gap: fillings with scores and probabilities, also where its length is unknown."""

from typing import NamedTuple

import numpy as np

from jaxsae.errors import require
from jaxsae.models.protocol import ResidualModel
from jaxsae.restore.lengths import length_log_p
from jaxsae.restore.places import Change, around, encoded
from jaxsae.restore.search import Hole, search
from jaxsae.text.damaged_text import DamagedText

CONTEXT = 128
"""A gap is filled from so many characters around it and in it: more cost time and find no more."""
LENGTHS_SEARCHED = 4
"""So many lengths of a gap of unknown length, the most probable ones, are filled."""


class Filling(NamedTuple):
    """What may have stood in a gap."""

    text: str
    score: float
    """Log-probability in nats: of the length, where that is unknown, and of the characters one after another."""
    probability: float
    """exp(score); less where the fillings that were found would come to more than 1 together."""
    length: int
    """Characters."""


def hole_of(model: ResidualModel, text: DamagedText, gap: int, most: int = CONTEXT) -> Hole:
    """A gap with what is around it, as the model is shown it.

    Raises:
      InputError: the text has characters that the model does not know, or the gap is longer than it can see.
    """
    it, ids = text.gaps[gap], encoded(model, text)
    length = it.end - it.start
    require(
        length <= model.max_position,
        f"a gap must have at most {model.max_position} characters (max_position), got {length}",
    )
    seen = around(len(ids), it.start, it.end, min(model.max_position, max(most, 2 * length)))
    return Hole(ids[seen], it.start - seen.start, it.end - seen.start)


def fill(
    model: ResidualModel,
    text: DamagedText,
    gap: int,
    *,
    beam: int = 16,
    top: int = 20,
    change: Change | None = None,
    temperature: float = 1.0,
) -> list[Filling]:
    """The most probable fillings of a gap, the other gaps of the text being damaged as they are; best first.

    Args:
      gap: its number in `text.gaps`.
      beam: partial fillings that are carried along; 1 is greedy.
      top: so many fillings, at most.
      change: (layer, function), made to the residual stream after that layer.
      temperature: logits are divided by it.

    Raises:
      InputError: there is no such gap, a number is below 1, or the model cannot be shown the text.
    """
    require(beam >= 1, f"beam must be at least 1, got {beam}")
    require(top >= 1, f"top must be at least 1, got {top}")
    require(0 <= gap < len(text.gaps), f"gap must be in 0..{len(text.gaps) - 1}, got {gap}")
    lengths = text.gaps[gap].lengths
    holes = [hole_of(model, text.resized(gap, length), gap) for length in lengths]
    log_p = np.zeros(1)
    if len(holes) > 1:
        log_p = length_log_p(model, holes, change=change, temperature=temperature)
        likely = np.argsort(-log_p, kind="stable")[:LENGTHS_SEARCHED]
        holes, log_p = [holes[i] for i in likely], log_p[likely]
    found = search(model, holes, beam=beam, top=top, change=change, temperature=temperature)
    scored = [
        (filled.score + of_length, filled.ids)
        for every, of_length in zip(found, log_p.tolist(), strict=True)
        for filled in every
    ]
    total = max(1.0, float(np.exp([score for score, _ in scored]).sum()))
    scored = sorted(scored, key=lambda one: -one[0])[:top]
    return [
        Filling("".join(model.tokenizer.pieces(ids)), score, float(np.exp(score)) / total, len(ids))
        for score, ids in scored
    ]
