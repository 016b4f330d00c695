"""One latent in numbers and examples: how strongly, where and on what it fires, and what its decoder row promotes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxsae.features import relations
from jaxsae.features.captions import Caption
from jaxsae.features.concept_scores import ConceptScores
from jaxsae.features.concepts import true_text
from jaxsae.features.contexts import AFTER, BEFORE, Contexts
from jaxsae.features.histograms import per_octave
from jaxsae.features.relations import Relations
from jaxsae.features.stability import Stability
from jaxsae.features.statistics import WORD_POSITIONS, LatentStatistics
from jaxsae.text.pieces import Pieces, part
from jaxsae.text.samples import Samples

LEVELS = (0.75, 0.5, 0.25)
"""Of a latent's largest value: about there contexts of weaker firing are shown."""


class Context(NamedTuple):
    """A place in the text on which a latent fires, with the characters around it as they were before the damage."""

    sample: int
    position: int
    text: Pieces
    """Token by token: a string where tokens are characters."""
    at: int
    """Index in `text` of the character that the context is of."""
    damaged: list[int]
    """Indices in `text` of the characters that the model does not see."""
    values: list[float]
    """The latent's value on each character of `text`."""
    cut: list[bool]
    """Whether the text goes on to the left, and to the right."""
    level: str
    """How strong this firing is: `strongest`, or its share of the latent's largest value."""


class FiringShare(NamedTuple):
    """How a latent's firings are spread over characters, or over places in the word."""

    name: str
    of_firings: float
    """Share of the latent's firings that are on such characters."""
    rate: float
    """Share of such characters on which the latent fires."""


class Companion(NamedTuple):
    """Another latent that often fires on the same characters."""

    feature: int
    share: float
    """Share of the firings on which the other latent fires too."""
    lift: float
    """`share` over the other latent's own firing rate."""


LEAST_RUN = 0.2
"""Run score from which a concept is named beside a latent."""


class FoundConcept(NamedTuple):
    """How well a latent finds a concept, on texts on which its threshold was not chosen."""

    name: str
    run: float
    """The run score."""


class FoundAgain(NamedTuple):
    """Whether SAEs of other seeds have the latent too."""

    seeds: int
    """Number of other SAEs."""
    share: float
    """Share of them that have it, by its direction or by its firing."""
    cosine: float
    """Mean cosine of the most similar decoder row, and `jaccard`, mean Jaccard index of the most similar firing."""
    jaccard: float


class LogitEffect(NamedTuple):
    """What a decoder row adds to a character's logit by the direct way, next to the mean over all characters."""

    character: str
    effect: float


class Neighbour(NamedTuple):
    """Another latent with a similar decoder row."""

    feature: int
    cosine: float


class FeatureSummary(NamedTuple):
    """What is known of one latent."""

    feature: int
    caption: Caption
    """What it fires on, in words."""
    found_again: FoundAgain | None
    """In other seeds; None: there are no others."""
    firing_rate: float
    """Share of the characters on which it fires."""
    mean: float
    """Mean value over all characters."""
    max: float
    fired: int
    """Number of characters on which it fires."""
    bin_edges: list[float]
    """Lower edges of the bins of its values above 0, eight an octave."""
    bin_counts: list[int]
    bin_densities: list[float]
    """The counts over the widths of their bins: characters per octave."""
    contexts: list[Context]
    by_character: list[FiringShare]
    by_place: list[FiringShare]
    fires_with: list[Companion]
    concepts: list[FoundConcept]
    """The concepts that it finds best."""
    promotes: list[LogitEffect]
    suppresses: list[LogitEffect]
    nearest: list[Neighbour]

    def as_json(self) -> dict[str, Any]:
        """As `jaxsae inspect --json` writes it."""
        return {
            "feature": self.feature,
            "caption": str(self.caption),
            "caption_figures": self.caption.as_json(),
            "found_again": self.found_again._asdict() if self.found_again else None,
            "firing_rate": self.firing_rate,
            "mean": self.mean,
            "max": self.max,
            "fired": self.fired,
            "histogram": {"edges": self.bin_edges, "counts": self.bin_counts, "per_octave": self.bin_densities},
            "contexts": _dicts(self.contexts),
            "by_character": _dicts(self.by_character),
            "by_place": _dicts(self.by_place),
            "together": _dicts(self.fires_with),
            "concepts": _dicts(self.concepts),
            "promotes": _dicts(self.promotes),
            "suppresses": _dicts(self.suppresses),
            "nearest": _dicts(self.nearest),
        }


def _dicts(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [row._asdict() for row in rows]


def value_histogram(statistics: LatentStatistics, latent: int) -> tuple[list[float], list[int], list[float]]:
    """(lower edges, counts, counts per octave) of a latent's values above 0, without the empty bins at the ends."""
    counts, bounds = statistics.histogram.counts[latent], statistics.histogram.bounds()
    filled = np.flatnonzero(counts)
    part = slice(filled[0], filled[-1] + 1) if len(filled) else slice(0, 0)
    densities = per_octave(counts, bounds)
    return bounds[:-1][part].tolist(), counts[part].tolist(), [float(f"{one:.4g}") for one in densities[part]]


def _context(samples: Samples, contexts: Contexts, slot: int, latent: int, level: str) -> Context:
    sample, position = int(contexts.sample[slot, latent]), int(contexts.position[slot, latent])
    letters, damaged = true_text(samples, sample)
    at = int(samples.real[sample, :position].sum())
    start, end = max(0, at - BEFORE), min(len(letters), at + AFTER + 1)
    values = contexts.values[slot, latent, BEFORE - (at - start) : BEFORE + end - at].astype(float)
    return Context(
        sample=sample,
        position=at,
        text=part(letters, start, end),
        at=at - start,
        damaged=np.flatnonzero(damaged[start:end]).tolist(),
        values=[float(f"{v:.4g}") for v in values],
        cut=[start > 0, end < len(letters)],
        level=level,
    )


def contexts(samples: Samples, statistics: LatentStatistics, latent: int, strongest: int = 8) -> list[Context]:
    """Where a latent fires most, strongest first; then one each from about `LEVELS` of its largest value."""
    top = statistics.strongest
    order = [int(s) for s in np.argsort(-top.score[:, latent], kind="stable") if top.score[s, latent] > 0][:strongest]
    out = [_context(samples, top, slot, latent, "strongest") for slot in order]
    drawn, peak = statistics.drawn, float(statistics.peak[latent])
    value = drawn.values[:, latent, BEFORE].astype(float)
    free = [int(s) for s in np.flatnonzero(drawn.score[:, latent] > 0)]
    for level in LEVELS:
        near = [s for s in free if abs(value[s] / peak - level) < 0.125]
        if near:
            slot = min(near, key=lambda s: abs(value[s] / peak - level))
            free.remove(slot)
            out.append(_context(samples, drawn, slot, latent, f"{level:.0%} of the largest"))
    return out


def shares_of_firings(
    counts: np.ndarray, rows: np.ndarray, names: Sequence[str], fired: int, top: int
) -> list[FiringShare]:
    """The `top` characters or places on which a latent fires most often.

    Args:
      counts: on how many characters of each name it fires.
      rows: how many characters of each name there are.
      fired: number of all its firings.
    """
    order = [int(i) for i in np.argsort(-counts, kind="stable")[:top] if counts[i] > 0]
    return [FiringShare(names[i], float(counts[i]) / fired, float(counts[i]) / int(rows[i])) for i in order]


def promoted_and_suppressed(
    output_names: Sequence[str], effect: Float[np.ndarray, " characters"], count: int = 6
) -> tuple[list[LogitEffect], list[LogitEffect]]:
    """The characters whose logits a latent raises most, and those whose logits it lowers most."""
    order = np.argsort(-effect, kind="stable")
    first, last = (
        [LogitEffect(output_names[i], float(effect[i])) for i in some] for some in (order[:count], order[::-1][:count])
    )
    return first, last


def concepts_of_latent(scores: Sequence[ConceptScores], latent: int) -> list[FoundConcept]:
    """The concepts that a latent finds best where thresholds are chosen; at most five, and `LEAST_RUN` elsewhere."""
    ranked = sorted(scores, key=lambda one: -one.chosen[latent])[:5]
    return [FoundConcept(one.name, float(one.run[latent])) for one in ranked if one.run[latent] >= LEAST_RUN]


def found_again(stability: Stability | None, latent: int) -> FoundAgain | None:
    """What SAEs of other seeds have of a latent."""
    if stability is None:
        return None
    return FoundAgain(
        stability.seeds,
        float(stability.found[latent]),
        float(stability.cosine[latent]),
        float(stability.jaccard[latent]),
    )


def feature_summary(
    samples: Samples,
    statistics: LatentStatistics,
    latent: int,
    *,
    caption: Caption,
    stability: Stability | None,
    character_names: Sequence[str],
    scores: Sequence[ConceptScores],
    output_names: Sequence[str],
    related: Relations,
    strongest: int = 8,
) -> FeatureSummary:
    """Everything known of one latent; `Inspection.feature` gives what is needed for it.

    Args:
      caption: of the latent.
      stability: of the SAE.
      character_names: of `statistics.character_ids`.
      scores: those of all concepts.
      output_names: the characters that its direct logits have a column for, if they have any.
      related: of the latent alone.
      strongest: how many of the strongest contexts are shown, at most.
    """
    fired = int(statistics.fired[latent])
    edges, counts, densities = value_histogram(statistics, latent)
    (logits,), (nearest,), (cosines,) = related
    promotes, suppresses = promoted_and_suppressed(output_names[: len(logits)], logits)
    characters, there = statistics.by_character.row(latent)
    by_character, by_place = np.zeros(len(character_names), np.float32), statistics.by_place[:, latent]
    by_character[characters] = there
    return FeatureSummary(
        feature=latent,
        caption=caption,
        found_again=found_again(stability, latent),
        firing_rate=float(statistics.rate[latent]),
        mean=float(statistics.mean[latent]),
        max=float(statistics.peak[latent]),
        fired=fired,
        bin_edges=edges,
        bin_counts=counts,
        bin_densities=densities,
        contexts=contexts(samples, statistics, latent, strongest),
        by_character=shares_of_firings(by_character, statistics.character_rows, character_names, fired, 8),
        by_place=shares_of_firings(by_place, statistics.place_rows, WORD_POSITIONS, fired, len(WORD_POSITIONS)),
        fires_with=[Companion(*one) for one in relations.fires_with(statistics, latent)] if fired else [],
        concepts=concepts_of_latent(scores, latent) if fired else [],
        promotes=promotes,
        suppresses=suppresses,
        nearest=[Neighbour(int(i), float(c)) for i, c in zip(nearest, cosines, strict=True)],
    )
