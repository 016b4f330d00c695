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
from jaxsae.features.feature_summary import Context
from jaxsae.features.inspection import Inspection
from jaxsae.features.questions import load_questions
from jaxsae.text.pieces import in_units, of_tablets

PAGE = Path(__file__).with_name("page")
SCRIPTS = ("d3.min.js", "plot.min.js", "page.js")
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
    """What page.js shows of one SAE; rows that are many are lists in place of dicts.

    Args:
      following: the next layer, whose latents each is compared with; None: it is the last.
      causal: what is restored without some of the features.
      shown: the features that stand on the page; in place of the others nothing does.
      strongest: how many of the strongest contexts each feature has, at most.
    """
    statistics, layer = inspection.statistics, inspection.layer
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
            "contexts": [_context(context) for context in one.contexts],
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
        features[latent] = entry
    return {
        "layer": layer,
        "name": Path(name).name,
        "d_sae": statistics.d_sae,
        "rows": statistics.rows,
        "edges": _short(edges),
        "rate": _short(statistics.rate),
        "mean": _short(statistics.mean),
        "max": _short(statistics.peak),
        "features": features,
        "order": inspection.reading_order,
        "concepts": [one.as_json() for one in scores],
    }


def _round(value: float | np.floating) -> float:
    return float(f"{value:.4g}")


def _short(values: Sequence[float] | Float[np.ndarray, " n"]) -> list[float]:
    return [_round(value) for value in np.asarray(values).tolist()]


def _context(context: Context) -> list[Any]:
    """As page.js reads it; how strongly the latent fires on each character is a digit of 0 to 9."""
    values, top = context.values, max(context.values)
    digits = "".join(str(max(1, round(9 * v / top))) if v > 0 else "0" for v in values)
    place = [context.sample, context.position, context.text, context.at]
    return [*place, context.cut, context.damaged, digits, values[context.at], context.level]
