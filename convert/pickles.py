"""Pickles of tensors and numbers, read without running anything in them, and written as torch does, without torch.

Only functions that tensors and numbers are made of are ever called. Any other name in a pickle is never looked up: an
inert `Skipped` stands for it. It does no harm where nobody asks for it (an optimizer's state, a `Namespace` of flags),
and is refused by name where somebody does.
"""

import collections
import contextlib
import io
import itertools
import math
import pickle
import pickletools
import struct
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from jaxsae.errors import InputError, listed, require

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
"""A tensor may have so many elements although its storage has fewer: `expand` repeats elements without storing them."""
RUNS = {"os", "posix", "nt", "subprocess", "sys", "io", "_io", "runpy", "importlib", "shutil", "socket", "pty", "code"}
RUNS_BY_NAME = {"eval", "exec", "compile", "open", "getattr", "setattr", "delattr", "__import__", "input", "breakpoint"}
"""Modules, and functions of `builtins`, that no saved training needs: a file that names them would run them."""


class Skipped:
    """Stands for an object of an unknown class: accepts all that a pickle does to it, and does nothing."""

    kinds: str

    def __new__(cls, *args: Any, **more: Any) -> "Skipped":
        """Made without looking at the arguments."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **more: Any) -> None:
        pass

    def __call__(self, *args: Any, **more: Any) -> "Skipped":
        """As if it were a function."""
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """As if it were a list."""

    def extend(self, values: Any) -> None:
        """As if it were a list."""

    def add(self, value: Any) -> None:
        """As if it were a set."""


def _skipped(name: str) -> type[Skipped]:
    return type("Skipped", (Skipped,), {"kinds": name})


def tensor_view(storage: Any, offset: int, size: tuple, stride: tuple, *more: Any) -> Any:
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


_NUMBERS = ("f2", "f4", "f8", "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


class _DType:
    """`numpy.dtype` of numbers; NumPy's own is made only once the code is known to be one of them."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"

    def numpy(self) -> np.dtype | None:
        """NumPy's type; None: not a number's."""
        known = isinstance(self.code, str) and self.code in _NUMBERS and self.order in ("<", ">", "|", "=")
        return np.dtype(self.code).newbyteorder(self.order) if known else None


class _Array:
    """A NumPy array, whose content a pickle sets after making it; `plain` takes it out."""

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
        ("torch._utils", "_rebuild_tensor_v2"): tensor_view,
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


def _check_places(content: bytes) -> None:
    """Refuse a pickle that keeps something under a number beyond its length: Python makes a table as long as that."""
    numbers = [-1]
    with contextlib.suppress(Exception):  # of what is no pickle, the unpickler says why
        for opcode, number, _ in pickletools.genops(content):
            if isinstance(number, int) and opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                numbers.append(number)
    most = max(numbers)
    require(most < len(content), f"a pickle must number what it keeps from 0 on, got the number {most}")


class Unpickler(pickle.Unpickler):
    """Calls what is in `_KNOWN` and nothing else.

    Args:
      content: the pickle.
      storage: the bytes of a tensor's storage, by its key.
    """

    def __init__(self, content: bytes, storage: Callable[[str], np.ndarray]) -> None:
        super().__init__(io.BytesIO(content))
        _check_places(content)
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """What is known; for anything else a `Skipped`, without looking it up."""
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
        storage = self.storage(key)
        fits = isinstance(dtype, np.dtype) and type(count) is int and 0 <= count * dtype.itemsize <= len(storage)
        require(fits, f"storage {key!r} must have the length that is declared, got {len(storage)} bytes")
        return storage[: count * dtype.itemsize].view(dtype)


def plain(value: Any, done: dict[int, Any] | None = None, depth: int = 0) -> Any:
    """What was read, with arrays in place of the objects that stand for them in dicts, lists and tuples.

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
    done = {} if done is None else done  # a short pickle may contain the same list a million times
    if id(value) not in done:
        require(depth < 50, "must be nested at most 50 deep")
        if isinstance(value, dict):
            out: Any = {plain(key, done, depth + 1): plain(one, done, depth + 1) for key, one in value.items()}
        else:
            out = [plain(one, done, depth + 1) for one in value]
            out = out if isinstance(value, list) else tuple(out) if isinstance(value, tuple) else set(out)
        done[id(value)] = out
    return done[id(value)]


_NAMES = {made: name for name, made in _KNOWN.items()}


def pickled(content: Any) -> tuple[bytes, list[np.ndarray]]:
    """A pickle, of protocol 2, that means what `torch.save` would write of the same content, with arrays as tensors.

    Args:
      content: dicts, lists and tuples of arrays of the types in `_STORAGES`, numbers, texts and None. An `OrderedDict`
        and the like become plain ones, NumPy's numbers Python's.

    Returns:
      (the pickle, the arrays). Their bytes, in C order, are the storages that the pickle calls "0", "1" and so on.

    Raises:
      InputError: something else is in it.
    """
    arrays: list[np.ndarray] = []
    return b"".join((pickle.PROTO, b"\x02", *_opcodes(content, arrays), pickle.STOP)), arrays


def _opcodes(value: Any, arrays: list[np.ndarray]) -> Iterator[bytes]:
    """What makes an unpickler put the value on its stack; arrays are added to `arrays`."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value) in (bool, int, float):
        yield pickle.dumps(value, 2)[2:-1]  # without the protocol before and the end behind it
    elif isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        yield pickle.BINUNICODE + struct.pack("<I", len(text)) + text
    elif isinstance(value, np.ndarray):
        yield _tensor(value, arrays)
    elif isinstance(value, dict):
        yield pickle.EMPTY_DICT + pickle.MARK
        for one in itertools.chain.from_iterable(value.items()):
            yield from _opcodes(one, arrays)
        yield pickle.SETITEMS
    elif isinstance(value, list | tuple):
        is_list = isinstance(value, list)
        yield pickle.EMPTY_LIST + pickle.MARK if is_list else pickle.MARK
        for one in value:
            yield from _opcodes(one, arrays)
        yield pickle.APPENDS if is_list else pickle.TUPLE
    else:
        kind = type(value)
        only = "must hold dicts, lists, tuples, arrays, numbers, texts and None only"
        raise InputError(f"a .pt file {only}, got {kind.__module__}.{kind.__qualname__}; leave it out")


def _tensor(array: np.ndarray, arrays: list[np.ndarray]) -> bytes:
    """A call of `tensor_view`, with a storage of the array's own."""
    dtype = array.dtype.newbyteorder("=")
    types = ", ".join(np.dtype(one).name for one in _STORAGES.values())
    require(dtype in _NAMES, f"arrays in a .pt file must be of {types}, got {array.dtype}; convert it before")
    stride = tuple(math.prod(max(n, 1) for n in array.shape[axis + 1 :]) for axis in range(array.ndim))

    def opcodes(*values: Any) -> bytes:
        return b"".join(opcode for value in values for opcode in _opcodes(value, arrays))

    location = opcodes("storage") + _global(dtype) + opcodes(str(len(arrays)), "cpu", array.size)
    storage = pickle.MARK + location + pickle.TUPLE + pickle.BINPERSID
    arrays.append(array)
    no_hooks = _global(collections.OrderedDict) + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = storage + opcodes(0, array.shape, stride, False) + no_hooks
    return _global(tensor_view) + pickle.MARK + arguments + pickle.TUPLE + pickle.REDUCE


def _global(made: Any) -> bytes:
    """The name under which an unpickler finds something."""
    module, name = _NAMES[made]
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()
