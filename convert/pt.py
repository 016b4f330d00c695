"""`.pt` files, read without torch and without running anything in them, and written whole.

Only what tensors and numbers consist of is ever called: a pickle that names anything else is refused. Unlike with
`torch.load`, a flipped byte is found (the zip's checksums), and what would take more memory than the file has is
refused before anything is allocated. Tensors are read-only views of the mapped file.
"""

import collections
import io
import mmap
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy._core.multiarray as multiarray

from jaxsae.config import InputError, require
from jaxsae.files import whole

_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
    """`torch._utils._rebuild_tensor_v2`: a view of its storage, within it."""
    whole_numbers = all(type(n) is int and n >= 0 for n in (offset, *size, *stride))
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if whole_numbers else -1
    n = int(np.prod(size, dtype=object))
    ok = whole_numbers and n <= storage.size and (n == 0 or last < storage.size)
    require(ok, f"a tensor must lie within its storage, got size {size}, stride {stride}, offset {offset}")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def _parameter(tensor: np.ndarray, *_: Any) -> np.ndarray:
    """`torch._utils._rebuild_parameter`: the tensor."""
    return tensor


def _encode(text: str, encoding: str) -> bytes:
    """`_codecs.encode`, as older pickles write bytes."""
    require(encoding == "latin1", f"bytes must be written as latin1, got {encoding}")
    return text.encode("latin1")


# What tensors and NumPy's numbers consist of (the original scripts save their losses as numpy.float64). Data only.
_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): tuple,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): np.dtype,
    ("numpy.dtypes", "Float64DType"): np.dtypes.Float64DType,
    ("numpy.dtypes", "Float32DType"): np.dtypes.Float32DType,
    ("numpy._core.multiarray", "scalar"): multiarray.scalar,
    ("numpy.core.multiarray", "scalar"): multiarray.scalar,  # files pickled under NumPy 1
} | {("torch", name): np.dtype(dtype) for name, dtype in _STORAGES.items()}


class _Unpickler(pickle.Unpickler):
    """Knows `_KNOWN` and nothing else; storages are views of the archive's entries."""

    def __init__(self, archive: "_Archive") -> None:
        super().__init__(archive.open_pickle())
        self.archive = archive

    def find_class(self, module: str, name: str) -> Any:
        """As it says: only these."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """`("storage", type, key, location, count)`; where it was does not matter."""
        _, dtype, key, _, count = pid
        storage = self.archive.entry(f"data/{key}")
        fits = isinstance(dtype, np.dtype) and type(count) is int and 0 <= count * dtype.itemsize <= len(storage)
        require(fits, f"storage {key!r} must have the length that is declared, got {len(storage)} bytes")
        return storage[: count * dtype.itemsize].view(dtype)


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

    def open_pickle(self) -> Any:
        """The pickle as a file."""
        return io.BytesIO(bytes(self.entry("data.pkl")))

    def strangers(self) -> list[str]:
        """What the pickle names besides `_KNOWN`, found without running it."""
        names: set[tuple[str, ...]] = set()
        strings: list[str] = []
        for opcode, value, _ in pickletools.genops(self.open_pickle()):
            if opcode.name == "GLOBAL":
                names.add(tuple(str(value).split(" ", 1)))
            elif opcode.name == "STACK_GLOBAL":
                names.add(tuple(strings[-2:]))
            elif isinstance(value, str):
                strings.append(value)
        return sorted(".".join(name) for name in names - set(_KNOWN))


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
            damaged = archive.testzip()
    except InputError:
        raise
    except Exception:  # of a directory that is damaged, zipfile makes errors of many kinds
        raise InputError(f"{path}: must be a whole zip file, got a truncated or damaged one; copy it again") from None
    require(damaged is None, f"{path}: checksums must hold, got a damaged entry {damaged}; copy the file again")


def read_pt(path: str | Path, instead: str) -> dict[str, Any]:
    """The dict in a `.pt` file, its tensors as arrays mapped from the file rather than copied.

    Args:
      instead: what to give instead, for the error when the file holds objects.

    Raises:
      InputError: no such file, not a whole zip file, classes other than tensors and numbers in it, or not a dict.
    """
    path = Path(path)
    require(path.is_file(), f"{path}: must be a .pt file, got {'a folder' if path.is_dir() else 'no such file'}")
    _check_zip(path)
    try:
        archive = _Archive(path)
        strangers = archive.strangers()
        refused = f"{path}: must hold tensors and numbers only, got {', '.join(strangers)} (nothing was run)"
        require(not strangers, f"{refused}; give {instead}")
        content = _Unpickler(archive).load()
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None
    except Exception as error:  # whatever a damaged pickle makes of it
        what = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: must be a file as torch.save writes it, got: {what}") from error
    require(isinstance(content, dict), f"{path}: must hold a dict, got {type(content).__name__}; give {instead}")
    return content


def forget(arrays: Iterable[np.ndarray]) -> None:
    """Let the pages of mapped files go from memory; whoever reads the arrays again gets them from the file again."""
    maps: set[mmap.mmap] = set()
    for array in arrays:
        base: Any = array
        while base is not None and not isinstance(base, mmap.mmap):
            base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
        if base is not None:
            maps.add(base)
    for one in maps:
        one.madvise(mmap.MADV_DONTNEED)


def write_pt(path: str | Path, content: dict[str, Any]) -> None:
    """Write a `.pt` file; it appears whole or not at all."""
    import torch

    with whole(path) as aside:
        torch.save(content, aside)


def floating(array: Any, what: str) -> np.ndarray:
    """A tensor as `read_pt` gives it, which must be of a floating type and finite."""
    require(isinstance(array, np.ndarray), f"{what} must be a tensor, got {type(array).__name__}")
    ok = array.dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)
    require(ok, f"{what} must hold dense floating-point numbers, got {array.dtype}")
    require(bool(np.isfinite(array).all()), f"{what} must be finite, got NaN or infinity")
    return array


def to_tensor(array: np.ndarray) -> Any:
    """A torch tensor of its own memory, of the same type."""
    import torch

    array = np.array(array, order="C")
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
