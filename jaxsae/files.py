"""Files that appear whole or not at all, and their fingerprints."""

import codecs
import contextlib
import difflib
import fcntl
import glob
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxsae.errors import InputError, require

MARK = "part-"
"""In the names of what is not yet whole."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A path to write a file or a folder to; on leaving, it takes the name `path`, on an error it is removed.

    It lies beside `path`, so that the renaming is one step of the file system. An older file is replaced, an older
    folder is not (`OSError`). What a killed process has left of the same is removed. Of a link, what it points to is
    replaced; what is neither a file nor a folder, such as a device or a pipe, is written to.
    """
    path = Path(path)
    if is_special(path):
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / path.name
            yield made
            with made.open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
        return
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    with temporary_beside(path) as folder:
        yield folder / path.name
        os.replace(folder / path.name, path)


def absent(path: str | Path) -> str:
    """What is said of a path where nothing is: that there is nothing, and what was perhaps meant."""
    path = Path(path)
    missing = next((folder for folder in reversed(path.parents) if not folder.is_dir()), None)
    if missing is not None:
        return f"no such file: there is no folder {missing}"
    with contextlib.suppress(OSError):
        there = sorted(one.name for one in path.parent.iterdir())
        for name in difflib.get_close_matches(path.name, there, n=1):
            return f"no such file; is {path.parent / name} meant?"
    return "no such file"


def is_special(path: Path) -> bool:
    """Whether it is there, and neither a file nor a folder; or a name by which the system gives what is open."""
    if (
        len(path.parts) > 2
        and path.parts[0] == "/"
        and path.parts[1] in ("dev", "proc")
        and path.parts[2:3] != ("shm",)
    ):
        return path.exists()  # `/dev/stdout` may well be a file, but not one to put another in place of
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_output(path: str | Path, what: str, inputs: Iterable[str | Path] = ()) -> None:
    """Check that a file can be written there, before the work that fills it is done.

    Args:
      what: what it is called in errors, such as a flag.
      inputs: files that are read.

    Raises:
      InputError: a folder, a name that cannot be, a place that cannot be written to, or one of the inputs.
    """
    path = Path(path)
    try:
        require(not path.is_dir(), f"{what} must be a file, got the folder {path}; add a name to it")
        path.lstat()  # raises where the name is too long
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"{what} must be a file that can be written, got {str(path)[:80]!r}: {reason}; give another name"
        ) from None
    if is_special(path):
        return
    target = Path(os.path.realpath(path))
    folder = next(parent for parent in target.parents if parent.exists())
    require(folder.is_dir(), f"{what} must be in a folder, got {path}, and {folder} is none; give another")
    require(os.access(folder, os.W_OK | os.X_OK), f"{what} must be where one may write, got {path}; give another place")
    for other in inputs:
        same = target.is_file() and Path(other).is_file() and target.samefile(other)
        require(not same, f"{what} must not be a file that is read, got {path}; give another name")


@contextlib.contextmanager
def temporary_beside(path: str | Path) -> Iterator[Path]:
    """A folder beside `path` that exists within the block; those that killed processes have left are removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left(path)
    folder = Path(tempfile.mkdtemp(prefix=f".{_short(path)}.{MARK}", dir=path.parent))
    with _locked(folder) as descriptor:
        try:
            yield folder
        finally:
            # not while another process shares it and still reads it: `remove_left` does, when that has ended
            with contextlib.suppress(BlockingIOError):
                _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


def remove_left(path: Path) -> None:
    """Remove what killed processes have left of `temporary_beside` the path, and what is no longer shared."""
    for left in path.parent.glob(f".{glob.escape(_short(path))}.{MARK}*"):
        with contextlib.suppress(OSError), _locked(left):  # a living process holds a lock on its own
            shutil.rmtree(left, ignore_errors=True)


def _short(path: Path) -> str:
    return path.name if len(path.name.encode()) <= 180 else hashlib.sha256(path.name.encode()).hexdigest()


@contextlib.contextmanager
def exclusive(folder: str | Path) -> Iterator[None]:
    """A folder, made where there is none, that no other process claims until the block is left or this one dies.

    Raises:
      InputError: another has claimed it.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with _one_run(folder):
            descriptor = held.enter_context(_locked(folder))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # not empty, for something was written; or shared with another process
                _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for path in made:
                    path.rmdir()


@contextlib.contextmanager
def shared(folder: str | Path) -> Iterator[None]:
    """A folder that other processes claim as this one does, and none alone, until the block is left or this one dies.

    What this process had claimed alone, by `exclusive` or `temporary_beside`, it shares from here on.

    Raises:
      InputError: another has claimed it alone.
    """
    mine = _claims.get(os.path.realpath(folder))
    with contextlib.ExitStack() as held:
        with _one_run(Path(folder)):
            if mine is None:
                held.enter_context(_locked(Path(folder), fcntl.LOCK_SH | fcntl.LOCK_NB))
            else:
                _lock(mine, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


@contextlib.contextmanager
def _one_run(folder: Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        raise InputError(
            f"one run at a time may write to {folder}, another does; wait for it or give another folder"
        ) from None


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process is within the same of an existing folder."""
    with _locked(folder, fcntl.LOCK_EX):
        yield


LOCK = ".lock"
"""In a folder that cannot be locked itself, the file that is locked in its place."""
_claims: dict[str, int] = {}
"""Folder -> the descriptor by which this process has claimed it alone."""


@contextlib.contextmanager
def _locked(folder: Path, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> Iterator[int]:
    """Gives the descriptor of the lock, of which the system lets go when the process ends, however it ends.

    Raises:
      BlockingIOError: another process holds it.
    """
    descriptor, key = _open_locked(folder, how), os.path.realpath(folder)
    alone = bool(how & fcntl.LOCK_EX)
    try:
        if alone:
            _claims[key] = descriptor
        yield descriptor
    finally:
        if alone:
            _claims.pop(key, None)
        os.close(descriptor)


def _open_locked(folder: Path, how: int) -> int:
    """Network file systems may lock only what is open for writing, which a folder never is: then a file in it."""
    found = None if (folder / LOCK).exists() else _opened(folder, os.O_RDONLY, how)
    with contextlib.suppress(PermissionError):  # where one may only read, nothing is to be guarded
        found = found or _opened(folder / LOCK, os.O_RDWR | os.O_CREAT, how)
    # where even a file cannot be locked, there is no guard
    return found or os.open(folder, os.O_RDONLY)


def _opened(path: Path, flags: int, how: int) -> int | None:
    """The descriptor of a path that is locked; None where the file system cannot lock it."""
    descriptor = os.open(path, flags, 0o666)
    locked = False
    try:
        locked = _lock(descriptor, how)
    finally:
        if not locked:
            os.close(descriptor)
    return descriptor if locked else None


def _lock(descriptor: int, how: int) -> bool:
    """Whether the file system can lock it.

    Raises:
      BlockingIOError: another process holds it.
    """
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def check_room(folder: Path, size: int) -> None:
    """Raise `OSError` where a file of so many bytes cannot be written in `folder`; where that can be asked."""
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that no half of it is ever left under its name."""
    if folder.exists():
        with temporary_beside(folder) as out:
            os.replace(folder, out / folder.name)


def read_text(path: Path, what: str = "text") -> str:
    """A text file in UTF-8, with or without a byte order mark, or in UTF-16 where such a mark says so.

    Args:
      what: must be there, for the error.

    Raises:
      InputError: neither of them.
      OSError: no such file, or it cannot be read.
    """
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: must be {what} in UTF-8, got {error.reason} in line {line}") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      InputError: not JSON in UTF-8, or an object with a key twice: it would not be known which one is meant.
      FileNotFoundError: no such file.
    """
    try:
        return parse_json(read_text(path, "JSON"))
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None


def parse_json(text: str) -> Any:
    """As `read_json`."""
    try:
        return json.loads(text, object_pairs_hook=_differing)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"must be JSON in UTF-8, got {error}") from None


def _differing(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise InputError(f"keys of a JSON object must differ, got {twice!r} twice")
    return found


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON as every reader takes it: a number that is not finite, for which JSON has no word, is null.

    What is neither a number, a text, a list nor an object is written as text.
    """
    return json.dumps(_finite(content), indent=indent, allow_nan=False, default=str)


def write_json(path: str | Path, content: Any, indent: int | None = 2) -> None:
    """Write `to_json` of something; the file appears whole or not at all."""
    with atomic_path(path) as aside:
        aside.write_text(to_json(content, indent), encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if hasattr(value, "tolist"):  # of NumPy
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256(path: str | Path) -> str:
    """Fingerprint of a file, hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(parts: Iterable[tuple[str, str | Path]]) -> str:
    """Fingerprint of (what it is called, file) pairs, hexadecimal. Links are followed: the content counts."""
    digest = hashlib.sha256()
    for name, path in parts:
        digest.update(f"{name}\0{sha256(path)}\n".encode())
    return digest.hexdigest()
