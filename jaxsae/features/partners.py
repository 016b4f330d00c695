"""Which latents of two SAEs are alike, by where they fire and by their directions."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsae.features.firings import Firings
from jaxsae.features.stability import SAME_DIRECTION, compared_firings
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.consistency import directions_of


class _Beside(NamedTuple):
    """Some latents of one SAE (rows) beside some of another (columns)."""

    jaccard: Float[np.ndarray, "n m"]
    cosine: Float[np.ndarray, "n m"] | None
    alike: Bool[np.ndarray, "n m"]
    """Which pairs fire alike, and `similar`, which have similar decoder rows."""
    similar: Bool[np.ndarray, "n m"]

    @property
    def turned(self) -> "_Beside":
        return _Beside(self.jaccard.T, None if self.cosine is None else self.cosine.T, self.alike.T, self.similar.T)


@dataclass
class Partners:
    """For each latent of an SAE, those of the other that are most like it; -1: there is none."""

    partner: Int[np.ndarray, " d"]
    """Of those that are alike; `score` ranks them."""
    score: Float[np.ndarray, " d"]
    jaccard: Float[np.ndarray, " d"]
    """With the partner, and so of `cosine`, `alike` and `similar`."""
    cosine: Float[np.ndarray, " d"]
    alike: Bool[np.ndarray, " d"]
    similar: Bool[np.ndarray, " d"]
    by_firing: Int[np.ndarray, " d"]
    """Of all that ever fire with it, and `largest_jaccard`, how alike it is."""
    largest_jaccard: Float[np.ndarray, " d"]
    by_direction: Int[np.ndarray, " d"]
    """Of all with cosines, and `largest_cosine`, how similar its row is."""
    largest_cosine: Float[np.ndarray, " d"]

    @classmethod
    def none(cls, d: int) -> "Partners":
        """Of so many latents, before any other was seen."""
        return cls(
            partner=np.full(d, -1),
            score=np.full(d, -np.inf),
            jaccard=np.zeros(d),
            cosine=np.zeros(d),
            alike=np.zeros(d, bool),
            similar=np.zeros(d, bool),
            by_firing=np.full(d, -1),
            largest_jaccard=np.zeros(d),
            by_direction=np.full(d, -1),
            largest_cosine=np.full(d, -np.inf),
        )

    def take(self, beside: _Beside, rows: Int[np.ndarray, " n"], first_column: int) -> None:
        """Look at the latents `rows` beside some of the other SAE, numbered from `first_column` on."""
        at = np.arange(len(rows))
        cosine = np.zeros_like(beside.jaccard) if beside.cosine is None else beside.cosine
        # by firing before by direction; of two that fire equally alike, that with the more similar row
        rank = np.where(beside.alike, 2 + beside.jaccard + 1e-6 * cosine, np.where(beside.similar, cosine, -np.inf))
        best = rank.argmax(axis=1)
        better = rank[at, best] > self.score[rows]
        which, best = rows[better], best[better]
        picked = at[better], best
        self.partner[which], self.score[which] = best + first_column, rank[picked]
        self.jaccard[which], self.cosine[which] = beside.jaccard[picked], cosine[picked]
        self.alike[which], self.similar[which] = beside.alike[picked], beside.similar[picked]
        for numbers, largest, of in (
            (self.by_firing, self.largest_jaccard, beside.jaccard),
            (self.by_direction, self.largest_cosine, beside.cosine),
        ):
            if of is not None:
                top = of.argmax(axis=1)
                larger = of[at, top] > largest[rows]
                numbers[rows[larger]], largest[rows[larger]] = top[larger] + first_column, of[at, top][larger]


def partners(
    firings: tuple[Firings, Firings], saes: tuple[SAE, SAE], characters: int, *, directions: bool
) -> tuple[Partners, Partners]:
    """For each latent of two SAEs the most alike one of the other.

    Two latents are alike that fire alike (`stability.same_firing`), or that both fire and whose decoder rows have a
    cosine of `stability.SAME_DIRECTION` or more. A partner is the one that fires most alike, and only where none fires
    alike the one with the most similar row.

    Args:
      firings: on the same characters.
      characters: so many they are.
      directions: whether similar rows make two latents alike; cosines are of streams that are equally wide.
    """
    found = Partners.none(firings[0].columns), Partners.none(firings[1].columns)
    fires, others = (one.fired > 0 for one in firings)
    rows = [directions_of(sae) for sae in saes]
    for some, jaccard, alike in compared_firings(*firings, characters):
        cosine = rows[0][some] @ rows[1].T if saes[0].d_in == saes[1].d_in else None
        both = fires[some, None] & others[None]
        similar = both & (cosine >= SAME_DIRECTION) if directions and cosine is not None else np.zeros_like(both)
        beside = _Beside(jaccard, cosine, alike, similar)
        found[0].take(beside, np.arange(some.start, some.stop), 0)
        found[1].take(beside.turned, np.arange(len(others)), some.start)
    return found
