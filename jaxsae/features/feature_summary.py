"""What a survey says of an SAE, of one latent, of a concept: plain numbers and strings for tables, JSON and page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxsae.features import detection, splice
from jaxsae.features.concepts import Concept, true_text
from jaxsae.features.contexts import AFTER, BEFORE, Contexts
from jaxsae.features.detection import DetectionScore
from jaxsae.features.statistics import DAMAGED, PLACES, LatentStatistics, LayerSAE, encode_stream
from jaxsae.models.restoration import RestorationModel
from jaxsae.text import preparation
from jaxsae.text.samples import Samples

CLEAR_MARGIN, CLEAR_F1 = 0.05, 0.3
"""A latent tells a concept clearly with an F1 so far above the best random direction's, and of at least so much."""
LEAST = 10
"""Characters with a concept in each half of the texts, from which on something is told of it."""


@dataclass(frozen=True)
class Inspection:
    """One SAE, the text, and what its latents do there."""

    model: RestorationModel
    samples: Samples
    subject: LayerSAE
    survey: LatentStatistics
    concepts: Sequence[Concept]

    @property
    def characters(self) -> list[str]:
        """What each row of `survey.by_kind` counts."""
        return ["damaged" if kind == DAMAGED else chr(kind) for kind in self.survey.kinds]

    def writes(self) -> Float[np.ndarray, "d_sae characters"]:
        """`features.writes`, of the characters that occur, `#` and damage left out."""
        return detection.direct_logits(self.model, self.subject.sae, self.written())

    def written(self) -> np.ndarray:
        """The code points of `writes`: what the text had before the damage."""
        damaged = self.samples.labels != preparation.NO_LABEL
        real = self.samples.mask != 0
        return np.unique(np.where(damaged, self.samples.labels, self.samples.ids)[real])


def overview(survey: LatentStatistics) -> dict[str, Any]:
    """Figures of the whole SAE, and of each latent."""
    rate, mean = survey.rate, survey.mean
    edges = [10.0**e for e in range(-6, 1)]
    counts = np.histogram(rate[rate > 0], [0.0, *edges])[0]
    return {
        "d_sae": survey.d_sae,
        "characters": survey.rows,
        "l0": survey.l0,
        "dead": float((survey.fired == 0).mean()),
        "dense": float((rate > 0.1).mean()),
        "density_edges": [0.0, *edges],
        "density_histogram": counts.tolist(),
        "features": {
            "firing_rate": rate.tolist(),
            "mean": mean.tolist(),
            "max": survey.peak.tolist(),
        },
    }


def histogram(survey: LatentStatistics, latent: int) -> tuple[list[float], list[int]]:
    """(lower edges, counts) of a latent's values above 0, eight an octave, from the first not empty."""
    assert survey.levels is not None
    counts = survey.levels.counts[:, 0, latent].sum(axis=0)
    there = np.flatnonzero(counts)
    if not len(there):
        return [], []
    part = slice(there[0], there[-1] + 1)
    return survey.levels.edges()[part].tolist(), counts[part].tolist()


LEVELS = (0.75, 0.5, 0.25)
"""Of a latent's largest value: about there contexts of weaker firing are shown."""


def _context(samples: Samples, contexts: Contexts, slot: int, latent: int) -> dict[str, Any]:
    sample, position = int(contexts.sample[slot, latent]), int(contexts.position[slot, latent])
    letters, damaged = true_text(samples, sample)
    at = int((samples.mask[sample, :position] != 0).sum())
    start, end = max(0, at - BEFORE), min(len(letters), at + AFTER + 1)
    values = contexts.values[slot, latent, BEFORE - (at - start) : BEFORE + end - at].astype(float)
    return {
        "sample": sample,
        "position": position,
        "text": letters[start:end],
        "at": at - start,
        "damaged": np.flatnonzero(damaged[start:end]).tolist(),
        "values": [float(f"{v:.4g}") for v in values],
        "cut": [start > 0, end < len(letters)],
    }


def contexts(samples: Samples, survey: LatentStatistics, latent: int, strongest: int = 8) -> list[dict[str, Any]]:
    """Where a latent fires most, strongest first; then one each from about `LEVELS` of its largest value."""
    top = survey.strongest
    order = [int(s) for s in np.argsort(-top.score[:, latent], kind="stable") if top.score[s, latent] > 0][:strongest]
    out = [_context(samples, top, slot, latent) | {"level": "strongest"} for slot in order]
    drawn, peak = survey.drawn, float(survey.peak[latent])
    value = drawn.values[:, latent, BEFORE].astype(float)
    free = [int(s) for s in np.flatnonzero(drawn.score[:, latent] > 0)]
    for level in LEVELS:
        near = [s for s in free if abs(value[s] / peak - level) < 0.125]
        if near:
            slot = min(near, key=lambda s: abs(value[s] / peak - level))
            free.remove(slot)
            out.append(_context(samples, drawn, slot, latent) | {"level": f"{level:.0%} of the largest"})
    return out


def shares_of_firings(
    counts: np.ndarray, rows: np.ndarray, names: Sequence[str], fired: int, top: int
) -> list[dict[str, Any]]:
    """Where a latent's firings are: (name, share of the firings, share of such characters on which it fires)."""
    order = [int(i) for i in np.argsort(-counts, kind="stable")[:top] if counts[i] > 0]
    return [
        {"name": names[i], "of_firings": float(counts[i]) / fired, "rate": float(counts[i]) / int(rows[i])}
        for i in order
    ]


def feature(of: Inspection, latent: int, table: Sequence[dict[str, Any]] = (), strongest: int = 8) -> dict[str, Any]:
    """Everything known of one latent; `table` is of `concept_table`."""
    survey = of.survey
    fired = int(survey.fired[latent])
    edges, counts = histogram(survey, latent)
    out: dict[str, Any] = {
        "feature": latent,
        "firing_rate": float(survey.rate[latent]),
        "mean": float(survey.mean[latent]),
        "max": float(survey.peak[latent]),
        "fired": fired,
        "histogram": {"edges": edges, "counts": counts},
        "contexts": contexts(of.samples, survey, latent, strongest),
        "by_character": [],
        "by_place": [],
        "together": [],
        "concepts": [],
    }
    if fired:
        out["by_character"] = shares_of_firings(survey.by_kind[:, latent], survey.kind_rows, of.characters, fired, 8)
        out["by_place"] = shares_of_firings(survey.by_place[:, latent], survey.place_rows, PLACES, fired, len(PLACES))
        out["together"] = [
            {"feature": other, "share": share, "lift": lift}
            for other, share, lift in detection.fires_with(survey, latent)
        ]
        ranked = sorted(table, key=lambda row: -row["aurocs"][latent])
        out["concepts"] = [
            {"name": row["name"], "auroc": float(row["aurocs"][latent])}
            for row in ranked[:5]
            if row["aurocs"][latent] > 0.6
        ]
    return out


def promoted_and_suppressed(
    written: np.ndarray, effect: Float[np.ndarray, " characters"], count: int = 6
) -> dict[str, Any]:
    """The characters that a latent promotes and suppresses most, with by how much next to their mean."""
    order = np.argsort(-effect, kind="stable")

    def of(some: np.ndarray) -> list[dict[str, Any]]:
        return [{"character": chr(written[i]), "effect": float(effect[i])} for i in some]

    return {"promotes": of(order[:count]), "suppresses": of(order[::-1][:count])}


def _score_fields(told: DetectionScore) -> dict[str, Any]:
    return {
        "feature": told.columns[0],
        "auroc": told.auroc,
        "precision": told.precision,
        "recall": told.recall,
        "f1": told.f1,
        "threshold": told.threshold,
    }


def _why_left_out(with_it: np.ndarray, every: np.ndarray) -> str | None:
    """Why nothing can be told of a concept; None: it can.

    Args:
      with_it: the characters that have it, in each half of the texts.
      every: all characters, in each half.
    """
    if (with_it < LEAST).any():
        each = " and ".join(f"{n:,}" for n in with_it)
        return f"{int(with_it.sum()):,} characters ({each}), at least {LEAST} in each half of the texts are needed"
    if (with_it == every).any():
        return "every character of half of the texts has it, some without it are needed"
    return None


def left_out(of: Inspection) -> list[dict[str, str]]:
    """The concepts that `concept_table` leaves out: the name of each, what it is about, and the reason."""
    reasons = [_why_left_out(of.survey.of_group[:, 1 + i], of.survey.of_group[:, 0]) for i in range(len(of.concepts))]
    return [
        {"name": concept.name, "about": concept.about, "reason": reason}
        for concept, reason in zip(of.concepts, reasons, strict=True)
        if reason
    ]


def concept_table(of: Inspection, count: int = 5) -> list[dict[str, Any]]:
    """For each concept that both halves of the text have: what tells it.

    `best`: the latents with the best AUROC; `best_f1`: with the best F1; `chance`: the best of the random directions by
    either; `clear`: whether a latent is clearly better by F1; `aurocs`: of every latent, on the scoring half.
    """
    levels, chance, of_group = of.survey.levels, of.survey.chance, of.survey.of_group
    assert levels is not None
    assert chance is not None
    out = []
    for number, concept in enumerate(of.concepts):
        group = of_group[:, 1 + number]
        row: dict[str, Any] = {
            "name": concept.name,
            "about": concept.about,
            "title": concept.title,
            "source": concept.source,
            "characters": int(group.sum()),
            "share": float(group.sum() / of_group[:, 0].sum()),
        }
        if _why_left_out(group, of_group[:, 0]):
            continue
        best, best_f1 = (detection.best_detectors(levels, of_group, number, count, by) for by in ("auroc", "f1"))
        by_chance = [detection.best_detectors(chance, of_group, number, 1, by)[0] for by in ("auroc", "f1")]
        top = best_f1[0]
        row |= {
            "best": [_score_fields(t) for t in best],
            "best_f1": [_score_fields(t) for t in best_f1],
            "chance": {"auroc": by_chance[0].auroc, "f1": by_chance[1].f1},
            "clear": bool(top.f1 >= CLEAR_F1 and top.f1 >= by_chance[1].f1 + CLEAR_MARGIN),
            "aurocs": np.nan_to_num(detection.binned_counts(levels, of_group, 1, 1 + number).aurocs(), nan=0.5),
        }
        out.append(row)
    return out


def latents_on_text(of: Inspection, letters: str, count: int = 5) -> list[dict[str, Any]]:
    """For each character of a text: the latents that fire most on it, strongest first."""
    ids = np.array([[ord(c) for c in letters]], np.int32)
    x = of.model.resid_post(ids, np.ones_like(ids, np.int8), layer=of.subject.layer)
    latents = np.asarray(encode_stream(of.subject.sae, x))
    out = []
    for character, row in zip(letters, latents, strict=True):
        order = [int(i) for i in np.argsort(-row, kind="stable")[:count] if row[i] > 0]
        out.append(
            {
                "character": character,
                "l0": int((row > 0).sum()),
                "features": [{"feature": i, "value": float(row[i])} for i in order],
            }
        )
    return out


def causal_effects(of: Inspection, settings: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
    """What the model restores with a latent set to a value (0: removed), the SAE's error kept.

    At the damaged characters on which the latent fires, and at all others.
    """
    if not settings:
        return []
    sae, layer = of.subject.sae, of.subject.layer
    latents = [latent for latent, _ in settings]
    changes: dict[str, splice.Change] = {
        str(i): lambda x, latent=latent, value=value: splice.with_latent(sae, x, latent, float(value))  # type: ignore[misc]
        for i, (latent, value) in enumerate(settings)
    }
    found, fires = splice.restorations(
        of.model, of.samples, layer, changes, lambda x: encode_stream(sae, x)[:, np.array(latents)]
    )
    clean = found["clean"]
    out = []
    for i, (latent, value) in enumerate(settings):
        changed, here = found[str(i)], fires[:, i] > 0
        row: dict[str, Any] = {"feature": latent, "value": value}
        for name, where in (("where it fires", here), ("elsewhere", ~here)):
            before, after = clean.effect(where), changed.effect(where)
            row[name] = {
                "positions": before.positions,
                "top1_before": before.top1,
                "top1_after": after.top1,
                "probability_before": clean.probability(where),
                "probability_after": changed.probability(where),
                "kl": after.kl,
                "guesses_changed": int((clean.guess != changed.guess)[where].sum()),
            }
        moved = np.flatnonzero(clean.guess != changed.guess)
        pairs, counts = np.unique(
            np.stack([clean.guess[moved], changed.guess[moved]], axis=1), axis=0, return_counts=True
        )
        order = np.argsort(-counts, kind="stable")[:5]
        row["swaps"] = [[chr(pairs[j][0]), chr(pairs[j][1]), int(counts[j])] for j in order]
        out.append(row)
    return out


def matched_latents(
    a: Inspection, b: Inspection, together: Float[np.ndarray, "d_sae next_d_sae"]
) -> list[dict[str, Any]]:
    """For each latent of `a`: the latent of `b` with the most alike decoder row, and that which fires with it most.

    Co-firing is measured by the share of the characters on which either fires that both fire on (Jaccard).
    """
    top, cosines = detection.nearest(a.subject.sae, b.subject.sae, 1)
    either = a.survey.fired[:, None] + b.survey.fired[None, :] - together
    jaccard = together / np.maximum(either, 1)
    best = jaccard.argmax(axis=1)
    return [
        {
            "by_decoder": int(top[i, 0]),
            "cosine": float(cosines[i, 0]),
            "by_firing": int(best[i]),
            "jaccard": float(jaccard[i, best[i]]),
        }
        for i in range(len(best))
    ]
