"""Samples by the path of a dataset: a `save_to_disk` folder, or a file of fragments that is prepared first."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from jaxsae.errors import InputError, listed, require
from jaxsae.files import absent, sha256, sha256_of
from jaxsae.text import preparation
from jaxsae.text.arrow import is_one_split, load_columns, split_files, split_names
from jaxsae.text.fragments import read_fragments
from jaxsae.text.samples import COLUMNS, NAMES, Samples, as_samples, joined

DEFAULT_SEED = 42
"""The original preprocessing's seed; it prepares a `fragments.json` that is given where a dataset is expected."""


@runtime_checkable  # for the tests, which check the types of arguments
class Datasets(Protocol):
    """How the datasets of a family of models are read; this module does so for models of characters."""

    def load_several(
        self, paths: Sequence[str | Path], split: str = "validation", max_samples: int | None = None
    ) -> Samples:
        """The first `max_samples` samples of a split of each, one after another."""

    def has_samples(self, path: str | Path, split: str) -> bool:
        """Whether a dataset has that split, with a sample in it, and not for being taken whole."""

    def fingerprint(self, path: str | Path) -> str:
        """SHA-256 of a dataset's content."""


def load_samples(path: str | Path, split: str = "validation", max_samples: int | None = None) -> Samples:
    """Read the first `max_samples` samples of a split, in order; all where there are fewer, or with None.

    Args:
      path: a `save_to_disk` folder (of a DatasetDict, or of one split), or a file that `read_fragments` reads; that is
        prepared with seed 42.
      split: `train`, `validation`, `test`, or another split of the folder. A split that was saved alone and does not
        say its name is taken for the one asked for.

    Raises:
      InputError: no such file or split, no samples in it, or not such data.
    """
    path = Path(path)
    if path.is_dir():
        columns = load_columns(path, split, list(COLUMNS), max_samples, also=NAMES)
    elif path.is_file():
        splits = prepare_file(path, DEFAULT_SEED)
        require(split in splits, f"split must be one of {listed(splits)}, got {split!r}")
        columns = {name: column[:max_samples] for name, column in splits[split].items()}
    else:
        raise InputError(f"dataset must be a save_to_disk folder or a fragments.json, got {path}: {absent(path)}")
    require(len(columns["input_ids"]) > 0, f"a split must have samples, got none in {split!r} of {path}")
    return as_samples(columns, path)


def load_several(paths: Sequence[str | Path], split: str = "validation", max_samples: int | None = None) -> Samples:
    """`load_samples` of each, one after another; at most `max_samples` of each."""
    return joined([load_samples(path, split, max_samples) for path in paths])


def paths_in(text: str) -> list[str]:
    """The paths in a list with commas between them; where a path with a comma in its name exists, that is one path."""
    paths: list[str] = []
    rest = text.split(",")
    while rest:
        existing = [n for n in range(1, len(rest) + 1) if Path(",".join(rest[:n])).exists()]
        n = existing[-1] if existing else 1
        paths.append(",".join(rest[:n]))
        rest = rest[n:]
    return paths


def has_samples(path: str | Path, split: str) -> bool:
    """Whether a dataset has that split, with a sample in it. A folder of one split has no others."""
    path = Path(path)
    if path.is_file():
        return True
    if is_one_split(path) or split not in split_names(path):
        return False
    return len(load_columns(path, split, list(COLUMNS), 1)["input_ids"]) > 0


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a dataset's content: of a file, or of the files that a folder's splits name. Links are followed."""
    path = Path(path)
    if path.is_file():
        return sha256(path)
    parts = []
    for split in [""] if is_one_split(path) else split_names(path):
        if not (path / split / "state.json").exists():
            continue  # whoever asks for that split gets the error
        for kind, files in split_files(path / split)._asdict().items():
            for name, skip, take in files:
                parts.append((f"{split}/{kind}/{name}/{skip}/{take}", path / split / name))
    return sha256_of((name, file) for name, file in parts if file.exists())


def prepare_file(path: str | Path, seed: int, text_column: str = "atf") -> dict[str, dict[str, np.ndarray]]:
    """`prepare_splits` of a file of fragments, with their names.

    Raises:
      InputError: as `read_fragments`.
    """
    fragments = read_fragments(path, text_column)
    return prepare_splits([one.text for one in fragments], seed, [one.name for one in fragments])


def prepare_splits(texts: Iterable[str], seed: int, names: Sequence[str] = ()) -> dict[str, dict[str, np.ndarray]]:
    """Split name -> column name -> array [n, 768], as the original preprocessing makes them with `seed`.

    Args:
      texts: cleaned, none of them empty.
      names: what each is called, in the column `_id` [n]; none, where they have no names.
    """
    columns = preparation.prepare(texts, seed)
    if any(names):
        columns[NAMES] = np.array(names, object)
    rows_of = preparation.split_indices(len(columns["input_ids"]), seed)
    return {split: {name: column[rows] for name, column in columns.items()} for split, rows in rows_of.items()}
