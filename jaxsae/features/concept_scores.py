"""How well an SAE's latents detect each concept, beside the best of many random directions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxsae.features import detection
from jaxsae.features.concepts import Concept
from jaxsae.features.detection import DetectionScore
from jaxsae.features.statistics import LatentStatistics

CLEAR_MARGIN, CLEAR_F1 = 0.05, 0.3
"""A latent detects a concept clearly if its F1 is at least `CLEAR_F1` and this margin above a random direction's."""
LEAST = 10
"""Characters with a concept that each half of the texts must have, for the concept to be scored."""


class ConceptScores(NamedTuple):
    """How well latents detect one concept: chosen on the texts of even number, scored on those of odd number."""

    concept: Concept
    characters: int
    """Characters of the text that have the concept, and `share`, their share of all characters."""
    share: float
    best: list[DetectionScore]
    """The latents with the best AUROC, best first."""
    best_f1: list[DetectionScore]
    """The latents with the best F1, best first."""
    chance_auroc: float
    """AUROC of the best random direction."""
    chance_f1: float
    """F1 of the best random direction, which need not be the same one."""
    clear: bool
    """Whether a latent has a clearly better F1 than chance."""
    aurocs: Float[np.ndarray, " d_sae"]
    """AUROC of every latent; 0.5 where it cannot be measured."""

    @property
    def name(self) -> str:
        """The concept's name."""
        return self.concept.name

    def as_json(self) -> dict[str, Any]:
        """All but the AUROC of every latent."""
        return {
            "name": self.concept.name,
            "about": self.concept.about,
            "title": self.concept.title,
            "source": self.concept.source,
            "characters": self.characters,
            "share": self.share,
            "best": [score.as_json() for score in self.best],
            "best_f1": [score.as_json() for score in self.best_f1],
            "chance": {"auroc": self.chance_auroc, "f1": self.chance_f1},
            "clear": self.clear,
        }


class LeftOut(NamedTuple):
    """A concept that cannot be scored on the text."""

    concept: Concept
    reason: str

    def as_json(self) -> dict[str, str]:
        """The concept's name and the reason."""
        return {"name": self.concept.name, "reason": self.reason}


def concept_scores(
    statistics: LatentStatistics, concepts: Sequence[Concept], count: int = 5
) -> tuple[list[ConceptScores], list[LeftOut]]:
    """(the scores of the concepts that both halves of the texts have, the concepts that are left out).

    Args:
      statistics: of a pass over the text in which these concepts were counted, in this order.
      count: of how many latents the scores are given for each concept.
    """
    scored, left_out = [], []
    for number, concept in enumerate(concepts):
        reason = _why_left_out(statistics.group_rows[:, 1 + number], statistics.group_rows[:, 0])
        if reason:
            left_out.append(LeftOut(concept, reason))
        else:
            scored.append(_scores(statistics, number, concept, count))
    return scored, left_out


def _scores(statistics: LatentStatistics, number: int, concept: Concept, count: int) -> ConceptScores:
    histograms, chance, group_rows = statistics.histograms, statistics.chance, statistics.group_rows
    assert histograms is not None
    assert chance is not None
    characters = int(group_rows[:, 1 + number].sum())
    best, best_f1 = (detection.best_detectors(histograms, group_rows, number, count, by) for by in ("auroc", "f1"))
    by_auroc, by_f1 = (detection.best_detectors(chance, group_rows, number, 1, by)[0] for by in ("auroc", "f1"))
    f1 = best_f1[0].f1
    aurocs = detection.binned_counts(histograms, group_rows, 1, 1 + number).aurocs()
    return ConceptScores(
        concept=concept,
        characters=characters,
        share=float(characters / group_rows[:, 0].sum()),
        best=best,
        best_f1=best_f1,
        chance_auroc=by_auroc.auroc,
        chance_f1=by_f1.f1,
        clear=bool(f1 >= CLEAR_F1 and f1 >= by_f1.f1 + CLEAR_MARGIN),
        aurocs=np.nan_to_num(aurocs, nan=0.5),
    )


def _why_left_out(with_concept: Int[np.ndarray, " halves"], every: Int[np.ndarray, " halves"]) -> str | None:
    """The reason why a concept cannot be scored; None: it can.

    Args:
      with_concept: number of characters that have it, in each half of the texts.
      every: number of all characters, in each half.
    """
    if (with_concept < LEAST).any():
        each = " and ".join(f"{n:,}" for n in with_concept)
        return f"{int(with_concept.sum()):,} characters ({each}), at least {LEAST} in each half of the texts are needed"
    if (with_concept == every).any():
        return "every character of half of the texts has it, some without it are needed"
    return None
