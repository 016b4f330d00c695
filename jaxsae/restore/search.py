"""Whole gaps, character after character: a beam search over what is filled in, and in which order.

A masked model says what stands at each open place given all that is known. A gap is filled by taking one of its open
places, any of them, and a character for it, then asking again. The score of a filling is the sum of the characters'
log-probabilities at the time when each was filled in, by the best order that was found. It is the log-probability of
the filling where the order is the only one; here it is taken as such, and `rate_restoration.py` says how well that
does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxsae.models.changes import LayerChange
from jaxsae.models.protocol import ResidualModel
from jaxsae.restore.places import Asked, best_tokens

OPEN = -1
"""In place of a token that is not filled in yet."""

State = tuple[int, ...]
"""The tokens of a gap."""


class Hole(NamedTuple):
    """A gap of known length in a text that the model is shown."""

    ids: Int[np.ndarray, " n"]
    start: int
    end: int


class Filled(NamedTuple):
    """A filling of a gap."""

    ids: State
    score: float
    """Sum of the log-probabilities of its tokens, each at the time when it was filled in."""


def with_gap(hole: Hole, gap: Int[np.ndarray, " length"]) -> Int[np.ndarray, " n"]:
    """The text with some tokens in its gap; where they are open, it stays damaged."""
    ids = hole.ids.copy()
    ids[hole.start : hole.end] = np.where(gap == OPEN, ids[hole.start : hole.end], gap)
    return ids


def search(
    model: ResidualModel,
    holes: Sequence[Hole],
    *,
    beam: int,
    top: int,
    change: LayerChange | None = None,
    temperature: float = 1.0,
) -> list[list[Filled]]:
    """The best fillings of each hole, at most `top`, best first.

    Args:
      beam: so many partial fillings of each hole are carried along; 1 fills greedily, always the surest place.
    """
    states: list[dict[State, float]] = [{(OPEN,) * (hole.end - hole.start): 0.0} for hole in holes]
    for step in range(max((hole.end - hole.start for hole in holes), default=0)):
        asked, of = [], []
        for number, (hole, its) in enumerate(zip(holes, states, strict=True)):
            n = hole.end - hole.start
            for state in its if step < n else ():
                gap = np.array(state)
                asked.append(Asked(with_gap(hole, gap), hole.start + np.flatnonzero(gap == OPEN)))
                of.append((number, state))
        best = best_tokens(model, asked, max(beam, top), change=change, temperature=temperature)
        grown: dict[int, list[tuple[float, State, int, int]]] = {}
        for (number, state), row in zip(of, best, strict=True):
            is_last = step == holes[number].end - holes[number].start - 1
            keep = max(beam, top) if is_last else beam  # children of one state differ: no more of them can be kept
            total = states[number][state] + row.log_p
            chosen = np.argsort(-total, axis=None, kind="stable")[:keep]
            places = np.flatnonzero(np.array(state) == OPEN)
            for place, rank in zip(*np.unravel_index(chosen, total.shape), strict=True):
                child = float(total[place, rank]), state, int(places[place]), int(row.ids[place, rank])
                grown.setdefault(number, []).append(child)
        for number, children in grown.items():
            is_last = step == holes[number].end - holes[number].start - 1
            states[number] = _merged(children, top if is_last else beam)
    return [[Filled(state, score) for state, score in its.items()] for its in states]


def _merged(children: list[tuple[float, State, int, int]], keep: int) -> dict[State, float]:
    """The best states; one that was reached by several orders counts once, by the best of them."""
    out: dict[State, float] = {}
    for score, state, place, token in sorted(children, key=lambda child: -child[0]):
        out.setdefault((*state[:place], token, *state[place + 1 :]), score)
        if len(out) == keep:
            break
    return out
