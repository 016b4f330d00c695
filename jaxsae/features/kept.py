"""What a pass over the text found, kept beside the SAE: a second question about it reads that in place of the text.

`.jaxsae_cache/<name of the SAE's file>.kept/<part>.safetensors` holds arrays, and in its header what JSON can say, the
key of all that the figures were computed from, and a checksum. A file that is damaged, or of another key, is as good as
none and is replaced. Nothing in a file is ever run.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import safetensors
import safetensors.numpy

from jaxsae.files import atomic_path
from jaxsae.runtime import cache_folder
from jaxsae.sae.autoencoder import SAE, identity
from jaxsae.text.pieces import of_tablets
from jaxsae.text.samples import Samples

T = TypeVar("T")
FOLDER = ".jaxsae_cache"
MOST_BYTES = 200_000_000
"""A part that is larger is not kept."""
PACKAGE = Path(__file__).parents[1]


class Stored(NamedTuple):
    """A part as its file has it."""

    arrays: dict[str, np.ndarray]
    rest: Any = None
    """What JSON can say, to the last bit of a float."""


@dataclass
class Kept:
    """The parts that are kept of one SAE on one text."""

    folder: Path | None
    """Where they lie; None: nothing is kept."""
    key: str
    """Of all that every part is computed from."""
    read_from: str | None = None
    """When the part was written that was read first; None: none was."""

    def read(self, name: str, of: str, unpack: Callable[..., T], *about: Any) -> T | None:
        """A part, from what its file holds; None: there is no such file, or it is damaged or of another key.

        Args:
          of: what the part is computed from besides.
          unpack: of what is stored and of `about`; raises where that cannot be such a part.
        """
        if self.folder is None:
            return None
        try:
            stored, written = _read(self.folder / f"{name}.safetensors", digest_of(self.key, name, of))
            found = unpack(stored, *about)
        except Exception:  # a file that is none of ours gives errors of many kinds
            return None
        self.read_from = self.read_from or written
        return found

    def write(self, name: str, of: str, part: T, pack: Callable[[T], Stored]) -> None:
        """Keep a part, unless it is too large or the folder cannot be written to; see `read`."""
        if self.folder is not None:
            with contextlib.suppress(OSError):  # a cache that cannot be written to is none
                _write(self.folder / f"{name}.safetensors", digest_of(self.key, name, of), pack(part))

    def part(
        self,
        name: str,
        of: str,
        make: Callable[[], T],
        pack: Callable[[T], Stored],
        unpack: Callable[..., T],
        *about: Any,
    ) -> T:
        """The part that is kept, else what `make` gives, which is then kept; see `read`."""
        found = self.read(name, of, unpack, *about)
        if found is None:
            found = make()
            self.write(name, of, found, pack)
        return found


def nothing_kept() -> Kept:
    """Neither reads nor writes."""
    return Kept(None, "")


def kept_beside(path: str | Path, sae: SAE, layer: int, model: str, samples: Samples, padding: str) -> Kept:
    """What is kept beside the file or folder of an SAE, about this SAE with this model and text.

    Nothing where JAXSAE_CACHE is `off`.

    Args:
      path: of the SAE.
      model: the identity of the model.
      padding: of the pass, see `extraction.stream`.
    """
    code = sources()
    if cache_folder() is None or code is None:
        return nothing_kept()
    path = Path(path).absolute()
    text = [part for array in (samples.ids, samples.labels, samples.mask) for part in (str(array.shape), array)]
    if not of_tablets(
        samples.tokenizer
    ):  # what ids stand for, and what is no text, is not known by the model's identity
        ids = np.unique(samples.true_ids)
        text += [repr(list(samples.tokenizer.pieces(ids))), np.packbits(samples.real), str(samples.causal)]
    key = digest_of(code, _machine(), identity(sae), str(layer), model, padding, *text)
    return Kept(path.parent / FOLDER / f"{path.name}.kept", key)


def digest_of(*parts: str | np.ndarray) -> str:
    """SHA-256 of several things, one after another."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()
        digest.update(f"{len(content)} ".encode() + content)
    return digest.hexdigest()


@functools.cache
def sources(package: Path = PACKAGE) -> str | None:
    """SHA-256 of the code of the package: other code may find other figures. None: it is not there to be read."""
    files = sorted(package.rglob("*.py"))
    texts = [part for file in files for part in (str(file.relative_to(package)), file.read_text("utf-8"))]
    return digest_of(*texts) if files else None


def _machine() -> str:
    """What else the last bits of the figures depend on: libraries, and the device that computes."""
    device = jax.devices()[0]
    versions = [platform.python_version(), jax.__version__, np.__version__, importlib.metadata.version("scipy")]
    compiled = os.environ.get("XLA_FLAGS", "")
    return " ".join([*versions, platform.machine(), device.platform, device.device_kind, compiled])


def _read(path: Path, key: str) -> tuple[Stored, str]:
    """(what a file holds, when it was written); raises where that is not whole and of this key."""
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise ValueError
    with safetensors.safe_open(path, "numpy") as file:
        about = file.metadata()
        if about["key"] != key:
            raise ValueError
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    if about["checksum"] != _checksum(key, about["written"], about["rest"], arrays):
        raise ValueError
    return Stored(arrays, json.loads(about["rest"])), about["written"]


def _write(path: Path, key: str, stored: Stored) -> None:
    """Write a file, which appears whole, unless that would be through a link to elsewhere, or is too large."""
    root, size = path.parents[1], sum(array.nbytes for array in stored.arrays.values())
    if size > MOST_BYTES or any(place.is_symlink() for place in (root, path.parent, path)):
        return
    arrays = {name: np.ascontiguousarray(array) for name, array in stored.arrays.items()}
    about = {"key": key, "written": time.strftime("%Y-%m-%d %H:%M"), "rest": json.dumps(stored.rest)}
    about["checksum"] = _checksum(key, about["written"], about["rest"], arrays)
    content = safetensors.numpy.save(arrays, about)
    if len(content) > MOST_BYTES:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), (root / ".gitignore").open("x") as file:
        file.write("*\n")
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(content)


def _checksum(key: str, written: str, rest: str, arrays: dict[str, np.ndarray]) -> str:
    named = [part for name, a in sorted(arrays.items()) for part in (f"{name} {a.dtype} {a.shape}", a)]
    return digest_of(key, written, rest, *named)
