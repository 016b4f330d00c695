"""The command `jaxsae`: its subcommands, each a module of this package, and how one is run.

Imports neither JAX nor torch, nor do the modules of commands before they run, so that `--help` is free.
"""

import importlib
import sys
from typing import NoReturn

from jaxsae.cli import process
from jaxsae.cli.arguments import Parser
from jaxsae.cli.terminal import prepare_streams
from jaxsae.errors import one_line

COMMANDS = {
    "train": "train sparse autoencoders on the residual stream of one or more layers",
    "evaluate": "rate SAE files on held-out text",
    "inspect": "what an SAE's features mean: tables, pictures, a page",
    "verify": "compare every layer's activations with PyTorch hooks",
    "extract": "write the rows of one or more layers to disk",
    "prepare": "raw fragments -> a dataset: clean, damage, split",
    "convert-sae": "an SAE between this project's .pt and other libraries' folders",
    "convert-weights": "a restoration model: PyTorch .pt <-> Orbax folder, bit for bit",
    "train-model": "train a restoration model on damaged text",
}
"""Subcommand -> what it does, in one line."""


def run_command(name: str, prog: str | None = None) -> NoReturn:
    """Run a subcommand on the arguments of this process, and exit with its status.

    Args:
      prog: what the program is called in its messages; the name of the script, if not given.
    """
    module = importlib.import_module(f"jaxsae.cli.{name.replace('-', '_')}")
    parser = Parser(module.__doc__ or "", prog=prog)
    module.add_flags(parser)
    process.run(module.main, parser)


def main() -> NoReturn:
    """The installed command: `jaxsae COMMAND ...`; alone or with `--help`, the commands."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        del sys.argv[1]
        run_command(name, prog=f"jaxsae {name}")
    prepare_streams()
    if name not in ("--help", "-h"):
        sys.stderr.write(one_line(f"error: the command must be one of {', '.join(COMMANDS)}, got {name}"))
        sys.exit(2)
    print("usage: jaxsae COMMAND [--help] [FLAGS]\n")
    print("Train sparse autoencoders on a PyTorch transformer, and read what it learned.\n")
    for command, what in COMMANDS.items():
        print(f"  {command:<16} {what}")
    print("\n`jaxsae COMMAND --help` tells its flags.")
    sys.exit(0)
