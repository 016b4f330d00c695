"""Compare every layer's activations with PyTorch hooks: the difference, and each side's distance from float64.

Of a replica of your own, the logits too.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import warnings
from typing import TYPE_CHECKING

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, terminal
from jaxsae.config import DataConfig
from jaxsae.errors import InputNote, require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Sequence

    from convert.own_replica import OwnReplica, Parity
    from convert.verify import LayerCheck
    from jaxsae.models.hooks import Hook
    from jaxsae.text.samples import Samples


def main(args: argparse.Namespace) -> int:
    """Prints a table; status 1 where a layer fails."""
    from jaxsae.files import write_json
    from jaxsae.text.samples import check_samples

    require(args.samples >= 1, f"samples must be at least 1, got {args.samples}")
    config = inputs.data_config(args, max_samples=args.samples)
    runtime.select_device("cpu")  # PyTorch's side runs there too
    from convert.checkpoints import Checkpoint
    from convert.reference_process import ReferenceProcess

    require(inputs.has_torch(), f"verify compares with PyTorch, which is not installed; {inputs.GET_TORCH}")
    with contextlib.ExitStack() as stack:
        process = None if inputs.is_foreign(args) else stack.enter_context(ReferenceProcess())
        checkpoint = inputs.checkpoint(config)
        from convert.own_replica import OwnReplica  # with JAX, which PyTorch's process does not wait for
        from convert.verify import cross_check

        if not isinstance(checkpoint, Checkpoint | OwnReplica):
            print(f"passed   {args.checkpoint} is run by PyTorch itself: there is nothing to compare")
            if args.json:
                write_json(args.json, {"layers": [], "passed": True, "samples": 0})
            return 0
        layers, hook = arguments.points_of(args, range(checkpoint.config.n_layers), usual="all")
        for layer in layers:
            checkpoint.config.check_layer(layer)
        samples = inputs.text(config, checkpoint.config)
        check_samples(samples, checkpoint.config.tokenizer, checkpoint.config.max_position)
        if args.reference:
            print(f"running your own code: {args.reference}")
        stack.enter_context(terminal.working("compare "))
        if isinstance(checkpoint, OwnReplica):
            checks, logits = own_checks(args, config, checkpoint, samples, layers, hook)
        else:
            assert process is not None
            model, logits = checkpoint.model(hook=hook), None
            asked = process.ask(checkpoint, samples, layers, config.padding, args.reference, str(hook))
            checks = cross_check(model, checkpoint, samples, layers, config.padding, asked=asked)

    title = f"JAX and PyTorch over {checks[0].positions:,} real positions, padding {config.padding}"
    columns = ["layer", "verdict", "max |J-P|", "RMS J-P", "RMS J-f64", "RMS P-f64", "RMS ratio"]
    columns += ["max J-f64", "max P-f64", "max ratio"]
    rows = []
    named: list[tuple[int | str, LayerCheck]] = [(check.layer, check) for check in checks]
    named += [] if logits is None else [("logits", logits)]
    for name, check in named:
        pairs = [
            (check.ours_to_float64, check.torch_to_float64),
            (check.ours_to_float64_max, check.torch_to_float64_max),
        ]
        cells = [f"{x:.2e}" for x in (check.max_abs, check.rms)]
        for ours, theirs in pairs:
            cells += [f"{ours:.2e}", f"{theirs:.2e}", f"{ours / theirs:.2f}" if theirs else "-"]
        rows.append([name, "ok" if check.passed else "FAILED", *cells])
    terminal.print_table(title, columns, rows, key=2)
    passed = all(check.passed for _, check in named)
    print("passed" if passed else "failed", "(limits: 3 x PyTorch's own distance from float64 in RMS, 4 x in maximum)")
    if args.json:
        layers_json = [{**dataclasses.asdict(check), "layer": name, "passed": check.passed} for name, check in named]
        report = {"layers": layers_json, "passed": passed, "padding": config.padding, "samples": len(samples)}
        write_json(args.json, report)
    return 0 if passed else 1


def own_checks(
    args: argparse.Namespace, data: DataConfig, ours: OwnReplica, samples: Samples, layers: Sequence[int], hook: Hook
) -> Parity:
    """The user's own replica beside the PyTorch module that a function of theirs returns."""
    from convert.hooked import HookedCheckpoint
    from convert.own_replica import check_same, check_same_texts, parity
    from convert.stored import read_own

    require(args.reference is not None, "a replica of your own must have a --reference FILE.py:FUNCTION, got none")
    theirs = read_own(args.reference)
    what = "--reference must be FILE.py:FUNCTION that returns a PyTorch module"
    require(isinstance(theirs, HookedCheckpoint), f"{what}, got a {theirs.name} of {args.reference}")
    assert isinstance(theirs, HookedCheckpoint)
    check_same(ours.config, theirs)
    with warnings.catch_warnings():  # the notes on the texts were given before
        warnings.simplefilter("ignore", InputNote)
        check_same_texts(samples, inputs.text(data, theirs.config))
    return parity(ours, theirs, samples, layers, data.padding, hook)


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_config(DataConfig, only=("checkpoint", "vocab", "dataset", "split", "padding"))
    arguments.add_layers(parser, usual="all")
    parser.add_argument("--samples", type=int, default=4, help="the first N samples")
    parser.add_argument(
        "--reference",
        metavar="FILE.py",
        help="your own RestorationConfig and RestorationModel, or AeneasConfig and AeneasForMLM; of your own replica in JAX, "
        "FILE.py:FUNCTION with the PyTorch module; this RUNS the file",
    )
    parser.add_output("--json", "also write the table as JSON; - is standard output")
