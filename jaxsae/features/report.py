"""The page: what several inspections found, as one HTML file that opens offline."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jaxsae.features import answers, detection, feature_summary
from jaxsae.features.feature_summary import Inspection
from jaxsae.features.statistics import DIRECTIONS

PAGE = Path(__file__).with_name("page")


def build(inspections: Sequence[Inspection], names: Sequence[str], between: Sequence[np.ndarray], text: str) -> str:
    """The page's HTML.

    Args:
      inspections: one for each SAE, in the order of their layers.
      names: their files.
      between: as `survey.Surveyed.between`.
      text: what was read, in words.
    """
    tables = [feature_summary.concept_table(of) for of in inspections]
    matches = [
        feature_summary.matched_latents(a, b, t) for a, b, t in zip(inspections, inspections[1:], between, strict=False)
    ]
    four = answers.four(inspections, tables, matches)
    causal = {(c["layer"], c["feature"]): c for answer in four for c in answer["causal"]}
    few = len(inspections) > 1  # contexts are most of the page
    layers = [
        layer(of, name, table, matches[i] if i < len(matches) else None, causal, strongest=4 if few else 8)
        for i, (of, name, table) in enumerate(zip(inspections, names, tables, strict=True))
    ]
    numbers = ", ".join(str(of.subject.layer) for of in inspections)
    survey = inspections[0].survey
    sizes = ", ".join(f"{layer['d_sae']:,} features of layer {layer['layer']} ({layer['name']})" for layer in layers)
    data = {
        "title": f"What layer{'s' if few else ''} {numbers} learned",
        "text": f"{text}: {len(inspections[0].samples):,} texts, {survey.rows:,} characters. {sizes}.",
        "version": importlib.metadata.version("jaxsae"),
        "directions": DIRECTIONS,
        "layers": layers,
        "answers": four,
    }
    # a template library, so that whatever stands in the data is escaped
    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    ours = {name: _source(name) for name in ("page.css", "d3.min.js", "plot.min.js", "page.js")}
    return environment.get_template("page.html.j2").render(
        data=data, css=ours["page.css"], d3=ours["d3.min.js"], plot=ours["plot.min.js"], js=ours["page.js"]
    )


def _source(name: str) -> Any:
    """A file of the page, to stand in it as it is."""
    from markupsafe import Markup

    return Markup((PAGE / name).read_text(encoding="utf-8"))


def layer(
    of: Inspection,
    name: str,
    table: Sequence[dict[str, Any]],
    match: Sequence[dict[str, Any]] | None,
    causal: dict[tuple[int, int], dict[str, Any]],
    strongest: int,
) -> dict[str, Any]:
    """What page.js shows of one SAE; lists in place of dicts, for there are many."""
    survey, number = of.survey, of.subject.layer
    written, effect = of.written(), of.writes()
    near, cosines = detection.nearest(of.subject.sae)
    index = {row["name"]: i for i, row in enumerate(table)}
    assert survey.levels is not None
    edges = survey.levels.edges().tolist()
    out = []
    for i in range(survey.d_sae):
        one = feature_summary.feature(of, i, table, strongest)
        one |= feature_summary.promoted_and_suppressed(written, effect[i])
        entry: dict[str, Any] = {
            "histogram": [_start(edges, one["histogram"]["edges"]), one["histogram"]["counts"]],
            "contexts": [_context(context) for context in one["contexts"]],
            "characters": [[r["name"], *_short((r["of_firings"], r["rate"]))] for r in one["by_character"][:6]],
            "places": [[r["name"], *_short((r["of_firings"], r["rate"]))] for r in one["by_place"]],
            "together": [[r["feature"], *_short((r["share"], r["lift"]))] for r in one["together"]],
            "concepts": [[index[r["name"]], _round(r["auroc"])] for r in one["concepts"]],
            "promotes": [[r["character"], _round(r["effect"])] for r in one["promotes"]],
            "suppresses": [[r["character"], _round(r["effect"])] for r in one["suppresses"]],
            "nearest": [[int(j), _round(c)] for j, c in zip(near[i], cosines[i], strict=True)],
        }
        if match:
            m = match[i]
            entry["match"] = [m["by_decoder"], _round(m["cosine"]), m["by_firing"], _round(m["jaccard"])]
        if (number, i) in causal:
            entry["causal"] = causal[number, i]
        out.append(entry)
    return {
        "layer": number,
        "name": Path(name).name,
        "d_sae": survey.d_sae,
        "rows": survey.rows,
        "edges": _short(edges),
        "rate": _short(survey.rate),
        "mean": _short(survey.mean),
        "max": _short(survey.peak),
        "features": out,
        "concepts": [{key: value for key, value in row.items() if key != "aurocs"} for row in table],
    }


def _start(edges: list[float], part: list[float]) -> int:
    """Where a part of the edges begins."""
    return edges.index(part[0]) if part else 0


def _round(value: float | np.floating) -> float:
    return float(f"{value:.4g}")


def _short(values: Sequence[float] | Float[np.ndarray, " n"]) -> list[float]:
    return [_round(value) for value in values]


def _context(context: dict[str, Any]) -> list[Any]:
    """As page.js reads it; how strongly each character fires is a digit of 0 to 9."""
    values, top = context["values"], max(context["values"])
    digits = "".join(str(max(1, round(9 * v / top))) if v > 0 else "0" for v in values)
    where = [context["sample"], context["position"], context["text"], context["at"]]
    return [*where, context["cut"], context["damaged"], digits, context["values"][context["at"]], context["level"]]
