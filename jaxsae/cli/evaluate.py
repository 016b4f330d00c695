"""Evaluate SAE files on held-out text: how sparse, how faithful, what the model restores with the SAE in its place."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, saes, terminal
from jaxsae.config import DataConfig
from jaxsae.errors import note, require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Mapping, Sequence

    from convert.sae_files import SAEFile
    from convert.stored import AnyCheckpoint
    from jaxsae.features.evaluation import Evaluation
    from jaxsae.models.protocol import ResidualModel
    from jaxsae.sae.row_types import AnyRows
    from jaxsae.text.samples import Samples

COLUMNS = {
    "L0": ("l0", ".1f"),
    "FVU": ("fvu", ".4f"),
    "cosine": ("cosine", ".3f"),
    "norm": ("norm_ratio", ".3f"),
    "dead": ("dead", ".1%"),
    "dense": ("dense", ".1%"),
    "CE": ("ce_sae", ".4f"),
    "rec. 0": ("ce_recovered_zero", ".4f"),
    "rec. mean": ("ce_recovered_mean", ".4f"),
    "KL": ("kl", ".4f"),
    "top-1": ("top1_sae", ".1%"),
    "top-5": ("top5_sae", ".1%"),
}
"""Title of a column -> the figure's key in the JSON, and how it is formatted."""


def main(args: argparse.Namespace) -> None:
    """One row of the table for each file."""
    data = inputs.data_config(args)
    runtime.select_device(args.device)
    from convert import check_model, layer_of, load_sae
    from jaxsae.features.evaluation import evaluate_all
    from jaxsae.features.statistics import LayerSAE
    from jaxsae.files import write_json
    from jaxsae.text.pieces import in_units

    require(len(set(args.sae)) == len(args.sae), "--sae must name different files, got one twice")
    files = {path: load_sae(path) for path in args.sae}
    layers = {path: layer_of(path, file, args.layer) for path, file in files.items()}
    stored = inputs.is_rows(data.dataset)
    source = from_stores(args, data, files, layers) if stored else from_text(args, data, files, layers)
    if source.checkpoint:
        for path, file in files.items():
            check_model(path, file, source.checkpoint.identity, source.checkpoint.sha256, args.other_model)
    if source.model and not (source.samples is not None and source.samples.scored.any()):
        unit = "character" if source.samples is None else source.samples.tokenizer.unit
        what = in_units("has no damaged characters: what is restored with an SAE is left out", unit)
        note(f"{data.dataset} {what}")
    read = [LayerSAE(layers[path], file.sae) for path, file in files.items()]
    with terminal.working("evaluate"):
        found = evaluate_all(source.model, source.samples, read, rows=source.rows)
    show(source, args.sae, found)
    if args.json:
        write_json(args.json, [{"sae": path} | one.as_json() for path, one in zip(args.sae, found, strict=True)])


def show(source: Source, paths: list[str], found: Sequence[Evaluation]) -> None:
    """What was read, and a table with one row for each file."""
    first, title = found[0], None
    print(
        f"text     {source.what}, {first.score.rows:,} {f'{source.samples.tokenizer.unit}s' if source.samples else 'rows'}"
    )
    if source.trained:
        said = {short_name(path, paths): str(trained) for path, trained in source.trained.items()}
        same = len(set(said.values())) == 1
        line = next(iter(said.values())) if same else "; ".join(f"{name}: {words}" for name, words in said.items())
        terminal.print_wrapped(f"sae      {line}", indent=9)
        saes.warn_of_training_text(source.trained)
    if first.restoration:
        model = first.restoration
        causal = source.samples is not None and source.samples.causal
        what, done = ("followed by one", "predicted") if causal else ("damaged", "restored")
        print(f"model    {model.positions:,} of them {what}: cross-entropy {model.ce_clean:.4f}, ", end="")
        print(f"{done} right {model.top1_clean:.1%} at the first guess, {model.top5_clean:.1%} within five")
        title = f"With the SAE in place of what it reads, at {'all' if causal else 'damaged'} positions"
    figures = [one.as_json() for one in found]
    columns = {name: (key, style) for name, (key, style) in COLUMNS.items() if key in figures[0]}
    rows = [
        [short_name(path, paths), row["layer"], *(format(row[key], style) for key, style in columns.values())]
        for path, row in zip(paths, figures, strict=True)
    ]
    terminal.print_table(title, ["SAE", "layer", *columns], rows)
    terminal.print_wrapped("dead: fires on none of these; dense: on more than a tenth.")
    if first.restoration:
        terminal.print_wrapped(
            "rec.: share of the cross-entropy that setting the layer to zero, or to its mean, loses and the SAE keeps."
        )
    elif not source.model:
        terminal.print_wrapped(
            "Rows alone do not tell what is restored with an SAE: give the model that they are of (--checkpoint)."
        )


@dataclasses.dataclass(frozen=True)
class Source:
    """What the SAEs are evaluated on."""

    what: str
    """The source in words."""
    rows: Mapping[int, AnyRows] | None
    """Layer -> its rows, where they were extracted before."""
    model: ResidualModel | None
    """None: the model that the rows come from is not known, and then neither is the text."""
    samples: Samples | None
    checkpoint: AnyCheckpoint | None
    trained: Mapping[str, saes.TrainingText] = dataclasses.field(default_factory=dict)
    """What each SAE was trained on; not looked at where rows say nothing of their text."""


def from_text(args: argparse.Namespace, data: DataConfig, files: dict[str, SAEFile], layers: dict[str, int]) -> Source:
    """A model, and text that it is given."""

    hook = saes.hook_of(files, layers)
    checkpoint, hook = inputs.read_at(inputs.checkpoint(data), hook, list(layers.values()))
    for layer in layers.values():
        checkpoint.config.check_layer(layer)
    check_width(files, checkpoint.config.d_model, "the model's d_model")
    data = inputs.held_out(args, data, checkpoint.config)
    samples = inputs.text(data, checkpoint.config)
    trained = saes.training_texts(files, data, checkpoint)
    what = f"{data.dataset}, {data.split}: {len(samples):,} samples"
    return Source(what, None, checkpoint.model(hook=hook), samples, checkpoint, trained)


def from_stores(
    args: argparse.Namespace, data: DataConfig, files: dict[str, SAEFile], layers: dict[str, int]
) -> Source:
    """Rows that were extracted before, with their model and text where it is known what these are."""
    from convert import check_model
    from jaxsae.features.statistics import LayerSAE

    needed = sorted(set(layers.values()))
    stored = inputs.open_stored_rows(args, data, needed[0], data.max_samples).only(needed)
    check_width(files, stored.d_in, "the width of the rows")

    saes.check_places(files, {path: LayerSAE(layers[path], file.sae) for path, file in files.items()}, stored)
    checkpoint = inputs.model_of_rows(args, data, stored)
    if isinstance(checkpoint, inputs.ModelOfRows):
        for path, file in files.items() if checkpoint.identity else ():
            check_model(path, file, str(checkpoint.identity), None, args.other_model)
        return Source(data.dataset, stored.layers, None, None, None)
    samples, hook = inputs.text_of_rows(checkpoint, stored), saes.hook_of(files, layers)
    what = f"{data.dataset}: {len(samples):,} samples of the {stored.about.get('split')} split"
    trained = saes.training_texts(files, data, checkpoint, stored)
    return Source(what, stored.layers, checkpoint.model(hook=hook), samples, checkpoint, trained)


def check_width(files: dict[str, SAEFile], width: int, what: str) -> None:
    """Raise `InputError` where an SAE reads rows of another width; the file is named."""
    for path, file in files.items():
        require(file.config.d_in == width, f"{path}: d_in must be {width} ({what}), got {file.config.d_in}")


def short_name(path: str, paths: list[str]) -> str:
    """The end of the path, as many parts of it as no other path ends with."""
    parts = Path(path).parts
    for n in range(1, len(parts)):
        name = Path(*parts[-n:])
        if sum(Path(other).parts[-n:] == name.parts for other in paths) == 1:
            return str(name)
    return path


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--sae", nargs="+", required=True, metavar="FILE", help="SAEs: .pt files, or folders of other libraries"
    )
    parser.add_config(
        DataConfig, only=("checkpoint", "vocab", "dataset", "split", "max_samples"), split=inputs.HELD_OUT
    )
    parser.add_argument(
        "--layer", type=arguments.one_layer, metavar="L", help="where a file does not say its layer itself"
    )
    arguments.add_device(parser)
    arguments.add_other_model(parser)
    parser.add_output("--json", "also write the figures, one object per file; - is standard output")
