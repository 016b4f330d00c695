"""The report: one HTML page about several inspections, which opens offline; the model runs again for its answers."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jaxsae.features.answer import Answer, Feature
from jaxsae.features.answers import answers
from jaxsae.features.concepts import true_text
from jaxsae.features.contexts import AFTER, BEFORE
from jaxsae.features.descriptions import DAMAGED, character_class
from jaxsae.features.feature_map import layout
from jaxsae.features.feature_summary import FeatureSummary
from jaxsae.features.inspection import Inspection
from jaxsae.features.intervals import PlacedFirings, encoded
from jaxsae.features.questions import load_questions
from jaxsae.sae.consistency import directions_of
from jaxsae.text.pieces import HIDDEN, in_units, of_tablets
from jaxsae.text.samples import Samples

PAGE = Path(__file__).with_name("page")
SCRIPTS = (
    "d3.min.js", "plot.min.js",
    "base.js", "search.js", "texts.js", "notes.js", "table.js", "feature.js", "concepts.js", "pictures.js", "map.js", "page.js",
)  # fmt: skip
LIVE_SCRIPTS = (*SCRIPTS, "live.js")
MOST_FEATURES = 8192
"""Features of a layer that the page shows: of more, those that are best read and those that the answers name."""
COUNTS = ("No", "One", "Two", "Three", "Four", "Five", "Six")


def page(inspections: Sequence[Inspection], names: Sequence[str], text: str, *, live: bool = False) -> str:
    """The page's HTML.

    Args:
      inspections: those of one pass, in the order of their layers; made with concepts.
      names: what each SAE is called, such as its file.
      text: what was read, in words.
      live: with the view that asks a server; whoever serves the page says what scripts it may run, see `scripts`.
    """
    several = len(inspections) > 1
    asked = load_questions()
    found = answers(inspections, asked.questions)
    causal = {Feature(effect["layer"], effect["feature"]): effect for one in found for effect in one.causal}
    layers = [
        # contexts are most of the page
        layer_data(
            inspection, name, following, causal, shown_features(inspection, found), strongest=4 if several else 8
        )
        for inspection, name, following in zip(inspections, names, [*inspections[1:], None], strict=True)
    ]
    read = {int(sample) for layer in layers for one in layer["features"] if one for sample in one["fires"]}
    numbers = ", ".join(str(inspection.layer) for inspection in inspections)
    sizes = ", ".join(_size(layer) for layer in layers)
    first = inspections[0]
    unit = first.samples.tokenizer.unit
    data = {
        "title": f"What layer{'s' if several else ''} {numbers} learned",
        "text": f"{text}: {len(first.samples):,} texts, {first.statistics.rows:,} {unit}s. {sizes}.",
        "unit": unit,
        "version": importlib.metadata.version("jaxsae"),
        "layers": layers,
        "texts": {sample: _text(first.samples, sample) for sample in sorted(read)},
        "answers": _in_units([one.as_json() for one in found], unit),
        "language_tag": asked.language_tag if of_tablets(first.samples.tokenizer) else "",
        "live": live,
    }
    # a template library, so that whatever stands in the data is escaped
    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined)
    environment.filters["in_units"] = in_units
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    return environment.get_template("page.html.j2").render(
        data=data,
        heading=f"{COUNTS[len(found)] if len(found) < len(COUNTS) else len(found)} answers",
        notes=asked.notes if of_tablets(first.samples.tokenizer) else asked.notes_of_others,
        styles=[_source(name) for name in ("page.css", *(("live.css",) if live else ()))],
        scripts=[Markup(script) for script in scripts(live=live)],
    )


def _in_units(said: Any, unit: str) -> Any:
    """What is said of characters, said of tokens; keys stay."""
    if isinstance(said, str):
        return in_units(said, unit)
    if isinstance(said, list | tuple):
        return [_in_units(one, unit) for one in said]
    return {key: _in_units(one, unit) for key, one in said.items()} if isinstance(said, dict) else said


def scripts(*, live: bool) -> list[str]:
    """The scripts that stand in the page, in their order: what a content security policy allows by their hashes."""
    return [str(_source(name)) for name in (LIVE_SCRIPTS if live else SCRIPTS)]


def _source(name: str) -> Markup:
    """A file of the page, which stands in it unescaped."""
    return Markup((PAGE / name).read_text(encoding="utf-8"))


def _size(layer: Mapping[str, Any]) -> str:
    """How many features a layer has, and how many of them are shown."""
    shown = sum(one is not None for one in layer["features"])
    some = "" if shown == layer["d_sae"] else f", of which {shown:,} are shown"
    return f"{layer['d_sae']:,} features of layer {layer['layer']} ({layer['name']}){some}"


def shown_features(inspection: Inspection, found: Sequence[Answer]) -> list[int]:
    """The features of a layer that the page shows, ascending: all, or see `MOST_FEATURES`."""
    if inspection.sae.d_sae <= MOST_FEATURES:
        return list(range(inspection.sae.d_sae))
    named = [one.feature for answer in found for one in answer.features if one.layer == inspection.layer]
    best = [score.latent for scores in inspection.concept_scores for score in scores.best]
    return sorted(list(dict.fromkeys([*named, *best, *inspection.reading_order]))[:MOST_FEATURES])


def layer_data(
    inspection: Inspection,
    name: str,
    following: Inspection | None,
    causal: Mapping[Feature, dict[str, Any]],
    shown: Sequence[int],
    strongest: int,
) -> dict[str, Any]:
    """What the page shows of one SAE; rows that are many are lists in place of dicts.

    Args:
      following: the next layer, whose latents each is compared with; None: it is the last.
      causal: what is restored without some of the features.
      shown: the features that stand on the page; in place of the others nothing does.
      strongest: how many of the strongest contexts each feature has, at most.
    """
    statistics, layer = inspection.statistics, inspection.layer
    placed, places = PlacedFirings(statistics), _places_on_map(inspection, shown)
    scores = inspection.concept_scores
    index = {one.name: i for i, one in enumerate(scores)}
    edges = statistics.histogram.edges().tolist()
    matches = inspection.matched_latents(following, shown) if following else [None] * len(shown)
    features: list[dict[str, Any] | None] = [None] * statistics.d_sae
    for one, matched in zip(inspection.features(shown, strongest), matches, strict=True):
        latent = one.feature
        first_bin = edges.index(one.bin_edges[0]) if one.bin_edges else 0
        entry: dict[str, Any] = {
            "caption": str(one.caption),
            "f1": _round(one.caption.f1) if one.caption.clear else 0,
            "histogram": [first_bin, one.bin_counts],
            **_contexts(one, placed),
            "kind": _kind(one),
            "classes": _classes(one),
            "characters": [[row.name, *_short((row.of_firings, row.rate))] for row in one.by_character[:6]],
            "places": [[row.name, *_short((row.of_firings, row.rate))] for row in one.by_place],
            "together": [[row.feature, *_short((row.share, row.lift))] for row in one.fires_with],
            "concepts": [[index[row.name], _round(row.run)] for row in one.concepts],
            "promotes": [[row.character, _round(row.effect)] for row in one.promotes],
            "suppresses": [[row.character, _round(row.effect)] for row in one.suppresses],
            "nearest": [[row.feature, _round(row.cosine)] for row in one.nearest],
        }
        if matched:
            entry["match"] = [matched.by_decoder, _round(matched.cosine), matched.by_firing, _round(matched.jaccard)]
        if (layer, latent) in causal:
            entry["causal"] = causal[Feature(layer, latent)]
        if one.found_again:
            entry["again"] = [one.found_again.seeds, *_short(one.found_again[1:])]
        if latent in places:
            entry["place"] = places[latent]
        features[latent] = entry
    return {
        "layer": layer,
        "name": Path(name).name,
        "d_sae": statistics.d_sae,
        "rows": statistics.rows,
        "edges": [float(f"{edge:.6g}") for edge in statistics.histogram.bounds()],
        "rate": _short(statistics.rate),
        "mean": _short(statistics.mean),
        "max": _short(statistics.peak),
        "features": features,
        "tells": _short(inspection.tells),
        "order": inspection.reading_order,
        "concepts": [one.as_json() for one in scores],
    }


def _round(value: float | np.floating) -> float:
    return float(f"{value:.4g}")


def _short(values: Sequence[float] | Float[np.ndarray, " n"]) -> list[float]:
    return [_round(value) for value in np.asarray(values).tolist()]


def _text(samples: Samples, sample: int) -> list[Any]:
    """A text as texts.js reads it: its name, its tokens, and where damage begins and how long it is, by turns."""
    letters, damaged = true_text(samples, sample)
    own, name = samples.name_of(sample), f"text {sample}"
    name = f"{own} ({name})" if own else name
    bounds = np.flatnonzero(np.diff(damaged.astype(np.int8), prepend=0, append=0))
    runs = np.stack([bounds[::2], bounds[1::2] - bounds[::2]], axis=1)
    return [name, letters, runs.ravel().tolist()]


MOST_FIRINGS = 2000
"""Characters that a latent's firings on its texts may take on the page; of one that takes more, as it fires nearly
everywhere, those around its places are told."""


def _contexts(one: FeatureSummary, placed: PlacedFirings) -> dict[str, Any]:
    """Where a latent fires: `strongest` and `intervals` are places, `fires` its firings on the texts that these are in.

    A place is [text, position, value]. Where only the firings around places are told, what stands in `fires` begins
    with ~: in texts that are not judged, of which no more is known, and of latents that fire nearly everywhere.
    """
    of, peak = placed.of(one.feature), max(one.max, 1e-30)
    strongest = [context for context in one.contexts if context.level == "strongest"]
    shown = [(context.sample, context.position) for context in strongest]
    intervals = placed.intervals(one.feature, of, shown)
    places: dict[int, list[int]] = {}
    drawn = [(place.sample, place.position) for interval in intervals for place in interval.places]
    for sample, position in (*shown, *drawn):
        places.setdefault(sample, []).append(position)

    def levels(values: Float[np.ndarray, " n"]) -> list[int]:
        return np.clip(np.round(9 * values / peak), 1, 9).astype(int).tolist()

    parts = {sample: slice(*np.searchsorted(of.sample, [sample, sample + 1])) for sample in places}
    whole = {sample: encoded(of.position[part].tolist(), levels(of.value[part])) for sample, part in parts.items()}
    fires, all_told = {}, sum(map(len, whole.values())) <= MOST_FIRINGS
    for sample in sorted(places):
        if not placed.knows(sample):
            context = next(context for context in strongest if context.sample == sample)
            values = np.array(context.values)
            at = np.flatnonzero(values)
            fires[sample] = "~" + encoded((at + context.position - context.at).tolist(), levels(values[at]))
        elif all_told:
            fires[sample] = whole[sample]
        else:
            here, value = of.position[parts[sample]], of.value[parts[sample]]
            gap = here[:, None] - np.array(places[sample])
            near = ((gap >= -BEFORE) & (gap <= AFTER)).any(axis=1)
            fires[sample] = "~" + encoded(here[near].tolist(), levels(value[near]))
    return {
        "strongest": [[at.sample, at.position, _round(at.values[at.at])] for at in strongest],
        "intervals": [
            [interval.fired, [[at.sample, at.position, _round(at.value)] for at in interval.places]]
            for interval in intervals
        ],
        "fires": fires,
    }


KINDS = (
    ("damage", ("damaged class", "damaged character")),
    ("single characters", ("class", "character")),
    ("place in the word", ("character in the word",)),
    ("signs", ("sign", "sign in the word", "character of a sign", "character of a sign in the word")),
    ("words", ("word", "character of a word")),
    ("what stands before", ("before", "pair before", "sign before", "word before")),
    ("what stands behind", ("after", "pair after")),
    ("both neighbours", ("window",)),
    ("several places", ("surroundings",)),
)
"""What captions speak of -> the families of descriptions; those of concepts speak of these."""
UNCLEAR = "unclear"


def _kind(one: FeatureSummary) -> str:
    """What the caption of a latent speaks of; "unclear" where it predicts nothing."""
    family = one.caption.family
    if not one.caption.named:
        return UNCLEAR
    return next((kind for kind, families in KINDS if family in families), "concepts")


def _classes(one: FeatureSummary) -> list[str]:
    """The classes of characters that half of a latent's firings are on, or more."""
    shares: dict[str, float] = {}
    for row in one.by_character:
        name = row.name if row.name in (DAMAGED, HIDDEN) else character_class(row.name)
        shares[name] = shares.get(name, 0.0) + row.of_firings
    return [name for name, share in shares.items() if share >= 0.5]


def _places_on_map(inspection: Inspection, shown: Sequence[int]) -> dict[int, list[float]]:
    """Where the latents that are shown and that fire stand on the map."""
    some = [latent for latent in shown if inspection.statistics.fired[latent]]
    found = layout(directions_of(inspection.sae)[some])
    return {latent: [round(float(x), 4), round(float(y), 4)] for latent, (x, y) in zip(some, found, strict=True)}
