"""Two inspections of one text side by side: which latents are in both, gone or new, and what each finds of a concept.

The two may be of two models (before and after training), of two SAEs, or of both; widths and layers may differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxsae.errors import require
from jaxsae.features.captions import Caption
from jaxsae.features.inspection import Inspection
from jaxsae.features.partners import Partners, partners
from jaxsae.sae.autoencoder import identity

By = Literal["firing", "direction", "both"]


class Pair(NamedTuple):
    """A latent of the first SAE and one of the second that are alike."""

    first: int
    second: int
    first_caption: str
    second_caption: str
    first_named: bool
    """Whether the caption predicts where the latent fires, and so of the second."""
    second_named: bool
    first_rate: float
    """Share of the characters on which it fires, and so of the second."""
    second_rate: float
    jaccard: float
    """Of the characters on which either fires, the share on which both do."""
    cosine: float | None
    """Of the decoder rows; None: the streams are not equally wide."""
    by: By
    """What they are alike by."""
    mutual: bool
    """Whether each is the one most like the other; else one of the two has another that is more like it."""


class Lone(NamedTuple):
    """A latent of one SAE that fires, and is like none of the other SAE."""

    feature: int
    caption: str
    named: bool
    """Whether the caption predicts where it fires."""
    rate: float
    """Share of the characters on which it fires."""
    by_firing: int | None
    """The latent of the other SAE whose firing is the most alike, and `jaccard`; None: none ever fires with it."""
    jaccard: float
    by_direction: int | None
    """The one whose decoder row is, and `cosine`; None: the streams are not equally wide."""
    cosine: float | None


class ConceptChange(NamedTuple):
    """How well the best latent of each SAE finds a concept."""

    name: str
    about: str
    title: str
    source: str
    characters: int
    """Characters of the text that have it, and `instances`, held-out stretches of words that do."""
    instances: int
    first: int
    """The best latent of the first SAE, its run score, the interval of that, and what the latent is called."""
    first_run: float
    first_low: float
    first_high: float
    first_caption: str
    second: int
    """The same of the second."""
    second_run: float
    second_low: float
    second_high: float
    second_caption: str
    difference: float
    """Run score of the second less that of the first."""
    clear: bool
    """Whether there are enough instances, and the two intervals lie apart."""


class Side(NamedTuple):
    """One of the two SAEs as a whole."""

    layer: int
    d_sae: int
    l0: float
    fire: int
    """Latents that fire on the characters that are compared; the others are in no table."""
    named: int
    """Those of them whose captions predict where they fire."""
    paired: int
    """Those of them that are like one of the other SAE, and `by_firing`, those that fire alike."""
    by_firing: int
    alone: int
    """Those that are like none, and `named_alone`, those of them that are named."""
    named_alone: int


@dataclass(frozen=True)
class Comparison:
    """What two SAEs have in common on a text."""

    first: Side
    second: Side
    characters: int
    """On which firing is compared."""
    same_sae: bool
    """Whether it is one SAE on two models: its directions are alike in any case, and pair nothing."""
    matched: list[Pair]
    """Every latent that has a partner, in at least one pair; named ones first."""
    gone: list[Lone]
    """Latents of the first SAE that are like none of the second; named ones first."""
    new: list[Lone]
    """Latents of the second SAE that are like none of the first."""
    concepts: list[ConceptChange]
    """By difference: what the second finds better comes first."""

    def as_json(self) -> dict[str, Any]:
        """As `jaxsae compare --json` writes it."""
        return {
            "first": self.first._asdict(),
            "second": self.second._asdict(),
            "characters": self.characters,
            "same_sae": self.same_sae,
        } | {name: [one._asdict() for one in rows] for name, rows in self.tables.items()}

    @property
    def tables(self) -> dict[str, Sequence[Any]]:
        """The rows of each table by its name."""
        return {"matched": self.matched, "gone": self.gone, "new": self.new, "concepts": self.concepts}


TABLES: dict[str, Any] = {"matched": Pair, "gone": Lone, "new": Lone, "concepts": ConceptChange}
"""Name of a table -> the type of its rows, whose fields are the columns."""


def compare(first: Inspection, second: Inspection) -> Comparison:
    """Compare what the latents of two SAEs do on one text.

    What is alike, `partners` says. Of one SAE on two models only firing counts: its directions are alike in any case.

    Raises:
      InputError: they are of different texts or concepts.
    """
    texts = first.samples, second.samples
    same_text = all(np.array_equal(*(getattr(one, name) for one in texts)) for name in ("ids", "labels", "mask"))
    require(same_text, "inspections must be of one text to be compared, got two; inspect the same samples")
    names = [[concept.name for concept in one.marks.concepts] for one in (first, second)]
    require(names[0] == names[1], "inspections must be of the same concepts to be compared, got others")
    judged = first.statistics.firings.judged & second.statistics.firings.judged
    firings = first.statistics.firings.within(judged), second.statistics.firings.within(judged)
    same_sae, characters = identity(first.sae) == identity(second.sae), int(judged.sum())
    found = partners(firings, (first.sae, second.sae), characters, directions=not same_sae)
    fires = firings[0].fired > 0, firings[1].fired > 0
    return Comparison(
        _side(first, found[0], fires[0]),
        _side(second, found[1], fires[1]),
        characters,
        same_sae,
        _pairs(first, second, *found),
        _lone(first, found[0], fires[0]),
        _lone(second, found[1], fires[1]),
        concept_changes(first, second),
    )


def concept_changes(first: Inspection, second: Inspection) -> list[ConceptChange]:
    """For each concept that can be scored, the best latent of each; by difference, the largest first."""
    out = []
    for one, other in zip(first.concept_scores, second.concept_scores, strict=True):
        assert one.name == other.name
        a, b = one.best[0], other.best[0]
        out.append(
            ConceptChange(
                name=one.name,
                about=one.concept.about,
                title=one.concept.title,
                source=one.concept.source,
                characters=one.characters,
                instances=one.instances,
                first=a.latent,
                first_run=a.run,
                first_low=a.low,
                first_high=a.high,
                first_caption=str(first.captions[a.latent]),
                second=b.latent,
                second_run=b.run,
                second_low=b.low,
                second_high=b.high,
                second_caption=str(second.captions[b.latent]),
                difference=b.run - a.run,
                clear=one.enough and (a.high < b.low or b.high < a.low),
            )
        )
    return sorted(out, key=lambda change: -change.difference)


def _rank(*captions: Caption) -> tuple[bool, bool, float]:
    """Sorts what is named first, and within that by how well the words predict."""
    best = max(captions, key=lambda one: (one.clear, one.named, one.f1))
    return not best.clear, not best.named, -best.f1


def _pairs(first: Inspection, second: Inspection, of_first: Partners, of_second: Partners) -> list[Pair]:
    """Each latent that has a partner with it, without repetition."""
    found: dict[tuple[int, int], tuple[Partners, int]] = {}
    for a in np.flatnonzero(of_first.partner >= 0).tolist():
        found[a, int(of_first.partner[a])] = of_first, a
    for b in np.flatnonzero(of_second.partner >= 0).tolist():
        found.setdefault((int(of_second.partner[b]), b), (of_second, b))
    out = []
    for (a, b), (side, at) in found.items():
        one, other = first.captions[a], second.captions[b]
        out.append(
            Pair(
                first=a,
                second=b,
                first_caption=str(one),
                second_caption=str(other),
                first_named=one.clear,
                second_named=other.clear,
                first_rate=float(first.statistics.rate[a]),
                second_rate=float(second.statistics.rate[b]),
                jaccard=float(side.jaccard[at]),
                cosine=float(side.cosine[at]) if first.sae.d_in == second.sae.d_in else None,
                by="direction" if not side.alike[at] else "both" if side.similar[at] else "firing",
                mutual=bool(of_first.partner[a] == b and of_second.partner[b] == a),
            )
        )
    return sorted(out, key=lambda one: (*_rank(first.captions[one.first], second.captions[one.second]), -one.jaccard))


def _lone(inspection: Inspection, nearest: Partners, fires: Bool[np.ndarray, " d_sae"]) -> list[Lone]:
    """The latents that fire and have no partner."""
    out = []
    for latent in np.flatnonzero(fires & (nearest.partner < 0)).tolist():
        caption = inspection.captions[latent]
        by_firing, by_direction = int(nearest.by_firing[latent]), int(nearest.by_direction[latent])
        out.append(
            Lone(
                feature=latent,
                caption=str(caption),
                named=caption.clear,
                rate=float(inspection.statistics.rate[latent]),
                by_firing=by_firing if by_firing >= 0 else None,
                jaccard=float(nearest.largest_jaccard[latent]),
                by_direction=by_direction if by_direction >= 0 else None,
                cosine=float(nearest.largest_cosine[latent]) if by_direction >= 0 else None,
            )
        )
    return sorted(out, key=lambda one: _rank(inspection.captions[one.feature]))


def _side(inspection: Inspection, nearest: Partners, fires: Bool[np.ndarray, " d_sae"]) -> Side:
    named = np.array([caption.clear for caption in inspection.captions]) & fires
    paired = nearest.partner >= 0
    return Side(
        layer=inspection.layer,
        d_sae=inspection.sae.d_sae,
        l0=inspection.statistics.l0,
        fire=int(fires.sum()),
        named=int(named.sum()),
        paired=int(paired.sum()),
        by_firing=int(nearest.alike.sum()),
        alone=int((fires & ~paired).sum()),
        named_alone=int((named & ~paired).sum()),
    )
