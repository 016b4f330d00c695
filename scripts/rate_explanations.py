"""How right explanations are: the attribution beside exact ablation, what few latents keep, causes that were planted.

Planted causes are texts in the demo's grammar in which one word elsewhere decides a damaged place: goods their measure
and a measure its goods, the name of a god whether he is lord or lady, the sign for a month how its name is spelled.
Each is a pair of texts that differ in that word alone, and counts where the model tells the two apart. What is visible
of the word that the place stands in is no word elsewhere, and not ranked. Beside the ablation of words stand gradient
saliency (the norm of the gradient by the characters' embeddings, as Aeneas shows it) and attention rollout (Abnar and
Zuidema 2020, arXiv 2005.00928).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxsae import runtime
from jaxsae.cli import arguments, process, terminal
from jaxsae.config import DEMO, DEMO_TEXT

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    import numpy as np

    from jaxsae.demo.tablet import Tablet
    from jaxsae.explain.readout import Readout
    from jaxsae.features.statistics import LayerSAE

Model = Any
"""The demo's model, or one of its family: of the planted causes its attention and its embedding are looked at too."""
COUNTS = (*range(21), 25, 32, 40, 50, 64, 80, 100)
"""Of how many latents it is measured what they keep."""


def restored_places(model: Model, dataset: str, n: int, longest: int, seed: int) -> Iterator[tuple[np.ndarray, int]]:
    """(text, damaged position) of places that the model restores right, one of each of `n` texts of the test split."""
    import numpy as np

    from jaxsae.explain.readout import Readout
    from jaxsae.text.loading import load_samples

    samples = load_samples(dataset, "test")
    rng = np.random.default_rng(seed)
    texts = np.flatnonzero((samples.lengths >= 40) & (samples.lengths <= longest))
    for sample in rng.permutation(texts):
        real = samples.real[sample]
        ids, labels = samples.ids[sample][real], samples.labels[sample][real]
        damaged = rng.permutation(np.flatnonzero(samples.damaged[sample][real]))
        right = next((p for p in damaged[:5] if Readout(model, ids, int(p)).candidate == labels[p]), None)
        if right is not None:
            yield ids, int(right)
            n -= 1
        if not n:
            return


def rate_attribution(model: Model, dataset: str, at: LayerSAE, n: int, longest: int) -> dict[str, float]:
    """The fast attribution of every active latent beside its exact ablation."""
    import numpy as np

    from jaxsae.explain import latents
    from jaxsae.explain.readout import Readout

    correlations, found = [], []
    for ids, position in restored_places(model, dataset, n, longest, seed=1):
        readout = Readout(model, ids, position)
        x = readout.stream(at.layer)
        parts = latents.latent_parts(at.sae, x)
        every = np.arange(len(parts.value))
        variants = {"whole": [x], "ablated": latents.ablated(x, parts, every)}
        differences = readout.of_streams(at.layer, variants)
        exact = differences["whole"][0] - differences["ablated"]
        fast = latents.attribution(readout, at.layer, x, parts)
        correlations.append(np.corrcoef(fast, exact)[0, 1])
        found.append(np.isin(np.argsort(-np.abs(exact))[:5], np.argsort(-np.abs(fast))[:20]).all())
    return {
        "places": len(found),
        "pearson, median": float(np.median(correlations)),
        "pearson, tenth percentile": float(np.quantile(correlations, 0.1)),
        "exact top 5 in fast top 20": float(np.mean(found)),
    }


def rate_faithfulness(model: Model, dataset: str, at: LayerSAE, n: int, longest: int) -> dict[str, Any]:
    """How many latents keep 80 % of the logit difference, beside random latents and neurons; and the error's effect."""
    import numpy as np

    from jaxsae.explain.explanation import explain_place

    needed: dict[str, list[float]] = {}
    errors = []
    for ids, position in restored_places(model, dataset, n, longest, seed=2):
        found = explain_place(model, ids, position, {"sae": at}, exact=0, counts=COUNTS)
        (layer,) = found.layers
        errors.append(abs(layer.error_effect) / abs(found.difference))
        for kind, kept in layer.kept.items():
            count = kept.needed(found.counts)
            needed.setdefault(kind, []).append(np.inf if count is None else count)
    quartiles = {kind: np.quantile(of, [0.25, 0.5, 0.75], method="nearest").tolist() for kind, of in needed.items()}
    return {"places": len(errors), "error, median share": float(np.median(errors)), "needed, quartiles": quartiles}


class Planted(NamedTuple):
    """Two texts that differ in one word, which decides a damaged place of both; `@` stands there."""

    texts: tuple[str, str]
    causes: tuple[str, str]
    truths: tuple[str, str]


GOODS = {"GÍN": ("KÙ.BABBAR",), "GUR": ("ŠE", "ZÚ.LUM"), "MA.NA": ("SÍG",), "SÌLA": ("Ì.GIŠ", "KAŠ", "ZÍD.DA")}


def measure(t: Tablet) -> Planted:
    """Silver is weighed in GÍN, barley and dates are measured in GUR: goods -> measure."""
    a, b, c = (said(t, man) for man in t.men(3))
    goods = ("KÙ.BABBAR", t.rng.choice(GOODS["GUR"]))
    begin, end = t.rng.choice(
        (
            (f"{numeral(t)} UDU.ḪI.A {a} {numeral(t)}", f"{b} DUMU {c}"),
            (f"{a} DUMU {b} ŠU.NÍGIN {numeral(t)}", f"nam-ḫa-ar-ti {c}"),
            (f"{numeral(t)}", f"MÁŠ UTU ú-ṣa-ab KI {a} {b} ŠU.BA.AN.TI IGI {c}"),
        )
    )
    return both([f"{begin} G@# {one} {end}" for one in goods], goods, ("Í", "U"))


def commodity(t: Tablet) -> Planted:
    """The same, from the measure to the goods."""
    a, b, c = (said(t, man) for man in t.men(3))
    measures = t.rng.sample([*GOODS], 2)
    goods = [t.rng.choice(GOODS[one]) for one in measures]
    begin = f"{a} DUMU {b} {numeral(t)}"
    return both([f"{begin} {one} @# ša {c}" for one in measures], measures, [one[0] for one in goods])


def lord_or_lady(t: Tablet) -> Planted:
    """A prayer calls a god lord and a goddess lady."""
    gods = (
        t.rng.choice(("šamaš", "marduk", "sîn", "adad", "UTU", "AMAR.UTU")),
        t.rng.choice(("iš-tar", "gu-la", "INANNA")),
    )
    begin = t.rng.choice(("", f"a-na-ku ÌR {said(t, t.man())} ", "ša-me-e ù er-ṣe-tim "))
    end = t.rng.choice(("ṣi-", "ra-", "ka-", "ša ma-tim", "ša ša-me-e ù er-ṣe-tim"))
    return both([f"{begin}{god} be-@#### {end}" for god in gods], gods, ("l", "e"))


def month(t: Tablet) -> Planted:
    """What follows a month's sign is spelled in capitals where that is."""
    months = ("še-kin-ku", "maš-dà-gu", "nesag", "li-si", "dal", "ezem-maḫ", "šu-numun", "pa-ú-è")
    name = t.rng.choice(months)
    begin = f"{numeral(t)} {said(t, t.man())}"
    signs = ("iti", "ITI")
    texts = [f"{begin} {sign} @{'#' * (len(name) - 1)}" for sign in signs]
    return both(texts, signs, (name[0], name[0].upper()))


def both(texts: Sequence[str], causes: Sequence[str], truths: Sequence[str]) -> Planted:
    """A pair from sequences of two."""
    return Planted((texts[0], texts[1]), (causes[0], causes[1]), (truths[0], truths[1]))


def numeral(t: Tablet) -> str:
    """A number in its signs."""
    return said(t, t.number(t.rng.randint(1, 30)))


def said(t: Tablet, template: str) -> str:
    """The text of a template."""
    return " ".join(word.text for word in t.expand(template, {}))


KINDS: dict[str, Callable[[Tablet], Planted]] = {
    "measure": measure,
    "commodity": commodity,
    "lord or lady": lord_or_lady,
    "month": month,
}


def rate_planted(model: Model, per_kind: int) -> dict[str, dict[str, float]]:
    """Share of places at which the word that decides ranks first, where the model tells the two texts apart.

    And the same of those places that the model restores right.
    """
    from jaxsae.demo.tablet import Tablet

    out: dict[str, dict[str, float]] = {}
    every: list[dict[str, int]] = []
    for kind, make in KINDS.items():
        rng = random.Random(kind)
        ranks: list[dict[str, int]] = []
        seen: set[tuple[str, str]] = set()
        for _ in range(12 * per_kind):
            made = make(Tablet(rng, "akkadian", 200))
            if len(ranks) == per_kind or made.texts in seen or made.truths[0] == made.truths[1]:
                continue
            seen.add(made.texts)
            if (found := ranks_of(model, made)) is not None:
                ranks.append(found)
        out[kind] = {"pairs tried": len(seen), **first_of(ranks)}
        every += ranks
    tried = sum(of["pairs tried"] for of in out.values())
    out["all"] = {"pairs tried": tried, **first_of(every)}
    out["all restored right"] = {"pairs tried": tried, **first_of([one for one in every if one["right"]])}
    return out


def first_of(ranks: Sequence[dict[str, int]]) -> dict[str, float]:
    """Method -> share of places at which it ranks the word first."""
    import numpy as np

    methods = [name for name in (ranks[0] if ranks else {}) if name != "right"]
    return {"places": len(ranks)} | {name: float(np.mean([one[name] == 0 for one in ranks])) for name in methods}


def ranks_of(model: Model, made: Planted) -> dict[str, int] | None:
    """Method -> rank of the word that decides, in the first text, and whether the model restores that `right`.

    None: the model prefers in both the same truth.
    """
    from jaxsae.explain.readout import Readout
    from jaxsae.explain.words import word_effects, words_of
    from jaxsae.text.damaged_text import DAMAGED

    encode = model.tokenizer.encode
    one, other = (int(encode(truth)[0]) for truth in made.truths)
    readouts = [Readout(model, encode(text.replace("@", DAMAGED)), text.index("@"), one, other) for text in made.texts]
    if not readouts[0].difference > 0 > readouts[1].difference:
        return None
    readout = readouts[0]
    spans = words_of(model.tokenizer, readout.ids)
    start = f" {made.texts[0]}".rindex(f" {made.causes[0]} ")
    # the word that the place stands in is not elsewhere
    spans = [(first, end) for first, end in spans if not first <= readout.position < end]
    found = word_effects(readout)
    scores = {
        "words that speak for it": {(word.start, word.end): word.effect for word in found},
        "words by absolute effect": {(word.start, word.end): abs(word.effect) for word in found},
        "gradient saliency": of_words(saliency(model, readout), spans),
        "attention rollout": of_words(rollout(model, readout), spans),
    }
    (cause,) = (span for span in spans if span[0] == start)
    ranks = {name: int(sum(of[span] > of[cause] for span in spans)) for name, of in scores.items()}
    return ranks | {"right": int(readout.logits.argmax() == one)}


def of_words(values: np.ndarray, spans: list[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """The sum over each word's characters."""
    return {(start, end): float(values[start:end].sum()) for start, end in spans}


def saliency(model: Model, readout: Readout) -> np.ndarray:
    """Norm of the gradient of the candidate's log-probability by the embedding of each character."""
    import jax
    import numpy as np

    def log_p(x: jax.Array) -> jax.Array:
        *_, last = model.run_blocks(x, readout.mask, range(model.n_layers))
        logits = model.unembed(last[:, readout.position : readout.position + 1])[0, 0]
        return jax.nn.log_softmax(logits)[readout.candidate]

    return np.linalg.norm(np.asarray(jax.grad(log_p)(model.embed(readout.padded_ids[None])))[0], axis=1)


def rollout(model: Model, readout: Readout) -> np.ndarray:
    """Attention from the place to each character: means over heads, beside the stream itself, over all layers."""
    import numpy as np

    mixed = np.eye(readout.room)
    for layer in range(model.n_layers):
        pattern = np.asarray(model.attention_pattern(readout.padded_ids[None], readout.mask, layer=layer))[0]
        mixed = (pattern.mean(axis=0) + np.eye(readout.room)) / 2 @ mixed
    return mixed[readout.position]


def main(args: argparse.Namespace) -> None:
    """The tables; with --json, the same figures."""
    runtime.select_device(args.device)
    from convert import layer_of, load_sae, read_checkpoint
    from jaxsae.demo import dataset
    from jaxsae.features.statistics import LayerSAE
    from jaxsae.files import write_json

    dataset.ensure_demo(args.dataset)
    model = read_checkpoint(args.checkpoint).model()
    file = load_sae(args.sae)
    at = LayerSAE(layer_of(args.sae, file, None), file.sae)
    out: dict[str, Any] = {}
    if args.planted:
        out["planted"] = planted = rate_planted(model, args.planted)
        columns = ["kind", *planted["all"]]
        rows = [
            (kind, *(f"{v:.2f}" if isinstance(v, float) else v for v in of.values())) for kind, of in planted.items()
        ]
        terminal.print_table("Share of places at which the word that decides ranks first", columns, rows)
    if args.attribution:
        out["attribution"] = found = rate_attribution(model, args.dataset, at, args.attribution, args.longest)
        row = [f"{value:.3g}" for value in found.values()]
        terminal.print_table("Attribution beside exact ablation", list(found), [row], key=0)
    if args.faithfulness:
        out["faithfulness"] = kept = rate_faithfulness(model, args.dataset, at, args.faithfulness, args.longest)
        title = f"Until 80 % is kept: {kept['places']} places, the error's share {kept['error, median share']:.2f}"
        quartiles = [(kind, *(f"{n:g}" for n in of)) for kind, of in kept["needed, quartiles"].items()]
        terminal.print_table(title, ("of", "a quarter needs", "median", "three quarters need"), quartiles)
    if args.json:
        write_json(args.json, out)


if __name__ == "__main__":
    parser = arguments.Parser(__doc__ or "")
    parser.add_argument("--sae", required=True, metavar="FILE", help="an SAE of the model")
    parser.add_argument("--checkpoint", default=str(DEMO / "best_model.pt"), help="the model")
    parser.add_argument("--dataset", default=str(DEMO_TEXT / "dataset"), help="its text; the test split is read")
    parser.add_argument("--attribution", type=int, default=50, metavar="N", help="places whose latents are all ablated")
    parser.add_argument(
        "--faithfulness", type=int, default=200, metavar="N", help="places of which it is said what is kept"
    )
    parser.add_argument("--planted", type=int, default=40, metavar="N", help="places of each kind of cause: the demo's")
    parser.add_argument("--longest", type=int, default=200, metavar="N", help="texts have so many characters at most")
    parser.add_output("--json", "also write the figures as JSON; - is standard output")
    arguments.add_device(parser)
    process.run(main, parser)
