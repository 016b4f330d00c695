"""Convert an SAE between this project's .pt and the folders of SAELens, dictionary_learning and sparsify.

The features stay the same; what a format has no word for is refused. What IN is, is recognised.
"""

import argparse

from convert import FORMATS
from jaxsae.cli import arguments


def main(args: argparse.Namespace) -> None:
    """Convert one SAE."""
    from convert import convert_sae

    file = convert_sae(args.input, args.output, args.to)
    c, layer = file.config, file.extra.get("layer")
    fires = f", k {c.k}" if c.k else ", thresholds" if file.sae.threshold is not None else ""
    where = "" if layer is None else f", layer {layer}"
    print(
        f"read     {args.input}: {file.extra['source']['format']}, {c.architecture}{fires}, {c.d_in} x {c.d_sae:,}{where}"
    )
    print(f"wrote    {args.output}: {args.to}")


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_argument("input", metavar="IN", help="an SAE's .pt, or its folder of another library")
    parser.add_argument("output", metavar="OUT", help="the .pt or folder to write; must not exist")
    parser.add_argument("--to", choices=FORMATS, required=True, help="the format to write")
