"""Which model, text and rows a command reads: decided here for all of them. Imports neither JAX nor torch itself."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from jaxsae.cli import arguments, terminal
from jaxsae.config import DEMO, DEMO_TEXT, DataConfig
from jaxsae.errors import require
from jaxsae.models.hooks import Hook

if TYPE_CHECKING:
    from convert.stored import AnyCheckpoint, AnyConfig
    from jaxsae.activations.store import Store
    from jaxsae.models.protocol import ModelShape
    from jaxsae.text.samples import Samples

T = TypeVar("T")

DEFAULT_USER_PATHS = {"checkpoint": "models/torso_restoration/best_model.pt", "dataset": "data/restoration_dataset"}
"""Where the original scripts' guide has the user's model and text, seen from the folder in which it is run."""


GET_TORCH = "pip install 'jaxsae[torch]', or in a clone '.[torch]'"
"""How to come by what models are compared with."""


def has_torch() -> bool:
    """Whether PyTorch is installed; it is not loaded."""
    return importlib.util.find_spec("torch") is not None


class ModelAndText(NamedTuple):
    """Paths of a model, of a dataset of its own, and of a vocabulary where one is given."""

    checkpoint: str
    dataset: str | None
    vocab: str | None


def data_config(args: argparse.Namespace, **defaults: Any) -> DataConfig:
    """What the flags say; where they name no model and text, the user's own in the guide's places, else the demo's.

    Which it is, is printed: figures of the demo are not to be taken for the user's.
    """
    missing = [name for name in DEFAULT_USER_PATHS if not hasattr(args, name)]
    require(
        bool(missing) or not (_is_dataset(args.checkpoint) and args.dataset.endswith(".pt")),
        "--checkpoint must be a model and --dataset text, got each in place of the other; exchange them",
    )
    here = [name for name in missing if Path(DEFAULT_USER_PATHS[name]).exists()]
    say = functools.partial(terminal.print_wrapped, indent=9)
    flags = " and ".join(f"--{name}" for name in missing)
    if missing and here == missing:
        defaults |= {name: DEFAULT_USER_PATHS[name] for name in here}
        say(f"note     no {flags} given: {' and '.join(DEFAULT_USER_PATHS[name] for name in here)} of this folder")
    elif len(missing) == 2:
        only = f" (this folder has {DEFAULT_USER_PATHS[here[0]]} alone)" if here else ""
        say(f"note     no {flags} given: this is the embedded demo, not your model{only}")
    elif missing == ["dataset"] and not is_demo(args.checkpoint, "best_model.pt"):
        say("note     no --dataset given: the text is the embedded demo's, not that of your model")
    elif missing == ["checkpoint"] and not is_demo(args.dataset, "dataset") and not is_rows(args.dataset):
        say("note     no --checkpoint given: the model is the embedded demo's, not yours")
    return arguments.config_from(args, DataConfig, **defaults)


def _is_dataset(path: str) -> bool:
    """Whether it is a dataset, by what its folder holds or its name ends in."""
    return (Path(path) / "dataset_dict.json").exists() or Path(path).suffix in (".json", ".jsonl", ".parquet")


def note_whose(args: argparse.Namespace, data: DataConfig) -> None:
    """Say once more, below the results, where the model or the text is the demo's because no flag named another."""
    model, text = is_demo(data.checkpoint, "best_model.pt"), is_demo(data.dataset, "dataset")
    if model and not hasattr(args, "checkpoint"):
        print("note     these are features of the embedded demo; --checkpoint and --dataset name your model and text")
    elif text and not model and not hasattr(args, "dataset"):
        print("note     your model was read on the embedded demo's generated text; --dataset names its own")


def model_and_own_text(args: argparse.Namespace) -> ModelAndText:
    """The model that the flags say, and text of the kind that it was trained on; as `data_config`, which is printed.

    A model that is given alone has none: the demo's text is not its own.
    """
    if not has_own_text(args):
        return ModelAndText(args.checkpoint, None, getattr(args, "vocab", None))
    data = data_config(args)
    require(not is_rows(data.dataset), f"--dataset must be text here, got stored rows in {data.dataset}")
    return ModelAndText(data.checkpoint, data.dataset, data.vocab)


def has_own_text(args: argparse.Namespace) -> bool:
    """Whether there is text of the model: none is that of a model other than the demo's which is given alone."""
    alone = hasattr(args, "checkpoint") and not hasattr(args, "dataset")
    return not alone or is_demo(args.checkpoint, "best_model.pt")


def own_text(args: argparse.Namespace, data: DataConfig) -> str | None:
    """The dataset of the model's own text, the first if there are several; None: none is known."""
    return paths_of(data.dataset)[0] if has_own_text(args) else None


def is_demo(path: str | Path, what: Literal["best_model.pt", "dataset"]) -> bool:
    """Whether a path, as it is written or wherever it leads, is that of a part of the embedded demo."""
    folder = DEMO_TEXT if what == "dataset" else DEMO
    return Path(path).resolve() == (folder / what).resolve()


def paths_of(dataset: str) -> list[str]:
    """The datasets or stores that `--dataset` names: one, or several separated by commas."""
    from jaxsae.text.loading import paths_in

    return paths_in(dataset)


def is_rows(dataset: str) -> bool:
    """Whether `--dataset` names rows that were extracted before, rather than text."""
    from jaxsae.activations.rows import is_store

    return is_store(paths_of(dataset)[0])


def checkpoint(data: DataConfig | ModelAndText, say: Callable[[str], None] = print) -> AnyCheckpoint:
    """The model that `data` names, with the vocabulary that says what its ids stand for, where it needs one.

    That is the one given, or else the file beside the checkpoint, or beside the first dataset that has one; which it
    is, `say` is told.
    """
    from convert import read_checkpoint
    from convert.checkpoints import Checkpoint
    from convert.user_file import names_function

    if names_function(data.checkpoint):
        print(f"code     running your own code: {data.checkpoint}", flush=True)  # however quiet
    found = read_checkpoint(data.checkpoint, data.vocab)
    if not isinstance(found, Checkpoint):
        from convert.own_replica import OwnReplica

        say(f"{'own  ' if isinstance(found, OwnReplica) else 'hooks'}    {found.about}")
        return found
    name = found.family.vocabulary
    if name is None:
        return found
    for path in map(Path, paths_of(data.dataset) if data.dataset else []):
        beside = (path if path.is_dir() else path.parent) / name
        if found.vocabulary is None and beside.is_file():
            found = found.with_vocabulary(beside)
    missing = f"none found beside {data.checkpoint} or the dataset: signs are shown by their numbers (--vocab {name})"
    say(f"vocab    {found.vocabulary or missing}")
    return found


def require_tablets(found: AnyCheckpoint, command: str) -> None:
    """Raise `InputError` unless a model reads transliterations, character by character."""
    from jaxsae.text.pieces import of_tablets

    unit = found.config.tokenizer.unit
    require(
        of_tablets(found.config.tokenizer),
        f"{command} must have the restoration model, got one of {unit}s; see docs/models.md",
    )


def is_foreign(given: argparse.Namespace | DataConfig) -> bool:
    """Whether the model is of no known family: a PyTorch module that is read by hooks, or the user's own replica."""
    from convert.stored import is_foreign

    return is_foreign(getattr(given, "checkpoint", ""))


def read_at(found: T, hook: Hook, layers: Sequence[int]) -> tuple[T, Hook]:
    """The model as it is read at hook points, and these by their usual names: its config is of what stands there.

    Raises:
      InputError: a PyTorch module has no such places.
    """
    at = getattr(found, "at", None)
    if at is None:  # what JAX runs has one width, and is asked when it is made
        return found, hook
    hook = found.canonical(hook)  # type: ignore[attr-defined]
    return at(hook, layers), hook


HELD_OUT = "test"
"""The split that figures are of where no flag says which: neither the model nor an SAE is trained on it."""


def held_out(args: argparse.Namespace, data: DataConfig, shape: AnyConfig) -> DataConfig:
    """The test split where no flag says another one, or the validation split where the dataset has no test split."""
    path = paths_of(data.dataset)[0]
    if hasattr(args, "split") or is_rows(data.dataset) or not Path(path).exists():
        return data
    if shape.datasets.has_samples(path, HELD_OUT):
        return dataclasses.replace(data, split=HELD_OUT)
    terminal.print_wrapped(f"note     {path} has no test split: {data.split} is read", indent=9)
    return data


def text(data: DataConfig, shape: AnyConfig) -> Samples:
    """The samples that `data` names, of all its datasets, as a model of that shape reads them.

    The demo's are made where they are not there.
    """
    from jaxsae.demo import dataset

    paths = paths_of(data.dataset)
    require(
        not is_rows(data.dataset), f"--dataset must be text here, got stored rows in {paths[0]}; give their dataset"
    )
    for path in paths:
        dataset.ensure_demo(path)
    return shape.datasets.load_several(paths, data.split, data.max_samples)


def open_stored_rows(args: argparse.Namespace, data: DataConfig, layer: int, usual: int | None = None) -> Store:
    """The stored rows that `data` names, of which `layer` is one.

    Args:
      usual: samples whose rows are taken of each store where no flag says how many; None, or where it is not said of
        which samples rows are: all.

    Raises:
      InputError: flags that ask for other rows than these are.
    """
    from jaxsae.activations.store import open_stores

    paths, asked = paths_of(data.dataset), hasattr(args, "max_samples")
    found = open_stores(paths, layer, args.max_samples if asked else None)
    check_stored(args, found.about)
    if usual is not None and not asked and found.samples() is not None:
        found = open_stores(paths, layer, usual)
    return found


class ModelOfRows(NamedTuple):
    """What is known of a model of which there are only rows."""

    config: ModelShape
    identity: str | None
    sha256: str | None = None


def model_of_rows(args: argparse.Namespace, data: DataConfig, rows: Store) -> AnyCheckpoint | ModelOfRows:
    """The model that stored rows are of: the one given, or the demo's if they are its own; else what they say of it."""
    from jaxsae.activations.store import model_of

    said = model_of(rows.about)
    if hasattr(args, "checkpoint"):
        return checkpoint(data)
    if said is not None:
        demo = checkpoint(data)
        if said in (demo.identity, demo.sha256):
            return demo
    terminal.print_wrapped("note     no --checkpoint given: what the rows tell alone", indent=9)
    return ModelOfRows(rows.shape(), said)


def text_of_rows(model: AnyCheckpoint | ModelOfRows, rows: Store) -> Samples:
    """The text of stored rows, which must be of the model."""
    from jaxsae.activations.store import text_of

    if isinstance(model, ModelOfRows):
        return text_of(rows, model.identity)
    return text_of(rows, model.identity, model.sha256, model.config.tokenizer)


def check_stored(args: argparse.Namespace, about: Mapping[str, Any]) -> None:
    """Raise `InputError` where a flag says something else of stored rows than they do."""
    for name in ("split", "padding"):
        if hasattr(args, name):
            said, given = about.get(name), getattr(args, name)
            what = "which they do not say" if said is None else f"{said!r}"
            require(
                said == given,
                f"--{name} must be that of the stored rows, {what}, got {given!r}; leave it out, or extract others",
            )
