"""Questions answered from the numbers: sentences, the features they name, and the data of a picture.

Which questions, about which concepts, in which words: `questions.toml`. There is a function for each way to answer.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxsae.features.captions import CLEAR
from jaxsae.features.causal import CausalEffect
from jaxsae.features.concept_scores import ConceptScores
from jaxsae.features.inspection import Inspection, MatchedLatent
from jaxsae.features.questions import Characters, Discoveries, Family, Layers, Question, Texts
from jaxsae.features.stability import SAME_FIRING
from jaxsae.train.densities import density_counts, edges_spanning

FEW = 20
"""Latents that fire on fewer characters are not counted."""
NAMED = 3
"""Features that an answer names to look at more closely, at most."""
SHOWN = 10
"""Discoveries that are told, at most."""
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
    points: list[str] = []  # noqa: RUF012
    """A sentence for each feature."""

    def as_json(self) -> dict[str, Any]:
        """As page.js reads it."""
        return self._asdict() | {"features": [feature._asdict() for feature in self.features]}


def answers(inspections: Sequence[Inspection], asked: Sequence[Question], matches: Matches) -> list[Answer]:
    """Answer each question; of several layers, a concept is answered for the layer that detects it best."""
    found = [answer(inspections, question, matches) for question in asked]
    # a pass over the damaged text for each: of the discoveries, which are many, nothing is removed
    effects = _effects_of_removal(inspections, [f for one in found if not one.points for f in one.features])
    return [
        one if one.points else one._replace(causal=[effects[f] for f in one.features if f in effects]) for one in found
    ]


def answer(inspections: Sequence[Inspection], question: Question, matches: Matches) -> Answer:
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
    """The layer whose best latent has the highest run score for a concept; None where it is never scored."""
    scored = [(inspection, scores) for inspection in inspections if (scores := inspection.scores_of(concept))]
    return max(scored, key=lambda pair: pair[1].best[0].run) if scored else None


def _first_scored(
    inspections: Sequence[Inspection], concepts: Sequence[str]
) -> tuple[Inspection, ConceptScores] | None:
    """`_best_layer` of the first concept that is scored on the text."""
    return next((found for concept in concepts if (found := _best_layer(inspections, concept))), None)


class Firing(NamedTuple):
    """How each latent's firings on the judged characters are spread over those with a concept and those without."""

    fired: Int[np.ndarray, " d_sae"]
    on: Int[np.ndarray, " d_sae"]
    """Firings on characters with the concept."""
    characters: int
    """Number of those characters."""


def _firing(inspection: Inspection, concept: str) -> Firing:
    number = [one.name for one in inspection.marked.concepts].index(concept)
    firings = inspection.statistics.firings
    has = inspection.marked.has[number]
    fired, on = (
        np.bincount(columns, minlength=firings.columns)
        for columns in (firings.column, firings.column[has[firings.row]])
    )
    return Firing(fired, on, int((has & firings.judged).sum()))


def beside(scores: ConceptScores) -> str:
    """What finds a concept without an SAE."""
    others = (
        ("the best random direction", scores.random),
        (f"window of text ({scores.window!r})", scores.windows),
        ("neuron", scores.neurons),
    )
    return ", ".join(f"{name} {score:.2f}" for name, score in others if score is not None)


def score_of(scores: ConceptScores) -> str:
    """The run score of the best latent with its interval, and what stands beside it."""
    best = scores.best[0]
    return f"run score {best.run:.2f}, {best.low:.2f} to {best.high:.2f}; {beside(scores)}"


TRY_NEXT = "More text, another layer or a wider SAE may show one."


def best_detector_sentence(inspection: Inspection, scores: ConceptScores, characters: str) -> str:
    """How well the best latent finds a concept, and whether that is better than chance."""
    if not scores.enough:
        n = scores.instances
        return f"Of {characters} there are {n} stretches in the texts on which is scored, too few to say."
    best = scores.best[0]
    caption = inspection.captions[best.latent]
    sentence = (
        f"Feature {best.latent} of layer {inspection.layer} ({caption}) finds {characters} best: at its threshold "
        f"{best.precision:.0%} of the characters on which it fires are such, and it finds {best.recall:.0%} of their "
        f"{scores.instances:,} stretches ({score_of(scores)})."
    )
    if not scores.clear:
        return f"No clear feature. {sentence} {TRY_NEXT}"
    return sentence if best.run > scores.beaten else f"{sentence} What is no feature finds them as well or better."


def _best_features(layer: int, scores: ConceptScores, count: int) -> list[Feature]:
    return [Feature(layer, score.latent) for score in scores.best[:count]]


def _without_features(question: str, sentence: str) -> Answer:
    return Answer(question, [sentence], [], "", None)


def about_characters(inspections: Sequence[Inspection], question: Characters) -> Answer:
    """Which latents fire on characters with a property, and how many fire on nothing else, or never on them."""
    found = _first_scored(inspections, question.concepts)
    if not found:
        return _without_features(question.title, question.missing)
    inspection, scores = found
    fired, firings, n = _firing(inspection, scores.name)
    enough = fired >= FEW
    precision = firings / np.maximum(fired, 1)
    only, never = int((enough & (precision >= 0.9)).sum()), int((enough & (precision <= 0.02)).sum())
    sentences = [
        best_detector_sentence(inspection, scores, question.characters),
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
    fired, firings, _ = _firing(inspection, scores.name)
    base = scores.share
    share = firings / np.maximum(fired, 1)
    enough = fired >= FEW
    inside, outside = enough & (share >= SPECIFIC), enough & (share <= 1 - SPECIFIC)
    sentences = [best_detector_sentence(inspection, scores, f"words of {question.texts}")]
    if more := question.more.get(scores.name):
        sentences.append(more.note)
        if other := inspection.scores_of(more.other_concept):
            sentences.append(best_detector_sentence(inspection, other, f"words of {more.other_texts}"))
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
    ranked = sorted(found, key=lambda pair: -pair[1].best[0].run)
    clear = [(inspection, scores) for inspection, scores in ranked if scores.clear]
    unclear = [scores.name for _, scores in ranked if not scores.clear]
    sentences = [f"{len(clear)} of {len(found)} {question.members} have a clear feature."]
    for inspection, scores in clear[:NAMED]:
        latent = scores.best[0].latent
        sentences.append(
            f"{scores.concept.title}: feature {latent} of layer {inspection.layer} ({inspection.captions[latent]}), "
            f"{score_of(scores)}; {scores.instances:,} instances."
        )
    if not clear:
        inspection, scores = next((pair for pair in ranked if pair[1].enough), ranked[0])
        sentences.append(best_detector_sentence(inspection, scores, f"instances of {scores.concept.title}"))
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
        caption=f"Run score of the best feature for each {question.member}, beside the best random direction.",
        chart={
            "kind": "dumbbell",
            "rows": [
                [scores.name, round(scores.best[0].run, 3), round(scores.random or 0.0, 3)] for _, scores in ranked[:16]
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
    """Which named features of a layer are found again in the next, which vanish there and which are new."""
    sentences, named, rows = [], [], []
    for (one, following), match in zip(itertools.pairwise(inspections), matches, strict=True):
        change = change_of_named(one, following, match)
        sentences.append(_change_sentence(one, following, change))
        rows.append([f"{one.layer} to {following.layer}", *map(len, change)])
        named += [Feature(one.layer, latent) for latent in (*change.persist[:1], *change.vanish[:1])]
        named += [Feature(following.layer, latent) for latent in change.appear[:1]]
    return Answer(
        question.title,
        sentences,
        named,
        caption="Features whose caption predicts them: found again in the next layer, not found again, new there.",
        chart={"kind": "changes", "rows": rows},
    )


class Change(NamedTuple):
    """What becomes of the named features of a layer, those that are best read first."""

    persist: list[int]
    """Latents of the layer with a partner in the next that fires on at least half of the same characters."""
    vanish: list[int]
    """Latents of the layer without one."""
    appear: list[int]
    """Latents of the next layer that are no such partner of any latent of the layer."""


def change_of_named(one: Inspection, following: Inspection, match: Sequence[MatchedLatent]) -> Change:
    """Of the latents with a caption that predicts them and enough firings."""

    def named(inspection: Inspection) -> list[int]:
        fired = inspection.statistics.fired
        return [i for i in inspection.reading_order if inspection.captions[i].clear and fired[i] >= FEW]

    assert one.cofiring_with_next is not None
    either = one.statistics.fired[:, None] + following.statistics.fired[None] - one.cofiring_with_next
    has_partner = (one.cofiring_with_next / np.maximum(either, 1) >= SAME_FIRING).any(axis=0)
    of_one = named(one)
    return Change(
        [i for i in of_one if match[i].jaccard >= SAME_FIRING],
        [i for i in of_one if match[i].jaccard < SAME_FIRING],
        [i for i in named(following) if not has_partner[i]],
    )


def _change_sentence(one: Inspection, following: Inspection, change: Change) -> str:
    """How many named features persist, vanish and appear, with examples."""

    def examples(inspection: Inspection, latents: Sequence[int]) -> str:
        listed = "; ".join(f"{i}, {inspection.captions[i].text}" for i in latents[:NAMED])
        return f" ({listed})" if listed else ""

    persist, vanish, appear = change
    return (
        f"From layer {one.layer} to {following.layer}, of {len(persist) + len(vanish):,} named features "
        f"{len(persist):,} are found again{examples(one, persist)} and {len(vanish):,} are not"
        f"{examples(one, vanish)}; {len(appear):,} are new{examples(following, appear)}."
    )


def about_discoveries(inspections: Sequence[Inspection], question: Discoveries) -> Answer:
    """The strongest named features, each with what it beats."""
    found = [(inspection, scores) for inspection in inspections for scores in inspection.discoveries]
    found = sorted(found, key=lambda pair: pair[1].beaten - pair[1].best[0].run)[:SHOWN]
    if not found:
        return _without_features(question.title, f"{question.missing} {TRY_NEXT}")
    sentences = [_summary_sentence(inspection) for inspection in inspections]
    features = [Feature(inspection.layer, scores.best[0].latent) for inspection, scores in found]
    return Answer(
        question.title,
        sentences,
        features,
        caption="Run score of each on held-out texts with its 95 % interval, beside the best of what is no feature.",
        chart={
            "kind": "dumbbell",
            "rows": [
                [f"{feature.feature}, {_short(scores.name)}", round(scores.best[0].run, 3), round(scores.beaten, 3)]
                for feature, (_, scores) in zip(features, found, strict=True)
            ],
        },
        points=[discovery_sentence(inspection, scores) for inspection, scores in found],
    )


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


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
    return f"{sentence} {share:.0%} are found again in each of {stability.seeds} other seeds (PW-MCC {stability.pw_mcc:.2f})."


def discovery_sentence(inspection: Inspection, scores: ConceptScores) -> str:
    """One discovery: what the feature fires on, how well, and what it beats."""
    best = scores.best[0]
    sentence = (
        f"{scores.name}: at its threshold {best.precision:.0%} of its firings are on them, and it finds "
        f"{best.recall:.0%} of their {scores.instances:,} stretches ({score_of(scores)})."
    )
    if inspection.stability is None:
        return sentence
    seeds = inspection.stability.seeds
    times = round(float(inspection.stability.found[best.latent]) * seeds)
    return f"{sentence} {'Of this seed alone' if not times else f'Found in {times} of {seeds} other seeds'}."
