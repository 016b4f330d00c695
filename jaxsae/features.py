"""What single latents mean: how well one, or a few, tell a yes-or-no property of the character they fire on."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from jaxsae import probe


class Told(NamedTuple):
    """How well scores tell a property, on rows on which nothing was chosen."""

    auroc: float
    """0.5 is chance."""
    precision: float
    recall: float
    f1: float
    columns: tuple[int, ...] = ()
    """Which latents, or directions, the scores come from; best first."""


def aurocs(values: Float[np.ndarray, "n f"], properties: Bool[np.ndarray, "p n"]) -> Float[np.ndarray, "p f"]:
    """`probe.auroc` of each column for each property; a column is ranked once for all of them."""
    n = values.shape[0]
    positives = properties.sum(axis=1).astype(np.float64)
    out = np.empty((len(properties), values.shape[1]))
    for column in range(values.shape[1]):
        of_positives = properties @ rankdata(values[:, column])
        out[:, column] = of_positives - positives * (positives + 1) / 2
    pairs = positives * (n - positives)
    return out / np.where(pairs > 0, pairs, np.nan)[:, None]


def best_threshold(scores: Float[np.ndarray, " n"], has: Bool[np.ndarray, " n"]) -> float:
    """The score from which on "yes" has the highest F1."""
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(has[order])
    said = np.arange(1, len(scores) + 1)
    last_of_ties = np.append(ordered[1:] != ordered[:-1], True)
    f1 = np.where(last_of_ties, 2 * hits / (said + has.sum()), 0)
    return float(ordered[f1.argmax()])


def judge(
    scores: Float[np.ndarray, " n"], has: Bool[np.ndarray, " n"], threshold: float, columns: tuple[int, ...] = ()
) -> Told:
    """AUROC of the scores, and what saying "yes" from `threshold` on is worth."""
    yes = scores >= threshold
    hits = float((yes & has).sum())
    precision = hits / yes.sum() if yes.any() else 0.0
    recall = hits / has.sum() if has.any() else 0.0
    f1 = 2 * hits / (yes.sum() + has.sum()) if hits else 0.0
    return Told(probe.auroc(scores, has), float(precision), float(recall), float(f1), columns)


class Half(NamedTuple):
    """Rows to choose on, or to score on."""

    values: Float[np.ndarray, "n f"]
    """Latents, or another set of directions' projections."""
    properties: Bool[np.ndarray, "p n"]


def best(choose: Half, score: Half, count: int) -> list[Told]:
    """For each property, the `count` columns that tell it best on `choose`, and what they are worth on `score`.

    Several are added up as a logistic regression on `choose` weighs them. A column may also tell by not firing: one is
    as good as its AUROC's distance from chance.
    """
    of_column = aurocs(choose.values, choose.properties)
    out = []
    for of_property, has, truth in zip(of_column, choose.properties, score.properties, strict=True):
        distance = np.nan_to_num(np.abs(of_property - 0.5))
        columns = np.argsort(-distance, kind="stable")[:count]
        if count == 1:
            sign = 1.0 if of_property[columns[0]] >= 0.5 else -1.0
            chosen, scored = (sign * half.values[:, columns[0]] for half in (choose, score))
        else:
            weights = probe.fit(choose.values[:, columns], has)
            chosen, scored = (half.values[:, columns] @ weights for half in (choose, score))
        threshold = best_threshold(chosen, has)
        out.append(judge(scored, truth, threshold, tuple(columns.tolist())))
    return out


def linear(choose: Half, score: Half) -> list[Told]:
    """The same of a linear probe of all columns: what is there to be told."""
    out = []
    for has, truth in zip(choose.properties, score.properties, strict=True):
        direction = probe.fit(choose.values, has)
        threshold = best_threshold(choose.values @ direction, has)
        out.append(judge(score.values @ direction, truth, threshold))
    return out
