"""How alike SAEs are that were trained alike but with other seeds.

PW-MCC is after Song et al. 2025, "Mechanistic Interpretability Should Prioritize Feature Consistency in SAEs"
(arXiv 2505.20254).
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxsae.sae.autoencoder import SAE


def directions_of(sae: SAE) -> Float[np.ndarray, "d_sae d_in"]:
    """The decoder rows, of norm 1."""
    rows = np.asarray(sae.W_dec, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def pw_mcc(saes: Sequence[SAE]) -> float:
    """Pairwise mean correlation coefficient: mean |cosine| of decoder rows paired one to one, over all pairs of SAEs.

    Rows are paired so that the mean is as large as it can be. NaN for fewer than two SAEs.
    """
    from scipy.optimize import linear_sum_assignment  # 0.1 s, for those alone who compare seeds

    directions = [directions_of(sae) for sae in saes]
    means = []
    for one, other in itertools.combinations(directions, 2):
        cosines = np.abs(one @ other.T)
        means.append(cosines[linear_sum_assignment(cosines, maximize=True)].mean())
    return float(np.mean(means)) if means else float("nan")
