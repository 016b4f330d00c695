"""`.pt` files, read and written without torch: nothing in them is run, and they appear whole or not at all.

Unlike with `torch.load`, a flipped byte is found (the zip's checksums), and content that would take more memory than
the file has is refused before anything is allocated. Tensors are read-only views of the mapped file.
"""

import hashlib
import mmap
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from convert.fields import Fields
from convert.pickles import Skipped, Unpickler, pickled
from jaxsae.errors import InputError, note, require
from jaxsae.files import absent, atomic_path

ALIGNMENT = 64
"""Tensors begin at multiples of so many bytes in a written file, as in torch's, to be used mapped as they lie."""


class _Archive:
    """The zip file that torch.save writes: entries stored as they are, mapped into memory."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            self.entries = {entry.filename: entry for entry in archive.infolist()}
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        pickles = [name for name in self.entries if name.endswith("/data.pkl")]
        require(len(pickles) == 1, "a torch.save archive must have one data.pkl")
        self.folder = pickles[0].removesuffix("data.pkl")
        order = f"{self.folder}byteorder"
        if order in self.entries:
            got = bytes(self.entry("byteorder"))
            require(got == b"little", f"bytes must be in little-endian order, got {got!r}")

    def entry(self, name: str) -> np.ndarray:
        """An entry's bytes."""
        full = f"{self.folder}{name}"
        require(full in self.entries, f"a torch.save archive must have the entry {name}")
        entry = self.entries[full]
        name_length, extra_length = struct.unpack_from("<HH", self.map, entry.header_offset + 26)
        start = entry.header_offset + 30 + name_length + extra_length
        require(start + entry.file_size <= len(self.map), f"entry {name} must lie within the file")
        return np.frombuffer(self.map, np.uint8, entry.file_size, start)

    def storage(self, key: str) -> np.ndarray:
        """The bytes of a tensor's storage."""
        return self.entry(f"data/{key}")

    def pickle(self) -> bytes:
        """What holds all but the tensors' bytes."""
        return bytes(self.entry("data.pkl"))


def _check_zip(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(64)
    if not head.startswith(b"PK\x03\x04"):
        kinds = [
            (head == b"", "an empty file"),
            (
                head.startswith(b"version https://git-lfs"),
                "a Git LFS pointer (fetch the file itself with `git lfs pull`)",
            ),
            (head.lstrip().lower().startswith((b"<!doctype", b"<html")), "an HTML page (a failed download?)"),
            (head[:1] == b"\x80", "a bare pickle (save it again with torch.save of PyTorch 1.6 or newer)"),
        ]
        got = next((kind for found, kind in kinds if found), "something else")
        raise InputError(f"{path}: must be a zip file as torch.save writes it, got {got}")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            stored = all(e.compress_type == zipfile.ZIP_STORED for e in entries)
            require(stored, f"{path}: entries must be stored uncompressed, as torch.save does, got compressed ones")
            declared, actual = sum(e.file_size for e in entries), path.stat().st_size
            require(
                declared <= actual, f"{path}: entries must fit in the file, got {declared} bytes declared in {actual}"
            )
            # torch.save can leave checksums out: then each of them is 0
            unchecked = not any(entry.CRC for entry in entries) and any(entry.file_size for entry in entries)
            damaged = None if unchecked else archive.testzip()
    except InputError:
        raise
    except Exception:  # a damaged directory gives errors of many kinds
        raise InputError(f"{path}: must be a whole zip file, got a truncated or damaged one; copy it again") from None
    require(damaged is None, f"{path}: checksums must hold, got a damaged entry {damaged}; copy the file again")
    if unchecked:
        note(f"{path} was saved without checksums: if it was damaged since, that cannot be found")


def read_pt(path: str | Path, instead: str) -> Fields:
    """The dict in a `.pt` file, its tensors as arrays mapped from the file rather than copied.

    Args:
      instead: what to give instead, for the error when the file holds objects.

    Raises:
      InputError: no such file, not a whole zip file, a pickle that would run something, or not a dict.
    """
    content = read_any(path)
    if isinstance(content, Skipped):
        only = "must hold tensors and numbers only"
        raise InputError(f"{path}: {only}, got {content.kinds} (nothing was run); give {instead}")
    require(isinstance(content, dict), f"{path}: must hold a dict, got {type(content).__name__}; give {instead}")
    return Fields(content, str(path), instead)


def read_any(path: str | Path) -> Any:
    """What a `.pt` file holds, be it a dict, a list or one tensor; see `read_pt`."""
    path = Path(path)
    require(path.is_file(), f"{path}: must be a .pt file, got {'a folder' if path.is_dir() else absent(path)}")
    _check_zip(path)
    try:
        archive = _Archive(path)
        return Unpickler(archive.pickle(), archive.storage).load()
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle gives errors of many kinds
        what = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: must be a file as torch.save writes it, got: {what}") from error


def write_pt(path: str | Path, content: Any) -> None:
    """Write a `.pt` file that `torch.load` takes, also with `weights_only` and `mmap`; it appears whole or not at all.

    The same content gives the same bytes. Arrays are written from where they are; only one whose elements are not in C
    order, or not little-endian, is copied, while it is written.

    Args:
      content: as `pickled` takes it; arrays become tensors.

    Raises:
      InputError: something is in it that is not such content; no file is made.
    """
    try:
        data, arrays = pickled(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    with atomic_path(path) as temporary, temporary.open("wb") as file, zipfile.ZipFile(file, "w") as archive:

        def write(name: str, record: Any) -> None:
            entry = zipfile.ZipInfo(f"archive/{name}")  # its date is always 1980-01-01
            # header, name, the padding's own head and the 64-bit sizes that zipfile puts last
            start = file.tell() + 30 + len(entry.filename) + 4 + 20
            entry.extra = struct.pack("<2sH", b"FB", -start % ALIGNMENT) + bytes(-start % ALIGNMENT)
            with archive.open(entry, "w", force_zip64=True) as out:
                out.write(record)

        # torch's .format_version would say that tensors lie where its own zip writer, with its footers, would put them
        write("data.pkl", data)
        write("byteorder", b"little")
        for key, array in enumerate(arrays):
            write(f"data/{key}", np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8))
        write("version", b"3\n")
        checksums = "".join(f"{entry.filename} {entry.CRC}\n" for entry in archive.infolist())
        fingerprint = int(hashlib.sha256(checksums.encode()).hexdigest(), 16) % 10**40
        write(".data/serialization_id", f"{fingerprint:040}".encode())


def floating(array: Any, what: str) -> np.ndarray:
    """A tensor as `read_pt` gives it, which must be of a floating type and finite."""
    require(isinstance(array, np.ndarray), f"{what} must be a tensor, got {type(array).__name__}")
    ok = array.dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)
    require(ok, f"{what} must hold dense floating-point numbers, got {array.dtype}")
    require(bool(np.isfinite(array).all()), f"{what} must be finite, got NaN or infinity")
    return array
