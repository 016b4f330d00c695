"""How well a linear function of activation rows, or one number per row, tells a property of the character."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit
from scipy.stats import rankdata


def auroc(scores: Float[np.ndarray, " n"], has: Bool[np.ndarray, " n"]) -> float:
    """The share of pairs (row with the property, row without) that `scores` ranks right; ties count a half.

    0.5 is chance. NaN where all rows have the property or none has.
    """
    positives = int(has.sum())
    negatives = len(has) - positives
    if not positives or not negatives:
        return float("nan")
    return float((rankdata(scores)[has].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def fit(rows: Float[np.ndarray, "n d"], has: Bool[np.ndarray, " n"], ridge: float = 1e-3) -> Float[np.ndarray, " d"]:
    """The direction w of a logistic regression of the property on the rows, so that `rows @ w` ranks them.

    Newton's method on the mean log-loss plus ridge / 2 * |w|^2, w being measured in the rows' standard deviations.
    """
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
