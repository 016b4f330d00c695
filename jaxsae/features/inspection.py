"""What the latents of SAEs mean: one pass over the text counts what they do, and an `Inspection` answers from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxsae.activations.extraction import stream, stream_from_rows
from jaxsae.activations.rows import RowsOnDisk
from jaxsae.errors import require
from jaxsae.features import baselines, captions, causal, concept_scores, feature_summary, relations
from jaxsae.features.baselines import Baselines
from jaxsae.features.captions import Caption
from jaxsae.features.causal import CausalEffect
from jaxsae.features.concept_scores import CLEAR_SCORE, ConceptScores, LeftOut, MarkedText
from jaxsae.features.concepts import Concept, concept_masks, spelling_concepts, true_text
from jaxsae.features.discoveries import FOUND, candidates
from jaxsae.features.feature_summary import Context, FeatureSummary
from jaxsae.features.judged_text import JudgedText
from jaxsae.features.lookups import CharacterLatents, MatchedLatent, PatternDetector, PatternDetectors
from jaxsae.features.stability import Stability, same_firing, stability_of
from jaxsae.features.statistics import DAMAGED, LatentStatistics, LayerSAE, collect_statistics, encode_stream
from jaxsae.models.protocol import ModelShape, ResidualModel
from jaxsae.sae.autoencoder import SAE
from jaxsae.text.samples import Samples
from jaxsae.train.densities import DECADES, density_counts


class Comparison(NamedTuple):
    """What stands beside latents: the concepts and the descriptions of possible discoveries, and their baselines."""

    marked: MarkedText
    baselines: Baselines
    latents: dict[int, int]
    """Number of a description in `marked` -> the latent that it was made for."""


@dataclass(frozen=True)
class Inspection:
    """One SAE, a text, and what the SAE's latents do there."""

    model: ResidualModel
    samples: Samples
    layer: int
    sae: SAE
    statistics: LatentStatistics
    marked: MarkedText
    """The characters that latents are judged on, and which concepts these have."""
    captions: list[Caption]
    """What each latent fires on, in words."""
    comparison: Comparison | None = None
    """What finds the concepts and the discoveries without an SAE; None: not asked for."""
    stability: Stability | None = None
    """Which latents SAEs of other seeds have too; None: there are none."""
    pattern: str | None = None
    """A spelling whose characters are among the concepts."""
    cofiring_with_next: Float[np.ndarray, "d_sae next_d_sae"] | None = None
    """On how many rows a latent of this SAE and one of the next SAE of the pass both fire; None: it is the last."""

    @cached_property
    def character_names(self) -> list[str]:
        """What each row of `statistics.by_character` counts."""
        ids = self.statistics.character_ids
        pieces = self.model.tokenizer.pieces(ids)
        return ["damaged" if one == DAMAGED else piece for one, piece in zip(ids, pieces, strict=True)]

    @cached_property
    def output_ids(self) -> Int[np.ndarray, " characters"]:
        """The characters that occur in the text before the damage: those whose logits are looked at."""
        return np.unique(self.samples.true_ids[self.samples.real])

    @cached_property
    def output_names(self) -> list[str]:
        """What each of `output_ids` stands for."""
        return list(self.model.tokenizer.pieces(self.output_ids))

    @cached_property
    def reading_order(self) -> list[int]:
        """All latents, the best first: those whose caption predicts them, and that other seeds have too."""
        caption = np.array([one.f1 * (1.0 if one.clear else 0.5 if one.named else 0.1) for one in self.captions])
        found = 1.0 if self.stability is None else 0.1 + self.stability.found
        return np.argsort(-caption * found, kind="stable").tolist()

    @cached_property
    def direct_logits(self) -> Float[np.ndarray, "d_sae characters"]:
        """`relations.direct_logits` of the characters `output_ids`."""
        return relations.direct_logits(self.model, self.sae, self.output_ids)

    @cached_property
    def nearest(self) -> tuple[Int[np.ndarray, "d_sae count"], Float[np.ndarray, "d_sae count"]]:
        """(latents, cosines) of the most similar decoder rows of the same SAE."""
        return relations.nearest(self.sae)

    @cached_property
    def concept_scores(self) -> list[ConceptScores]:
        """How well latents find each concept that both halves of the text have."""
        if self.comparison is None:
            return concept_scores.concept_scores(self.statistics.firings, self.marked)
        return [one for one in self._compared if one.concept.about != FOUND]

    @property
    def discoveries(self) -> list[ConceptScores]:
        """Captioned latents that find what their captions say, by how far they are ahead of what is no latent."""
        found = [one for one in self._compared if one.concept.about == FOUND]
        return sorted(
            (one for one in found if one.enough and one.best[0].run >= CLEAR_SCORE), key=lambda one: -one.margin
        )

    @cached_property
    def _compared(self) -> list[ConceptScores]:
        if self.comparison is None:
            return []
        marked, beside, latents = self.comparison
        return concept_scores.concept_scores(self.statistics.firings, marked, beside, latents=latents)

    @property
    def left_out(self) -> list[LeftOut]:
        """The concepts that cannot be scored on this text."""
        return self.marked.left_out

    def scores_of(self, name: str) -> ConceptScores | None:
        """The scores of one concept; None where it cannot be scored, or is not among the concepts."""
        return next((one for one in self.concept_scores if one.name == name), None)

    def strongest_latents(self, count: int) -> list[int]:
        """The latents with the largest mean, of those that fire on at most a tenth of the text if there are any."""
        rate = self.statistics.rate
        some = np.flatnonzero((rate > 0) & (rate <= 0.1))
        some = some if len(some) else np.arange(len(rate))
        return some[np.argsort(-self.statistics.mean[some], kind="stable")][:count].tolist()

    def feature(self, latent: int, strongest: int = 8) -> FeatureSummary:
        """Everything known of one latent, with at most so many of its strongest contexts.

        Raises:
          InputError: there is no such latent.
        """
        self._check_latent(latent)
        return feature_summary.feature_summary(
            self.samples,
            self.statistics,
            latent,
            caption=self.captions[latent],
            stability=self.stability,
            character_names=self.character_names,
            scores=self.concept_scores,
            output_names=self.output_names,
            direct_logits=self.direct_logits,
            nearest=self.nearest,
            strongest=strongest,
        )

    def strongest_context(self, latent: int) -> Context | None:
        """The place at which a latent fires most; None: it fires nowhere on this text."""
        found = feature_summary.contexts(self.samples, self.statistics, latent, strongest=1)
        return found[0] if found else None

    def pattern_detectors(self, count: int = 10) -> PatternDetectors:
        """The latents that detect `pattern`, or one of its characters, best.

        Raises:
          InputError: the inspection was made without a pattern.
        """
        require(self.pattern is not None, "pattern must be given to `inspect` to know what detects it, got none")
        pattern = str(self.pattern)
        texts = [true_text(self.samples, i)[0] for i in range(len(self.samples))]
        readings = [one for one in self.concept_scores if one.concept.about == "spelling"]
        best: dict[int, PatternDetector] = {}
        for one in readings:
            for score in one.best:
                if score.latent not in best or score.run > best[score.latent].score.run:
                    beside = one.instances, one.random, one.windows, self.captions[score.latent]
                    best[score.latent] = PatternDetector(score, one.concept.title, *beside)
        return PatternDetectors(
            pattern=pattern,
            occurrences=sum(text.count(pattern) for text in texts),
            texts=sum(pattern in text for text in texts),
            readings=readings,
            detectors=sorted(best.values(), key=lambda one: -one.score.run)[:count],
        )

    def on_text(self, letters: str, count: int = 5) -> list[CharacterLatents]:
        """For each character of a text, the `count` latents that fire most on it.

        Raises:
          InputError: the model cannot read the text.
        """
        check_text(letters, self.model)
        ids = self.model.tokenizer.encode(letters)[None]
        x = self.model.resid_post(ids, np.ones_like(ids, np.int8), layer=self.layer)
        latents = np.asarray(encode_stream(self.sae, x))
        out = []
        for character, row in zip(self.model.tokenizer.pieces(ids[0]), latents, strict=True):
            order = [int(i) for i in np.argsort(-row, kind="stable")[:count] if row[i] > 0]
            out.append(CharacterLatents(character, int((row > 0).sum()), [(i, float(row[i])) for i in order]))
        return out

    def causal_effects(self, settings: Sequence[tuple[int, float]]) -> list[CausalEffect]:
        """What the model restores with each (latent, value) set; a value of 0 removes the latent.

        The model must be whole: one without the blocks after the layer restores nothing.

        Raises:
          InputError: there is no such latent, or the text has no damage.
        """
        for latent, _ in settings:
            self._check_latent(latent)
        return causal.causal_effects(self.model, self.samples, LayerSAE(self.layer, self.sae), settings)

    def matched_latents(self, following: "Inspection") -> list[MatchedLatent]:
        """For each latent, the latents of the next SAE of the same pass that are most like it."""
        assert self.cofiring_with_next is not None
        top, cosines = relations.nearest(self.sae, following.sae, 1)
        fired, of_next = self.statistics.fired, following.statistics.fired
        jaccard, _ = same_firing(self.cofiring_with_next, fired, of_next, self.statistics.rows)
        best = jaccard.argmax(axis=1)
        return [
            MatchedLatent(int(top[i, 0]), float(cosines[i, 0]), int(best[i]), float(jaccard[i, best[i]]))
            for i in range(len(best))
        ]

    def as_json(self) -> dict[str, Any]:
        """The figures of the whole SAE, and the rate, mean and maximum of each latent."""
        found = self.statistics
        return {
            "d_sae": found.d_sae,
            "characters": found.rows,
            "l0": found.l0,
            "dead": float((found.fired == 0).mean()),
            "dense": float((found.rate > 0.1).mean()),
            "density_edges": DECADES,
            "density_histogram": density_counts(found.rate, np.array(DECADES)).tolist(),
            "features": {
                "firing_rate": found.rate.tolist(),
                "mean": found.mean.tolist(),
                "max": found.peak.tolist(),
                "caption": [str(one) for one in self.captions],
                "caption_f1": [one.f1 for one in self.captions],
            },
            "captioned": float(np.mean([one.clear for one in self.captions])),
            "stability": self.stability.as_json() if self.stability else None,
        }

    def _check_latent(self, latent: int) -> None:
        last = self.statistics.d_sae - 1
        require(0 <= latent <= last, f"feature must be in 0..{last}, got {latent}")


def inspect(
    model: ResidualModel,
    samples: Samples,
    sae: SAE,
    layer: int,
    *,
    concepts: Sequence[Concept] = (),
    pattern: str | None = None,
    padding: str = "drop",
) -> Inspection:
    """Read what the latents of one SAE do on a text; see `inspect_all`."""
    return inspect_all(model, samples, [LayerSAE(layer, sae)], concepts=concepts, pattern=pattern, padding=padding)[0]


def inspect_all(
    model: ResidualModel,
    samples: Samples,
    saes: Sequence[LayerSAE],
    *,
    concepts: Sequence[Concept] = (),
    pattern: str | None = None,
    padding: str = "drop",
    rows: Mapping[int, RowsOnDisk] | None = None,
    other_seeds: Sequence[Sequence[SAE]] | None = None,
    compare: bool = True,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[Inspection]:
    """Read what the latents of SAEs of one or more layers do on a text, in one pass over it.

    Args:
      model: needs its later blocks for causal effects alone.
      concepts: what latents are compared with, see `concepts.load_concepts`.
      pattern: a spelling; latents are compared with it and with each of its characters too.
      padding: `drop` or `keep`, see `extraction.stream`.
      rows: layer -> its activations on this text, with this padding, where they were extracted before.
      other_seeds: for each SAE, others that were trained alike but with other seeds.
      compare: whether to find what finds the concepts without an SAE, for which the text is read once more.
      on_rows: called with the number of rows read since the last call.

    Returns:
      An inspection for each SAE, in their order.

    Raises:
      InputError: the SAEs, the model and the text do not fit together, or the pattern is too long.
    """
    others = other_seeds or [[] for _ in saes]
    every = [*saes, *(LayerSAE(layer, one) for (layer, _), of in zip(saes, others, strict=True) for one in of)]
    layers = sorted({layer for layer, _ in saes})
    for layer, sae in every:
        model.check_layer(layer)
        width = model.d_model
        require(sae.d_in == width, f"d_in of the SAE must be {width} (the model's d_model), got {sae.d_in}")
    chosen = [*(spelling_concepts(pattern) if pattern else ()), *concepts]
    batches = stream(model, samples, layers, padding) if rows is None else stream_from_rows(rows, samples, padding)
    text = JudgedText.of(samples)
    has = text.properties(concept_masks(chosen, samples), len(chosen))
    marked = MarkedText(text, chosen, has)
    found = collect_statistics(batches, samples, saes, text, seeds=others, keep_rows=compare, on_rows=on_rows)
    out = []
    for (layer, sae), of, statistics, firings, cofiring in zip(
        saes, others, found.statistics, found.seeds, [*found.cofiring, None], strict=True
    ):
        stability = stability_of(sae, of, statistics.firings, firings) if of else None
        named = captions.captions(statistics.firings, marked)
        beside = _compared(model, layer, found.rows[layer], sae, named, marked, stability) if compare else None
        out.append(
            Inspection(model, samples, layer, sae, statistics, marked, named, beside, stability, pattern, cofiring)
        )
    return out


def _compared(
    model: ResidualModel,
    layer: int,
    rows: Float[np.ndarray, "n d_in"],
    sae: SAE,
    named: Sequence[Caption],
    marked: MarkedText,
    stability: Stability | None,
) -> Comparison:
    """What else finds the concepts, and what the captions of possible discoveries say."""
    latents, descriptions = candidates(named, marked, stability)
    concepts = [*marked.concepts, *descriptions.concepts]
    every = MarkedText(marked.text, concepts, np.concatenate([marked.has, descriptions.has]))
    beside = baselines.baselines(model, marked.text, layer, rows, sae.d_sae, every.halves)
    first = len(marked.concepts)
    return Comparison(every, beside, {first + i: latent for i, latent in enumerate(latents)})


def check_text(letters: str, shape: ModelShape) -> None:
    """Raise `InputError` where a model of this shape cannot read a text."""
    n, most = len(shape.tokenizer.encode(letters)), shape.max_position
    require(n > 0, "text must have at least one character, got none")
    require(n <= most, f"text must have at most {most} characters (the model's max_position), got {n}")
