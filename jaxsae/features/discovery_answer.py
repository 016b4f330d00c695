"""The answer to what was found at all: the strongest discoveries, and what they beat."""

from collections.abc import Sequence

from jaxsae.features.answer import TRY_NEXT, Answer, Feature, Point, score_of
from jaxsae.features.captions import CLEAR
from jaxsae.features.concept_scores import ConceptScores
from jaxsae.features.inspection import Inspection
from jaxsae.features.questions import Discoveries
from jaxsae.features.stability import each_other_seed, found_again
from jaxsae.sae.consistency import pw_mcc_in_words

SHOWN = 10
"""Discoveries that are told, at most."""


def about_discoveries(inspections: Sequence[Inspection], question: Discoveries) -> Answer:
    """The strongest named features, each with what it beats."""
    found = [(inspection, scores) for inspection in inspections for scores in inspection.discoveries]
    found = sorted(found, key=lambda pair: -pair[1].margin)[:SHOWN]
    sentences = [_summary_sentence(inspection) for inspection in inspections]
    if not found:
        return Answer(question.title, [*sentences, f"{question.missing} {TRY_NEXT}"], [], "", None)
    features = [Feature(inspection.layer, scores.best[0].latent) for inspection, scores in found]
    return Answer(
        question.title,
        sentences,
        features,
        caption="Run score of each on held-out texts with its 95 % interval, and the best of random directions, windows "
        "of text and neurons. The description was made for the feature, which favours it.",
        chart={
            "kind": "dumbbell",
            "rows": [_row(inspection, scores, several=len(inspections) > 1) for inspection, scores in found],
            "opens": [list(feature) for feature in features],
        },
        points=[Point(scores.name, discovery_sentence(inspection, scores)) for inspection, scores in found],
    )


def _row(inspection: Inspection, scores: ConceptScores, several: bool) -> list[str | float]:
    """Label, run score, the best beside it, and the interval."""
    best = scores.best[0]
    label = f"{f'layer {inspection.layer}, ' if several else 'feature '}{best.latent}"
    return [label, *(round(value, 3) for value in (best.run, scores.beside, best.low, best.high))]


def _summary_sentence(inspection: Inspection) -> str:
    """How many features have a caption that predicts them, and how many other seeds have too."""
    alive = int((inspection.statistics.fired > 0).sum())
    clear = sum(caption.clear for caption in inspection.captions)
    sentence = (
        f"Layer {inspection.layer}: of {alive:,} features that fire, {clear:,} ({clear / max(alive, 1):.0%}) have a "
        f"caption that predicts their firing on held-out texts (F1 of {CLEAR} or more)."
    )
    stability = inspection.stability
    if stability is None:
        return sentence
    share = float((stability.found[inspection.statistics.fired > 0] == 1).mean())
    pairs = pw_mcc_in_words(stability.pw_mcc)
    return f"{sentence} {share:.0%} are found again in {each_other_seed(stability.seeds)} ({pairs})."


def discovery_sentence(inspection: Inspection, scores: ConceptScores) -> str:
    """How well the feature finds what it is said to fire on, and what it beats."""
    best = scores.best[0]
    sentence = (
        f"At its threshold {best.precision:.0%} of its firings are on them, and it finds {best.recall:.0%} of their "
        f"{scores.instances:,} stretches ({score_of(scores)})."
    )
    if scores.margin <= 0:
        sentence += " Not clearly ahead of what is no feature."
    if inspection.stability is None:
        return sentence
    again = found_again(float(inspection.stability.found[best.latent]), inspection.stability.seeds)
    return f"{sentence} {again.capitalize()}."
