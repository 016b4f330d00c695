"""What the latents of SAEs mean: one pass over the text counts what they do, and an `Inspection` answers from it."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsae.activations.extraction import stream, stream_from_rows
from jaxsae.activations.rows import RowsOnDisk
from jaxsae.errors import require
from jaxsae.features import baselines, captions, causal, concept_scores, feature_summary, kept_parts, relations
from jaxsae.features.captions import Caption
from jaxsae.features.causal import CausalEffect
from jaxsae.features.concept_scores import CLEAR_SCORE, ConceptScores, LeftOut, MarkedText
from jaxsae.features.concepts import Concept, concept_masks, spelling_concepts
from jaxsae.features.discoveries import FOUND, candidates
from jaxsae.features.feature_summary import Context, FeatureSummary
from jaxsae.features.judged_text import JudgedText
from jaxsae.features.kept import Kept, digest_of, nothing_kept
from jaxsae.features.lookups import CharacterLatents, MatchedLatent, PatternDetector, PatternDetectors
from jaxsae.features.pair_counts import PairCounts
from jaxsae.features.relations import Relations
from jaxsae.features.stability import Stability, same_firing, stability_of
from jaxsae.features.statistics import (
    DAMAGED,
    Collected,
    LatentStatistics,
    LayerSAE,
    collect_statistics,
)
from jaxsae.models.protocol import LazyModel, ModelShape, ResidualModel
from jaxsae.sae.active import active_latents
from jaxsae.sae.autoencoder import SAE, identity
from jaxsae.text.pieces import damaged_word, framed, of_characters, shown
from jaxsae.text.samples import Samples
from jaxsae.train.densities import DECADES, density_counts

WIDE = 8192
"""Latents of an SAE, at most, whose similar decoder rows and direct logits are computed for all at once and kept; of a
wider one, they are for those that are asked for."""


class FiringTogether(NamedTuple):
    """The pairs of latents of two SAEs that both fire on some row, see `stability.same_firing`."""

    one: Int[np.ndarray, " pairs"]
    other: Int[np.ndarray, " pairs"]
    jaccard: Float[np.ndarray, " pairs"]
    same: Bool[np.ndarray, " pairs"]


@dataclass(frozen=True)
class Marks:
    """What latents are compared with on a text; which characters have it is found out when it is asked for."""

    text: JudgedText
    """The characters that latents are judged on."""
    concepts: Sequence[Concept]

    @cached_property
    def marked(self) -> MarkedText:
        """The characters, and which concepts these have."""
        masks = concept_masks(self.concepts, self.text.samples)
        return MarkedText(self.text, self.concepts, self.text.properties(masks, len(self.concepts)))

    @cached_property
    def key(self) -> str:
        """Of what is kept of the concepts."""
        return kept_parts.key_of_concepts(self.concepts)

    def named(self, part: str) -> str:
        """What a part about the concepts is called: those of a spelling are asked for once, the others often."""
        spelling = any(one.about == "spelling" for one in self.concepts)
        return f"{part}_of_spelling" if spelling else part


@dataclass(frozen=True)
class Inspection:
    """One SAE, a text, and what the SAE's latents do there."""

    lazy_model: LazyModel
    samples: Samples
    layer: int
    sae: SAE
    statistics: LatentStatistics
    marks: Marks
    captions: list[Caption]
    """What each latent fires on, in words."""
    compared: list[ConceptScores] | None = None
    """How well latents find the concepts and what captions say, beside what is no latent; None: not asked for."""
    stability: Stability | None = None
    """Which latents SAEs of other seeds have too; None: there are none."""
    pattern: str | None = None
    """A spelling whose characters are among the concepts."""
    cofiring_with_next: PairCounts | None = None
    """On how many rows a latent of this SAE and one of the next SAE of the pass both fire; None: it is the last."""
    kept: Kept = field(default_factory=nothing_kept)
    """Where figures that are computed when they are asked for are kept."""

    @property
    def model(self) -> ResidualModel:
        """The model whose residual stream the SAE reads."""
        return self.lazy_model.model

    @property
    def marked(self) -> MarkedText:
        """The characters that latents are judged on, and which concepts these have."""
        return self.marks.marked

    @cached_property
    def character_names(self) -> list[str]:
        """What each row of `statistics.by_character` counts."""
        ids = self.statistics.character_ids
        names = self._shown(np.where(ids == DAMAGED, 0, ids))
        hidden = damaged_word(self.samples.tokenizer.unit)
        return [hidden if one == DAMAGED else name for one, name in zip(ids, names, strict=True)]

    @cached_property
    def output_ids(self) -> Int[np.ndarray, " characters"]:
        """The characters that occur in the text before the damage: those whose logits are looked at."""
        return np.unique(self.samples.true_ids[self.samples.real])

    @cached_property
    def output_names(self) -> list[str]:
        """What each of `output_ids` stands for."""
        return self._shown(self.output_ids)

    def _shown(self, ids: Int[np.ndarray, " n"]) -> list[str]:
        tokenizer = self.samples.tokenizer
        return [shown(piece, tokenizer) for piece in tokenizer.pieces(ids)]

    @cached_property
    def tells(self) -> Float[np.ndarray, " d_sae"]:
        """How much each latent tells, 0 to 1: the F1 of its caption, if other seeds have the latent too.

        A caption of the strongest firings alone counts half, an unclear one a tenth, and that of a latent that no other
        seed has an eleventh.
        """
        caption = np.array([one.f1 * (1.0 if one.clear else 0.5 if one.named else 0.1) for one in self.captions])
        return caption * (1.0 if self.stability is None else (0.1 + self.stability.found) / 1.1)

    @cached_property
    def reading_order(self) -> list[int]:
        """All latents, those that tell most first."""
        return np.argsort(-self.tells, kind="stable").tolist()

    @property
    def direct_logits(self) -> Float[np.ndarray, "d_sae characters"]:
        """`relations.direct_logits` of the characters `output_ids`."""
        return self._relations.direct_logits

    @property
    def nearest(self) -> tuple[Int[np.ndarray, "d_sae count"], Float[np.ndarray, "d_sae count"]]:
        """(latents, cosines) of the most similar decoder rows of the same SAE."""
        return self._relations.nearest, self._relations.cosines

    @cached_property
    def _relations(self) -> Relations:
        return self.kept.part(
            "relations",
            "",
            self._new_relations,
            kept_parts.pack_relations,
            kept_parts.unpack_relations,
            self.sae.d_sae,
            len(self.output_ids),
        )

    def _new_relations(self, latents: Int[np.ndarray, " some"] | None = None) -> Relations:
        """Of some latents, or of all."""
        logits = relations.direct_logits(self.lazy_model.known, self.sae, self.output_ids, latents)
        return Relations(logits, *relations.nearest(self.sae, latents=latents))

    @cached_property
    def concept_scores(self) -> list[ConceptScores]:
        """How well latents find each concept that both halves of the text have."""
        if self.compared is not None:
            return [one for one in self.compared if one.concept.about != FOUND]
        return self.kept.part(
            self.marks.named("scores"),
            self.marks.key,
            lambda: concept_scores.concept_scores(self.statistics.firings, self.marked),
            lambda scores: kept_parts.pack_scores(scores, self.marks.concepts),
            kept_parts.unpack_scores,
            self.sae.d_sae,
            self.marks.concepts,
        )

    @property
    def discoveries(self) -> list[ConceptScores]:
        """Captioned latents that find what their captions say, by how far they are ahead of what is no latent."""
        found = [one for one in self.compared or () if one.concept.about == FOUND]
        return sorted(
            (one for one in found if one.enough and one.best[0].run >= CLEAR_SCORE), key=lambda one: -one.margin
        )

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
        return next(self.features([latent], strongest))

    def features(self, latents: Sequence[int], strongest: int = 8) -> Iterator[FeatureSummary]:
        """`feature` of each of some latents, which there must be."""
        whole = self.sae.d_sae <= WIDE
        found = self._relations if whole else self._new_relations(np.asarray(latents, np.int64))
        for number, latent in enumerate(latents):
            related = Relations(*(part[latent if whole else number, None] for part in found))
            yield feature_summary.feature_summary(
                self.samples,
                self.statistics,
                latent,
                caption=self.captions[latent],
                stability=self.stability,
                character_names=self.character_names,
                scores=self.concept_scores,
                output_names=self.output_names,
                related=related,
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
        texts = [self.samples.text_of(i) for i in range(len(self.samples))]
        readings = [one for one in self.concept_scores if one.concept.about == "spelling"]
        best: dict[int, PatternDetector] = {}
        # in the order of the half on which they were chosen: by the scores of the other half it would be chosen there
        for rank in range(max((len(one.best) for one in readings), default=0)):
            for one in readings:
                score = one.best[rank] if rank < len(one.best) else None
                if score is not None and score.latent not in best:
                    beside = one.instances, one.random, one.windows, self.captions[score.latent]
                    best[score.latent] = PatternDetector(score, one.concept.title, *beside)
        return PatternDetectors(
            pattern=pattern,
            occurrences=sum(text.count(pattern) for text in texts),
            texts=sum(pattern in text for text in texts),
            readings=readings,
            detectors=list(best.values())[:count],
        )

    def on_text(self, letters: str, count: int = 5) -> list[CharacterLatents]:
        """For each character of a text, the `count` latents that fire most on it.

        Raises:
          InputError: the model cannot read the text.
        """
        check_text(letters, self.model)
        tokenizer = self.model.tokenizer
        ids, inside = framed(tokenizer, tokenizer.encode(letters))
        x = self.model.activations(ids[None], np.ones_like(ids, np.int8)[None], layer=self.layer)
        active = active_latents(self.sae, x)
        out = []
        for piece, row in zip(tokenizer.pieces(ids[inside]), np.arange(len(ids))[inside].tolist(), strict=True):
            here = active.between(row, row + 1)
            order = np.argsort(-here.value, kind="stable")[:count]
            strongest = list(zip(here.latent[order].tolist(), here.value[order].tolist(), strict=True))
            out.append(CharacterLatents(shown(piece, tokenizer), len(here.latent), strongest))
        return out

    def causal_effects(self, settings: Sequence[tuple[int, float]], every: int = 1) -> list[CausalEffect]:
        """What the model restores with each (latent, value) set; a value of 0 removes the latent.

        The model must be whole: one without the blocks after the layer restores nothing.

        Args:
          settings: the latents, and what each is set to.
          every: of so many texts one is read; the model reads each once more for each setting.

        Raises:
          InputError: there is no such latent, or the text has no damage.
        """
        for latent, _ in settings:
            self._check_latent(latent)
        return self.kept.part(
            "causal_effects",
            repr((every, [(int(latent), float(value)) for latent, value in settings])),
            lambda: causal.causal_effects(self.model, self.samples[::every], LayerSAE(self.layer, self.sae), settings),
            kept_parts.pack_effects,
            kept_parts.unpack_effects,
            settings,
        )

    def matched_latents(self, following: "Inspection", latents: Sequence[int] | None = None) -> list[MatchedLatent]:
        """For each latent, the latents of the next SAE of the same pass that are most like it.

        Args:
          latents: for these alone.
        """
        some = np.arange(self.sae.d_sae) if latents is None else np.asarray(latents, np.int64)
        top, cosines = relations.nearest(self.sae, following.sae, 1, some)
        one, other, jaccard, _ = self.firing_with(following)
        order = np.lexsort((other, -jaccard, one))  # the best of each latent comes first, of equal ones the first
        one, first = np.unique(one[order], return_index=True)
        best, largest = np.zeros(self.sae.d_sae, np.int64), np.zeros(self.sae.d_sae)
        best[one], largest[one] = other[order][first], jaccard[order][first]
        return [
            MatchedLatent(int(top[i, 0]), float(cosines[i, 0]), int(best[latent]), float(largest[latent]))
            for i, latent in enumerate(some.tolist())
        ]

    def firing_with(self, following: "Inspection") -> FiringTogether:
        """What both fire of the latents of this SAE and those of the next one of the same pass."""
        assert self.cofiring_with_next is not None
        one, other, both = self.cofiring_with_next.entries()
        fired, of_next = self.statistics.fired[one], following.statistics.fired[other]
        return FiringTogether(one, other, *same_firing(both, fired, of_next, self.statistics.rows))

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
            # of those that fire
            "captioned": sum(one.clear for one in self.captions) / max(1, int((found.fired > 0).sum())),
            "stability": self.stability.as_json() if self.stability else None,
        } | ({"together": "left out"} if found.cofiring.left_out else {})

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
    model: ResidualModel | LazyModel,
    samples: Samples,
    saes: Sequence[LayerSAE],
    *,
    concepts: Sequence[Concept] = (),
    pattern: str | None = None,
    padding: str = "drop",
    rows: Mapping[int, RowsOnDisk] | None = None,
    other_seeds: Sequence[Sequence[SAE]] | None = None,
    compare: bool = True,
    kept: Sequence[Kept] | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
    on_stage: Callable[[str], None] = lambda what: None,
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
      kept: for each SAE, what is kept of it on this text: that is not computed again, and the text is read only for the
        rest.
      on_rows: called with the number of rows read since the last call.
      on_stage: called when something else begins than reading, with what that is.

    Returns:
      An inspection for each SAE, in their order.

    Raises:
      InputError: the SAEs, the model and the text do not fit together, or the pattern is too long.
    """
    lazy = model if isinstance(model, LazyModel) else LazyModel(model, lambda: model)
    others = other_seeds or [[] for _ in saes]
    every = [*saes, *(LayerSAE(layer, one) for (layer, _), of in zip(saes, others, strict=True) for one in of)]
    for layer, sae in every:
        lazy.shape.check_layer(layer)
        width = lazy.shape.d_model
        require(sae.d_in == width, f"d_in of the SAE must be {width} (the model's d_model), got {sae.d_in}")
    marks = Marks(
        JudgedText.of(samples),
        [*(spelling_concepts(pattern, of_characters(samples.tokenizer)) if pattern else ()), *concepts],
    )
    asked = [_Asked(*one) for one in zip(saes, others, kept or [nothing_kept() for _ in saes], strict=True)]
    passes = _kept_passes(asked, marks.text)
    compared = [one.kept_comparison(marks) if compare else None for one in asked]
    rows_of = sorted({one.at.layer for one, beside in zip(asked, compared, strict=True) if compare and beside is None})
    layer_rows: dict[int, np.ndarray] = {}
    if passes is None or rows_of:
        layers = sorted({layer for layer, _ in saes}) if passes is None else rows_of
        batches = (
            stream(lazy.model, samples, layers, padding) if rows is None else stream_from_rows(rows, samples, padding)
        )
        read, seeds = (saes, others) if passes is None else ([], [])
        found = collect_statistics(batches, samples, read, marks.text, seeds=seeds, rows_of=rows_of, on_rows=on_rows)
        layer_rows = found.rows
        passes = _new_passes(asked, found) if passes is None else passes
    out = []
    for one, of_pass, beside in zip(asked, passes, compared, strict=True):
        (layer, sae), (statistics, cofiring, stability) = one.at, of_pass
        on_stage("captions")
        named = one.captions(statistics, marks)
        if compare and beside is None:
            on_stage("baselines")
            beside = one.comparison(lazy, of_pass, layer_rows[layer], named, marks)
        about = marks, named, beside, stability, pattern, cofiring, one.kept
        out.append(Inspection(lazy, samples, layer, sae, statistics, *about))
    return out


class _Pass(NamedTuple):
    """What the pass over the text found of one SAE."""

    statistics: LatentStatistics
    cofiring_with_next: PairCounts | None
    stability: Stability | None


class _Asked(NamedTuple):
    """An SAE that is inspected, those of other seeds, and what is kept of it."""

    at: LayerSAE
    others: Sequence[SAE]
    kept: Kept

    @property
    def key_of_others(self) -> str:
        """Of what is kept of a comparison with them."""
        return digest_of(*map(identity, self.others)) if self.kept.folder else ""

    def captions(self, statistics: LatentStatistics, marks: Marks) -> list[Caption]:
        """The captions of its latents, kept or new."""
        return self.kept.part(
            marks.named("captions"),
            marks.key,
            lambda: captions.captions(statistics.firings, marks.marked),
            kept_parts.pack_captions,
            kept_parts.unpack_captions,
            self.at.sae.d_sae,
        )

    def kept_comparison(self, marks: Marks) -> list[ConceptScores] | None:
        """What `comparison` has found before; None: that is not kept."""
        return self.kept.read(
            marks.named("compared"),
            digest_of(marks.key, self.key_of_others),
            kept_parts.unpack_scores,
            self.at.sae.d_sae,
            marks.concepts,
        )

    def comparison(
        self,
        lazy: LazyModel,
        of_pass: _Pass,
        rows: Float[np.ndarray, "n d_in"],
        named: Sequence[Caption],
        marks: Marks,
    ) -> list[ConceptScores]:
        """How well latents find the concepts, and what captions of possible discoveries say, beside the baselines.

        Args:
          rows: the residual stream after the layer, at the judged characters.
          named: the captions.
        """
        marked, (layer, sae) = marks.marked, self.at
        latents, descriptions = candidates(named, marked, of_pass.stability)
        concepts = [*marked.concepts, *descriptions.concepts]
        every = MarkedText(marked.text, concepts, np.concatenate([marked.has, descriptions.has]))
        beside = baselines.baselines(lazy.known, marked.text, layer, rows, sae.d_sae, every.halves)
        first = len(marked.concepts)
        made_for = {first + i: latent for i, latent in enumerate(latents)}
        scores = concept_scores.concept_scores(of_pass.statistics.firings, every, beside, latents=made_for)
        of, name = digest_of(marks.key, self.key_of_others), marks.named("compared")
        self.kept.write(name, of, scores, lambda scores: kept_parts.pack_scores(scores, marks.concepts))
        return scores


def _kept_passes(asked: Sequence[_Asked], text: JudgedText) -> list[_Pass] | None:
    """What an earlier pass found of each SAE; None: something is not kept, or of another pass."""
    out = []
    for one, following in itertools.zip_longest(asked, asked[1:]):
        d_sae, kept, cofiring, stability = one.at.sae.d_sae, one.kept, None, None
        statistics = kept.read("statistics", "", kept_parts.unpack_statistics, d_sae, text)
        if statistics is None:
            return None
        if following:
            sizes = d_sae, following.at.sae.d_sae
            cofiring = kept.read("cofiring_with_next", following.kept.key, kept_parts.unpack_cofiring, *sizes)
        if one.others:
            stability = kept.read("stability", one.key_of_others, kept_parts.unpack_stability, d_sae)
        if (following and cofiring is None) or (one.others and stability is None):
            return None
        out.append(_Pass(statistics, cofiring, stability))
    return out


def _new_passes(asked: Sequence[_Asked], found: Collected) -> list[_Pass]:
    """What the pass has found of each SAE, which is kept."""
    out = []
    for number, (one, following) in enumerate(itertools.zip_longest(asked, asked[1:])):
        statistics, cofiring, stability = found.statistics[number], None, None
        one.kept.write("statistics", "", statistics, kept_parts.pack_statistics)
        if following:
            cofiring = found.cofiring[number]
            one.kept.write("cofiring_with_next", following.kept.key, cofiring, kept_parts.pack_cofiring)
        if one.others:
            stability = stability_of(one.at.sae, one.others, statistics.firings, found.seeds[number])
            one.kept.write("stability", one.key_of_others, stability, kept_parts.pack_stability)
        out.append(_Pass(statistics, cofiring, stability))
    return out


def check_text(letters: str, shape: ModelShape) -> None:
    """Raise `InputError` where a model of this shape cannot read a text."""
    ids, most, unit = shape.tokenizer.encode(letters), shape.max_position, shape.tokenizer.unit
    n = len(framed(shape.tokenizer, ids)[0])
    require(len(ids) > 0, f"text must have at least one {unit}, got none")
    require(n <= most, f"text must have at most {most} {unit}s (the model's max_position), got {n}")
