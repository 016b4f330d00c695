"""Why the model restores a place as it does: words, latents, what the SAE leaves out, and how much that explains."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxsae.explain import latents
from jaxsae.explain.faithfulness import COUNTS, Kept, only_first
from jaxsae.explain.latents import Parts
from jaxsae.explain.readout import Readout, Stream
from jaxsae.explain.words import WordEffect, word_effects
from jaxsae.features.inspection import Inspection
from jaxsae.features.splice import reconstruct
from jaxsae.features.statistics import LayerSAE
from jaxsae.models.changes import LayerChange
from jaxsae.models.protocol import ModelWithNeurons, ResidualModel
from jaxsae.text.pieces import shown
from jaxsae.text.tokenizer import Tokenizer

CANDIDATES = 10
"""The most probable tokens that an explanation names."""


class LatentEffect(NamedTuple):
    """What a latent at a character does to the logit difference."""

    feature: int
    position: int
    value: float
    attribution: float
    """About what its ablation takes from the logit difference, see `jaxsae.explain.latents`."""
    effect: float
    """What its ablation takes from it, exactly: above 0, the latent speaks for the candidate."""


@dataclass(frozen=True)
class LayerExplanation:
    """What the latents of one SAE have to do with a restoration."""

    layer: int
    sae: str
    """What the SAE is called."""
    d_sae: int
    active: int
    """Latents that are active in the text, counted at each character."""
    error_effect: float
    """What the logit difference loses where the SAE's reconstruction stands in the stream's place."""
    latents: list[LatentEffect]
    """Those of the strongest attribution, the strongest effect first."""
    kept: dict[str, Kept]
    """What the first parts keep: of the `latents`, of these in `random` order, of the layer's `neurons`, if shown."""


@dataclass(frozen=True)
class Explanation:
    """Why the model prefers one token to another at a damaged place of a text."""

    tokenizer: Tokenizer
    ids: Int[np.ndarray, " n"]
    """The text as the model sees it."""
    position: int
    candidate: int
    against: int
    candidates: list[tuple[int, float]]
    """The most probable tokens there with their probabilities, best first; the two that are compared are among them."""
    difference: float
    """Of their logits."""
    words: list[WordEffect]
    layers: list[LayerExplanation]
    counts: Sequence[int]
    """Of how many parts it is said what they keep."""

    def as_json(self, read: Mapping[int, Inspection] | None = None) -> dict[str, Any]:
        """As `jaxsae explain --json` writes it.

        Args:
          read: layer -> what the latents do on a corpus, for their captions and strongest contexts.
        """
        piece = self.piece
        return {
            "cleaned": self.tokenizer.decode(self.ids),
            "position": self.position,
            "candidate": piece(self.candidate),
            "against": piece(self.against),
            "candidate_id": self.candidate,
            "unit": self.tokenizer.unit,
            "probability": self.probability(self.candidate),
            "against_probability": self.probability(self.against),
            "candidates": [{"character": piece(token), "probability": p} for token, p in self.candidates],
            "logit_difference": self.difference,
            "words": [
                {
                    "word": one.word,
                    "start": one.start,
                    "end": one.end,
                    "effect": one.effect,
                    "candidate_after": piece(one.guess),
                    "own": one.own,
                }
                for one in self.words
            ],
            "layers": [self._layer_json(one, (read or {}).get(one.layer)) for one in self.layers],
        }

    def probability(self, token: int) -> float:
        """Of one of `candidates`."""
        return dict(self.candidates)[token]

    def piece(self, token: int) -> str:
        """What a token is shown as."""
        return shown(self.tokenizer.pieces([token])[0], self.tokenizer)

    def _layer_json(self, one: LayerExplanation, read: Inspection | None) -> dict[str, Any]:
        contexts = {found.feature: read.strongest_context(found.feature) for found in one.latents} if read else {}
        return {
            "layer": one.layer,
            "sae": one.sae,
            "d_sae": one.d_sae,
            "active": one.active,
            "error_effect": one.error_effect,
            "error_share": one.error_effect / self.difference if self.difference else None,
            "latents": [
                {
                    **found._asdict(),
                    "character": self.piece(int(self.ids[found.position])),
                    "caption": str(read.captions[found.feature]) if read else None,
                    "context": context._asdict() if (context := contexts.get(found.feature)) else None,
                }
                for found in one.latents
            ],
            "faithfulness": {
                "counts": list(self.counts),
                **{name: kept.share.tolist() for name, kept in one.kept.items()},
                "needed": {name: kept.needed(self.counts) for name, kept in one.kept.items()},
                "without": {name: kept.without for name, kept in one.kept.items()},
            },
        }


def explain_place(
    model: ResidualModel,
    ids: Int[np.ndarray, " n"],
    position: int,
    saes: Mapping[str, LayerSAE],
    *,
    candidate: int | None = None,
    against: int | None = None,
    change: LayerChange | None = None,
    temperature: float = 1.0,
    counts: Sequence[int] = COUNTS,
    exact: int = latents.EXACT,
    seed: int = 0,
) -> Explanation:
    """Explain a damaged place: what the words, and the latents of each SAE, do to the difference of two logits.

    Args:
      ids: the text as the model sees it.
      saes: what each is called -> the SAE with its layer.
      candidate: the token that is explained; None: the most probable one.
      against: the token that it is compared with; None: the most probable other one.
      change: what is done to the residual stream after a layer in all of this; the SAEs must be of that layer.
      temperature: logits are divided by it for the probabilities.
      counts: of how many latents, neurons and random latents it is measured what they keep.
      exact: how many latents are ablated exactly.
      seed: of the random latents.

    Raises:
      InputError: the text, the place, the tokens and the SAEs do not fit the model or each other.
    """
    readout = Readout(model, ids, position, candidate, against, change)
    return Explanation(
        tokenizer=model.tokenizer,
        ids=readout.ids,
        position=position,
        candidate=readout.candidate,
        against=readout.against,
        candidates=candidates_of(readout, temperature),
        difference=readout.difference,
        words=word_effects(readout),
        layers=[_of_layer(readout, name, at, counts, exact, seed) for name, at in saes.items()],
        counts=counts,
    )


def candidates_of(readout: Readout, temperature: float = 1.0) -> list[tuple[int, float]]:
    """(token, probability) of the most probable tokens at the place, best first, and of the two that are compared."""
    probabilities = readout.probabilities(temperature)
    best = np.argsort(-probabilities, kind="stable")[:CANDIDATES].tolist()
    return [
        (token, float(probabilities[token])) for token in dict.fromkeys([*best, readout.candidate, readout.against])
    ]


def _of_layer(
    readout: Readout, name: str, at: LayerSAE, counts: Sequence[int], exact: int, seed: int
) -> LayerExplanation:
    layer, sae = at
    x = readout.stream(layer)
    parts = latents.latent_parts(sae, x)
    attributed = latents.attribution(readout, layer, x, parts)
    order = np.argsort(-np.abs(attributed), kind="stable")
    first = order[:exact]
    shuffled = np.random.default_rng(seed).permutation(len(order))
    ranked = {"latents": (parts, order), "random": (parts, shuffled)}
    # neurons write into the stream behind their block: what stands elsewhere is not made of them
    if isinstance(readout.model, ModelWithNeurons) and readout.model.hook == "resid_post":
        neurons = neuron_parts(readout, readout.model, layer)
        # all are active at every position: passes for some of them would leave the most in the last one
        by_neuron = latents.attribution(readout, layer, x, neurons, ranks=4, apart=1)
        ranked["neurons"] = neurons, np.argsort(-np.abs(by_neuron), kind="stable")
    variants: dict[str, Iterable[Stream]] = {
        "whole": [x],
        "reconstruction": [np.asarray(reconstruct(sae, x[None]))[0]],
        "ablated": latents.ablated(x, parts, first),
    }
    variants |= {f"only {kind}": only_first(x, *of_kind, counts) for kind, of_kind in ranked.items()}
    found = readout.of_streams(layer, variants)
    whole = float(found["whole"][0])
    effects = [
        LatentEffect(int(parts.number[i]), int(parts.position[i]), float(parts.value[i]), float(attributed[i]), effect)
        for i, effect in zip(first, (whole - found["ablated"]).tolist(), strict=True)
    ]
    return LayerExplanation(
        layer,
        name,
        sae.d_sae,
        len(order),
        whole - float(found["reconstruction"][0]),
        sorted(effects, key=lambda one: -abs(one.effect)),
        {kind: Kept.of(found[f"only {kind}"], whole) for kind in ranked},
    )


def neuron_parts(readout: Readout, model: ModelWithNeurons, layer: int) -> Parts:
    """What each feed-forward neuron of block `layer` writes into the stream after it."""
    values = readout.neurons(model, layer)
    position, number = np.nonzero(values)
    return Parts(position, number, values[position, number], model.neuron_directions(layer))
