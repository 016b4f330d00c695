"""How well an SAE's latents find each concept, beside what finds it without an SAE."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsae.features import judge
from jaxsae.features.baselines import Baselines
from jaxsae.features.concepts import Concept
from jaxsae.features.detection import DetectionScore, detection_score
from jaxsae.features.firings import Firings
from jaxsae.features.judge import Judgement
from jaxsae.features.judged_text import JudgedText, MarkedRows

CLEAR_SCORE = 0.3
"""A latent finds a concept clearly if its run score is at least this, and its interval lies above random directions."""
LEAST = 10
"""Characters with a concept that each half of the texts must have, for the concept to be scored."""
ENOUGH = 50
"""Held-out instances from which on a sentence is made of a score."""


class ConceptScores(NamedTuple):
    """How well latents find one concept: chosen on the texts of even number, scored on those of odd number."""

    concept: Concept
    characters: int
    """Characters of the text that have the concept, and `share`, their share of all characters."""
    share: float
    instances: int
    """Stretches of words with the concept in the texts on which is scored."""
    best: list[DetectionScore]
    """The latents with the best run score where they were chosen, best first."""
    random: float | None
    """Run score of the best random direction; None: baselines were not asked for."""
    windows: float | None
    """Of the best window of up to three characters, and `window`, that window."""
    window: str | None
    neurons: float | None
    """Of the best feed-forward neuron; None also where the model does not show them."""
    run: Float[np.ndarray, " d_sae"]
    """Held-out run score of every latent, and `chosen`, that of the texts on which its threshold is chosen."""
    chosen: Float[np.ndarray, " d_sae"]

    @property
    def name(self) -> str:
        """The concept's name."""
        return self.concept.name

    @property
    def enough(self) -> bool:
        """Whether there are so many held-out instances that the score may be told in words."""
        return self.instances >= ENOUGH

    @property
    def clear(self) -> bool:
        """Whether the best latent finds the concept, clearly better than the best random direction."""
        best = self.best[0]
        return self.enough and best.run >= CLEAR_SCORE and best.low > (self.random or 0.0)

    @property
    def beside(self) -> float:
        """The best run score of what is no latent."""
        return max(score or 0.0 for score in (self.random, self.windows, self.neurons))

    @property
    def ahead(self) -> bool:
        """Whether the interval of the best latent's run score lies above all of what is no latent."""
        return self.margin > 0

    @property
    def margin(self) -> float:
        """How far the interval of the best latent's run score lies above that; below 0 where it does not."""
        return self.best[0].low - self.beside

    def as_json(self) -> dict[str, Any]:
        """All but the score of every latent."""
        return {
            "name": self.concept.name,
            "about": self.concept.about,
            "title": self.concept.title,
            "source": self.concept.source,
            "characters": self.characters,
            "share": self.share,
            "instances": self.instances,
            "best": [score.as_json() for score in self.best],
            "random": self.random,
            "windows": self.windows,
            "window": self.window,
            "neurons": self.neurons,
            "clear": self.clear,
        }


class LeftOut(NamedTuple):
    """A concept that cannot be scored on the text."""

    concept: Concept
    reason: str

    def as_json(self) -> dict[str, str]:
        """The concept's name and the reason."""
        return {"name": self.concept.name, "reason": self.reason}


@dataclass(frozen=True)
class MarkedText:
    """A text, and which concepts its characters have."""

    text: JudgedText
    concepts: Sequence[Concept]
    has: Bool[np.ndarray, "concepts n"]

    @cached_property
    def left_out(self) -> list[LeftOut]:
        """The concepts that cannot be scored."""
        return [LeftOut(one, reason) for one, reason in zip(self.concepts, self._reasons, strict=True) if reason]

    @cached_property
    def _reasons(self) -> list[str | None]:
        return [self._why_left_out(has) for has in self.has]

    @cached_property
    def scored(self) -> Int[np.ndarray, " scored"]:
        """The numbers of those that can."""
        return np.array([i for i, reason in enumerate(self._reasons) if reason is None], int)

    @cached_property
    def halves(self) -> tuple[MarkedRows, MarkedRows]:
        """The characters of the two halves, with the concepts that can be scored."""
        return judge.halves(self.text, self.has[self.scored], np.ones(len(self.text), bool))

    def _why_left_out(self, has: Bool[np.ndarray, " n"]) -> str | None:
        """The reason why a concept cannot be scored; None: it can."""
        each = [int((has & (self.text.half == half)).sum()) for half in (0, 1)]
        if min(each) < LEAST:
            of_half = " and ".join(f"{n:,}" for n in each)
            return f"{sum(each):,} characters ({of_half}), at least {LEAST} in each half of the texts are needed"
        if any(n == (self.text.half == half).sum() for half, n in enumerate(each)):
            return "every character of half of the texts has it, some without it are needed"
        return None


def concept_scores(
    firings: Firings,
    marked: MarkedText,
    baselines: Baselines | None = None,
    count: int = 5,
    latents: Mapping[int, int] = MappingProxyType({}),
) -> list[ConceptScores]:
    """The scores of the concepts that both halves of the texts have.

    Args:
      firings: of an SAE's latents on the text.
      baselines: of the same concepts, on the same text.
      count: of how many latents the scores are given for each concept.
      latents: number of a concept -> the one latent that is scored on it, in place of the best.
    """
    used = firings.judged
    halves = marked.halves if used.all() else judge.halves(marked.text, marked.has[marked.scored], used)
    few, number_of = _judged_latents(firings, marked.text, used)
    choose, score, edges = judge.sparse_halves(few, marked.text, halves, used)
    judged: Judgement = judge.judge(choose, score, halves)
    run, chosen = judged.run[:, number_of], judged.chosen[:, number_of]
    out = []
    for p, number in enumerate(marked.scored.tolist()):
        first = np.argsort(-chosen[p], kind="stable")[:count].tolist()
        best = [
            detection_score(judged, p, int(number_of[latent]), score, edges)._replace(latent=latent)
            for latent in ([latents[number]] if number in latents else first)
        ]
        out.append(
            ConceptScores(
                concept=marked.concepts[number],
                characters=int(marked.has[number].sum()),
                share=float(marked.has[number].mean()),
                instances=len(halves[1].starts[p]),
                best=best,
                random=float(baselines.random.score[p]) if baselines else None,
                windows=float(baselines.windows.score[p]) if baselines else None,
                window=baselines.window_texts[baselines.windows.column[p]] if baselines else None,
                neurons=float(baselines.neurons.score[p]) if baselines and baselines.neurons else None,
                run=run[p],
                chosen=chosen[p],
            )
        )
    return out


class Detections(NamedTuple):
    """How every latent finds one concept, at its own threshold for it, on the texts on which is scored."""

    fired: Int[np.ndarray, " d_sae"]
    """Characters on which it fires; 0 for a latent that fires too rarely for a threshold to be chosen."""
    precision: Float[np.ndarray, " d_sae"]
    """Share of them that have the concept, and `recall`, share of the concept's stretches that it finds."""
    recall: Float[np.ndarray, " d_sae"]


def detections(firings: Firings, marked: MarkedText, name: str) -> Detections:
    """The figures of which `concept_scores` keeps those of the best latents."""
    number = [one.name for one in marked.concepts].index(name)
    used = firings.judged
    halves = judge.halves(marked.text, marked.has[[number]], used)
    few, number_of = _judged_latents(firings, marked.text, used)
    choose, score, _ = judge.sparse_halves(few, marked.text, halves, used)
    judged = judge.judge(choose, score, halves)
    fired = score.said[np.arange(few.columns), judged.at[0]].astype(np.int64)
    return Detections(*(part[number_of] for part in (fired, judged.precision[0], judged.recall[0])))


def _judged_latents(
    firings: Firings, text: JudgedText, used: Bool[np.ndarray, " n"]
) -> tuple[Firings, Int[np.ndarray, " d_sae"]]:
    """(the firings of the latents that are judged, the number that each latent has among these).

    The others, of a wide SAE most, share the last number, which has no firings.
    """
    here = (text.half[firings.row] == 0) & used[firings.row]
    fired = np.bincount(firings.column[here], minlength=firings.columns)
    enough = np.flatnonzero(fired >= judge.FEWEST_FIRINGS)
    number_of = np.full(firings.columns, len(enough))
    number_of[enough] = np.arange(len(enough))
    return dataclasses.replace(firings.of(enough), columns=len(enough) + 1), number_of
