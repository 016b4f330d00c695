"""Restore damaged text: the most probable fillings of each gap, and the characters of each place.

What counts as damage: # is one character, [...] an unknown number of them, [x x x] three signs, [xxx] three
characters; docs/restoring.md says it all. The text comes back as it was, but for its gaps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, terminal
from jaxsae.config import DataConfig
from jaxsae.errors import require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from convert.restoration import Checkpoint
    from jaxsae.models.protocol import ResidualModel
    from jaxsae.restore.answer import Answer
    from jaxsae.restore.calibration import Calibration
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
    from convert import read_checkpoint
    from jaxsae.files import write_json
    from jaxsae.restore.answer import restore_text
    from jaxsae.restore.places import encoded

    checkpoint = read_checkpoint(data.checkpoint)
    model = checkpoint.model()
    for one in texts:  # before the first is restored
        encoded(model, one.text)
    calibration = calibration_of(model, checkpoint, data.dataset)
    del checkpoint
    temperature = calibration.temperature if calibration else 1.0
    said = describe(calibration, data.dataset)
    terminal.print_wrapped(f"model    {data.checkpoint}; {said}", indent=9)
    answers = []
    for one in texts:
        answer = restore_text(model, one.text, beam=args.beam, top=args.top, temperature=temperature)
        answers.append(answer.as_json() | ({"name": one.name} if one.name else {}) | {"calibration": said})
        show(one.name, answer)
    if args.json:
        write_json(args.json, answers[0] if args.file is None else answers, indent=1)


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


def calibration_of(model: ResidualModel, checkpoint: Checkpoint, dataset: str | None) -> Calibration | None:
    """The model's calibration on its own text: kept from before, or fitted now; None where there is no such text."""
    if dataset is None:
        return None
    from jaxsae.demo.dataset import ensure_demo
    from jaxsae.restore.calibration import calibrate
    from jaxsae.restore.kept import kept_calibration
    from jaxsae.text.loading import fingerprint, has_samples, load_samples

    ensure_demo(dataset)
    require(Path(dataset).exists(), f"--dataset must be a dataset of the model's text, got {dataset}, which is none")
    if not has_samples(dataset, "validation"):
        return None

    def fit() -> Calibration | None:
        terminal.print_wrapped("note     first use of this model and dataset: fitting the temperature", indent=9)
        return calibrate(model, load_samples(dataset, "validation"))

    return kept_calibration(checkpoint.identity, fingerprint(dataset), fit)


def describe(calibration: Calibration | None, dataset: str | None) -> str:
    """Which temperature, and where it is from."""
    if calibration is None:
        why = "no dataset of this model's own was given" if dataset is None else f"{dataset} has no validation text"
        return f"temperature 1, not calibrated: {why}"
    return (
        f"temperature {calibration.temperature:.3f}, fitted on {calibration.places:,} characters of the validation "
        f"split of {dataset}"
    )


def show(name: str, answer: Answer) -> None:
    """Print what was found: the text with its gaps numbered, a table for each gap, and one of all places."""
    text = answer.text
    left, right = (terminal.shown(wanted, instead) for wanted, instead in (("⟨", "<"), ("⟩", ">")))
    written = [text.written[slice(*gap.written)] for gap in text.gaps]
    numbered = [f"{left}{n}:{what}{right}" for n, what in enumerate(written, start=1)]
    print()
    if name:
        terminal.print_wrapped(name)
    marked = text.replaced(numbered)
    terminal.print_wrapped(f"text     {marked}", indent=9)
    terminal.print_wrapped(f"restored {text.filled(answer.best)}", indent=9)
    for number, (gap, fillings) in enumerate(zip(text.gaps, answer.fillings, strict=True), start=1):
        least, most = gap.lengths[0], gap.lengths[-1]
        size = f"{least} to {most} characters" if most > least else f"{least} character{'s' if least > 1 else ''}"
        rows = [
            (visible(one.text), f"{one.probability:.1%}", f"{one.score:.2f}", *([one.length] if most > least else []))
            for one in fillings
        ]
        columns = ("filling", "probability", "log-probability", *(["characters"] if most > least else []))
        terminal.print_table(f"gap {number}: {size}", columns, rows)
    rows_of_places = [
        (
            place.gap + 1,
            place.position - text.gaps[place.gap].start + 1,
            "  ".join(f"{visible(one.character)} {one.probability:.1%}" for one in place.candidates),
        )
        for place in answer.places
    ]
    title = "Each place by itself, all others being damaged"
    terminal.print_table(title, ("gap", "place", "characters"), rows_of_places, key=2)


def visible(text: str) -> str:
    """A text with its spaces shown."""
    return text.replace(" ", terminal.shown("␣", "_"))


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
    parser.add_config(DataConfig, only=("checkpoint", "dataset"), names=names)
    parser.add_output("--json", "also write what was found; - is standard output")
    arguments.add_device(parser)
