"""The report's page, alive, for a browser of this machine: type a text and see how it is restored, and why.

Prints the address to open, which is for you alone; Ctrl-C ends it. Nothing is written but .jaxsae_cache beside the SAE.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, saes, temperature, terminal
from jaxsae.errors import one_line, require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Sequence

    from jaxsae.explain.parallel_index import Index
    from jaxsae.features.statistics import LayerSAE


def main(args: argparse.Namespace) -> None:
    """One pass over the text for the page, then answers until the process is ended."""
    data = inputs.data_config(args, max_samples=100)
    runtime.select_device(args.device)
    from jaxsae.features.report import page, scripts
    from jaxsae.serve import run
    from jaxsae.serve.live import Session

    listener = run.listen(args.port)  # first: a port that is taken is to be known before the pass over the text
    files, read = saes.read(args)
    layers = [layer for layer, _ in read.values()]
    differ = len(set(layers)) == len(layers)
    require(differ, f"--sae must name one SAE of each layer, got layers {', '.join(map(str, layers))}")
    checkpoint = inputs.checkpoint(data)
    inputs.require_tablets(checkpoint, "serve")
    saes.check_files(files, read, checkpoint, other_model=args.other_model)
    beside = [saes.alike(path, file, checkpoint, args.other_model) for path, file in files.items()]
    data = inputs.held_out(args, data, checkpoint.config)
    samples = inputs.text(data, checkpoint.config)
    seen = saes.training_texts(files, data, checkpoint)
    hook = saes.hook_of(files, {path: at.layer for path, at in read.items()})
    model = checkpoint.model(hook=hook)
    index = open_parallels(args.parallels, checkpoint.identity, list(read.values())) if args.parallels else None
    calibration = temperature.calibration_of(model, checkpoint, inputs.own_text(args, data))
    identity = saes.kept_by(checkpoint)
    del checkpoint
    inspections = saes.read_text(
        model,
        samples,
        data,
        read,
        identity,
        hook,
        concepts=saes.concepts_of(None, data, samples),
        other_seeds=[[other.sae for other in one.values()] for one in beside],
    )
    what = f"{'/'.join(Path(data.dataset).parts[-2:])}, {data.split} split, padding {data.padding}"
    print(f"text     {what}: {len(samples):,} samples, {inspections[0].statistics.rows:,} {samples.tokenizer.unit}s")
    terminal.print_wrapped(
        f"model    {data.checkpoint}; {temperature.describe(calibration, inputs.own_text(args, data))}", indent=9
    )
    saes.warn_of_training_text(seen)
    html = page(inspections, list(files), saes.said_of(what, seen), live=True)

    def on_error(error: BaseException) -> None:
        if args.debug:
            traceback.print_exception(error)
        kind = type(error).__name__
        sys.stderr.write(one_line(f"error: an answer failed: {kind}: {error}; with --debug there is a traceback"))

    def on_ready(address: str) -> None:
        print(f"open     {address}\n         (in a browser of this machine; Ctrl-C ends it)", flush=True)

    live = Session(inspections, list(files), calibration.temperature if calibration else 1.0, index)
    live.warm_up()
    run.serve(listener, html, live, scripts=scripts(live=True), on_ready=on_ready, on_error=on_error)


def open_parallels(folder: str, identity: str, read: Sequence[LayerSAE]) -> Index:
    """The index of passages in a folder, which must be of one of the SAEs."""
    from jaxsae.explain.parallel_index import open_index
    from jaxsae.sae.autoencoder import identity as identity_of

    index = open_index(folder, identity)
    of = index.about["layer"], index.about["sae_sha256"]
    served = any((one.layer, identity_of(one.sae)) == of for one in read)
    require(served, f"--parallels must be an index of an SAE that is served, got one of another, of layer {of[0]}")
    return index


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    saes.add_files(parser)
    parser.add_argument("--port", type=int, default=0, metavar="N", help="where to listen; 0 is any free one")
    saes.add_corpus(parser)
    parser.add_argument("--parallels", metavar="DIR", help="an index of passages, to show those that are alike")
    arguments.add_other_model(parser)
    arguments.add_device(parser)
