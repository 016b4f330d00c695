"""What a layer has learned, in its strongest named features, each scored beside what no SAE made."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxsae.features.captions import Caption, described
from jaxsae.features.concept_scores import ENOUGH, MarkedText
from jaxsae.features.concepts import Concept
from jaxsae.features.stability import Stability

FOUND = "found"
"""What the concepts made of captions are about."""
CANDIDATES = 24
"""Features of a layer that are scored, so many at most."""
ALIKE = 0.5
"""Of two descriptions that are true of the same characters to this Jaccard index, one is enough."""


def _says(caption: Caption) -> float:
    if not caption.clear or caption.places < ENOUGH:
        return 0.0
    return (caption.chosen - caption.single) * float(np.log10(caption.firings + 1))


class Candidates(NamedTuple):
    """Features that may be shown as discoveries."""

    latents: list[int]
    marked: MarkedText
    """Their descriptions as concepts, in the same order."""


def candidates(captions: Sequence[Caption], marked: MarkedText, stability: Stability | None) -> Candidates:
    """The captioned features that say most, and their descriptions as concepts of the text.

    What a feature says is how much better its description predicts it than the best single character does, where
    descriptions compete, times the logarithm of how often it fires; of one seed alone, a quarter of that.
    """
    said = np.array([_says(caption) for caption in captions])
    if stability is not None:
        said *= 0.25 + 0.75 * stability.found
    order = [int(i) for i in np.argsort(-said, kind="stable")[: 4 * CANDIDATES] if said[i] > 0]
    masks = described([captions[i] for i in order], marked.text, marked)
    kept: list[int] = []
    for at in range(len(order)):
        overlaps = ((masks[at] & masks[other]).sum() / (masks[at] | masks[other]).sum() for other in kept)
        if len(kept) < CANDIDATES and all(overlap < ALIKE for overlap in overlaps):
            kept.append(at)
    latents = [order[at] for at in kept]
    concepts = [Concept(captions[i].text, FOUND, captions[i].text) for i in latents]
    return Candidates(latents, MarkedText(marked.text, concepts, masks[kept]))
