"""Convert a model: PyTorch .pt to a folder (Orbax), or such a folder back to a .pt, bit for bit."""

import argparse
from pathlib import Path

from jaxsae.cli import arguments


def main(args: argparse.Namespace) -> None:
    """One direction or the other, by what `input` is."""
    from convert import checkpoints

    if Path(args.input).is_dir():
        checkpoints.to_pt(args.input, args.output)
    else:
        checkpoints.to_folder(args.input, args.output)
    print(f"wrote {args.output}")


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_argument("input", metavar="IN", help="a PyTorch .pt, or the folder that one was converted to")
    parser.add_argument("output", metavar="OUT", help="the folder or .pt to write; must not exist")
