"""The command `jaxsae`: its subcommands, each a module of this package, and how one is run.

Imports neither JAX nor torch, nor do the modules of commands before they run, so that `--help` is free.
"""

import importlib
import sys
from typing import NoReturn

from jaxsae.cli import process
from jaxsae.cli.arguments import Parser
from jaxsae.errors import InputError

COMMANDS = {
    "train": "train sparse autoencoders on a model's residual stream",
    "evaluate": "evaluate SAE files on held-out text",
    "inspect": "what an SAE's features mean: tables, pictures, a page",
    "compare": "two models or SAEs side by side: features, concepts",
    "restore": "fill the gaps of damaged text",
    "explain": "why a damaged place is restored as it is: words and latents",
    "parallels": "passages of a corpus that share latents with a text",
    "serve": "the page of inspect, alive: restores and explains a text",
    "verify": "compare every layer's activations with PyTorch hooks",
    "extract": "write the rows of one or more layers to disk",
    "prepare": "raw fragments -> a dataset: clean, damage, split",
    "convert-sae": "an SAE: this project's .pt <-> other libraries' folders",
    "convert-weights": "a model: .pt <-> Orbax folder, bit for bit",
    "train-model": "train a restoration model on damaged text",
}
"""Subcommand -> what it does, in one line."""


LIST = "\n".join(f"  {name:<17}{what}" for name, what in COMMANDS.items())
HELP = f"""usage: jaxsae COMMAND [FLAGS]
       jaxsae [--help | --version]

Train sparse autoencoders on a PyTorch transformer, and read what it learned.

{LIST}

`jaxsae COMMAND --help` lists a command's flags.
"""


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
    """The installed command: `jaxsae COMMAND ...`; alone or with `--help`, the list of commands."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        del sys.argv[1]
        run_command(name, prog=f"jaxsae {name}")
    del sys.argv[1:]
    process.run(lambda args: answer(name), Parser(prog="jaxsae", description=""))


def answer(word: str) -> None:
    """Print what the first word asks for where it is no command.

    Raises:
      InputError: it asks for nothing that is here.
    """
    if word in ("--help", "-h"):
        print(HELP, end="")
    elif word == "--version":
        from importlib.metadata import version

        print(f"jaxsae {version('jaxsae')}")
    else:
        raise InputError(f"the command must be one of {', '.join(COMMANDS)}, got {word}")
