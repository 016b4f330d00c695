"""Questions answered from the numbers: sentences, the features they name, and the data of a picture.

Which questions, about which concepts, in which words: `questions.toml`. There is a function for each way to answer.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxsae.features.causal import CausalEffect
from jaxsae.features.concept_scores import ConceptScores
from jaxsae.features.inspection import Inspection, MatchedLatent
from jaxsae.features.questions import Characters, Family, Layers, Question, Texts
from jaxsae.train.densities import density_counts, edges_spanning

FEW = 20
"""Latents that fire on fewer characters are not counted."""
NAMED = 3
"""Features that an answer names to look at more closely, at most."""
SPECIFIC = 0.9
"""A latent is specific to some texts if at least this share of its firings is there."""

Matches = Sequence[Sequence[MatchedLatent]]
"""For each layer but the last, what `Inspection.matched_latents` finds in the next layer."""


class Feature(NamedTuple):
    """A latent of one of the layers."""

    layer: int
    feature: int


class Answer(NamedTuple):
    """The answer to one question."""

    question: str
    sentences: list[str]
    features: list[Feature]
    """The features to look at."""
    caption: str
    """Of the picture."""
    chart: dict[str, Any] | None
    """The picture's data, as page.js draws them; None: no picture."""
    causal: list[dict[str, Any]] = []  # noqa: RUF012
    """What is restored without each of the features."""

    def as_json(self) -> dict[str, Any]:
        """As page.js reads it."""
        return self._asdict() | {"features": [feature._asdict() for feature in self.features]}


def answers(inspections: Sequence[Inspection], asked: Sequence[Question], matches: Matches) -> list[Answer]:
    """Answer each question; of several layers, a concept is answered for the layer that detects it best."""
    found = [answer(inspections, question, matches) for question in asked]
    effects = _effects_of_removal(inspections, [feature for one in found for feature in one.features])
    return [one._replace(causal=[effects[feature] for feature in one.features if feature in effects]) for one in found]


def answer(inspections: Sequence[Inspection], question: Question, matches: Matches) -> Answer:
    """Answer one question in the way that it asks for."""
    match question:
        case Characters():
            return about_characters(inspections, question)
        case Texts():
            return about_texts(inspections, question)
        case Family():
            return about_family(inspections, question)
        case Layers():
            return (
                about_one_layer(inspections[0], question)
                if len(inspections) == 1
                else about_layers(inspections, question, matches)
            )


def _effects_of_removal(
    inspections: Sequence[Inspection], features: Sequence[Feature]
) -> dict[Feature, dict[str, Any]]:
    """What is restored without each feature, at the damaged characters on which it fires; one pass for each layer."""
    out = {}
    for inspection in inspections:
        if not inspection.samples.damaged.any():
            continue
        latents = dict.fromkeys(latent for layer, latent in features if layer == inspection.layer)
        for effect in inspection.causal_effects([(latent, 0.0) for latent in latents]):
            out[Feature(inspection.layer, effect.feature)] = _removal(inspection.layer, effect)
    return out


def _removal(layer: int, effect: CausalEffect) -> dict[str, Any]:
    figures = effect.where_it_fires._asdict()
    finite = {key: value if value == value else None for key, value in figures.items()}  # JSON has no NaN
    return {"layer": layer, "feature": effect.feature, **finite}


def _best_layer(inspections: Sequence[Inspection], concept: str) -> tuple[Inspection, ConceptScores] | None:
    """The layer whose best latent has the highest F1 for a concept, and the scores; None where it is never scored."""
    scored = [(inspection, scores) for inspection in inspections if (scores := inspection.scores_of(concept))]
    return max(scored, key=lambda pair: pair[1].best_f1[0].f1) if scored else None


def _first_scored(
    inspections: Sequence[Inspection], concepts: Sequence[str]
) -> tuple[Inspection, ConceptScores] | None:
    """`_best_layer` of the first concept that is scored on the text."""
    return next((found for concept in concepts if (found := _best_layer(inspections, concept))), None)


def _firings_on(inspection: Inspection, concept: str) -> tuple[Float[np.ndarray, " d_sae"], int]:
    """(on how many characters with a concept each latent fires, how many such characters there are)."""
    assert inspection.statistics.histograms is not None
    group = 1 + [one.name for one in inspection.concepts].index(concept)
    firings = inspection.statistics.histograms.counts[:, group].sum(axis=(0, 2)).astype(float)
    return firings, int(inspection.statistics.group_rows[:, group].sum())


def best_detector_sentence(scores: ConceptScores, layer: int, characters: str) -> str:
    """How well the best latent detects a concept, and whether that is better than chance."""
    best, chance = scores.best_f1[0], scores.chance_f1
    sentence = (
        f"Feature {best.latent} of layer {layer} tells {characters} best: above its threshold it fires on "
        f"{best.recall:.0%} of them, and {best.precision:.0%} of the characters it then fires on are such "
        f"(F1 {best.f1:.2f}; the best random direction reaches {chance:.2f})."
    )
    if scores.clear:
        return sentence
    if best.f1 > chance:
        return f"{sentence} That is not clearly better than chance: no clear feature."
    return f"No clear feature. {sentence}"


def _best_features(layer: int, scores: ConceptScores, count: int) -> list[Feature]:
    return [Feature(layer, score.latent) for score in scores.best_f1[:count]]


def _without_features(question: str, sentence: str) -> Answer:
    return Answer(question, [sentence], [], "", None)


def about_characters(inspections: Sequence[Inspection], question: Characters) -> Answer:
    """Which latents fire on characters with a property, and how many fire on nothing else, or never on them."""
    found = _first_scored(inspections, question.concepts)
    if not found:
        return _without_features(question.title, question.missing)
    inspection, scores = found
    firings, n = _firings_on(inspection, scores.name)
    fired = inspection.statistics.fired
    enough = fired >= FEW
    precision = firings / np.maximum(fired, 1)
    only, never = int((enough & (precision >= 0.9)).sum()), int((enough & (precision <= 0.02)).sum())
    sentences = [
        best_detector_sentence(scores, inspection.layer, question.characters),
        f"{scores.share:.0%} {question.share}. Of {int(enough.sum()):,} features that fire at least {FEW} times, "
        f"{only} fire on {question.characters} nine times out of ten or more, {never} practically never.",
    ]
    points = [
        [int(i), round(firings[i] / n, 5), round(float(precision[i]), 4)]
        for i in np.flatnonzero(enough & (firings > 0))
    ]
    features = _best_features(inspection.layer, scores, NAMED)
    named = {feature.feature for feature in features}
    return Answer(
        question.title,
        sentences,
        features,
        caption=f"Each feature of layer {inspection.layer}: how many of the {question.characters} it fires on, and how "
        "many of its firings are on them.",
        chart={
            "kind": "scatter",
            "base": scores.share,
            "points": points,
            "named": [point for point in points if point[0] in named],
        },
    )


def about_texts(inspections: Sequence[Inspection], question: Texts) -> Answer:
    """Which latents fire in texts with a property alone, and which in the other texts alone."""
    found = _first_scored(inspections, question.concepts)
    if not found:
        return _without_features(question.title, question.missing)
    inspection, scores = found
    layer = inspection.layer
    firings, n = _firings_on(inspection, scores.name)
    fired, base = inspection.statistics.fired, n / inspection.statistics.rows
    share = firings / np.maximum(fired, 1)
    enough = fired >= FEW
    inside, outside = enough & (share >= SPECIFIC), enough & (share <= 1 - SPECIFIC)
    sentences = [best_detector_sentence(scores, layer, f"characters of {question.texts}")]
    if more := question.more.get(scores.name):
        sentences.append(more.note)
        if other := inspection.scores_of(more.other_concept):
            sentences.append(best_detector_sentence(other, layer, f"characters of {more.other_texts}"))
    sentences.append(
        f"{base:.0%} of the characters stand in {question.texts}. Of {int(enough.sum()):,} features that fire at least "
        f"{FEW} times, {int(inside.sum())} have at least {SPECIFIC:.0%} of their firings there, "
        f"{int(outside.sum())} at most {1 - SPECIFIC:.0%}."
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
        caption=f"Features of layer {layer} that fire at least {FEW} times, by the share of their firings "
        f"in {question.texts}.",
        chart={
            "kind": "shares",
            "base": base,
            "shares": [round(float(s), 3) for s in share[enough]],
            "x": f"share of a feature's firings in {question.texts}",
        },
    )


def about_family(inspections: Sequence[Inspection], question: Family) -> Answer:
    """Which of the concepts that belong together have a clear feature; those that are known are preferred."""
    scored = [one for inspection in inspections for one in inspection.concept_scores]
    scored = [one for one in scored if one.concept.about == question.about]
    names = dict.fromkeys(one.name for one in [one for one in scored if one.concept.is_known] or scored)
    found = [best for name in names if (best := _best_layer(inspections, name))]
    if not found:
        return _without_features(question.title, question.missing)
    ranked = sorted(found, key=lambda pair: -pair[1].best_f1[0].f1)
    clear = [(inspection, scores) for inspection, scores in ranked if scores.clear]
    unclear = [scores.name for _, scores in ranked if not scores.clear]
    if clear:
        listed = "; ".join(
            f"{scores.concept.title}: feature {scores.best_f1[0].latent} of layer {inspection.layer}, F1 "
            f"{scores.best_f1[0].f1:.2f} (chance {scores.chance_f1:.2f})"
            for inspection, scores in clear[:NAMED]
        )
        sentences = [f"{len(clear)} of {len(found)} {question.members} have a clear feature. {listed}."]
    else:
        inspection, scores = ranked[0]
        sentences = [
            f"No clear feature for any of {len(found)} {question.members}.",
            best_detector_sentence(scores, inspection.layer, f"{scores.concept.title}: its characters"),
        ]
    if clear and unclear:
        more = f" and {len(unclear) - 8} more" if len(unclear) > 8 else ""
        sentences.append(f"No clear feature: {', '.join(unclear[:8])}{more}.")
    return Answer(
        question.title,
        sentences,
        [
            feature
            for inspection, scores in clear[:NAMED] or ranked[:1]
            for feature in _best_features(inspection.layer, scores, 1)
        ],
        caption=f"F1 of the best feature for each {question.member}, beside the best random direction.",
        chart={
            "kind": "dumbbell",
            "rows": [
                [scores.name, round(scores.best_f1[0].f1, 3), round(scores.chance_f1, 3)] for _, scores in ranked[:16]
            ],
        },
    )


def about_one_layer(inspection: Inspection, question: Layers) -> Answer:
    """How often the latents of the only layer fire."""
    found, layer = inspection.statistics, inspection.layer
    edges = edges_spanning(found.rate, per_decade=4)
    bins = zip(edges, edges[1:], density_counts(found.rate, edges), strict=False)
    return Answer(
        question.title,
        [
            f"One layer was looked at, {layer}; {question.several}.",
            f"In layer {layer}, {found.l0:.1f} of {found.d_sae:,} features fire on a character; "
            f"{(found.fired == 0).mean():.1%} never fire, {(found.rate > 0.1).mean():.1%} on more than a "
            "tenth of the text.",
        ],
        [],
        caption=f"Features of layer {layer} by how often they fire.",
        chart={
            "kind": "densities",
            "bins": [[float(f"{low:.4g}"), float(f"{high:.4g}"), int(count)] for low, high, count in bins],
        },
    )


def about_layers(inspections: Sequence[Inspection], question: Layers, matches: Matches) -> Answer:
    """How well each layer detects the concepts, and how many latents of a layer are found again in the next."""
    layers = [inspection.layer for inspection in inspections]
    by_concept: dict[str, dict[int, float]] = {}
    for inspection in inspections:
        for scores in inspection.concept_scores:
            by_concept.setdefault(scores.name, {})[inspection.layer] = scores.best[0].auroc
    everywhere = {name: aurocs for name, aurocs in by_concept.items() if len(aurocs) == len(layers)}
    by_growth = sorted(everywhere, key=lambda name: everywhere[name][layers[-1]] - everywhere[name][layers[0]])
    sentences = [_growth_sentence(layers, everywhere, by_growth)] if by_growth else []
    for (one, following), match in zip(itertools.pairwise(inspections), matches, strict=True):
        frequent = [matched for matched, fired in zip(match, one.statistics.fired, strict=True) if fired >= FEW]
        if frequent:
            sentences.append(_match_sentence(one.layer, following.layer, frequent))
    shown = [*by_growth[-5:], *by_growth[:3]] if len(by_growth) > 8 else by_growth
    points = [[layer, name, round(everywhere[name][layer], 4)] for name in shown for layer in layers]
    return Answer(
        question.title,
        sentences or ["No concept occurs often enough in both halves of the texts."],
        [],
        caption="AUROC of the best feature, of the concepts that grow and fall most.",
        chart={"kind": "lines", "points": points},
    )


def _growth_sentence(layers: Sequence[int], aurocs: dict[str, dict[int, float]], by_growth: Sequence[str]) -> str:
    """The median of the best AUROC in each layer, and the concepts for which it grows and falls most."""

    def from_to(name: str) -> str:
        return f"{name} ({aurocs[name][layers[0]]:.2f} to {aurocs[name][layers[-1]]:.2f})"

    medians = [float(np.median([of_concept[layer] for of_concept in aurocs.values()])) for layer in layers]
    listed = ", ".join(f"layer {layer} {median:.2f}" for layer, median in zip(layers, medians, strict=True))
    return (
        f"The best feature's AUROC, median over {len(aurocs)} concepts: {listed}. From layer {layers[0]} to "
        f"{layers[-1]} it grows most for {from_to(by_growth[-1])} and falls most for {from_to(by_growth[0])}."
    )


def _match_sentence(layer: int, following: int, matched: Sequence[MatchedLatent]) -> str:
    """How many latents have a partner in the next layer, and how similar the partners are."""
    cosine, jaccard = (float(np.median([getattr(one, key) for one in matched])) for key in ("cosine", "jaccard"))
    kept = sum(one.jaccard >= 0.5 for one in matched) / len(matched)
    return (
        f"From layer {layer} to {following}: {kept:.0%} of the features have a partner that fires "
        f"on at least half of the same characters (median Jaccard {jaccard:.2f}; median cosine of the most alike "
        f"decoder row {cosine:.2f})."
    )
