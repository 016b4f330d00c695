"""Which latents are found again in SAEs that were trained alike but with other seeds.

A latent that one seed alone has says as much about the seed as about the model.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsae.features.firings import Firings
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.consistency import directions_of, pw_mcc

SAME_DIRECTION = 0.8
"""Cosine of decoder rows from which two latents count as the same."""
SAME_FIRING = 0.5
"""They do, too, where of the characters on which either fires both fire on this share (Jaccard index), and on so much
of the way to 1 from what two independent latents of their rates have, which for dense latents is more."""


class Stability(NamedTuple):
    """What becomes of an SAE's latents with other seeds."""

    seeds: int
    """Number of other SAEs."""
    found: Float[np.ndarray, " d_sae"]
    """Share of the other SAEs that have the latent, by its direction or by its firing."""
    cosine: Float[np.ndarray, " d_sae"]
    """Cosine of the most similar decoder row, mean over the other SAEs, and `jaccard`, that index of the most alike
    firing."""
    jaccard: Float[np.ndarray, " d_sae"]
    pw_mcc: float
    """Mean over all pairs of SAEs of the mean cosine of latents that are paired one to one."""

    def as_json(self) -> dict[str, Any]:
        """Its figures."""
        return {
            "other_seeds": self.seeds,
            "pw_mcc": self.pw_mcc,
            "found": self.found.tolist(),
            "cosine": self.cosine.tolist(),
            "jaccard": self.jaccard.tolist(),
        }


AT_ONCE = 1024
"""Latents that are compared with all of another SAE's at once, which bounds the memory."""


def same_firing(
    both: Float[np.ndarray, "d other_d"],
    fired: Int[np.ndarray, " d"],
    other_fired: Int[np.ndarray, " other_d"],
    characters: int,
) -> tuple[Float[np.ndarray, "d other_d"], Bool[np.ndarray, "d other_d"]]:
    """(Jaccard index of each pair of latents, whether they fire alike, see `SAME_FIRING`).

    Args:
      both: on how many characters both fire; `fired`, `other_fired`: on how many each does, of `characters`.
    """
    jaccard = both / np.maximum(fired[:, None] + other_fired[None] - both, 1)
    by_chance = fired[:, None] * (other_fired[None] / max(characters, 1))
    chance = by_chance / np.maximum(fired[:, None] + other_fired[None] - by_chance, 1)
    return jaccard, jaccard >= np.maximum(SAME_FIRING, chance + SAME_FIRING * (1 - chance))


class Compared(NamedTuple):
    """Some latents of an SAE beside all of another: see `same_firing`."""

    some: slice
    jaccard: Float[np.ndarray, "some other_columns"]
    same: Bool[np.ndarray, "some other_columns"]


def compared_firings(one: Firings, other: Firings, characters: int) -> Iterator[Compared]:
    """Every latent of an SAE beside every latent of another, some at once.

    Args:
      characters: on which both were read.
    """
    from scipy.sparse import csr_array  # heavy, and for those alone who compare SAEs

    mine, others = (
        csr_array((np.ones(len(f.row), np.float32), (f.column.astype(np.int32), f.row)), (f.columns, len(f.judged)))
        for f in (one, other)
    )
    fired, other_fired = one.fired, other.fired
    for start in range(0, one.columns, AT_ONCE):
        some = slice(start, min(start + AT_ONCE, one.columns))
        both = (mine[some] @ others.T).toarray()
        yield Compared(some, *same_firing(both, fired[some], other_fired, characters))


def best_partners(
    one: Firings, other: Firings, characters: int
) -> tuple[Float[np.ndarray, " columns"], Bool[np.ndarray, " columns"]]:
    """For each latent (the Jaccard index of the most alike firing in another SAE, whether any fires alike).

    Args:
      characters: on which both were read.
    """
    jaccard, same = np.zeros(one.columns), np.zeros(one.columns, bool)
    for some, index, alike in compared_firings(one, other, characters):
        jaccard[some], same[some] = index.max(axis=1), alike.any(axis=1)
    return jaccard, same


def stability_of(sae: SAE, others: Sequence[SAE], firings: Firings, of_others: Sequence[Firings]) -> Stability:
    """Compare an SAE with others, of which the firings on the same characters are given."""
    judged = firings.judged.copy()
    for one in of_others:
        judged &= one.judged
    mine, directions = firings.within(judged), directions_of(sae)
    cosines = np.stack([(directions @ directions_of(other).T).max(axis=1) for other in others])
    partners = [best_partners(mine, one.within(judged), int(judged.sum())) for one in of_others]
    jaccard, same = (np.stack(part) for part in zip(*partners, strict=True))
    found = ((cosines >= SAME_DIRECTION) | same).mean(axis=0)
    return Stability(len(others), found, cosines.mean(axis=0), jaccard.mean(axis=0), pw_mcc([sae, *others]))
