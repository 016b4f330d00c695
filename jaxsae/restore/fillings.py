"""What may have stood in a whole gap: fillings with scores and probabilities, also where its length is unknown."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxsae.errors import require
from jaxsae.models.changes import LayerChange
from jaxsae.models.protocol import ResidualModel
from jaxsae.restore.lengths import length_log_p
from jaxsae.restore.places import around, encoded
from jaxsae.restore.search import Hole, search
from jaxsae.text.damaged_text import DamagedText

CONTEXT = 128
"""A gap is filled from so many characters around it and in it: more cost time and find no more."""
FOUND = 20
"""So many fillings of a length are found, at least: probabilities depend on what else there is."""
LENGTHS_SEARCHED = 4
"""So many lengths of a gap of unknown length, the most probable ones, are filled."""


class Filling(NamedTuple):
    """What may have stood in a gap."""

    text: str
    score: float
    """Log-probability in nats: of the length, where that is unknown, and of the characters one after another."""
    probability: float
    """exp(score); less where the fillings that were found would come to more than 1 together, see `shares`."""
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
    change: LayerChange | None = None,
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
    holes = [hole_of(model, text.resized(gap, length), gap) for length in text.gaps[gap].lengths]
    return fill_holes(model, holes, beam=beam, top=top, change=change, temperature=temperature)


def fill_holes(
    model: ResidualModel,
    holes: Sequence[Hole],
    *,
    beam: int,
    top: int,
    change: LayerChange | None = None,
    temperature: float = 1.0,
) -> list[Filling]:
    """As `fill`, for one gap with each of the lengths that it may have."""
    log_p = np.zeros(1)
    if len(holes) > 1:
        log_p = length_log_p(model, holes, change=change, temperature=temperature)
        likely = np.argsort(-log_p, kind="stable")[:LENGTHS_SEARCHED]
        holes, log_p = [holes[i] for i in likely], log_p[likely]
    found = search(model, holes, beam=beam, top=max(top, FOUND), change=change, temperature=temperature)
    scored = [
        (filled.score + of_length, filled.ids)
        for every, of_length in zip(found, log_p.tolist(), strict=True)
        for filled in every
    ]
    return as_fillings(model, scored, top)


def as_fillings(model: ResidualModel, scored: Sequence[tuple[float, Sequence[int]]], top: int) -> list[Filling]:
    """The best `top` of (score, tokens) pairs, which are all that were found."""
    best = sorted(scored, key=lambda one: -one[0])
    p = shares(np.array([score for score, _ in best])).tolist()
    return [
        Filling("".join(model.tokenizer.pieces(ids)), score, share, len(ids))
        for (score, ids), share in zip(best[:top], p, strict=False)
    ]


def shares(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """exp(scores), or exp(factor * scores) with the least factor for which they come to no more than 1 together.

    The best order of filling makes some fillings likelier than they are, the surest ones least. On the demo's gaps the
    first fillings so get probabilities with a mean of 0.60 where 0.66 are right, and 0.48 when divided by their sum.
    """
    low, high = 1.0, 1.0
    while np.exp(high * scores).sum() > 1 and high < 1e4:
        low, high = high, 2 * high
    for _ in range(40 if high > 1 else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if np.exp(middle * scores).sum() > 1 else (low, middle)
    p = np.exp(high * scores)
    return p / max(1.0, float(p.sum()))
