"""How well one number per row, or a linear function of activation rows, separates rows with a property from others."""

import numpy as np
from jaxtyping import Bool, Float


def auroc_of_counts(
    has: Float[np.ndarray, "... values"], lacks: Float[np.ndarray, "... values"]
) -> Float[np.ndarray, "..."]:
    """AUROC: the share of pairs (row with the property, row without) in which the former has the larger value.

    A tie counts a half, so that 0.5 is chance. NaN where all rows have the property or none has.

    Args:
      has: how many rows with the property have each value; values rise along the last axis.
      lacks: how many rows without it have each value.
    """
    below = np.cumsum(lacks, axis=-1) - lacks / 2
    pairs = has.sum(axis=-1) * lacks.sum(axis=-1)
    return (has * below).sum(axis=-1) / np.where(pairs > 0, pairs, np.nan)


def aurocs(values: Float[np.ndarray, "n f"], properties: Bool[np.ndarray, "p n"]) -> Float[np.ndarray, "p f"]:
    """AUROC of each column for each property; a column is sorted once for all of them."""
    out = np.empty((len(properties), values.shape[1]))
    for column in range(values.shape[1]):
        different, index = np.unique(values[:, column], return_inverse=True)
        every = np.bincount(index, minlength=len(different)).astype(float)
        has = np.stack([np.bincount(index[rows], minlength=len(different)) for rows in properties]).astype(float)
        out[:, column] = auroc_of_counts(has, every - has)
    return out


def auroc(scores: Float[np.ndarray, " n"], has: Bool[np.ndarray, " n"]) -> float:
    """AUROC of one score a row for one property, see `auroc_of_counts`."""
    return float(aurocs(scores[:, None], has[None])[0, 0])


def fit(rows: Float[np.ndarray, "n d"], has: Bool[np.ndarray, " n"], ridge: float = 1e-3) -> Float[np.ndarray, " d"]:
    """The direction w of a logistic regression of the property on the rows, so that `rows @ w` ranks them.

    Newton's method on the mean log-loss plus ridge / 2 * |w|^2, w being measured in the rows' standard deviations.
    """
    from scipy.special import expit  # 0.2 s, which asking an SAE about its latents need not spend

    mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64) + 1e-12
    x = np.concatenate([(rows - mean) / deviation, np.ones((len(rows), 1))], axis=1)
    penalty = np.append(np.full(rows.shape[1], ridge), 1e-9)  # next to none on the constant
    w = np.zeros(x.shape[1])

    def objective(w: np.ndarray) -> float:
        z = x @ w
        return float(np.mean(np.logaddexp(0, z) - has * z) + 0.5 * penalty @ w**2)

    now = objective(w)
    for _ in range(50):
        p = expit(x @ w)
        slope = x.T @ (p - has) / len(x) + penalty * w
        curvature = (x * (p * (1 - p))[:, None]).T @ x / len(x) + np.diag(penalty)
        step, size = np.linalg.solve(curvature, slope), 1.0
        while (then := objective(w - size * step)) > now and size > 1e-3:
            size /= 2
        if now - then < 1e-7:
            break
        w, now = w - size * step, then
    return w[:-1] / deviation
