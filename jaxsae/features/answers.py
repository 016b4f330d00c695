"""The guide's four questions, answered from the numbers: sentences, the features they name, and a picture's data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxsae.features import feature_summary
from jaxsae.features.feature_summary import Inspection

Table = Sequence[dict[str, Any]]
FEW = 20
"""Latents that fire on fewer characters are left out of counts."""
NAMED = 3
"""Features looked at more closely for an answer, at most."""
OVERLAP = 0.9
"""Share of a latent's firings in one language from which it is called specific to it."""


def four(inspections: Sequence[Inspection], tables: Sequence[Table], matches: Sequence[Any]) -> list[dict[str, Any]]:
    """Damage, language, morphology, layers; of several layers, the first three are answered of the best."""
    out = [
        damage(inspections, tables),
        language(inspections, tables),
        morphology(inspections, tables),
        layers(inspections, tables, matches),
    ]
    # one pass for all features of a layer
    wanted: dict[int, list[int]] = {}
    for answer in out:
        for f in answer["features"]:
            numbers = wanted.setdefault(f["layer"], [])
            numbers += [f["feature"]] if f["feature"] not in numbers else []
    effects = {}
    for of in inspections:
        settings = [(n, 0.0) for n in wanted.get(of.subject.layer, [])] if of.samples.damaged.any() else []
        for row in feature_summary.causal_effects(of, settings):
            effects[of.subject.layer, row["feature"]] = {
                "layer": of.subject.layer,
                "feature": row["feature"],
                **{key: value if value == value else None for key, value in row["where it fires"].items()},
            }
    for answer in out:
        named = [(f["layer"], f["feature"]) for f in answer["features"]]
        answer["causal"] = [effects[one] for one in named if one in effects]
    return out


def _row(table: Table, name: str) -> dict[str, Any] | None:
    return next((row for row in table if row["name"] == name), None)


def _best(
    inspections: Sequence[Inspection], tables: Sequence[Table], name: str
) -> tuple[Inspection, dict[str, Any]] | None:
    """The layer whose best feature tells a concept best by F1, and its row."""
    found = [(of, row) for of, table in zip(inspections, tables, strict=True) if (row := _row(table, name))]
    return max(found, key=lambda pair: pair[1]["best_f1"][0]["f1"]) if found else None


def _fired_on(of: Inspection, name: str) -> tuple[Float[np.ndarray, " d_sae"], int]:
    """(how often each latent fires on characters of a concept, how many there are)."""
    assert of.survey.levels is not None
    group = 1 + [c.name for c in of.concepts].index(name)
    return of.survey.levels.counts[:, group].sum(axis=(0, 2)).astype(float), int(of.survey.of_group[:, group].sum())


def _told(row: dict[str, Any], layer: int, what: str) -> str:
    """How well the best feature tells a concept, and whether that is better than chance."""
    best, chance = row["best_f1"][0], row["chance"]["f1"]
    sentence = (
        f"Feature {best['feature']} of layer {layer} tells {what} best: above its threshold it fires on "
        f"{best['recall']:.0%} of them, and {best['precision']:.0%} of the characters it then fires on are such "
        f"(F1 {best['f1']:.2f}; the best random direction reaches {chance:.2f})."
    )
    if row["clear"]:
        return sentence
    if best["f1"] > chance:
        return f"{sentence} That is not clearly better than chance: no clear feature."
    return f"No clear feature. {sentence}"


def _nothing(question: str, why: str) -> dict[str, Any]:
    return {"question": question, "sentences": [why], "features": [], "caption": "", "chart": None}


def _features(of: Inspection, told: Sequence[dict[str, Any]], count: int = NAMED) -> list[dict[str, int]]:
    return [{"layer": of.subject.layer, "feature": t["feature"]} for t in told[:count]]


def damage(inspections: Sequence[Inspection], tables: Sequence[Table]) -> dict[str, Any]:
    """Which features fire in damaged regions?"""
    question = "Which features fire in damaged regions?"
    found = _best(inspections, tables, "damaged")
    if not found:
        return _nothing(question, "The texts have too few damaged characters to say.")
    of, row = found
    hits, n = _fired_on(of, "damaged")
    fired = of.survey.fired
    enough = fired >= FEW
    precision = hits / np.maximum(fired, 1)
    only, never = int((enough & (precision >= 0.9)).sum()), int((enough & (precision <= 0.02)).sum())
    sentences = [
        _told(row, of.subject.layer, "damaged characters"),
        f"{row['share']:.0%} of the text is damaged. Of {int(enough.sum()):,} features that fire at least {FEW} times, "
        f"{only} fire on damaged characters nine times out of ten or more, {never} practically never.",
    ]
    points = [
        [int(i), round(hits[i] / n, 5), round(float(precision[i]), 4)] for i in np.flatnonzero(enough & (hits > 0))
    ]
    named = {t["feature"] for t in row["best_f1"][:NAMED]}
    return {
        "question": question,
        "sentences": sentences,
        "features": _features(of, row["best_f1"]),
        "caption": f"Each feature of layer {of.subject.layer}: how many of the damaged characters it fires on, and how "
        "many of its firings are on them.",
        "chart": {
            "kind": "scatter",
            "base": row["share"],
            "points": points,
            "named": [p for p in points if p[0] in named],
        },
    }


def language(inspections: Sequence[Inspection], tables: Sequence[Table]) -> dict[str, Any]:
    """Which are specific to Akkadian or Sumerian?"""
    question = "Which features are specific to Akkadian or to Sumerian?"
    # what the demo knows is better than what spellings tell
    name = "=language Sumerian" if _best(inspections, tables, "=language Sumerian") else "sumerian"
    found = _best(inspections, tables, name)
    if not found:
        return _nothing(question, "The texts are all in one language, or their language cannot be told.")
    of, row = found
    hits, n = _fired_on(of, name)
    fired, base = of.survey.fired, n / of.survey.rows
    share = hits / np.maximum(fired, 1)
    enough = fired >= FEW
    sumerian, akkadian = enough & (share >= OVERLAP), enough & (share <= 1 - OVERLAP)
    sentences = [_told(row, of.subject.layer, "characters of Sumerian texts")]
    other = _row(tables[list(inspections).index(of)], "akkadian")
    if name == "sumerian":
        sentences.append("Language is here which language's common words and endings a text has more of.")
        if other:
            sentences.append(_told(other, of.subject.layer, "characters of Akkadian texts"))
    sentences.append(
        f"{base:.0%} of the characters stand in Sumerian texts. Of {int(enough.sum()):,} features that fire at least "
        f"{FEW} times, {int(sumerian.sum())} have at least {OVERLAP:.0%} of their firings there, "
        f"{int(akkadian.sum())} at most {1 - OVERLAP:.0%}."
    )
    specific = [
        {"layer": of.subject.layer, "feature": int(i)}
        for some in (sumerian, akkadian)
        for i in np.flatnonzero(some)[np.argsort(-fired[some], kind="stable")][:1]
    ]
    first = _features(of, row["best_f1"], 1)
    return {
        "question": question,
        "sentences": sentences,
        "features": first + [f for f in specific if f not in first],
        "caption": f"Features of layer {of.subject.layer} that fire at least {FEW} times, by the share of their firings "
        "in Sumerian texts.",
        "chart": {"kind": "shares", "base": base, "shares": [round(float(s), 3) for s in share[enough]]},
    }


def morphology(inspections: Sequence[Inspection], tables: Sequence[Table]) -> dict[str, Any]:
    """Which follow morphology?"""
    question = "Which features follow morphology: verb forms, case endings, suffixes?"
    rows = [row for table in tables for row in table if row["about"] == "morphology"]
    known = [row for row in rows if row["source"] == "known of the demo"]
    names = dict.fromkeys(row["name"] for row in known or rows)
    best = {name: found for name in names if (found := _best(inspections, tables, name))}
    if not best:
        return _nothing(question, "The texts have too few of the endings and prefixes looked for.")
    ranked = sorted(best.items(), key=lambda item: -item[1][1]["best_f1"][0]["f1"])
    clear = [(name, of, row) for name, (of, row) in ranked if row["clear"]]
    if clear:
        told = "; ".join(
            f"{row['title']}: feature {row['best_f1'][0]['feature']} of layer {of.subject.layer}, F1 "
            f"{row['best_f1'][0]['f1']:.2f} (chance {row['chance']['f1']:.2f})"
            for _, of, row in clear[:NAMED]
        )
        sentences = [f"{len(clear)} of {len(best)} endings and prefixes have a clear feature. {told}."]
    else:
        of, row = ranked[0][1]
        sentences = [
            f"No clear feature for any of {len(best)} endings and prefixes.",
            _told(row, of.subject.layer, f"{row['title']}: its characters"),
        ]
    without = [name for name, (_, row) in ranked if not row["clear"]]
    if clear and without:
        more = f" and {len(without) - 8} more" if len(without) > 8 else ""
        sentences.append(f"No clear feature: {', '.join(without[:8])}{more}.")
    shown = [(of, row) for _, of, row in clear[:NAMED]] or [ranked[0][1]]
    return {
        "question": question,
        "sentences": sentences,
        "features": [f for of, row in shown for f in _features(of, row["best_f1"], 1)],
        "caption": "F1 of the best feature for each ending or prefix, beside the best random direction.",
        "chart": {
            "kind": "dumbbell",
            "rows": [
                [name, round(row["best_f1"][0]["f1"], 3), round(row["chance"]["f1"], 3)]
                for name, (_, row) in ranked[:16]
            ],
        },
    }


def layers(inspections: Sequence[Inspection], tables: Sequence[Table], matches: Sequence[Any]) -> dict[str, Any]:
    """How do features change over the layers?"""
    question = "How do features change over the layers?"
    if len(inspections) == 1:
        of = inspections[0]
        rate = of.survey.rate[of.survey.rate > 0]
        low = np.floor(np.log10(rate.min())) if len(rate) else -4
        edges = np.logspace(low, 0, int(4 * -low) + 1) if low < 0 else np.array([0.5, 1.0])
        counts = np.histogram(rate, edges)[0]
        return {
            "question": question,
            "sentences": [
                f"One layer was looked at, {of.subject.layer}; with the SAEs of several (--layer 2,8,14) this compares "
                "them.",
                f"In layer {of.subject.layer}, {of.survey.l0:.1f} of {of.survey.d_sae:,} features fire on a character; "
                f"{(of.survey.fired == 0).mean():.1%} never fire, {(of.survey.rate > 0.1).mean():.1%} on more than a "
                "tenth of the text.",
            ],
            "features": [],
            "caption": f"Features of layer {of.subject.layer} by how often they fire.",
            "chart": {
                "kind": "densities",
                "bins": [
                    [float(f"{a:.4g}"), float(f"{b:.4g}"), int(c)]
                    for a, b, c in zip(edges, edges[1:], counts, strict=False)
                ],
            },
        }
    numbers = [of.subject.layer for of in inspections]
    aurocs = [
        (name, of.subject.layer, row["best"][0]["auroc"])
        for of, table in zip(inspections, tables, strict=True)
        for name, row in ((row["name"], row) for row in table)
    ]
    by_name: dict[str, dict[int, float]] = {}
    for name, layer, auroc in aurocs:
        by_name.setdefault(name, {})[layer] = auroc
    whole = {name: at for name, at in by_name.items() if len(at) == len(numbers)}
    change = sorted(whole, key=lambda name: whole[name][numbers[-1]] - whole[name][numbers[0]])
    sentences = []
    if change:
        up, down = change[-1], change[0]

        def told(name: str) -> str:
            return f"{name} ({whole[name][numbers[0]]:.2f} to {whole[name][numbers[-1]]:.2f})"

        medians = [float(np.median([at[n] for at in whole.values()])) for n in numbers]
        grown = ", ".join(f"layer {n} {m:.2f}" for n, m in zip(numbers, medians, strict=True))
        sentences.append(
            f"The best feature's AUROC, median over {len(whole)} concepts: {grown}. From layer {numbers[0]} to "
            f"{numbers[-1]} it grows most for {told(up)} and falls most for {told(down)}."
        )
    for a, b, match in zip(inspections, inspections[1:], matches, strict=False):
        alive = [m for m, fired in zip(match, a.survey.fired, strict=True) if fired >= FEW]
        if alive:
            cosine, jaccard = (float(np.median([m[key] for m in alive])) for key in ("cosine", "jaccard"))
            kept = sum(m["jaccard"] >= 0.5 for m in alive) / len(alive)
            sentences.append(
                f"From layer {a.subject.layer} to {b.subject.layer}: {kept:.0%} of the features have a partner that fires "
                f"on at least half of the same characters (median Jaccard {jaccard:.2f}; median cosine of the most alike "
                f"decoder row {cosine:.2f})."
            )
    shown = [*change[-5:], *change[:3]] if len(change) > 8 else change
    return {
        "question": question,
        "sentences": sentences or ["No concept occurs often enough in both halves of the texts."],
        "features": [],
        "caption": "AUROC of the best feature, of the concepts that grow and fall most.",
        "chart": {"kind": "lines", "points": [[n, name, round(whole[name][n], 4)] for name in shown for n in numbers]},
    }
