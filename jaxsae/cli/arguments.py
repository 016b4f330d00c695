"""The flags of commands: made from the config dataclasses, with one-line errors that name them.

Imports neither JAX nor torch, so that `--help` is free.
"""

import argparse
import dataclasses
import itertools
import re
import shlex
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jaxsae.config import DEMO, DEMO_TEXT
from jaxsae.errors import InputError, one_line, require
from jaxsae.models import hooks
from jaxsae.models.hooks import HOOKS, Hook, hook_name, hook_point, numbered

T = TypeVar("T")
SUPPRESS: Any = argparse.SUPPRESS
DEFAULT_LAYER = "8"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Fills each paragraph of a description by itself, where argparse makes one of all; indented lines stay as is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        def fill(lines: Iterable[str]) -> str:
            return textwrap.fill(" ".join(lines), width, break_on_hyphens=False, break_long_words=False)

        blocks = itertools.groupby(text.strip().splitlines(), lambda line: not line or line[0].isspace())
        filled = ["\n".join(lines) if as_is else fill(lines) for as_is, lines in blocks]
        return textwrap.indent("\n".join(filled), indent)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        off = action.default is False or action.default in (None, [], argparse.SUPPRESS)  # which nobody would type
        if off or not action.option_strings or "default:" in (action.help or ""):
            return action.help
        return f"{action.help} (default: {as_typed(action.default)})"


def as_typed(default: object) -> str:
    """A default as a person would type it, or say it."""
    if isinstance(default, list | tuple):
        return ",".join(map(as_typed, default))
    if isinstance(default, float):
        return f"{default:.3g}"
    return "the demo's" if str(default).startswith((str(DEMO), str(DEMO_TEXT))) else str(default)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line, with `--debug` for tracebacks."""

    def __init__(self, description: str, prog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        self._texts: set[str] = set()
        self.outputs: list[str] = []
        """Names of the flags of `add_output`."""
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        """Status 2 and one line."""
        self.exit(2, one_line(f"error: {message}; see {self.prog} --help"))

    def add_output(self, flag: str, what: str) -> None:
        """Add a flag for a file to write; before the work begins it is seen that it can be, see `run`.

        Args:
          what: for the help.
        """
        self.outputs.append(flag.removeprefix("--").replace("-", "_"))
        self.add_argument(flag, metavar="OUT", help=what)

    def add_text(self, flag: str, **options: Any) -> None:
        """Add a flag whose value may begin with a hyphen, such as `--pattern -ak`."""
        self._texts.add(flag)
        self.add_argument(flag, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As usual, but that a flag of `add_text` takes what follows as it is."""
        words, joined = list(sys.argv[1:] if args is None else args), []
        while words:
            word = words.pop(0)
            joined.append(f"{word}={words.pop(0)}" if word in self._texts and words else word)
        return super().parse_known_args(joined, namespace)

    def with_flags(self, message: str) -> str:
        """An error of the library as the command line says it: settings, which it names as Python does, by their flags.

        `resume=True` becomes `--resume`, `device=cpu` `--device cpu`, `k_sparse` `--k-sparse`; a word that may be plain
        English stays.
        """
        for action in self._actions:
            if flags := [flag for flag in action.option_strings if flag.startswith("--")]:
                name = re.escape(action.dest)
                message = re.sub(rf"\b{name}=True\b", flags[0], message)
                message = re.sub(rf"\b{name}=(?=\w)", f"{flags[0]} ", message)
                if "_" in action.dest:
                    message = re.sub(rf"(?<![\w./-]){name}(?![\w/-]|\.\w)", flags[0], message)
        return message

    def add_config(
        self,
        config: type,
        *,
        only: tuple[str, ...] = (),
        names: dict[str, tuple[str, ...]] | None = None,
        lists: tuple[str, ...] = (),
        several: tuple[str, ...] = (),
        **defaults: Any,
    ) -> None:
        """Add a flag for each field of a config dataclass, or for those in `only`; `defaults` differ from the field's.

        `names` gives a field other flags than its own name; the fields in `lists` take several values, parted by
        commas, and become lists of (as typed, value); those in `several` take several words, and become lists of them.

        A flag that is not given leaves no attribute: the dataclass knows its default.
        """
        hints = typing.get_type_hints(config)
        for field in dataclasses.fields(config):
            if only and field.name not in only:
                continue
            kind, options = hints[field.name], dict(field.metadata)
            if isinstance(kind, types.UnionType):
                kind = next(part for part in typing.get_args(kind) if part is not type(None))
            if typing.get_origin(kind) is typing.Literal:
                options.setdefault("choices", typing.get_args(kind))
                kind = str
            also = options.pop("also", ())
            default = defaults.get(field.name, options.pop("shown", field.default))
            default = "off" if default is None or default is False else as_typed(default)
            options["help"] = f"{options['help']} (default: {default})"
            how = {"action": "store_true"} if kind is bool else {"type": kind}
            if field.name in lists:
                how, options["metavar"] = {"type": _several(kind)}, "N[,N...]"
            if field.name in several:
                how["nargs"] = "+"
            flags = (names or {}).get(field.name, (f"--{field.name.replace('_', '-')}",))
            self.add_argument(*flags, *also, **{**how, "dest": field.name, "default": SUPPRESS, **options})


def _several(kind: Callable[[str], Any]) -> Callable[[str], list[tuple[str, Any]]]:
    """A parser of values separated by commas: [(as typed, value), ...]."""

    def parse(text: str) -> list[tuple[str, Any]]:
        values = [(part.strip(), kind(part)) for part in text.split(",")]
        if len({value for _, value in values}) < len(values):
            raise argparse.ArgumentTypeError(f"values must differ, got {text}")
        return values

    parse.__name__ = kind.__name__  # what argparse calls it in its error
    return parse


def config_from(args: argparse.Namespace, config: Callable[..., T], **defaults: Any) -> T:
    """The config dataclass from the flags that were given; `defaults` where they differ from the fields' own."""
    names = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    return config(**defaults | {name: value for name, value in vars(args).items() if name in names})


def layers_of(text: str, every: Sequence[int]) -> list[int]:
    """`8`, several separated by commas, or `all`, which is `every`; a layer may be said by a hook's name."""
    if text == "all":
        return list(every)
    found = [layer_number(part) for part in text.split(",")]
    layers = [layer for layer in found if layer is not None]
    require(len(layers) == len(found), f"layer must be a number, several separated by commas, or all, got {text}")
    require(min(layers) >= 0, f"layer must be at least 0, got {min(layers)}")
    require(len(set(layers)) == len(layers), f"layers must differ, got {text}")
    return layers


def points_of(args: argparse.Namespace, every: Sequence[int], usual: str = DEFAULT_LAYER) -> tuple[list[int], Hook]:
    """What `--layer` and `--hook` say: layers, and where these are read.

    Raises:
      InputError: they are no layers, or the two contradict each other.
    """
    hook, text = getattr(args, "hook", None), getattr(args, "layer", None)
    if hook is not None and hook not in (*HOOKS, "hidden_states"):
        names = numbered(hook.split(","))
        return (list(names) if text is None else layers_of(text, list(names))), names
    text = usual if text is None else text
    kinds = {point.hook for part in text.split(",") if (point := hook_point(part.strip()))}
    kinds |= {hook} if hook is not None else set()
    require(len(kinds) <= 1, f"--layer and --hook must say one kind of place, got {' and '.join(sorted(kinds))}")
    return hooks.points_of(layers_of(text, every), kinds.pop() if kinds else HOOKS[0])


def layer_number(text: str) -> int | None:
    """`8`, or `blocks.8.hook_resid_post` -> 8; None: neither of them."""
    text = text.strip()
    point = hook_point(text)
    return int(text) if text.removeprefix("-").isdecimal() else point.layer if point else None


def add_layers(parser: Parser, usual: str = DEFAULT_LAYER) -> None:
    """Add `--layer`, with what it is where it is not given, and `--hook`."""
    parser.add_argument(
        "--layer",
        default=SUPPRESS,
        metavar="L[,L...]",
        help=f"0-based number of a block; several, or all (default: {usual})",
    )
    parser.add_argument(
        "--hook",
        default=SUPPRESS,
        metavar="PLACE",
        help="where a block is read: resid_post, after it; resid_pre, before it; attn_out and mlp_out, what its parts add; "
        "hidden_states, where layers count the embedding as 0; or modules of a PyTorch model by their names, separated "
        "by commas (default: resid_post)",
    )


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """A parser of a flag's value from one that raises `InputError`."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def one_layer(text: str) -> int:
    """As `layer_number`, for a flag that takes one layer."""
    layer = layer_number(text)
    if layer is None:
        raise argparse.ArgumentTypeError(f"must be a number or a hook such as {hook_name(8)}, got {text}")
    return layer


def typed(args: argparse.Namespace, name: str, *words: object) -> str:
    """Another command on the same model and text, to be typed as it stands there.

    Args:
      name: of the command, such as `inspect`, and `words`: its other flags.
    """
    script, python = Path(sys.argv[0]), Path(sys.executable)
    here = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else Path("python")
    scripts = {"inspect": "inspect_sae.py"}
    in_a_clone = script.suffix == ".py" and script.with_name(scripts[name]).exists()
    command = [str(here), str(script.with_name(scripts[name]))] if in_a_clone else ["jaxsae", name]
    given = ((flag, getattr(args, flag, None)) for flag in ("checkpoint", "vocab", "dataset"))
    flags = [word for flag, value in given if value is not None for word in (f"--{flag}", value)]
    return shlex.join([*command, *flags, *map(str, words)])


def add_device(parser: Parser) -> None:
    """Add `--device`."""
    choices = ("cpu", "gpu", "cuda", "tpu", "auto", "mps")
    parser.add_argument("--device", choices=choices, default="cpu", help="what JAX runs on; cuda means gpu")


def add_other_model(parser: Parser) -> None:
    """Add `--other-model`."""
    what = "take an SAE that was trained on another model than the one given, and only say so"
    parser.add_argument("--other-model", action="store_true", help=what)
