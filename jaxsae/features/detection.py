"""One latent and one property in full: its scores, the interval of its run score, its AUROC."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxsae.features import probe
from jaxsae.features.firings import value_of
from jaxsae.features.judge import Judgement, SparseColumns, f1
from jaxsae.features.judged_text import MarkedRows

DRAWS, COVERAGE = 1000, 0.95
"""Of the bootstrap over texts: the number of draws, and the share of them that an interval holds."""


class DetectionScore(NamedTuple):
    """How well a column finds a property, on texts on which nothing was chosen."""

    latent: int
    run: float
    """The run score: harmonic mean of `precision` and `recall`."""
    low: float
    """`low` and `high` hold the run score in 95 of 100 draws of as many texts (bootstrap)."""
    high: float
    precision: float
    """Share of the characters on which it fires that have the property."""
    recall: float
    """Share of the instances that it finds."""
    character: float
    """F1 of characters."""
    word: float
    """F1 of words."""
    auroc: float
    """0.5 is chance."""
    threshold: float
    """It fires from this value on; 0: wherever it is above 0."""

    def as_json(self) -> dict[str, float]:
        """Its figures."""
        return {"feature": self.latent} | {name: value for name, value in self._asdict().items() if name != "latent"}


def detection_score(
    judgement: Judgement, p: int, latent: int, score: SparseColumns, edges: Int[np.ndarray, "columns t"]
) -> DetectionScore:
    """The figures of one latent and property, with the interval and the AUROC."""
    at, mine = int(judgement.at[p, latent]), score.column == latent
    row, bin_ = score.row[mine], score.bin[mine]
    return DetectionScore(
        latent,
        float(judgement.run[p, latent]),
        *interval(score.marked, p, row[bin_ > at]),
        float(judgement.precision[p, latent]),
        float(judgement.recall[p, latent]),
        float(judgement.character[p, latent]),
        float(judgement.words[p, latent]),
        auroc(score.marked.has[p], row, bin_),
        float(value_of(edges[latent])[at]),
    )


def interval(marked: MarkedRows, p: int, fired: Int[np.ndarray, " m"]) -> tuple[float, float]:
    """The run score of a column that fires on the characters `fired`: its 95 % interval over draws of texts."""
    texts, text = np.unique(marked.text, return_inverse=True)
    if not len(texts):
        return 0.0, 0.0
    has, instance = marked.has[p], marked.instance(p)
    text_of_instance = text[marked.members[p][marked.starts[p]]] if len(marked.starts[p]) else np.zeros(0, int)
    found = np.unique(instance[fired[has[fired]]])

    def per_text(of: np.ndarray) -> np.ndarray:
        return np.bincount(of, minlength=len(texts)).astype(np.float64)

    said, hits, instances, instances_found = (
        per_text(of) for of in (text[fired], text[fired[has[fired]]], text_of_instance, text_of_instance[found])
    )
    draws = np.random.default_rng(0).multinomial(len(texts), np.full(len(texts), 1 / len(texts)), DRAWS).astype(float)
    precision, recall = (
        (draws @ part) / np.maximum(draws @ whole, 1) for part, whole in ((hits, said), (instances_found, instances))
    )
    low, high = np.quantile(f1(precision, recall), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def auroc(has: Bool[np.ndarray, " n"], row: Int[np.ndarray, " m"], rank: Int[np.ndarray, " m"]) -> float:
    """AUROC of a column that is silent but on the characters `row`, where it is as high as `rank` says.

    0.5 where all characters have the property or none has.
    """
    values = np.zeros(len(has))
    values[row] = rank
    return probe.auroc(values, has) if has.any() and not has.all() else 0.5
