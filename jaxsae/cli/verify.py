"""Compare every layer's activations with PyTorch hooks: the difference, and each side's distance from float64."""

import argparse
import dataclasses

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, terminal
from jaxsae.config import DataConfig
from jaxsae.errors import require


def main(args: argparse.Namespace) -> int:
    """Prints a table; status 1 where a layer fails."""
    from jaxsae.files import write_json
    from jaxsae.text.samples import check_samples

    require(args.samples >= 1, f"samples must be at least 1, got {args.samples}")
    if inputs.is_pytorch(args):
        print(f"passed   {args.checkpoint} is run by PyTorch itself: there is nothing to compare")
        if args.json:
            write_json(args.json, {"layers": [], "passed": True, "samples": 0})
        return 0
    config = inputs.data_config(args, max_samples=args.samples)
    runtime.select_device("cpu")  # PyTorch's side runs there too
    from convert.checkpoints import Checkpoint
    from convert.reference_process import ReferenceProcess
    from convert.verify import cross_check

    with ReferenceProcess() as process:
        checkpoint = inputs.checkpoint(config)
        assert isinstance(checkpoint, Checkpoint)
        layers, hook = arguments.points_of(args, range(checkpoint.config.n_layers), usual="all")
        for layer in layers:
            checkpoint.config.check_layer(layer)
        samples = inputs.text(config, checkpoint.config)
        check_samples(samples, checkpoint.config.tokenizer, checkpoint.config.max_position)
        if args.reference:
            print(f"running your own code: {args.reference}")
        model = checkpoint.model(hook=hook)
        asked = process.ask(checkpoint, samples, layers, config.padding, args.reference, str(hook))
        checks = cross_check(model, checkpoint, samples, layers, config.padding, asked=asked)

    title = f"JAX and PyTorch over {checks[0].positions:,} real positions, padding {config.padding}"
    columns = ["layer", "verdict", "max |J-P|", "RMS J-P", "RMS J-f64", "RMS P-f64", "RMS ratio"]
    columns += ["max J-f64", "max P-f64", "max ratio"]
    rows = []
    for check in checks:
        pairs = [
            (check.ours_to_float64, check.torch_to_float64),
            (check.ours_to_float64_max, check.torch_to_float64_max),
        ]
        cells = [f"{x:.2e}" for x in (check.max_abs, check.rms)]
        for ours, theirs in pairs:
            cells += [f"{ours:.2e}", f"{theirs:.2e}", f"{ours / theirs:.2f}" if theirs else "-"]
        rows.append([check.layer, "ok" if check.passed else "FAILED", *cells])
    terminal.print_table(title, columns, rows, key=2)
    passed = all(check.passed for check in checks)
    print("passed" if passed else "failed", "(limits: 3 x PyTorch's own distance from float64 in RMS, 4 x in maximum)")
    if args.json:
        layers_json = [{**dataclasses.asdict(check), "passed": check.passed} for check in checks]
        report = {"layers": layers_json, "passed": passed, "padding": config.padding, "samples": len(samples)}
        write_json(args.json, report)
    return 0 if passed else 1


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_config(DataConfig, only=("checkpoint", "vocab", "dataset", "split", "padding"))
    arguments.add_layers(parser, usual="all")
    parser.add_argument("--samples", type=int, default=4, help="the first N samples")
    parser.add_argument(
        "--reference",
        metavar="FILE.py",
        help="your own RestorationConfig and RestorationModel, or AeneasConfig and AeneasForMLM; this RUNS the file",
    )
    parser.add_output("--json", "also write the table as JSON; - is standard output")
