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
"""Jaccard index of firings from which they do: of the characters on which either fires, both fire on this share."""


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
            "seeds": 1 + self.seeds,
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
    jaccard = np.stack([jaccards(mine, within(one), len(judged)).max(axis=1) for one in of_others])
    found = ((cosines >= SAME_DIRECTION) | (jaccard >= SAME_FIRING)).mean(axis=0)
    return Stability(len(others), found, cosines.mean(axis=0), jaccard.mean(axis=0), pw_mcc([sae, *others]))
