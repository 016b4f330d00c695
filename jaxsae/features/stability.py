"""Which latents are found again in SAEs that were trained alike but with other seeds.

A latent that one seed alone has says as much about the seed as about the model.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsae.features.firings import Firings
from jaxsae.features.pair_counts import CSR
from jaxsae.sae.active import rows_at_once
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.consistency import directions_of, largest_cosines, pw_mcc

SAME_DIRECTION = 0.8
"""Cosine of decoder rows from which two latents count as the same."""
SAME_FIRING = 0.5
"""They do, too, where of the characters on which either fires both fire on this share (Jaccard index), and on so much
of the way to 1 from what two independent latents of their rates have, which for dense latents is more."""


def each_other_seed(seeds: int) -> str:
    """So many other seeds, all of them, in words."""
    return f"each of {seeds} other seeds" if seeds > 1 else "the other seed"


def found_again(share: float, seeds: int) -> str:
    """In which share of so many other seeds a latent is found, in words."""
    times = round(share * seeds)
    if not times:
        return "in no other seed"
    return f"found again in {f'{times} of {seeds} other seeds' if seeds > 1 else 'the other seed'}"


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
    pw_mcc: float | None
    """Mean over all pairs of SAEs of the mean cosine of latents that are paired one to one; None: see `pw_mcc`."""

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
"""Latents that are compared with all of another SAE's at once; of a wide one fewer, which bounds the memory."""


def same_firing(
    both: Float[np.ndarray, "*pairs"],
    fired: Int[np.ndarray, "..."],
    other_fired: Int[np.ndarray, "..."],
    characters: int,
) -> tuple[Float[np.ndarray, "*pairs"], Bool[np.ndarray, "*pairs"]]:
    """(Jaccard index of each pair of latents, whether they fire alike, see `SAME_FIRING`).

    Two that never both fire have an index of 0 and do not fire alike.

    Args:
      both: on how many characters both fire; `fired`, `other_fired`: on how many each does, of `characters`; of shapes
        that go together.
    """
    jaccard = both / np.maximum(fired + other_fired - both, 1)
    by_chance = fired * (other_fired / max(characters, 1))
    chance = by_chance / np.maximum(fired + other_fired - by_chance, 1)
    return jaccard, jaccard >= np.maximum(SAME_FIRING, chance + SAME_FIRING * (1 - chance))


class Compared(NamedTuple):
    """Some latents of an SAE beside all of another: see `same_firing`."""

    some: slice
    jaccard: Float[np.ndarray, "some other_columns"]
    same: Bool[np.ndarray, "some other_columns"]


def _by_latent(firings: Firings) -> CSR:
    """[latents, characters]: 1 where a latent fires."""
    from scipy.sparse import csr_array  # heavy, and for those alone who compare SAEs

    ones = np.ones(len(firings.row), np.float32)
    return csr_array((ones, (firings.column.astype(np.int32), firings.row)), (firings.columns, len(firings.judged)))


def compared_firings(one: Firings, other: Firings, characters: int) -> Iterator[Compared]:
    """Every latent of an SAE beside every latent of another, some at once.

    Args:
      characters: on which both were read.
    """
    mine, others = _by_latent(one), _by_latent(other).T.tocsr()
    fired, other_fired = one.fired, other.fired
    step = rows_at_once(other.columns, AT_ONCE)
    for start in range(0, one.columns, step):
        some = slice(start, min(start + step, one.columns))
        both = (mine[some] @ others).toarray()
        yield Compared(some, *same_firing(both, fired[some, None], other_fired[None], characters))


def best_partners(
    one: Firings, other: Firings, characters: int
) -> tuple[Float[np.ndarray, " columns"], Bool[np.ndarray, " columns"]]:
    """For each latent (the Jaccard index of the most alike firing in another SAE, whether any fires alike).

    Args:
      characters: on which both were read.
    """
    jaccard, same = np.zeros(one.columns), np.zeros(one.columns, bool)
    mine, others, fired, other_fired = _by_latent(one), _by_latent(other).T.tocsr(), one.fired, other.fired
    step = rows_at_once(other.columns, AT_ONCE)
    for start in range(0, one.columns, step):
        both = (mine[start : start + step] @ others).tocoo()  # two that never both fire are not alike
        latent = both.row + start
        index, alike = same_firing(both.data, fired[latent], other_fired[both.col], characters)
        np.maximum.at(jaccard, latent, index)
        same[latent[alike]] = True
    return jaccard, same


def stability_of(sae: SAE, others: Sequence[SAE], firings: Firings, of_others: Sequence[Firings]) -> Stability:
    """Compare an SAE with others, of which the firings on the same characters are given."""
    judged = firings.judged.copy()
    for one in of_others:
        judged &= one.judged
    mine, directions = firings.within(judged), directions_of(sae)
    cosines = np.stack([largest_cosines(directions, directions_of(other)) for other in others])
    partners = [best_partners(mine, one.within(judged), int(judged.sum())) for one in of_others]
    jaccard, same = (np.stack(part) for part in zip(*partners, strict=True))
    found = ((cosines >= SAME_DIRECTION) | same).mean(axis=0)
    return Stability(len(others), found, cosines.mean(axis=0), jaccard.mean(axis=0), pw_mcc([sae, *others]))
