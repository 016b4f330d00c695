"""Questions answered from the numbers: sentences, the features they name, and the data of a picture.

Which questions, about which concepts, in which words: `questions.toml`. There is a function for each way to answer.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsae.features.answer import (
    FEW,
    NAMED,
    Answer,
    Feature,
    best_detector_sentence,
    score_of,
    shortened,
    verdict,
    without_features,
)
from jaxsae.features.causal import CausalEffect
from jaxsae.features.concept_scores import ENOUGH, ConceptScores, detections
from jaxsae.features.discovery_answer import about_discoveries
from jaxsae.features.inspection import Inspection
from jaxsae.features.layers_answer import about_layers, about_one_layer
from jaxsae.features.questions import Characters, Discoveries, Family, Layers, Question, Texts
from jaxsae.text.pieces import of_tablets

SPECIFIC, ELSEWHERE = 0.9, 0.1
"""A latent is specific to some texts if at least this share of its firings is there; to the others, if at most this."""


def answers(inspections: Sequence[Inspection], asked: Sequence[Question]) -> list[Answer]:
    """Answer each question; of several layers, a concept is answered for the layer that detects it best."""
    found = [answer(inspections, question) for question in asked if is_asked(inspections[0], question)]
    # a pass over the damaged text for each: of the discoveries, which are many, nothing is removed
    effects = _effects_of_removal(inspections, [f for one in found if not one.points for f in one.features])
    return [
        one if one.points else one._replace(causal=[effects[f] for f in one.features if f in effects]) for one in found
    ]


def is_asked(inspection: Inspection, question: Question) -> bool:
    """Whether a text is asked: one of other tokens than characters, only of what it has concepts of.

    The questions and their concepts are those of the restoration model's texts; the dataset's columns are its own.
    """
    if isinstance(question, Family):
        of_question = any(one.concept.about == question.about for one in inspection.concept_scores)
    elif isinstance(question, Characters | Texts):
        of_question = any(inspection.scores_of(name) for name in question.concepts)
    else:
        return True
    return of_question or (of_tablets(inspection.samples.tokenizer) and getattr(question, "about", "") != "dataset")


def answer(inspections: Sequence[Inspection], question: Question) -> Answer:
    """Answer one question in the way that it asks for."""
    match question:
        case Characters():
            return about_characters(inspections, question)
        case Texts():
            return about_texts(inspections, question)
        case Family():
            return about_family(inspections, question)
        case Discoveries():
            return about_discoveries(inspections, question)
        case Layers():
            return (
                about_one_layer(inspections[0], question)
                if len(inspections) == 1
                else about_layers(inspections, question)
            )


MOST_READ = 25_000
"""Characters, about, that the model reads again for each feature: a long text would take longer than all else."""


def _effects_of_removal(
    inspections: Sequence[Inspection], features: Sequence[Feature]
) -> dict[Feature, dict[str, Any]]:
    """What is restored without each feature, at the damaged characters on which it fires; one pass for each layer.

    Of a long text on some of its samples, evenly spread.
    """
    out = {}
    for inspection in inspections:
        if not inspection.samples.damaged.any() or not inspection.lazy_model.there:
            continue
        latents = dict.fromkeys(latent for layer, latent in features if layer == inspection.layer)
        every = max(1, round(int(inspection.samples.real.sum()) / MOST_READ))
        every = every if inspection.samples[::every].damaged.any() else 1
        texts = f"{len(inspection.samples[::every]):,} of {len(inspection.samples):,} texts" if every > 1 else ""
        for effect in inspection.causal_effects([(latent, 0.0) for latent in latents], every):
            out[Feature(inspection.layer, effect.feature)] = _removal(inspection.layer, effect) | {"read": texts}
    return out


def _removal(layer: int, effect: CausalEffect) -> dict[str, Any]:
    figures = effect.where_it_fires._asdict()
    finite = {key: value if value == value else None for key, value in figures.items()}  # JSON has no NaN
    return {"layer": layer, "feature": effect.feature, **finite}


def _best_layer(inspections: Sequence[Inspection], concept: str) -> tuple[Inspection, ConceptScores] | None:
    """The layer whose best latent has the highest run score for a concept; None where it is never scored."""
    scored = [(inspection, scores) for inspection in inspections if (scores := inspection.scores_of(concept))]
    return max(scored, key=lambda pair: pair[1].best[0].run) if scored else None


def _first_scored(
    inspections: Sequence[Inspection], concepts: Sequence[str]
) -> tuple[Inspection, ConceptScores] | None:
    """`_best_layer` of the first concept that is scored on the text."""
    return next((found for concept in concepts if (found := _best_layer(inspections, concept))), None)


def _best_features(layer: int, scores: ConceptScores, count: int) -> list[Feature]:
    return [Feature(layer, score.latent) for score in scores.best[:count]]


def about_characters(inspections: Sequence[Inspection], question: Characters) -> Answer:
    """Which latents fire on characters with a property, and how many fire on nothing else, or never on them."""
    found = _first_scored(inspections, question.concepts)
    if not found:
        return without_features(question.title, question.missing)
    inspection, scores = found
    fired, precision, recall = detections(inspection.statistics.firings, inspection.marked, scores.name)
    enough = fired >= FEW
    only, never = int((enough & (precision >= 0.9)).sum()), int((enough & (precision <= 0.02)).sum())
    sentences = [
        best_detector_sentence(inspection, scores, question.characters),
        f"{scores.share:.0%} {question.share}. Of {int(enough.sum()):,} features that fire at least {FEW} times, each at "
        f"its threshold, {only} fire on {question.characters} nine times out of ten or more, {never} practically never.",
    ]
    points = [
        [int(i), round(float(recall[i]), 4), round(float(precision[i]), 4)]
        for i in np.flatnonzero(enough & (precision > 0))
    ]
    features = _best_features(inspection.layer, scores, NAMED)
    named = {feature.feature for feature in features}
    return Answer(
        question.title,
        sentences,
        features,
        caption=f"Each feature of layer {inspection.layer} at its threshold, on held-out texts: how many stretches of "
        f"{question.characters} it finds, and how many of the characters on which it fires are such.",
        chart={
            "kind": "scatter",
            "layer": inspection.layer,
            "base": scores.share,
            "points": points,
            "named": [point for point in points if point[0] in named],
        },
    )


def about_texts(inspections: Sequence[Inspection], question: Texts) -> Answer:
    """Which latents fire in texts with a property alone, and which in the other texts alone."""
    found = _first_scored(inspections, question.concepts)
    if not found:
        return without_features(question.title, question.missing)
    inspection, scores = found
    layer = inspection.layer
    fired, share, _ = detections(inspection.statistics.firings, inspection.marked, scores.name)
    base = scores.share
    enough = fired >= FEW
    inside, outside = enough & (share >= SPECIFIC), enough & (share <= ELSEWHERE)
    sentences = [best_detector_sentence(inspection, scores, f"characters of {question.texts}")]
    if more := question.more.get(scores.name):
        sentences.append(more.note)
        if other := inspection.scores_of(more.other_concept):
            sentences.append(best_detector_sentence(inspection, other, f"characters of {more.other_texts}"))
    sentences.append(
        f"{base:.0%} of the characters stand in {question.texts}. Of {int(enough.sum()):,} features that fire at least "
        f"{FEW} times, each at its threshold, {int(inside.sum())} have at least {SPECIFIC:.0%} of their firings there, "
        f"{int(outside.sum())} at most {ELSEWHERE:.0%}."
    )
    most_frequent = [
        Feature(layer, int(i))
        for some in (inside, outside)
        for i in np.flatnonzero(some)[np.argsort(-fired[some], kind="stable")][:1]
    ]
    best = _best_features(layer, scores, 1)
    return Answer(
        question.title,
        sentences,
        best + [feature for feature in most_frequent if feature not in best],
        caption=f"Features of layer {layer} that fire at least {FEW} times, each at its threshold, on held-out texts, by "
        f"the share of their firings in {question.texts}.",
        chart={
            "kind": "shares",
            "base": base,
            "shares": [round(float(s), 3) for s in share[enough]],
            "x": f"share of a feature's firings in {question.texts}",
        },
    )


def _some(names: Sequence[str], most: int = 8) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _ahead(clear: Sequence[tuple[Inspection, ConceptScores]]) -> str:
    """For how many of the concepts that have a clear feature nothing else is as good."""
    if not clear:
        return ""
    count = sum(scores.ahead for _, scores in clear)
    those = "none" if not count else "all" if count == len(clear) else str(count)
    return f" For {those} of these it is ahead of random directions, windows of text and neurons."


def about_family(inspections: Sequence[Inspection], question: Family) -> Answer:
    """Which of the concepts that belong together have a clear feature; those that are known are preferred."""
    scored = [one for inspection in inspections for one in inspection.concept_scores]
    scored = [one for one in scored if one.concept.about == question.about]
    names = dict.fromkeys(one.name for one in [one for one in scored if one.concept.is_known] or scored)
    found = [best for name in names if (best := _best_layer(inspections, name))]
    rare = [scores.name for _, scores in found if not scores.enough]
    ranked = sorted((pair for pair in found if pair[1].enough), key=lambda pair: -pair[1].best[0].run)
    if not ranked:
        return without_features(question.title, question.missing)
    clear = [(inspection, scores) for inspection, scores in ranked if scores.clear]
    unclear = [scores.name for _, scores in ranked if not scores.clear]
    sentences = [f"{len(clear)} of {len(ranked)} {question.members} have a clear feature.{_ahead(clear)}"]
    for inspection, scores in clear[:NAMED]:
        latent = scores.best[0].latent
        sentences.append(
            f"{scores.concept.title}: feature {latent} of layer {inspection.layer} ({inspection.captions[latent]}), "
            f"{score_of(scores)}; {scores.instances:,} instances.{verdict(scores)}"
        )
    if not clear:
        inspection, scores = ranked[0]
        sentences.append(best_detector_sentence(inspection, scores, f"instances of {scores.concept.title}"))
    if clear and unclear:
        sentences.append(f"No clear feature: {_some(unclear)}.")
    if rare:
        sentences.append(f"Too few to say, under {ENOUGH} instances in the texts on which is scored: {_some(rare)}.")
    return Answer(
        question.title,
        sentences,
        list(
            dict.fromkeys(
                feature
                for inspection, scores in clear[:NAMED] or ranked[:1]
                for feature in _best_features(inspection.layer, scores, 1)
            )
        ),
        caption=f"Run score of the best feature for each {question.member}, and the best of random directions, windows of "
        "text and neurons.",
        chart={
            "kind": "dumbbell",
            "rows": [
                [shortened(scores.name), round(scores.best[0].run, 3), round(scores.beside, 3)]
                for _, scores in ranked[:16]
            ],
            "opens": [[inspection.layer, scores.best[0].latent] for inspection, scores in ranked[:16]],
        },
    )
