"""Two models side by side: which features of their SAEs are in both, gone or new, and what tells each concept.

Both read the same text with the same damage. Give two SAEs with a checkpoint for each (before and after training), two
SAEs of one checkpoint, or one SAE, that of the first checkpoint, on two models.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxsae import runtime
from jaxsae.cli import arguments, compare_tables, csv_tables, inputs, saes
from jaxsae.errors import InputError, require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Sequence

    from convert.sae_files import SAEFile
    from convert.stored import AnyCheckpoint
    from jaxsae.config import DataConfig
    from jaxsae.features.concepts import Concept
    from jaxsae.features.inspection import Inspection
    from jaxsae.features.statistics import LayerSAE
    from jaxsae.models.hooks import Hook
    from jaxsae.text.samples import Samples


class Side(NamedTuple):
    """An SAE file and the model that it reads."""

    path: str
    file: SAEFile
    at: LayerSAE
    hook: Hook
    model_path: str
    checkpoint: AnyCheckpoint


def main(args: argparse.Namespace) -> None:
    """The text through one model after the other, then what they have in common."""
    named = getattr(args, "checkpoint", [])
    for flag, given in (("--sae", args.sae), ("--checkpoint", named)):
        require(len(given) <= 2, f"{flag} takes one file or two, got {len(given)}")
    require(
        len(args.sae) == 2 or len(named) == 2,
        "--sae or --checkpoint must name two files to compare, got one of each; give a second",
    )
    csv_tables.check_folder(args.csv)
    first = argparse.Namespace(**{**vars(args), **({"checkpoint": named[0]} if named else {})})
    data = inputs.data_config(first, max_samples=100)
    rows = inputs.is_rows(data.dataset)  # which are of one model
    require(not rows, f"--dataset must be text here, got stored rows in {data.dataset}; give their dataset")
    runtime.select_device(args.device)
    from jaxsae.features.comparison import TABLES, compare
    from jaxsae.files import write_json

    sides = sides_of(args, data, named)
    data = inputs.held_out(args, data, sides[0].checkpoint.config)
    samples = text_of_both(data, sides)
    concepts = saes.concepts_of(args.concepts, data, samples)
    inspections = [inspected(side, samples, data, concepts) for side in sides]
    what = f"{'/'.join(Path(data.dataset).parts[-2:])}, {data.split} split, padding {data.padding}"
    print(f"text     {what}: {len(samples):,} samples, {inspections[0].statistics.rows:,} {samples.tokenizer.unit}s")
    found = compare(*inspections)
    for side in sides:
        saes.warn_of_training_text(saes.training_texts({side.path: side.file}, data, side.checkpoint))
    compare_tables.show(found, [f"{side.path} on {side.model_path}" for side in sides], samples.tokenizer.unit)
    if args.csv:
        tables = {name: csv_tables.Table(TABLES[name]._fields, rows) for name, rows in found.tables.items()}
        csv_tables.write(args.csv, tables)
    if args.json:
        about = {"split": data.split, "samples": len(samples), "padding": data.padding}
        files = [{"sae": side.path, "checkpoint": side.model_path} for side in sides]
        report = found.as_json()
        for name, its in zip(("first", "second"), files, strict=True):
            report[name] = its | report[name]
        write_json(args.json, about | report, indent=1)


def sides_of(args: argparse.Namespace, data: DataConfig, named: Sequence[str]) -> list[Side]:
    """The two SAEs with their models, which are seen to fit."""
    files, read = saes.read(args)
    models = [data.checkpoint, *named[1:]]
    checkpoints = [inputs.checkpoint(dataclasses.replace(data, checkpoint=path)) for path in models]
    out = []
    for number in range(2):
        path, at = args.sae[min(number, len(args.sae) - 1)], min(number, len(models) - 1)
        file = {path: files[path]}
        # one SAE on two models is of the first of them
        other_model = args.other_model or (number == 1 and len(files) == 1)
        saes.check_files(file, {path: read[path]}, checkpoints[at], other_model=other_model)
        layer = read[path].layer
        checkpoint, hook = inputs.read_at(checkpoints[at], saes.hook_of(file, {path: layer}), [layer])
        out.append(Side(path, files[path], read[path], hook, models[at], checkpoint))
    return out


def text_of_both(data: DataConfig, sides: Sequence[Side]) -> Samples:
    """The samples as the first model reads them.

    Raises:
      InputError: to the second they are another text, or none that it can read.
    """
    from jaxsae.text.samples import check_shared

    one, other = (side.checkpoint.config for side in sides)
    samples = inputs.text(data, one)
    try:
        check_shared(samples, one.tokenizer, other.tokenizer, other.max_position)
    except InputError as error:
        raise InputError(f"{sides[1].model_path} must read the text of {sides[0].model_path}: {error}") from None
    return samples


def inspected(side: Side, samples: Samples, data: DataConfig, concepts: Sequence[Concept]) -> Inspection:
    """What the latents of one side do on the text."""
    from jaxsae.models.protocol import LazyModel

    load = functools.partial(side.checkpoint.model, n_layers=side.at.layer + 1, hook=side.hook)
    model = LazyModel(side.checkpoint.config, load)
    read, identity = {side.path: side.at}, saes.kept_by(side.checkpoint)
    (found,) = saes.read_text(model, samples, data, read, identity, side.hook, concepts=concepts, compare=False)
    return found


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--sae", nargs="+", required=True, metavar="FILE", help="the first SAE and the second, or one for both models"
    )
    saes.add_corpus(parser, several=("checkpoint",))
    parser.add_argument(
        "--layer",
        default=arguments.SUPPRESS,
        metavar="L[,L]",
        help="where files do not say their layers themselves: one for both, or one for each",
    )
    parser.add_argument("--concepts", metavar="FILE", help="concepts of your own, in place of the built-in ones")
    parser.add_output("--json", "also write all of it, not only the first rows; - is standard output")
    csv_tables.add_flag(parser, "all of it")
    arguments.add_other_model(parser)
    arguments.add_device(parser)
