"""The answer to how features change over layers: which persist, vanish, appear; of one layer, how often they fire."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxsae.features.answer import FEW, NAMED, Answer, Feature
from jaxsae.features.inspection import Inspection
from jaxsae.features.questions import Layers
from jaxsae.train.densities import density_counts, edges_spanning


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


def about_layers(inspections: Sequence[Inspection], question: Layers) -> Answer:
    """Which named features of a layer are found again in the next, which vanish there and which are new."""
    sentences, named, rows = [], [], []
    for one, following in itertools.pairwise(inspections):
        if one.cofiring_with_next is not None and one.cofiring_with_next.left_out:
            sentences.append(
                f"From layer {one.layer} to {following.layer}: left out, too many pairs of features fire together."
            )
            continue
        change = change_of_named(one, following)
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
    """Latents of the layer with one in the next that fires alike, as `stability.same_firing` says."""
    vanish: list[int]
    """Latents of the layer without one."""
    appear: list[int]
    """Latents of the next layer that are no such partner of any latent of the layer."""


def change_of_named(one: Inspection, following: Inspection) -> Change:
    """Of the latents with a caption that predicts them and enough firings."""

    def named(inspection: Inspection) -> list[int]:
        fired = inspection.statistics.fired
        return [i for i in inspection.reading_order if inspection.captions[i].clear and fired[i] >= FEW]

    pairs = one.firing_with(following)
    persists, has_partner = np.zeros(one.sae.d_sae, bool), np.zeros(following.sae.d_sae, bool)
    persists[pairs.one[pairs.same]] = has_partner[pairs.other[pairs.same]] = True
    of_one = named(one)
    return Change(
        [i for i in of_one if persists[i]],
        [i for i in of_one if not persists[i]],
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
