"""Tables as CSV files in a folder of their own, which appears whole or not at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxsae.cli.arguments import Parser
from jaxsae.errors import listed, require
from jaxsae.files import atomic_path, remove_folder

NAMES = ("features", "discoveries", "concepts", "matched", "gone", "new")
"""Of all such tables: a folder that holds nothing else may be replaced."""


class Table(NamedTuple):
    """Rows of cells below the names of their columns."""

    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]
    """Numbers as Python writes them, which gives the same ones back; nothing where a cell is None."""


def add_flag(parser: Parser, what: str) -> None:
    """Add `--csv`; `what`: the tables."""
    parser.add_argument("--csv", metavar="DIR", help=f"also write {what} as CSV files into this folder")


def check_folder(path: str | None) -> None:
    """Check that such a folder can be written, before the work that fills it is done.

    Raises:
      InputError: it holds something else, or it is in a place that cannot be written to.
    """
    if path is None:
        return
    folder = Path(os.path.realpath(path))
    require(folder.is_dir() or not folder.exists(), f"--csv must be a folder, got {path}, which is none; give another")
    others = sorted(one.name for one in folder.iterdir() if not _is_table(one)) if folder.exists() else []
    what = f"--csv must be a new folder, or one of such tables alone, got {path} with {listed(others)}"
    require(not others, f"{what}; give another name")
    parent = next(one for one in folder.parents if one.exists())
    may = parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)
    require(may, f"--csv must be where one may write, got {path}, but not into {parent}; give another place")


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix == ".csv" and path.stem in NAMES


def write(path: str, tables: Mapping[str, Table]) -> None:
    """Write each table as `<name>.csv`: UTF-8, a row of names first; an older folder of tables is replaced."""
    assert set(tables) <= set(NAMES)
    check_folder(path)
    folder = Path(os.path.realpath(path))
    with atomic_path(folder) as unfinished:
        unfinished.mkdir()
        for name, table in tables.items():
            with (unfinished / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(table.columns)
                writer.writerows(table.rows)
        remove_folder(folder)
    print(f"wrote    {path}: {', '.join(f'{name}.csv' for name in tables)}")
