"""Passages of a corpus that share latents with a text, or with a place in it, and which latents these are.

The index of the corpus is built where there is none, and read after that.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, saes, terminal
from jaxsae.config import DataConfig
from jaxsae.errors import require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Sequence

    from convert.stored import AnyCheckpoint, AnyConfig
    from jaxsae.explain.parallel_index import Index
    from jaxsae.explain.parallels import Parallel
    from jaxsae.models.protocol import ResidualModel
    from jaxsae.sae.autoencoder import SAE


def main(args: argparse.Namespace) -> None:
    """Open the index or build it, then look for the text."""
    data = inputs.data_config(args, split="train", max_samples=None)
    require(args.text is not None or args.position is None, "--position needs --text, got none")
    runtime.select_device(args.device)
    from convert import check_model, layer_of, load_sae
    from jaxsae.explain.parallel_index import open_index, write_index
    from jaxsae.explain.parallels import check_query, find
    from jaxsae.files import write_json
    from jaxsae.text.damaged_text import read_damaged

    file = load_sae(args.sae)
    layer = layer_of(args.sae, file, args.layer)
    checkpoint = inputs.checkpoint(data)
    inputs.require_tablets(checkpoint, "parallels")
    checkpoint.config.check_layer(layer)
    check_model(args.sae, file, checkpoint.identity, checkpoint.sha256, args.other_model)
    written = None if args.text is None else read_damaged(args.text)
    if written is not None:  # nothing is known of a gap but that it is there
        for number, gap in enumerate(written.gaps):
            written = written.resized(number, gap.lengths[0])
    text = None if written is None else written.cleaned
    position = args.position
    if written is not None:
        if position is not None:
            position = written.place_of(position)
        check_query(written.cleaned, checkpoint.config, position, args.top)
    folder = Path(args.index)
    hook = saes.hook_of({args.sae: file}, {args.sae: layer})
    model = checkpoint.model(n_layers=layer + 1, hook=hook)
    if not (folder / "index.json").exists():
        check_free(folder)
        write_index(folder, build_index(data, checkpoint, model, file.sae, layer))
    index = open_index(folder, checkpoint.identity, file.sae, layer)
    check_corpus(args, data, checkpoint.config, index)
    print(
        f"index    {folder}: {len(index.texts):,} texts, {len(index.passages):,} passages, layer {layer}, "
        f"{sum(f.stat().st_size for f in folder.iterdir()) / 1e6:,.1f} MB"
    )
    if text is None:
        return
    found = find(index, model, file.sae, text, position=position, top=args.top, by=args.by)
    show(text, found)
    if args.json:
        parallels = [one.as_json() for one in found]
        write_json(args.json, {"text": args.text, "cleaned": text, "by": args.by, "parallels": parallels})


def check_free(folder: Path) -> None:
    """Raise `InputError` where a folder has something in it, and no index."""
    free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    require(free, f"--index must be an index, or a folder that does not exist, got {folder} without index.json")


def build_index(data: DataConfig, checkpoint: AnyCheckpoint, model: ResidualModel, sae: SAE, layer: int) -> Index:
    """Read the whole corpus."""
    from jaxsae.explain.parallels import build, captioned
    from jaxsae.features import concepts

    samples = inputs.text(data, checkpoint.config)
    print(f"building an index of {len(samples):,} texts of {data.dataset}, {data.split} split", flush=True)
    about = {"model_sha256": checkpoint.identity, "dataset": data.dataset, **corpus(data, checkpoint.config)}
    chosen = [*concepts.load_concepts(concepts.BUILT_IN), *concepts.sign_concepts(samples)]
    characters = int(samples.real.sum() + captioned(samples).real.sum())
    with terminal.Progress("read    ", characters, "characters", quiet=False).shown() as progress:
        return build(model, samples, sae, layer, about=about, concepts=chosen, on_rows=progress.advance)


def corpus(data: DataConfig, shape: AnyConfig) -> dict:
    """What texts an index is of, for index.json."""
    prints = [shape.datasets.fingerprint(path) for path in inputs.paths_of(data.dataset)]
    return {"dataset_sha256": prints, "split": data.split, "max_samples": data.max_samples}


def check_corpus(args: argparse.Namespace, data: DataConfig, shape: AnyConfig, index: Index) -> None:
    """Raise `InputError` where a flag asks for other texts than those of the index."""
    asked = {"dataset": "dataset_sha256", "split": "split", "max_samples": "max_samples"}
    given = corpus(data, shape) if any(hasattr(args, name) for name in asked) else {}
    for name, key in asked.items():
        same = not hasattr(args, name) or given[key] == index.about.get(key)
        require(
            same,
            f"--{name.replace('_', '-')} must be that of the index, {index.about.get(name)!s:.80}; leave it out, or give "
            "another --index",
        )


def show(text: str, found: Sequence[Parallel]) -> None:
    """A table of the passages, and what each shares with the text."""
    from jaxsae.features.captions import UNCLEAR

    rows = [
        (
            f"{one.score:.3f}",
            one.text_number,
            one.passage,
            f"{one.letters:.0%}",
            "; ".join([shared.caption for shared in one.shared if not shared.caption.startswith(UNCLEAR)][:4]),
        )
        for one in found
    ]
    columns = ("score", "text", "passage", "letters", "shared latents that have a caption, the most telling first")
    terminal.print_table(f"Parallels of: {text}", columns, rows, key=2)
    if not found:
        print("no passage has latents or letters in common with it")


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_text("--text", metavar="STR", help="what to look for, # for a damaged character; left out: only build")
    parser.add_argument(
        "--position", type=int, metavar="P", help="only the passage around this character of it, from 0"
    )
    parser.add_argument("--sae", required=True, metavar="FILE", help="the SAE whose latents are compared")
    parser.add_argument("--index", required=True, metavar="DIR", help="the corpus's index; built where there is none")
    parser.add_config(
        DataConfig,
        only=("checkpoint", "vocab", "dataset", "split", "max_samples"),
        names={"checkpoint": ("--checkpoint", "--model")},
        split="train",
        max_samples="all",
    )
    parser.add_argument(
        "--layer", type=arguments.one_layer, metavar="L", help="where the file does not say its layer itself"
    )
    parser.add_argument("--top", type=int, default=20, metavar="N", help="so many passages, at most")
    parser.add_argument(
        "--by", choices=("both", "latents", "letters"), default="both", help="compare latents, letters, or both"
    )
    arguments.add_other_model(parser)
    arguments.add_device(parser)
    parser.add_output("--json", "also write what was found; - is standard output")
