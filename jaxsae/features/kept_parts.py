"""What is kept of an inspection as arrays and JSON, and back: the same to the last bit, or an error."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsae.features.captions import Caption
from jaxsae.features.causal import CausalEffect, RestorationChange
from jaxsae.features.concept_scores import ConceptScores
from jaxsae.features.concepts import Concept
from jaxsae.features.detection import DetectionScore
from jaxsae.features.discoveries import FOUND
from jaxsae.features.firings import FiringLog
from jaxsae.features.judged_text import JudgedText
from jaxsae.features.kept import Stored, digest_of
from jaxsae.features.pair_counts import PairCounts
from jaxsae.features.relations import Relations
from jaxsae.features.stability import Stability
from jaxsae.features.statistics import LatentStatistics, character_ids

COUNTS = ("fired", "total", "peak", "by_place", "character_rows", "place_rows")
"""Arrays of `LatentStatistics`, `PAIRS` its counts of pairs, and `CONTEXTS` the arrays of each of its `Contexts`."""
PAIRS = ("cofiring", "by_character")
CONTEXTS = ("score", "sample", "position", "values")


def pack_statistics(one: LatentStatistics) -> Stored:
    """Statistics of a text that was read to its end."""
    firings = one.firings
    arrays = {name: getattr(one, name) for name in COUNTS}
    arrays |= {"row": firings.row, "column": firings.column, "code": firings.code, "histogram": one.histogram.counts}
    for kind in ("strongest", "drawn"):
        arrays |= {f"{kind}_{name}": getattr(getattr(one, kind), name) for name in CONTEXTS}
    for name in PAIRS:
        arrays |= _packed_pairs(getattr(one, name), name, symmetric=name == "cofiring")
    left_out = [name for name in PAIRS if getattr(one, name).left_out]
    rest = {"rows": one.rows, "top": one.histogram.top, "step": one.log.step, "left_out": left_out}
    return Stored(arrays, rest)


def _packed_pairs(pairs: PairCounts, name: str, symmetric: bool = False) -> dict[str, np.ndarray]:
    """Which pairs occur, numbered through, and how often; of pairs of the same latents each once."""
    a, b, count = pairs.entries()
    if symmetric:
        a, b, count = (part[a <= b] for part in (a, b, count))
    at = (a * pairs.shape[1] + b).astype(np.min_scalar_type(pairs.shape[0] * pairs.shape[1]))
    return {f"{name}_at": at, name: count}


def _unpack_pairs(pairs: PairCounts, name: str, stored: Stored, left_out: bool, symmetric: bool = False) -> None:
    at, count = (
        stored.arrays[f"{name}_at"],
        _like(np.zeros(len(stored.arrays[f"{name}_at"]), np.float32), stored.arrays[name]),
    )
    _within(at, 0, pairs.shape[0] * pairs.shape[1])
    a, b = np.divmod(at.astype(np.int64), pairs.shape[1])
    if symmetric:
        other = a != b
        a, b, count = np.append(a, b[other]), np.append(b, a[other]), np.append(count, count[other])
    pairs.set(a, b, count)
    pairs.left_out = left_out


def unpack_statistics(stored: Stored, d_sae: int, judged: JudgedText) -> LatentStatistics:
    """The statistics of an SAE with so many latents on a text.

    Raises:
      ValueError, KeyError, TypeError: they cannot be of these.
    """
    arrays, rest = stored
    _require(rest["rows"] > 0 and rest["step"] > 0)
    one = LatentStatistics(d_sae, character_ids(judged.samples), judged, int(rest["rows"]))
    for name in COUNTS:
        setattr(one, name, _like(getattr(one, name), arrays[name]))
    one.histogram.counts = _like(one.histogram.counts, arrays["histogram"])
    one.histogram.top = None if rest["top"] is None else int(rest["top"])
    samples, width = judged.samples.ids.shape
    for kind in ("strongest", "drawn"):
        contexts = getattr(one, kind)
        for name in CONTEXTS:
            setattr(contexts, name, _like(getattr(contexts, name), arrays[f"{kind}_{name}"]))
        _within(contexts.sample, -1, samples)
        _within(contexts.position, -1, width)
    for name in PAIRS:
        _unpack_pairs(getattr(one, name), name, stored, name in rest["left_out"], symmetric=name == "cofiring")
    _within(arrays["row"], 0, len(judged))
    _within(arrays["column"], 0, d_sae)
    parts = [(arrays["row"], arrays["column"], arrays["code"])]
    one.log = FiringLog(judged, d_sae, parts=parts, entries=len(arrays["row"]), step=int(rest["step"]))
    return one


def pack_cofiring(counts: PairCounts) -> Stored:
    """On how many rows latents of two SAEs both fire."""
    return Stored(_packed_pairs(counts, "counts"), counts.left_out)


def unpack_cofiring(stored: Stored, d_sae: int, next_d_sae: int) -> PairCounts:
    """Raises as `unpack_statistics`."""
    out = PairCounts(d_sae, next_d_sae)
    _unpack_pairs(out, "counts", stored, bool(stored.rest))
    return out


def pack_stability(one: Stability) -> Stored:
    """What becomes of latents with other seeds."""
    arrays = {name: getattr(one, name) for name in ("found", "cosine", "jaccard")}
    return Stored(arrays, {"seeds": one.seeds, "pw_mcc": one.pw_mcc})


def unpack_stability(stored: Stored, d_sae: int) -> Stability:
    """Raises as `unpack_statistics`."""
    arrays = {name: _of_shape(stored.arrays[name], d_sae) for name in ("found", "cosine", "jaccard")}
    pw_mcc = stored.rest["pw_mcc"]
    return Stability(seeds=int(stored.rest["seeds"]), pw_mcc=None if pw_mcc is None else float(pw_mcc), **arrays)


def pack_captions(captions: Sequence[Caption]) -> Stored:
    """A caption for each latent."""
    return Stored({}, [one._asdict() for one in captions])


def unpack_captions(stored: Stored, d_sae: int) -> list[Caption]:
    """Raises as `unpack_statistics`."""
    captions = [Caption(**{**one, "members": tuple(one["members"])}) for one in stored.rest]
    _require(len(captions) == d_sae)
    return captions


def pack_scores(scores: Sequence[ConceptScores], concepts: Sequence[Concept]) -> Stored:
    """How well latents find some of these concepts, and descriptions of latents."""
    numbers = {id(concept): number for number, concept in enumerate(concepts)}  # several may have one name
    arrays = {name: np.array([getattr(one, name) for one in scores]) for name in ("run", "chosen")}
    return Stored(arrays, [_figures(one, numbers.get(id(one.concept))) for one in scores])


def _figures(one: ConceptScores, number: int | None) -> dict[str, Any]:
    out = {name: value for name, value in one._asdict().items() if name not in ("run", "chosen", "concept", "best")}
    return out | {"concept": one.name if number is None else number, "best": [score._asdict() for score in one.best]}


def unpack_scores(stored: Stored, d_sae: int, concepts: Sequence[Concept]) -> list[ConceptScores]:
    """Raises as `unpack_statistics`."""
    run, chosen = (stored.arrays[name] for name in ("run", "chosen"))
    _require(len(run) == len(chosen) == len(stored.rest))
    out = []
    for number, one in enumerate(stored.rest):
        of = one.pop("concept")
        concept = Concept(of, FOUND, of) if isinstance(of, str) else concepts[of]
        best = [DetectionScore(**score) for score in one.pop("best")]
        _require(all(0 <= score.latent < d_sae for score in best))
        figures = _of_shape(run[number], d_sae), _of_shape(chosen[number], d_sae)
        out.append(ConceptScores(concept=concept, best=best, run=figures[0], chosen=figures[1], **one))
    return out


def pack_relations(one: Relations) -> Stored:
    """Direct logits and similar decoder rows."""
    return Stored(one._asdict())


def unpack_relations(stored: Stored, d_sae: int, characters: int) -> Relations:
    """Raises as `unpack_statistics`."""
    found = Relations(**stored.arrays)
    _of_shape(found.direct_logits, d_sae, characters if found.direct_logits.shape[-1] else 0)
    _require(found.nearest.ndim == 2 and found.nearest.shape == found.cosines.shape)
    _require(len(found.nearest) == d_sae)
    _within(found.nearest, 0, d_sae)
    return found


def pack_effects(effects: Sequence[CausalEffect]) -> Stored:
    """What is restored with latents set to values."""
    return Stored({}, [one.as_json() for one in effects])


def unpack_effects(stored: Stored, settings: Sequence[tuple[int, float]]) -> list[CausalEffect]:
    """Raises as `unpack_statistics`."""
    out = []
    for (latent, value), one in zip(settings, stored.rest, strict=True):
        here, elsewhere = (RestorationChange(**one[where]) for where in ("where it fires", "elsewhere"))
        swaps = [(str(before), str(after), int(count)) for before, after, count in one["swaps"]]
        out.append(CausalEffect(latent, value, here, elsewhere, swaps))
    return out


def key_of_concepts(concepts: Sequence[Concept]) -> str:
    """SHA-256 of which characters have which concept, in whatever text, and of how it is called."""
    parts: list[str | np.ndarray] = []
    for one in concepts:
        patterns = [repr(pattern and (pattern.pattern, pattern.flags)) for pattern in (one.pattern, one.unless)]
        parts += [one.name, one.about, one.title, *patterns, repr(one.labels), repr(one.column)]
        parts += ["unknown"] if one.truth is None else ["known", one.truth]
    return digest_of(*parts)


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError


def _of_shape(array: np.ndarray, *shape: int) -> np.ndarray:
    _require(array.shape == shape)
    return array


def _like(expected: np.ndarray, array: np.ndarray) -> np.ndarray:
    _require(array.dtype == expected.dtype)
    return _of_shape(array, *expected.shape)


def _within(numbers: np.ndarray, least: int, end: int) -> None:
    """Every number must be in `least`..`end` - 1: others would lead to what is not there."""
    _require(numbers.size == 0 or bool(least <= numbers.min() and numbers.max() < end))
