"""How well one latent, or a few, detect a yes-or-no property of the character that they fire on."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsae.features import probe
from jaxsae.features.histograms import Histograms
from jaxsae.features.statistics import LatentStatistics
from jaxsae.models.protocol import ResidualModel
from jaxsae.sae.autoencoder import SAE


class DetectionScore(NamedTuple):
    """How well a detector finds the rows that have a property, measured on rows on which nothing was chosen."""

    auroc: float
    """0.5 is chance."""
    precision: float
    recall: float
    f1: float
    columns: tuple[int, ...] = ()
    """Which latents, or directions, it reads; best first."""
    threshold: float = float("nan")
    """From this value on the detector answers "yes"."""

    @property
    def latent(self) -> int:
        """The one latent that is read, or the best of several."""
        return self.columns[0]

    def as_json(self) -> dict[str, Any]:
        """The figures of a latent's score."""
        return {
            "feature": self.latent,
            "auroc": self.auroc,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "threshold": self.threshold,
        }


def best_threshold(scores: Float[np.ndarray, " n"], has: Bool[np.ndarray, " n"]) -> float:
    """The threshold with the highest F1, where "yes" is answered for scores from it on."""
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(has[order])
    answered_yes = np.arange(1, len(scores) + 1)
    last_of_ties = np.append(ordered[1:] != ordered[:-1], True)
    f1 = np.where(last_of_ties, 2 * hits / (answered_yes + has.sum()), 0)
    return float(ordered[f1.argmax()])


def detection_score(
    scores: Float[np.ndarray, " n"], has: Bool[np.ndarray, " n"], threshold: float, columns: tuple[int, ...] = ()
) -> DetectionScore:
    """AUROC of the scores, and precision, recall and F1 of answering "yes" from `threshold` on."""
    yes = scores >= threshold
    hits = float((yes & has).sum())
    precision = hits / yes.sum() if yes.any() else 0.0
    recall = hits / has.sum() if has.any() else 0.0
    f1 = 2 * hits / (yes.sum() + has.sum()) if hits else 0.0
    return DetectionScore(probe.auroc(scores, has), float(precision), float(recall), float(f1), columns, threshold)


class Half(NamedTuple):
    """Rows to choose on, or to score on."""

    values: Float[np.ndarray, "n f"]
    """Latents, or another set of directions' projections."""
    properties: Bool[np.ndarray, "p n"]


def best_columns(choose: Half, score: Half, count: int) -> list[DetectionScore]:
    """For each property, the `count` columns that detect it best on `choose`, and their score on `score`.

    Several columns are summed with the weights of a logistic regression on `choose`. A column may also detect a
    property by not firing: its worth is the distance of its AUROC from 0.5.
    """
    of_column = probe.aurocs(choose.values, choose.properties)
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
        out.append(detection_score(scored, truth, threshold, tuple(columns.tolist())))
    return out


def linear_probe(choose: Half, score: Half) -> list[DetectionScore]:
    """The score of a linear probe of all columns: the best that a linear detector can do."""
    out = []
    for has, truth in zip(choose.properties, score.properties, strict=True):
        direction = probe.fit(choose.values, has)
        threshold = best_threshold(choose.values @ direction, has)
        out.append(detection_score(score.values @ direction, truth, threshold))
    return out


class BinnedCounts(NamedTuple):
    """Counts of a concept's rows and of the others by how large each column's value is; of one half of the texts."""

    has: Float[np.ndarray, "columns bins_and_zero"]
    """The first bin is of values of 0."""
    lacks: Float[np.ndarray, "columns bins_and_zero"]

    def aurocs(self) -> Float[np.ndarray, " columns"]:
        """Of each column; values in one bin count as ties. NaN where all rows have the concept or none has."""
        return probe.auroc_of_counts(self.has, self.lacks)

    def cumulative(
        self,
    ) -> tuple[Float[np.ndarray, "columns bins_and_zero"], Float[np.ndarray, "columns bins_and_zero"]]:
        """(rows with the concept, all rows) whose value is in a bin or above it, for each bin."""
        hits = self.has[:, ::-1].cumsum(axis=1)[:, ::-1]
        return hits, hits + self.lacks[:, ::-1].cumsum(axis=1)[:, ::-1]


def binned_counts(
    histograms: Histograms, group_rows: Int[np.ndarray, "2 groups"], half: int, group: int
) -> BinnedCounts:
    """The counts of a group of rows beside all others."""
    has, every = (histograms.counts[half, g].astype(np.float64) for g in (group, 0))

    def with_zeros(counts: np.ndarray, rows: int) -> np.ndarray:
        return np.concatenate([rows - counts.sum(axis=1, keepdims=True), counts], axis=1)

    n, total = (int(group_rows[half, g]) for g in (group, 0))
    return BinnedCounts(with_zeros(has, n), with_zeros(every - has, total - n))


def best_detectors(
    histograms: Histograms, group_rows: Int[np.ndarray, "2 groups"], concept: int, count: int, by: str = "auroc"
) -> list[DetectionScore]:
    """The `count` columns that detect a concept best.

    They and their thresholds are chosen on the texts of even number and scored on those of odd number. Columns of
    signed `Histograms` may detect a concept by being small, latents only by firing.

    Args:
      by: what they are chosen by, `auroc` or `f1`.
    """
    choose, score = (binned_counts(histograms, group_rows, half, 1 + concept) for half in (0, 1))
    if histograms.signed:
        down = choose.aurocs() < 0.5
        choose, score = (
            BinnedCounts(*(np.where(down[:, None], counts[:, ::-1], counts) for counts in half))
            for half in (choose, score)
        )
    hits, answered_yes = choose.cumulative()
    # bin 0 would be "always": a threshold is above 0
    f1 = 2 * hits[:, 1:] / np.maximum(answered_yes[:, 1:] + choose.has[:1].sum(), 1)
    from_bin = f1.argmax(axis=1) + 1
    worth = np.nan_to_num(choose.aurocs()) if by == "auroc" else f1.max(axis=1)
    aurocs, (hits, answered_yes) = score.aurocs(), score.cumulative()
    edges, positives, out = histograms.edges(), float(score.has[:1].sum()), []
    for column in np.argsort(-worth, kind="stable")[:count]:
        at = from_bin[column]
        hit, yes = float(hits[column, at]), float(answered_yes[column, at])
        precision, recall = hit / yes if yes else 0.0, hit / positives if positives else 0.0
        f1_scored = 2 * hit / (yes + positives) if hit else 0.0
        edge = float(edges[at - 1])
        out.append(DetectionScore(float(aurocs[column]), precision, recall, f1_scored, (int(column),), edge))
    return out


def direct_logits(model: ResidualModel, sae: SAE, ids: Int[np.ndarray, " ids"]) -> Float[np.ndarray, "d_sae ids"]:
    """What each latent's decoder row adds to the logits of the tokens `ids` by the direct way, next to their mean.

    That is past the later blocks, and up to the factor that the model's last norm divides by.
    """
    effect = model.direct_logits(np.asarray(sae.W_dec, np.float32), ids)
    return effect - effect.mean(axis=1, keepdims=True)


def nearest(
    sae: SAE, other: SAE | None = None, count: int = 5
) -> tuple[Int[np.ndarray, "d_sae count"], Float[np.ndarray, "d_sae count"]]:
    """(latents, cosines): of the same SAE, or of another, those whose decoder rows are most alike, best first.

    As many as `count`, or as there are.
    """
    rows, others = (np.asarray(s.W_dec, np.float32) for s in (sae, other or sae))
    rows, others = (r / np.maximum(np.linalg.norm(r, axis=1, keepdims=True), 1e-12) for r in (rows, others))
    cosines = rows @ others.T
    count = min(count, len(others) - (other is None))  # a latent is not its own neighbour
    if other is None:
        np.fill_diagonal(cosines, -np.inf)
    top = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return top, np.take_along_axis(cosines, top, axis=1)


def fires_with(statistics: LatentStatistics, latent: int, count: int = 5) -> list[tuple[int, float, float]]:
    """The latents whose firing correlates most with that of `latent`, best first.

    Returns:
      (latent, the share of this latent's firings on which the other fires too, that share over the other's own rate).
    """
    both, fired, n = (
        statistics.cofiring[latent].astype(np.float64),
        statistics.fired.astype(np.float64),
        statistics.rows,
    )
    expected = fired[latent] * fired / n
    spread = np.sqrt(expected * (1 - fired[latent] / n) * (n - fired))
    correlation = np.where(spread > 0, (both - expected) / np.maximum(spread, 1e-12), -1)
    correlation[latent] = -np.inf
    best = [int(i) for i in np.argsort(-correlation, kind="stable")[:count] if both[i] > 0 and i != latent]
    return [(i, both[i] / fired[latent], both[i] * n / (fired[latent] * fired[i])) for i in best]
