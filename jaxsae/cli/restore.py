"""Restore damaged text: the most probable fillings of each gap, and the characters of each place.

What counts as damage: # is one character, [...] an unknown number of them, [x x x] three signs, [xxx] three
characters; docs/restoring.md says it all. The text comes back as it was, but for its gaps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, saes, temperature, terminal
from jaxsae.config import DataConfig
from jaxsae.errors import require
from jaxsae.models.hooks import HOOKS, Hook

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from convert.stored import AnyCheckpoint
    from jaxsae.models.changes import LayerChange
    from jaxsae.restore.answer import Answer
    from jaxsae.text.damaged_files import Named


def main(args: argparse.Namespace) -> None:
    """Texts in, tables out."""
    for name in ("top", "beam"):
        value = getattr(args, name)
        require(value >= 1, f"--{name} must be at least 1, got {value}")
    require((args.text is None) != (args.file is None), "give a text by --text or --file: one of them")
    texts = read_texts(args)
    data = inputs.model_and_own_text(args)
    runtime.select_device(args.device)
    from jaxsae.files import write_json
    from jaxsae.restore.answer import restore_text
    from jaxsae.restore.places import encoded

    checkpoint = inputs.checkpoint(data)
    inputs.require_tablets(checkpoint, "restore")
    change, hook = change_of(args, checkpoint)
    model = checkpoint.model(hook=hook)
    for one in texts:  # before the first is restored
        encoded(model, one.text)
    calibration = temperature.calibration_of(model, checkpoint, data.dataset)
    del checkpoint
    said = temperature.describe(calibration, data.dataset)
    terminal.print_wrapped(f"model    {data.checkpoint}; {said}", indent=9)
    how = {"beam": args.beam, "top": args.top, "temperature": calibration.temperature if calibration else 1.0}
    answers = []
    for one in texts:
        with terminal.working("restore "):
            answer = restore_text(model, one.text, change=change, **how)
            before = restore_text(model, one.text, **how) if change else None
        content = answer.as_json() | ({"name": one.name} if one.name else {}) | {"calibration": said}
        answers.append(content | ({"before": before.as_json()} if before else {}))
        show(one.name, answer, before)
    if args.json:
        write_json(args.json, answers[0] if args.file is None else answers, indent=1)


def change_of(args: argparse.Namespace, checkpoint: AnyCheckpoint) -> tuple[LayerChange | None, Hook]:
    """What `--ablate` and `--clamp` make of the activations, and where these are read."""
    settings = saes.settings_of(args)
    require(bool(settings) or not args.sae, "--sae is for --ablate and --clamp, got neither; leave it out")
    if not settings:
        return None, HOOKS[0]
    from jaxsae.features.splice import steer

    files, read = saes.read(args)
    require(len(read) == 1, f"--ablate and --clamp take one SAE, got {len(read)}")
    saes.check_files(files, read, checkpoint, other_model=args.other_model)
    ((path, at),) = read.items()
    saes.check_latents([latent for latent, _ in settings], path, at)
    return (at.layer, steer(at.sae, settings)), saes.hook_of(files, {path: at.layer})


def read_texts(args: argparse.Namespace) -> list[Named]:
    """The texts that have something to restore.

    Raises:
      InputError: there is none.
    """
    from jaxsae.text.damaged_files import Named, read_damaged_file
    from jaxsae.text.damaged_text import read_damaged

    if args.file is None:
        require(bool(args.text.strip()), "--text must have at least one character, got none")
        every, what = [Named("", read_damaged(args.text))], "--text"
    else:
        require(Path(args.file).is_file(), f"--file must be a file, got {args.file}, which is none")
        every, what = read_damaged_file(args.file, args.text_column), str(args.file)
    texts = [one for one in every if one.text.gaps]
    unseen = sum(len(one.text.unseen) for one in every)
    why = f"the {unseen} within () or {{}} cannot be restored: the model sees no such text" if unseen else "got none"
    require(bool(texts), f"{what} must have a damaged place, such as # or [...] or [x x]; {why}")
    if len(texts) < len(every):
        print(f"note     {len(every) - len(texts):,} of {len(every):,} texts have no damaged place; left out")
    if unseen:
        print(
            f"note     {unseen:,} damaged places stand within () or {{}}, which the model never sees; left as they are"
        )
    return texts


def show(name: str, answer: Answer, before: Answer | None) -> None:
    """Print what was found: the text with its gaps numbered, a table for each gap, and one of all places.

    Args:
      before: what was found with no latent set, where some are.
    """
    text = answer.text
    left, right = (terminal.shown(wanted, instead) for wanted, instead in (("⟨", "<"), ("⟩", ">")))
    written = [text.written[slice(*gap.written)] for gap in text.gaps]
    numbered = [f"{left}{n}:{what}{right}" for n, what in enumerate(written, start=1)]
    print()
    if name:
        terminal.print_wrapped(name)
    marked = text.replaced(numbered)
    terminal.print_wrapped(f"text     {marked}", indent=9)
    if before is not None:
        terminal.print_wrapped(f"before   {before.text.filled(before.best)}", indent=9)
    terminal.print_wrapped(f"restored {text.filled(answer.best)}", indent=9)
    for number, (gap, fillings) in enumerate(zip(text.gaps, answer.fillings, strict=True), start=1):
        least, most = gap.lengths[0], gap.lengths[-1]
        size = f"{least} to {most} characters" if most > least else f"{least} character{'s' if least > 1 else ''}"
        rows = [
            (
                terminal.visible(one.text),
                f"{one.probability:.1%}",
                f"{one.score:.2f}",
                *([one.length] if most > least else []),
            )
            for one in fillings
        ]
        columns = ("filling", "probability", "log-probability", *(["characters"] if most > least else []))
        terminal.print_table(f"gap {number}: {size}", columns, rows)
    columns = ("gap", "place", "characters", *(["before"] if before else []))
    was = characters_of(before) if before else {}
    rows_of_places = [
        (gap + 1, place + 1, shown, *([was.get((gap, place), "")] if before else []))
        for (gap, place), shown in characters_of(answer).items()
    ]
    terminal.print_table("Each place by itself, all others being damaged", columns, rows_of_places, key=2)


def characters_of(answer: Answer) -> dict[tuple[int, int], str]:
    """(gap, place in it) -> its most probable characters."""
    return {
        (place.gap, place.position - answer.text.gaps[place.gap].start): "  ".join(
            f"{terminal.visible(one.character)} {one.probability:.1%}" for one in place.candidates
        )
        for place in answer.places
    }


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_text("--text", metavar="STR", help="the damaged text")
    parser.add_argument(
        "--file", metavar="F", help="a text a line; or .atf, or fragments: .json, .jsonl, .ndjson, .parquet"
    )
    parser.add_argument("--text-column", default="atf", metavar="NAME", help="where fragments have their texts")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="fillings of a gap and characters of a place")
    parser.add_argument("--beam", type=int, default=16, metavar="N", help="partial fillings carried along; 1: greedy")
    names: dict[str, Any] = {"checkpoint": ("--checkpoint", "--model")}
    parser.add_config(DataConfig, only=("checkpoint", "vocab", "dataset"), names=names)
    saes.add_files(parser)
    saes.add_settings(parser, "with a feature of the SAE removed", "with it set to a value, at every character")
    arguments.add_other_model(parser)
    parser.add_output("--json", "also write what was found; - is standard output")
    arguments.add_device(parser)
