"""How alike SAEs are that were trained alike but with other seeds.

PW-MCC is after Song et al. 2025, "Mechanistic Interpretability Should Prioritize Feature Consistency in SAEs"
(arXiv 2505.20254).
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxsae.sae.active import rows_at_once
from jaxsae.sae.autoencoder import SAE


def directions_of(sae: SAE) -> Float[np.ndarray, "d_sae d_in"]:
    """The decoder rows, of norm 1."""
    rows = np.asarray(sae.W_dec, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def largest_cosines(
    directions: Float[np.ndarray, "d_sae d_in"], others: Float[np.ndarray, "other_d_sae d_in"]
) -> Float[np.ndarray, " d_sae"]:
    """The cosine of each direction and the one of the others that is most like it."""
    step = rows_at_once(len(others), max(len(directions), 1))
    parts = [(directions[at : at + step] @ others.T).max(axis=1) for at in range(0, len(directions), step)]
    return np.concatenate(parts)


MOST_PAIRED = 8192
"""Latents of an SAE that are paired one to one, at most: time grows with their cube, memory with their square."""


def pw_mcc(saes: Sequence[SAE]) -> float | None:
    """Pairwise mean correlation coefficient: mean |cosine| of decoder rows paired one to one, over all pairs of SAEs.

    Rows are paired so that the mean is as large as it can be. NaN for fewer than two SAEs; None where one has more than
    `MOST_PAIRED` latents.
    """
    from scipy.optimize import linear_sum_assignment  # 0.1 s, for those alone who compare seeds

    if any(sae.d_sae > MOST_PAIRED for sae in saes):
        return None
    directions = [directions_of(sae) for sae in saes]
    means = []
    for one, other in itertools.combinations(directions, 2):
        cosines = np.abs(one @ other.T)
        means.append(cosines[linear_sum_assignment(cosines, maximize=True)].mean())
    return float(np.mean(means)) if means else float("nan")


def pw_mcc_in_words(value: float | None, digits: int = 2) -> str:
    """The figure, or why there is none."""
    return f"PW-MCC left out, of more than {MOST_PAIRED:,} features" if value is None else f"PW-MCC {value:.{digits}f}"
