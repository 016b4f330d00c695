"""What an inspection gives when it is asked for a spelling, a text, or the latents of the next layer."""

from typing import Any, NamedTuple

from jaxsae.features.captions import Caption
from jaxsae.features.concept_scores import ConceptScores
from jaxsae.features.detection import DetectionScore


class PatternDetector(NamedTuple):
    """A latent that detects a spelling, or one of its characters."""

    score: DetectionScore
    on: str
    """Which of the characters it detects best."""
    instances: int
    """Held-out occurrences."""
    random: float | None
    """Run score of the best random direction, and `windows`, of the best window of up to three characters."""
    windows: float | None
    caption: Caption

    def as_json(self) -> dict[str, Any]:
        """As `jaxsae inspect --json` writes it."""
        beside = {"on": self.on, "instances": self.instances, "random": self.random, "windows": self.windows}
        return self.score.as_json() | beside | {"caption": str(self.caption)}


class PatternDetectors(NamedTuple):
    """The latents that fire on a spelling and not elsewhere."""

    pattern: str
    occurrences: int
    texts: int
    """Number of texts in which it occurs."""
    readings: list[ConceptScores]
    """The scores for the whole spelling, and for each of its characters."""
    detectors: list[PatternDetector]
    """By run score, best first; none where the spelling is too rare."""

    def as_json(self) -> dict[str, Any]:
        """As `jaxsae inspect --json` writes it."""
        return {
            "pattern": self.pattern,
            "readings": [one.as_json() for one in self.readings],
            "occurrences": self.occurrences,
            "features": [one.as_json() for one in self.detectors],
        }


class CharacterLatents(NamedTuple):
    """What fires on one character of a text."""

    character: str
    l0: int
    """Number of latents that fire on it."""
    strongest: list[tuple[int, float]]
    """(latent, value), strongest first."""

    def as_json(self) -> dict[str, Any]:
        """As `jaxsae inspect --json` writes it."""
        features = [{"feature": latent, "value": value} for latent, value in self.strongest]
        return {"character": self.character, "l0": self.l0, "features": features}


class MatchedLatent(NamedTuple):
    """The latents of another SAE that are most like one latent."""

    by_decoder: int
    """The latent with the most similar decoder row, and `cosine`, how similar it is."""
    cosine: float
    by_firing: int
    """The latent that fires most on the same characters."""
    jaccard: float
    """Share of the characters on which either of the two fires on which both fire."""
