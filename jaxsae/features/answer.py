"""What an answer is, and the sentences that several answers are made of."""

from typing import Any, NamedTuple

from jaxsae.features.concept_scores import CLEAR_SCORE, ConceptScores
from jaxsae.features.inspection import Inspection

FEW = 20
"""Latents that fire on fewer characters are not counted."""
NAMED = 3
"""Features that an answer names to look at more closely, at most."""


class Feature(NamedTuple):
    """A latent of one of the layers."""

    layer: int
    feature: int


class Point(NamedTuple):
    """What is said of one of the features that an answer names."""

    name: str
    """What it fires on."""
    sentence: str
    """How well that describes it, and what it beats."""


class Answer(NamedTuple):
    """The answer to one question."""

    question: str
    sentences: list[str]
    features: list[Feature]
    """The features to look at."""
    caption: str
    """Of the picture."""
    chart: dict[str, Any] | None
    """The picture's data, as pictures.js draws them; None: no picture."""
    causal: list[dict[str, Any]] = []  # noqa: RUF012
    """What is restored without each of the features."""
    points: list[Point] = []  # noqa: RUF012
    """For each feature, where there is something to say of each."""

    def as_json(self) -> dict[str, Any]:
        """As the page reads it."""
        features, points = ([one._asdict() for one in some] for some in (self.features, self.points))
        return self._asdict() | {"features": features, "points": points}


def without_features(question: str, sentence: str) -> Answer:
    """An answer that names none."""
    return Answer(question, [sentence], [], "", None)


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


TRY_NEXT = "More text, another layer, a wider SAE or one of whitened rows may show one."


def best_detector_sentence(inspection: Inspection, scores: ConceptScores, characters: str) -> str:
    """How well the best latent finds a concept, and whether that is better than chance."""
    if not scores.enough:
        n = scores.instances
        return f"Of {characters} there are {n} stretches in the texts on which is scored, too few to say."
    best = scores.best[0]
    if best.run == 0:
        return f"No feature finds {characters}. {TRY_NEXT}"
    caption = inspection.captions[best.latent]
    sentence = (
        f"Feature {best.latent} of layer {inspection.layer} ({caption}) finds {characters} best: at its threshold "
        f"{best.precision:.0%} of the characters on which it fires are such, and it finds {best.recall:.0%} of their "
        f"{scores.instances:,} stretches ({score_of(scores)})."
    )
    if not scores.clear:
        return f"No clear feature. {sentence} {_elsewhere(scores) or TRY_NEXT}"
    return f"{sentence}{verdict(scores)}"


def _elsewhere(scores: ConceptScores) -> str:
    """What is to be said of a concept that no feature finds clearly, where something else does; else nothing."""
    others = {
        "A window of text": (scores.windows, "it can be read off the text"),
        "A random direction": (scores.random, "the layer tells it, and this SAE does not single it out"),
        "A neuron": (scores.neurons, "the layer tells it, and this SAE does not single it out"),
    }
    name, (score, meaning) = max(others.items(), key=lambda other: other[1][0] or 0.0)
    if (score or 0.0) <= max(scores.best[0].run, CLEAR_SCORE):
        return ""
    return f"{name} finds them better ({score:.2f}): {meaning}."


def verdict(scores: ConceptScores) -> str:
    """What is to be added of a concept that a feature finds clearly, where something else finds it too."""
    if scores.ahead:
        return ""
    within = scores.best[0].run > scores.beside
    return f" What is no feature finds them {'as well, within the interval' if within else 'as well or better'}."


def shortened(text: str, most: int = 28) -> str:
    """A name as it fits beside a chart."""
    return text if len(text) <= most else text[: most - 1] + "…"
