"""Why a damaged place is restored as it is: the words it rests on, the latents, and how much of it these explain.

The place is a damaged character of --text (# is one character, [...] an unknown number; docs/restoring.md), or of a
sample of the dataset. A character that is not damaged is taken out first. Every effect is that on the difference of two
logits: the candidate's and that of the character it is compared with.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, inspect_tables, saes, temperature, terminal
from jaxsae.config import DataConfig
from jaxsae.errors import require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Sequence

    import numpy as np

    from jaxsae.explain.explanation import Explanation, LayerExplanation
    from jaxsae.features.inspection import Inspection
    from jaxsae.models.protocol import ResidualModel
    from jaxsae.text.samples import Samples


class Place(NamedTuple):
    """Where something is explained."""

    ids: np.ndarray
    """The text as the model sees it, damaged there."""
    position: int
    text: str
    """The text as it was given."""


MUCH = 0.5
"""Share of the logit difference that may lie in what an SAE leaves out before its latents are said to tell little."""


def main(args: argparse.Namespace) -> None:
    """One place of one text, explained."""
    require((args.text is None) != (args.sample is None), "give a text by --text, or a sample by --sample: one of them")
    require(args.text is None or bool(args.text.strip()), "--text must have at least one character, got none")
    require(args.top >= 1, f"top must be at least 1, got {args.top}")
    data = inputs.data_config(args, max_samples=100)
    runtime.select_device(args.device)
    from jaxsae.explain.explanation import candidates_of, explain_place
    from jaxsae.explain.readout import Readout
    from jaxsae.features.splice import steer
    from jaxsae.files import write_json

    files, read = saes.read(args)
    settings = saes.settings_of(args)
    require(not settings or len(read) == 1, f"--ablate and --clamp take one SAE, got {len(read)}")
    checkpoint = inputs.checkpoint(data)
    saes.check_files(files, read, checkpoint, other_model=args.other_model)
    for path, at in read.items():
        saes.check_latents([latent for latent, _ in settings], path, at)
    data = inputs.held_out(args, data, checkpoint.config)
    samples = inputs.text(data if args.sample is None else _reaching(data, args.sample), checkpoint.config)
    hook = saes.hook_of(files, {path: at.layer for path, at in read.items()})
    model = checkpoint.model(hook=hook)
    calibration = temperature.calibration_of(model, checkpoint, inputs.own_text(args, data))
    degrees = calibration.temperature if calibration else 1.0
    place = place_of_sample(args, samples) if args.text is None else place_of_text(args, model, degrees)
    tokens = {name: one_token(model, name, getattr(args, name)) for name in ("candidate", "against")}
    how: dict[str, Any] = {**tokens, "temperature": degrees}
    unchanged = Readout(model, place.ids, place.position, tokens["candidate"], tokens["against"]) if settings else None
    before = candidates_of(unchanged, degrees) if unchanged else None
    changes = [(at.layer, steer(at.sae, settings)) for at in read.values()] if settings else [None]
    with terminal.working("explain "):
        found = explain_place(model, place.ids, place.position, read, change=changes[0], **how)
    corpus = samples[: data.max_samples] if data.max_samples else samples
    concepts = saes.concepts_of(None, data, corpus)
    inspections = saes.read_text(
        model, corpus, data, read, saes.kept_by(checkpoint), hook, concepts=concepts, compare=False
    )

    terminal.print_wrapped(
        f"model    {data.checkpoint}; {temperature.describe(calibration, inputs.own_text(args, data))}", indent=9
    )
    show(found, before)
    for layer, inspection in zip(found.layers, inspections, strict=True):
        show_layer(layer, found, inspection, args.top)
        inspect_tables.say_dense(inspection)
    if len(found.layers) > 1:
        show_depth(found, inspections)
    if args.json or args.graph:
        content = {"text": place.text} | found.as_json({one.layer: one for one in inspections})
        content["settings"] = [{"feature": latent, "value": value} for latent, value in settings]
        if before is not None:
            content["candidates_before"] = [{"character": found.piece(token), "probability": p} for token, p in before]
        if args.json:
            write_json(args.json, content, indent=1)
        if args.graph:
            from jaxsae.explain.graph import to_graph

            write_json(args.graph, to_graph(content, scan=Path(data.checkpoint).stem, n_layers=model.n_layers))


def _reaching(data: DataConfig, sample: int) -> DataConfig:
    """With so many samples that this one is among them."""
    most = data.max_samples
    return dataclasses.replace(data, max_samples=None if most is None else max(most, sample + 1))


def place_of_sample(args: argparse.Namespace, samples: Samples) -> Place:
    """The place in a sample of the dataset."""
    n = len(samples)
    require(0 <= args.sample < n, f"--sample must be in 0..{n - 1}, got {args.sample}")
    real = samples.real[args.sample]
    ids, damaged = samples.ids[args.sample][real], samples.damaged[args.sample][real]
    text = samples.text_of(args.sample)
    if samples.causal:
        return _place_of_next(args, ids, text)
    return _place(ids, args.position, damaged.nonzero()[0].tolist(), text, samples.tokenizer.damaged_id)


def place_of_text(args: argparse.Namespace, model: ResidualModel, temperature: float) -> Place:
    """The place in a text as an editor writes it; `--position` counts that text's own characters.

    A gap of unknown length gets the most probable one. A text too long for the model is cut around the place. Of a
    model whose tokens are not characters, `--position` counts these.
    """
    from jaxsae.restore.answer import restore_text
    from jaxsae.restore.places import around, encoded
    from jaxsae.text.damaged_text import read_damaged
    from jaxsae.text.pieces import of_tablets

    if not of_tablets(model.tokenizer):
        return place_of_tokens(args, model)

    text = read_damaged(args.text)
    encoded(model, text)
    if any(len(gap.lengths) > 1 for gap in text.gaps):
        text = restore_text(model, text, temperature=temperature).text
    position = None if args.position is None else text.place_of(args.position)
    damaged = [p for gap in text.gaps for p in range(gap.start, gap.end)]
    whole = _place(encoded(model, text), position, damaged, args.text, model.tokenizer.damaged_id)
    seen = around(len(whole.ids), whole.position, whole.position + 1, model.max_position)
    return whole._replace(ids=whole.ids[seen], position=whole.position - seen.start)


def place_of_tokens(args: argparse.Namespace, model: ResidualModel) -> Place:
    """The place in a text of tokens; hidden is `#` between spaces, or the token that hides others as it is shown."""
    import numpy as np

    from jaxsae.models.protocol import predicts_next

    tokenizer = model.tokenizer
    hidden = None if predicts_next(model) else tokenizer.damaged_id
    if hidden is None:
        ids = tokenizer.encode(args.text)
        require(len(ids) > 0, f"--text must have at least one {tokenizer.unit}, got none")
        return _place_of_next(args, ids, args.text)
    sign = tokenizer.pieces([hidden])[0].strip()
    parts = re.split(rf"(?:(?<!\S)#(?!\S){f'|{re.escape(sign)}' if sign else ''})", args.text)
    pieces = [tokenizer.encode(part.rstrip()) if part.strip() else np.zeros(0, np.int32) for part in parts]
    between = np.array([hidden], np.int32)
    ids = np.concatenate([pieces[0], *(x for part in pieces[1:] for x in (between, part))]).astype(np.int32)
    require(len(ids) > 0, f"--text must have at least one {tokenizer.unit}, got none")
    what = f"# between spaces{f' or {sign}' if sign else ''}"
    return _place(ids, args.position, np.flatnonzero(ids == hidden).tolist(), args.text, hidden, what)


def _place_of_next(args: argparse.Namespace, ids: np.ndarray, text: str) -> Place:
    """A place whose token is predicted from what stands before it; by default the last one."""
    at = len(ids) - 1 if args.position is None else args.position
    require(0 <= at < len(ids), f"--position must be in 0..{len(ids) - 1}, got {at}")
    return Place(ids, at, text)


def _place(
    ids: np.ndarray,
    position: int | None,
    damaged: list[int],
    text: str,
    hidden: int | None,
    what: str = "# or [...]",
) -> Place:
    require(
        position is not None or bool(damaged),
        f"the text must have a damaged place such as {what}, got none; or name one by --position",
    )
    at = damaged[0] if position is None else position
    require(0 <= at < len(ids), f"--position must be in 0..{len(ids) - 1}, got {at}")
    if at not in damaged:
        ids = ids.copy()
        ids[at] = hidden
    return Place(ids, at, text)


def one_token(model: ResidualModel, name: str, text: str | None) -> int | None:
    """The token of a character that a flag names."""
    from jaxsae.text.pieces import of_characters

    if text is None:
        return None
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text)
    if len(ids) != 1 and not of_characters(tokenizer):  # a word is often a token with its space alone
        ids = tokenizer.encode(f" {text}")
    require(len(ids) == 1, f"--{name} must be one {tokenizer.unit}, got {text!r}")
    return int(ids[0])


def show(found: Explanation, before: Sequence[tuple[int, float]] | None) -> None:
    """Print the place, its candidates and the words."""
    piece, shown = found.piece, terminal.visible(found.tokenizer.decode(found.ids[: found.position]))
    left, right = (terminal.shown(wanted, instead) for wanted, instead in (("⟨", "<"), ("⟩", ">")))
    rest = terminal.visible(found.tokenizer.decode(found.ids[found.position + 1 :]))
    terminal.print_wrapped(f"place    {shown}{left}{piece(found.candidate)}{right}{rest}", indent=9)
    candidates = "  ".join(f"{terminal.visible(piece(token))} {p:.1%}" for token, p in found.candidates[:5])
    if before is not None:
        was = "  ".join(f"{terminal.visible(piece(token))} {p:.1%}" for token, p in before[:5])
        print(f"before   {was}\nafter    {candidates}")
    else:
        print(f"likely   {candidates}")
    print(
        f"why      {terminal.visible(piece(found.candidate))} {found.probability(found.candidate):.1%} rather than "
        f"{terminal.visible(piece(found.against))} {found.probability(found.against):.1%}: logit difference {found.difference:+.2f}"
    )
    rows = [
        (
            f"{one.word}{' (around the place)' if one.own else ''}",
            f"{one.effect:+.2f}",
            terminal.visible(piece(one.guess)),
        )
        for one in found.words[:10]
    ]
    terminal.print_table("Words, each taken out: what the logit difference loses", ("word", "effect", "then"), rows)


def show_layer(one: LayerExplanation, found: Explanation, inspection: Inspection, top: int) -> None:
    """Print what the latents of an SAE have to do with it."""
    from jaxsae.text.pieces import part, pieces_of

    print()
    terminal.print_wrapped(
        f"sae      {one.sae}: layer {one.layer}, {one.active:,} active latents, counted at each {found.tokenizer.unit}",
        indent=9,
    )
    text = pieces_of(found.tokenizer, found.ids)
    rows = []
    for latent in one.latents[:top]:
        start, end = max(0, latent.position - 6), latent.position + 4
        before, behind = part(text, start, latent.position), text[latent.position + 1 : end]
        around = f"{''.join(before)}{{{text[latent.position]}}}{''.join(behind)}"
        figures = f"{latent.value:.2f}", f"{latent.effect:+.2f}"
        rows.append((latent.feature, inspection.captions[latent.feature], terminal.visible(around), *figures))
    title = "Latents, each taken out: what the logit difference loses"
    terminal.print_table(title, ("feature", "caption", "at", "value", "effect"), rows)
    left_out = one.error_effect / found.difference if found.difference else math.nan
    share = "" if math.isnan(left_out) else f" ({left_out:+.0%})"
    doubt = "; most of the reason is not in these latents" if abs(left_out) >= MUCH else ""
    terminal.print_wrapped(
        f"error    what the SAE leaves out of the stream: taken out, it costs {one.error_effect:+.2f} of the logit "
        f"difference{share}{doubt}",
        indent=9,
    )
    names = {"latents": "latents", "random": "random active latents", "neurons": "neurons of the layer"}
    columns = ["only the first", "none", *map(str, found.counts[1:])]
    kept = [
        (names[kind], f"{of.without:+.2f}", *("-" if of.little else f"{share:.0%}" for share in of.share[1:]))
        for kind, of in one.kept.items()
    ]
    title = f"What is kept of the way from none of them to the whole logit difference, {found.difference:+.2f}"
    terminal.print_table(title, columns, kept)
    if any(of.little for of in one.kept.values()):
        terminal.print_wrapped("-        all of them together change less than a tenth of it", indent=9)


def show_depth(found: Explanation, inspections: Sequence[Inspection]) -> None:
    """Print one line for each SAE: what it leaves out, how many latents carry the difference, the strongest one."""
    from jaxsae.explain.faithfulness import ENOUGH

    rows = []
    for one, inspection in zip(found.layers, inspections, strict=True):
        needed = one.kept["latents"].needed(found.counts)
        strongest = ("-", "none is active")
        if one.latents:
            first = one.latents[0]
            strongest = f"{first.effect:+.2f}", f"{first.feature}, {inspection.captions[first.feature]}"
        said = f"over {found.counts[-1]}" if one.active else "-"
        figures = f"{one.error_effect:+.2f}", said if needed is None else str(needed)
        rows.append((one.layer, *figures, *strongest))
    columns = ("layer", "left out", f"latents for {ENOUGH:.0%}", "strongest", "latent")
    terminal.print_table("Over depth", columns, rows)


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_text("--text", metavar="STR", help="the damaged text")
    parser.add_argument("--sample", type=int, metavar="N", help="or a sample of the dataset, from 0")
    parser.add_argument(
        "--position", type=int, metavar="P", help="of the place, from 0 (default: the first damaged one)"
    )
    parser.add_text("--candidate", metavar="C", help="the character to explain (default: the most probable one)")
    parser.add_text("--against", metavar="C", help="what it is compared with (default: the most probable other one)")
    saes.add_files(parser)
    saes.add_settings(parser, "with a feature removed", "with it set to a value, at every character")
    saes.add_corpus(parser)
    parser.add_argument("--top", type=int, default=10, metavar="N", help="latents that are shown")
    parser.add_output("--graph", "also write an attribution graph, as Neuronpedia and circuit-tracer read it")
    parser.add_output("--json", "also write all of it; - is standard output")
    arguments.add_other_model(parser)
    arguments.add_device(parser)
