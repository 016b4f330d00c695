"""`.pt` files, read without torch and without running anything in them, and written whole.

Only what tensors and numbers consist of is ever called. Whatever else a pickle names is never looked up: an inert
`Skipped` stands for it, which is in nobody's way where it is not asked for (an optimizer's, a `Namespace` of flags) and
is refused by name where it is. Unlike with `torch.load`, a flipped byte is found (the zip's checksums), and what would
take more memory than the file has is refused before anything is allocated. Tensors are read-only views of the mapped
file.
"""

import collections
import io
import mmap
import pickle
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxsae.errors import InputError, listed, note, require
from jaxsae.files import atomic_path

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


EXPANDED = 2**24
"""Elements that a tensor may have beyond those of its storage (`expand` repeats them without storing them again)."""
RUNS = {"os", "posix", "nt", "subprocess", "sys", "io", "_io", "runpy", "importlib", "shutil", "socket", "pty", "code"}
RUNS_BY_NAME = {"eval", "exec", "compile", "open", "getattr", "setattr", "delattr", "__import__", "input", "breakpoint"}
"""Modules, and functions of `builtins`, that no state of a training names: a file that does means to run them."""


class Skipped:
    """Stands for an object of a class that is not known here: takes whatever a pickle does to it, and does nothing."""

    kinds: str

    def __new__(cls, *args: Any, **more: Any) -> "Skipped":
        """Without looking at what it is made of."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **more: Any) -> None:
        pass

    def __call__(self, *args: Any, **more: Any) -> "Skipped":
        """As a function's."""
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """As a list's."""

    def extend(self, values: Any) -> None:
        """As a list's."""

    def add(self, value: Any) -> None:
        """As a set's."""


def _skipped(name: str) -> type[Skipped]:
    return type("Skipped", (Skipped,), {"kinds": name})


def _tensor(storage: Any, offset: int, size: tuple, stride: tuple, *more: Any) -> Any:
    """`torch._utils._rebuild_tensor_v2`: a view of its storage, within it."""
    if isinstance(storage, Skipped):
        return storage
    whole_numbers = all(type(n) is int and n >= 0 for n in (offset, *size, *stride))
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if whole_numbers else -1
    n = int(np.prod(size, dtype=object))
    ok = whole_numbers and n <= max(storage.size, EXPANDED) and (n == 0 or last < storage.size)
    require(ok, f"a tensor must lie within its storage, got size {size}, stride {stride}, offset {offset}")
    steps = [step * storage.itemsize for step in stride]
    array = np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)
    bits = more[2] if len(more) > 2 and isinstance(more[2], dict) else {}  # such as {"neg": True}
    other = [bit for bit, is_set in bits.items() if is_set and bit != "neg"]
    require(not other, f"a tensor may be marked as negated only, got {listed(other)}")
    return -array if bits.get("neg") else array


def _parameter(tensor: Any, *_: Any) -> Any:
    """`torch._utils._rebuild_parameter`, and `_rebuild_parameter_with_state` where it has attributes: the tensor."""
    return tensor


def _encode(text: str, encoding: str) -> bytes:
    """`_codecs.encode`, as older pickles write bytes."""
    require(encoding == "latin1", f"bytes must be written as latin1, got {encoding}")
    return text.encode("latin1")


class _DType:
    """`numpy.dtype`, of numbers alone; nothing of NumPy's is called before it is known which."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"

    def numpy(self) -> np.dtype | None:
        """None: of no number."""
        known = isinstance(self.code, str) and self.code in (
            "f2",
            "f4",
            "f8",
            "b1",
            "i1",
            "i2",
            "i4",
            "i8",
            "u1",
            "u2",
            "u4",
            "u8",
        )
        return np.dtype(self.code).newbyteorder(self.order) if known and self.order in ("<", ">", "|", "=") else None


class _Array:
    """A NumPy array, whose content comes after it is made; `_plain` takes it out."""

    def __init__(self, *_: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_column, content = state
        kind = dtype.numpy() if isinstance(dtype, _DType) else None
        if kind is None or not isinstance(content, bytes):
            return
        n = int(np.prod(shape, dtype=object))
        require(n * kind.itemsize == len(content), f"an array must have the length that its shape {shape} says")
        order = shape[::-1] if by_column else shape
        array = np.frombuffer(content, kind).reshape(order)
        self.value = array.T if by_column else array


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> _Array:
    """`numpy.core.numeric._frombuffer`, as protocol 5 has arrays."""
    array = _Array()
    if order in ("C", "F") and isinstance(content, bytes | bytearray):
        array.__setstate__((1, shape, dtype, order == "F", bytes(content)))
    return array


def _scalar(dtype: Any, content: Any) -> Any:
    """`numpy.core.multiarray.scalar`: a number."""
    kind = dtype.numpy() if isinstance(dtype, _DType) else None
    right = kind is not None and isinstance(content, bytes) and len(content) == kind.itemsize
    return np.frombuffer(content, kind)[0] if right else _skipped("numpy.scalar")()


# What tensors and NumPy's numbers and arrays consist of (the original scripts save their losses as numpy.float64).
_KNOWN: dict[tuple[str, str], Any] = (
    {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
        ("torch", "Size"): tuple,
        ("_codecs", "encode"): _encode,
        ("numpy", "dtype"): _DType,
    }
    | {(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("_core", "core")}  # core: of NumPy 1
    | {(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("_core", "core")}
    | {(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("_core", "core")}
    | {("torch", name): np.dtype(dtype) for name, dtype in _STORAGES.items()}
)


class _Unpickler(pickle.Unpickler):
    """Calls what is in `_KNOWN` and nothing else; storages are views of the archive's entries."""

    def __init__(self, archive: "_Archive") -> None:
        super().__init__(archive.open_pickle())
        self.archive = archive

    def find_class(self, module: str, name: str) -> Any:
        """What is known; else what stands for it, without looking it up."""
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        top = module.split(".")[0]
        by_name = top in ("builtins", "__builtin__") and name.split(".")[0] in RUNS_BY_NAME
        runs = top in RUNS or by_name
        require(not runs, f"must hold tensors and numbers only, got {module}.{name} (nothing was run)")
        return _skipped(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """`("storage", type, key, location, count)`; where it was does not matter."""
        _, dtype, key, _, count = pid
        if isinstance(dtype, type) and issubclass(dtype, Skipped):
            return dtype()
        storage = self.archive.entry(f"data/{key}")
        fits = isinstance(dtype, np.dtype) and type(count) is int and 0 <= count * dtype.itemsize <= len(storage)
        require(fits, f"storage {key!r} must have the length that is declared, got {len(storage)} bytes")
        return storage[: count * dtype.itemsize].view(dtype)


def _plain(value: Any, done: dict[int, Any] | None = None, depth: int = 0) -> Any:
    """Arrays in place of what stands for them, in dicts, lists and tuples.

    Raises:
      InputError: there is something of a class that is not known, or what is nested too deep.
    """
    if isinstance(value, Skipped) or (isinstance(value, type) and issubclass(value, Skipped)):
        raise InputError(f"must hold tensors and numbers only, got {value.kinds} (nothing was run)")
    if isinstance(value, _Array | _DType):
        array = getattr(value, "value", None)
        require(array is not None, "must hold tensors and numbers only, got something else of NumPy's")
        return array
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return value
    done = {} if done is None else done  # a pickle of some bytes may name one list a million times
    if id(value) not in done:
        require(depth < 50, "must be nested at most 50 deep")
        if isinstance(value, dict):
            out: Any = {_plain(key, done, depth + 1): _plain(one, done, depth + 1) for key, one in value.items()}
        else:
            out = [_plain(one, done, depth + 1) for one in value]
            out = out if isinstance(value, list) else tuple(out) if isinstance(value, tuple) else set(out)
        done[id(value)] = out
    return done[id(value)]


class Fields(Mapping[Any, Any]):
    """A dict of a file, key by key: what is taken is gone, and what nobody took can be told in the end.

    As a mapping it is of what is left, and looks at a value where it is asked for.

    Args:
      content: as it was read; what is not taken may hold anything.
      where: names it in errors.
      instead: what to give instead, for errors.
    """

    def __init__(self, content: dict[Any, Any], where: str, instead: str = "") -> None:
        self._left, self.where, self.instead = dict(content), where, instead

    def __contains__(self, key: object) -> bool:
        return key in self._left

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._left))

    def __len__(self) -> int:
        return len(self._left)

    def __getitem__(self, key: Any) -> Any:
        try:
            return _plain(self._left[key])
        except InputError as error:
            give = f"; give {self.instead}" if self.instead else ""
            raise InputError(f"{self.where}: {key}: {error}{give}") from None

    def take(self, key: str, default: Any = None) -> Any:
        """What stands under a key, or `default`.

        Raises:
          InputError: it holds something of a class that is not known.
        """
        if key not in self._left:
            return default
        value = self[key]
        del self._left[key]
        return value

    def inner(self, key: str) -> "Fields":
        """The dict under a key, to be taken key by key; an empty one where there is none.

        Raises:
          InputError: it is something else.
        """
        value = self._left.pop(key, None)
        require(
            isinstance(value, dict | None),
            f"{self.where}: {key} must be a dict (an object), got {type(value).__name__}",
        )
        return Fields(value or {}, f"{self.where}: {key}", self.instead)

    def drop(self, *keys: str) -> None:
        """Take keys without looking at what they hold."""
        for key in keys:
            self._left.pop(key, None)

    def described(self) -> str:
        """The keys that are left, with the class of what is of none that is known."""
        kinds = {key: f" ({value.kinds})" if isinstance(value, Skipped) else "" for key, value in self._left.items()}
        return listed((f"{key}{kind}" for key, kind in kinds.items()), 6)

    def finish(self, what: str) -> None:
        """Raise `InputError` unless everything was taken; `what` says what must hold of the rest."""
        left = listed(map(repr, self._left))
        require(not self._left, f"{self.where}: {what}, got {left}")


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
            # torch.save can be told to leave checksums out: then each of them is 0
            unchecked = not any(entry.CRC for entry in entries) and any(entry.file_size for entry in entries)
            damaged = None if unchecked else archive.testzip()
    except InputError:
        raise
    except Exception:  # of a directory that is damaged, zipfile makes errors of many kinds
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
    require(path.is_file(), f"{path}: must be a .pt file, got {'a folder' if path.is_dir() else 'no such file'}")
    _check_zip(path)
    try:
        return _Unpickler(_Archive(path)).load()
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None
    except Exception as error:  # whatever a damaged pickle makes of it
        what = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: must be a file as torch.save writes it, got: {what}") from error


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

    with atomic_path(path) as aside:
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
