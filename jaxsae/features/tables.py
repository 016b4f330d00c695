"""An inspection as tables with a row for each feature, concept or discovery: what `jaxsae inspect --csv` writes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxsae.features.concept_scores import ConceptScores
from jaxsae.features.feature_summary import concepts_of_latent
from jaxsae.features.inspection import Inspection


class FeatureRow(NamedTuple):
    """A latent in one line."""

    feature: int
    caption: str
    f1: float
    """Of the caption's words against firing, on held-out text, with `precision` and `recall`."""
    precision: float
    recall: float
    firing_rate: float
    mean: float
    max: float
    in_other_seeds: float | None
    """Share of the other seeds that have it, and what `Stability` says besides; None: there are none."""
    seeds_cosine: float | None
    seeds_jaccard: float | None
    concept: str | None
    """The concept that it finds best, and `run`, its run score; None: it finds none."""
    run: float | None


class ConceptRow(NamedTuple):
    """A concept and the latent that finds it best, in one line; see `ConceptScores` and `DetectionScore`."""

    name: str
    about: str
    title: str
    source: str
    characters: int
    share: float
    instances: int
    feature: int
    caption: str
    run: float
    low: float
    high: float
    precision: float
    recall: float
    character: float
    word: float
    auroc: float
    threshold: float
    random: float | None
    windows: float | None
    window: str | None
    neurons: float | None
    clear: bool


TABLES: dict[str, Any] = {"features": FeatureRow, "concepts": ConceptRow, "discoveries": ConceptRow}
"""Name of a table -> the type of its rows."""


def tables_of(inspection: Inspection) -> dict[str, list[Any]]:
    """The rows of each table."""
    return {
        "features": feature_rows(inspection),
        "concepts": concept_rows(inspection, inspection.concept_scores),
        "discoveries": concept_rows(inspection, inspection.discoveries),
    }


def feature_rows(inspection: Inspection) -> list[FeatureRow]:
    """A row for each latent, by its number."""
    statistics, stability, scores = inspection.statistics, inspection.stability, inspection.concept_scores
    rates, means, peaks = (values.tolist() for values in (statistics.rate, statistics.mean, statistics.peak))
    out = []
    for latent, caption in enumerate(inspection.captions):
        found = concepts_of_latent(scores, latent) if statistics.fired[latent] else []
        out.append(
            FeatureRow(
                feature=latent,
                caption=str(caption),
                f1=caption.f1,
                precision=caption.precision,
                recall=caption.recall,
                firing_rate=rates[latent],
                mean=means[latent],
                max=peaks[latent],
                in_other_seeds=float(stability.found[latent]) if stability else None,
                seeds_cosine=float(stability.cosine[latent]) if stability else None,
                seeds_jaccard=float(stability.jaccard[latent]) if stability else None,
                concept=found[0].name if found else None,
                run=found[0].run if found else None,
            )
        )
    return out


def concept_rows(inspection: Inspection, scores: Sequence[ConceptScores]) -> list[ConceptRow]:
    """A row for each concept, in their order."""
    out = []
    for one in scores:
        figures = one.as_json()
        best = figures.pop("best")[0]
        out.append(ConceptRow(**figures, **best, caption=str(inspection.captions[one.best[0].latent])))
    return out
