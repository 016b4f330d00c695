"""Files that appear whole or not at all, and their fingerprints."""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxsae.config import InputError

MARK = "part-"
"""In the names of what is not yet whole."""


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A path to write a file or a folder to; on leaving, it takes the name `path`, on an error it is removed.

    It lies beside `path`, so that the renaming is one step of the file system. An older file is replaced, an older
    folder is not (`OSError`). What a killed process has left of the same is removed.
    """
    path = Path(path)
    with aside(path) as folder:
        yield folder / path.name
        os.replace(folder / path.name, path)


@contextlib.contextmanager
def aside(path: str | Path) -> Iterator[Path]:
    """A folder beside `path` that exists within the block; those that killed processes have left are removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.{MARK}*"):
        with contextlib.suppress(OSError), _locked(left):  # a living process holds a lock on its own
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.{MARK}", dir=path.parent))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def claimed(folder: str | Path) -> Iterator[None]:
    """A folder, made where there is none, that no other process claims until the block is left or this one dies.

    Raises:
      InputError: another has claimed it.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(_locked(folder))
            except BlockingIOError:
                raise InputError(
                    f"one run at a time may write to {folder}, another does; wait for it or give another folder"
                ) from None
            yield
    finally:
        with contextlib.suppress(OSError):  # not empty: something was written
            for path in made:
                path.rmdir()


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Wait until no other process is within the same of an existing folder."""
    with _locked(folder, wait=True):
        yield


@contextlib.contextmanager
def _locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """The system lets go of the lock when the process ends, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:  # some network file systems lock no folders
            pass
        yield
    finally:
        os.close(descriptor)


def check_room(folder: Path, size: int) -> None:
    """Raise `OSError` where a file of so many bytes cannot be written in `folder`; where that can be asked."""
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)


def remove(folder: Path) -> None:
    """Remove a folder so that no half of it is ever left under its name."""
    if folder.exists():
        with aside(folder) as out:
            os.replace(folder, out / folder.name)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      InputError: not JSON in UTF-8, or an object with a key twice: it would not be known which one is meant.
      FileNotFoundError: no such file.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be JSON in UTF-8, got {error}") from None


def parse_json(text: str) -> Any:
    """As `read_json`."""
    try:
        return json.loads(text, object_pairs_hook=_differing)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"must be JSON in UTF-8, got {error}") from None


def _differing(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise InputError(f"keys of a JSON object must differ, got {twice!r} twice")
    return found


def sha256(path: str | Path) -> str:
    """Fingerprint of a file, or of a folder's files with their names; hexadecimal."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file_path.relative_to(path).as_posix()}\0{sha256(file_path)}\n".encode())
    return digest.hexdigest()
