"""A damaged text -> all that the model says of its gaps, as figures and as JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxsae.models.changes import LayerChange
from jaxsae.models.protocol import ResidualModel
from jaxsae.restore.candidates import Place, candidates
from jaxsae.restore.fillings import Filling, fill
from jaxsae.text.damaged_text import DamagedText


class Prediction(NamedTuple):
    """The text with one filling in each gap."""

    fillings: tuple[str, ...]
    score: float
    """Sum of the fillings' scores."""


class Answer(NamedTuple):
    """What a model says of a damaged text."""

    text: DamagedText
    """A gap of unknown length has in it the most probable one."""
    fillings: list[list[Filling]]
    """Of each gap, best first; empty lists where gaps were not filled."""
    places: list[Place]
    temperature: float

    def predictions(self, most: int) -> list[Prediction]:
        """The best ways to fill all gaps, best first; gaps count as independent of each other."""
        found = [Prediction((), 0.0)]
        for every in self.fillings:
            longer = [Prediction((*p.fillings, f.text), p.score + f.score) for p in found for f in every]
            found = sorted(longer, key=lambda one: -one.score)[:most]
        return found

    @property
    def best(self) -> list[str]:
        """Of each gap the best filling; where gaps were not filled, the best character of each place."""
        single = [
            "".join(place.candidates[0].character for place in self.places if place.gap == gap)
            for gap in range(len(self.text.gaps))
        ]
        return [every[0].text if every else best for every, best in zip(self.fillings, single, strict=True)]

    def as_json(self) -> dict[str, Any]:
        """The answer for JSON; `input_text`, `top_prediction`, `missing` and `predictions` are named as Aeneas does."""
        text = self.text
        most = max(map(len, self.fillings), default=0)
        restored = text.filled(self.best)
        predictions = [
            {"text": text.filled(one.fillings), "restored": _filled_places(text, one.fillings), "score": one.score}
            for one in (self.predictions(most) if most else [])
        ]
        gaps = []
        for number, (gap, fillings) in enumerate(zip(text.gaps, self.fillings, strict=True)):
            places = [
                {"position": place.position, "candidates": [one._asdict() for one in place.candidates]}
                for place in self.places
                if place.gap == number
            ]
            gaps.append(
                {
                    "start": gap.written[0],
                    "end": gap.written[1],
                    "cleaned_start": gap.start,
                    "cleaned_end": gap.end,
                    "lengths": [gap.lengths[0], gap.lengths[-1]],
                    "fillings": [filling._asdict() for filling in fillings],
                    "places": places,
                }
            )
        return {
            "text": text.written,
            "cleaned": text.cleaned,
            "restored": restored,
            "temperature": self.temperature,
            "gaps": gaps,
            "input_text": text.written,
            "top_prediction": restored,
            "missing": [place for gap in text.gaps for place in range(*gap.written)],
            "predictions": predictions,
        }


def _filled_places(text: DamagedText, fillings: Sequence[str]) -> list[int]:
    """Where in the filled text the characters of the fillings stand."""
    out: list[int] = []
    shift = 0
    for gap, filling in zip(text.gaps, fillings, strict=True):
        start = gap.written[0] + shift + gap.needs_brackets
        out += range(start, start + len(filling))
        shift += len(filling) + 2 * gap.needs_brackets - (gap.written[1] - gap.written[0])
    return out


def restore_text(
    model: ResidualModel,
    text: DamagedText,
    *,
    beam: int = 16,
    top: int = 20,
    change: LayerChange | None = None,
    temperature: float = 1.0,
    whole_gaps: bool = True,
) -> Answer:
    """Fill every gap of a text, and name the candidates of each of its places.

    Args:
      beam: see `fill`.
      top: so many fillings of a gap and candidates of a place, at most.
      change: (layer, function), made to the residual stream after that layer.
      temperature: logits are divided by it.
      whole_gaps: whether gaps are filled; if not, only places have candidates, and a gap of unknown length the one
        that it has in `text`.

    Raises:
      InputError: a number is below 1, or the model cannot be shown the text.
    """
    fillings: list[list[Filling]] = [[] for _ in text.gaps]
    if whole_gaps:
        how: dict[str, Any] = {"beam": beam, "top": top, "change": change, "temperature": temperature}
        fillings = [fill(model, text, gap, **how) for gap in range(len(text.gaps))]
        for gap, every in enumerate(fillings):
            text = text.resized(gap, every[0].length)
    (places,) = candidates(model, [text], top=top, change=change, temperature=temperature)
    return Answer(text, fillings, places, temperature)
