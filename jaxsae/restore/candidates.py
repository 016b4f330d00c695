"""What may stand at each damaged place of texts, each by itself: one forward pass."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxsae.errors import require
from jaxsae.models.changes import LayerChange
from jaxsae.models.protocol import ResidualModel
from jaxsae.restore.places import Asked, around, best_tokens, encoded
from jaxsae.text.damaged_text import DamagedText


class Candidate(NamedTuple):
    """A character that may have stood at a place."""

    character: str
    probability: float


class Place(NamedTuple):
    """A damaged character."""

    gap: int
    """Number of its gap in the text, from 0."""
    position: int
    """In `DamagedText.cleaned`."""
    candidates: tuple[Candidate, ...]
    """The most probable first."""


def candidates(
    model: ResidualModel,
    texts: Sequence[DamagedText],
    *,
    top: int = 20,
    change: LayerChange | None = None,
    temperature: float = 1.0,
) -> list[list[Place]]:
    """The most probable characters of every damaged place, for each text, in its order.

    A text that is longer than the model's `max_position` is read in pieces of that length, one around each gap.

    Args:
      top: so many characters of each place, at most.
      change: (layer, function), made to the residual stream after that layer.
      temperature: logits are divided by it.

    Raises:
      InputError: a text has characters that the model does not know, or a gap is longer than the model can see.
    """
    require(top >= 1, f"top must be at least 1, got {top}")
    asked, of = [], []
    for number, text in enumerate(texts):
        for ids, start, gaps in _pieces(encoded(model, text), text, model.max_position):
            places = [(gap, p) for gap in gaps for p in range(text.gaps[gap].start, text.gaps[gap].end)]
            asked.append(Asked(ids, np.array([p - start for _, p in places])))
            of.append((number, places))
    out: list[list[Place]] = [[] for _ in texts]
    found = best_tokens(model, asked, top, change=change, temperature=temperature)
    for (number, places), best in zip(of, found, strict=True):
        for (gap, position), ids, log_p in zip(places, best.ids, best.log_p, strict=True):
            named = zip(model.tokenizer.pieces(ids.tolist()), np.exp(log_p).tolist(), strict=True)
            out[number].append(Place(gap, position, tuple(Candidate(*one) for one in named)))
    return out


def _pieces(
    ids: Int[np.ndarray, " n"], text: DamagedText, most: int
) -> list[tuple[Int[np.ndarray, " m"], int, Sequence[int]]]:
    """What the model is shown of a text: tokens, where they begin in it, and the gaps that are asked for."""
    if not text.gaps:
        return []
    if len(ids) <= most:
        return [(ids, 0, range(len(text.gaps)))]
    out: list[tuple[np.ndarray, int, Sequence[int]]] = []
    for number, gap in enumerate(text.gaps):
        length = gap.end - gap.start
        require(length <= most, f"a gap must have at most {most} characters (max_position), got {length}")
        seen = around(len(ids), gap.start, gap.end, most)
        out.append((ids[seen], seen.start, [number]))
    return out
