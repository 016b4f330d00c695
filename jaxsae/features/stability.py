"""Which latents are found again in SAEs that were trained alike but with other seeds.

A latent that one seed alone has says as much about the seed as about the model.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

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


def jaccards(one: Firings, other: Firings, characters: int) -> Float[np.ndarray, "columns other_columns"]:
    """For each pair of latents the share of the characters on which either fires on which both fire."""
    matrices = [
        csr_array((np.ones(len(f.row), np.float32), (f.column.astype(np.int32), f.row)), shape=(f.columns, characters))
        for f in (one, other)
    ]
    both = (matrices[0] @ matrices[1].T).toarray()
    fired = [np.bincount(f.column, minlength=f.columns) for f in (one, other)]
    return both / np.maximum(fired[0][:, None] + fired[1][None] - both, 1)


def stability_of(sae: SAE, others: Sequence[SAE], firings: Firings, of_others: Sequence[Firings]) -> Stability:
    """Compare an SAE with others, of which the firings on the same characters are given."""
    judged = firings.judged.copy()
    for one in of_others:
        judged &= one.judged

    def within(one: Firings) -> Firings:
        kept = judged[one.row]
        return Firings(one.row[kept], one.column[kept], one.code[kept], one.columns, judged)

    mine, directions = within(firings), directions_of(sae)
    cosines = np.stack([(directions @ directions_of(other).T).max(axis=1) for other in others])
    jaccard, same = [], []
    for one in map(within, of_others):
        index = jaccards(mine, one, len(judged))
        a, b = (
            np.bincount(f.column, minlength=f.columns)[judged_of] / max(judged.sum(), 1)
            for f, judged_of in ((mine, np.s_[:, None]), (one, np.s_[None]))
        )
        chance = a * b / np.maximum(a + b - a * b, 1e-12)
        jaccard.append(index.max(axis=1))
        same.append((index >= np.maximum(SAME_FIRING, chance + SAME_FIRING * (1 - chance))).any(axis=1))
    found = ((cosines >= SAME_DIRECTION) | np.stack(same)).mean(axis=0)
    return Stability(len(others), found, cosines.mean(axis=0), np.mean(jaccard, axis=0), pw_mcc([sae, *others]))
