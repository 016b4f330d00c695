"""`.pt` files without torch: nothing in them is run, what is damaged is refused, and torch takes what is written."""

import enum
import io
import math
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
import torch
from conftest import checkpoint_content
from helpers import saved

from convert import load_sae, pickles, pt, read_checkpoint
from jaxsae import runtime
from jaxsae.errors import InputError


class Evil:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


class HookedTransformer:
    """Stands for the pickled object in a tl_model.pt."""


def test_nothing_in_a_file_is_run(tmp_path):
    target = tmp_path / "owned"
    with pytest.raises(InputError, match=r"must hold tensors and numbers only, got .*open.* \(nothing was run\)"):
        read_checkpoint(saved(tmp_path, {"model_state_dict": Evil(target)}))
    assert not target.exists()


def test_a_name_that_hides_from_the_listing_is_not_run_either(tmp_path):
    """The pickle's last strings are harmless; what it calls it takes from its memo."""
    target = tmp_path / "owned"

    def string(text: str) -> bytes:
        return b"\x8c" + bytes([len(text)]) + text.encode()

    hidden = b"\x80\x04" + string("os") + b"\x94" + string("mkdir") + b"\x94" + string(str(target)) + b"\x94"
    hidden += string("collections") + string("OrderedDict") + b"h\x00h\x01\x93h\x02\x85R."
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/data.pkl", hidden)
    with pytest.raises(InputError, match=r"must hold tensors and numbers only, got os\.mkdir \(nothing was run\)"):
        pt.read_pt(tmp_path / "m.pt", "another")
    assert not target.exists()
    pickle.loads(hidden)  # so it would have been
    assert target.is_dir()


def test_tl_model_is_refused_naming_the_file_to_give(tmp_path):
    path = saved(tmp_path, {"model": HookedTransformer(), "config": {}, "original_checkpoint": "x"}, "tl_model.pt")
    with pytest.raises(
        InputError, match=r"HookedTransformer.*; give the best_model\.pt of a restoration or sign model"
    ):
        read_checkpoint(path)
    path = saved(tmp_path, {"model": {}, "config": {}, "original_checkpoint": "x"}, "tl_model.pt")
    with pytest.raises(InputError, match=r"best_model\.pt"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (pickle.dumps({}), "a bare pickle"),
        (b"hello", "something else"),
        (b"PK\x03\x04" + bytes(99), "a truncated or damaged one"),
    ],
)
def test_other_files_are_refused(tmp_path, content, says):
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_checkpoint(tmp_path / "m.pt")


def test_truncated_and_flipped_files_are_refused(tmp_path):
    whole = saved(tmp_path, checkpoint_content()).read_bytes()
    path = tmp_path / "spoilt.pt"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated or damaged"):
        read_checkpoint(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes(flipped)
    torch.load(path, weights_only=True)  # alone, torch sees nothing wrong with it
    with pytest.raises(InputError, match="checksums must hold"):
        read_checkpoint(path)


def test_compressed_entries_are_refused(tmp_path):
    source = saved(tmp_path, checkpoint_content())
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(InputError, match="stored uncompressed"):
        read_checkpoint(tmp_path / "z.pt")


def test_absent_file_and_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="got no such file"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(InputError, match=r"an SAE.s folder must have one of .*, got none of them"):
        load_sae(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_are_read_as_torch_reads_them(tmp_path, dtype):
    """Views, transposed and shared storages, parameters, scalars and empty ones."""
    base = torch.randn(3, 5).to(dtype)
    content = {
        "plain": base,
        "transposed": base.T,
        "part": base[1:, 2:4],
        "parameter": torch.nn.Parameter(base),
        "scalar": base[0, 0],
        "empty": base[:0],
        "numbers": [np.float64(0.5), np.float32(2), 3, "x", None, True],
    }
    path = saved(tmp_path, content)
    fields = pt.read_pt(path, "another")
    read = {name: fields.take(name) for name in content}
    for name in ("plain", "transposed", "part", "parameter", "scalar", "empty"):
        array = pt.floating(read[name], name)
        assert (array.dtype == ml_dtypes.bfloat16) == (dtype == torch.bfloat16)
        assert array.dtype == str(dtype).removeprefix("torch.")
        np.testing.assert_array_equal(array.astype(np.float64), content[name].detach().double().numpy())
        assert not array.flags.writeable
    assert read["numbers"] == content["numbers"]
    runtime.forget([read["plain"]])
    np.testing.assert_array_equal(read["plain"].astype(np.float64), base.double().numpy())


def test_a_tensor_must_lie_within_its_storage(tmp_path):
    """A file that declares more than it has, by size, by stride, by an expanded view, or by its storage."""
    for size, stride, offset in (((4, 5), (5, 1), 0), ((3, 5), (7, 1), 0), ((3, 5), (5, 1), 1), ((10**9,), (0,), 0)):
        with pytest.raises(InputError, match="must lie within its storage"):
            pickles.tensor_view(np.zeros(15, np.float32), offset, size, stride)
    with pytest.raises(InputError, match="must lie within its storage"):
        pickles.tensor_view(np.zeros(15, np.float32), -1, (1,), (1,))
    path = saved(tmp_path, {"x": torch.zeros(4), "y": torch.ones(4)})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "more.pt", "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, data[:8] if entry.filename.endswith("data/0") else data)
    with pytest.raises(InputError, match="must have the length that is declared, got 8 bytes"):
        pt.read_pt(tmp_path / "more.pt", "another")


@pytest.mark.parametrize("keep", [b"r\x00\x00\x00\x40", b"p1073741824\n"], ids=["binary", "text"])
def test_a_short_pickle_takes_no_table_of_gigabytes(tmp_path, keep):
    """Python's unpickler makes room for as many things as the number says that one of them is kept under."""
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02}" + keep + b".")
    with pytest.raises(InputError, match=r"a pickle must number what it keeps from 0 on, got the number 1073741824"):
        pt.read_pt(tmp_path / "m.pt", "another")


TYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
SHAPES = [(), (0,), (0, 3), (3, 0), (1,), (3, 4), (2, 1, 5), (300, 500)]


def random_bits(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Every number of the type: of floats also -0.0, infinities, and NaN with what else is in its bits."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return np.frombuffer(rng.bytes(math.prod(shape) * np.dtype(dtype).itemsize), dtype).reshape(shape)


def bits(array: np.ndarray) -> bytes:
    """In C order, little-endian."""
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def loaded(path) -> list:
    """What torch takes a file for, in each of its ways."""
    ways = [{"weights_only": True}, {"weights_only": True, "mmap": True}, {"weights_only": False, "mmap": True}]
    return [torch.load(path, **way) for way in ways]


@pytest.mark.parametrize("dtype", TYPES)
def test_arrays_are_written_as_tensors_bit_for_bit(tmp_path, dtype):
    content = {str(shape): random_bits(dtype, shape) for shape in SHAPES}
    whole = content["(3, 4)"]
    content |= {
        "by column": np.asfortranarray(whole),
        "transposed": content["(2, 1, 5)"].T,
        "every other": content["(300, 500)"][::-2, 1::3],
        "repeated": np.broadcast_to(whole[0], (5, 4)),
        "the same": whole,
    }
    if dtype != "bfloat16":  # which has one order of bytes
        content["big-endian"] = whole.astype(whole.dtype.newbyteorder(">"))
    pt.write_pt(tmp_path / "m.pt", content)
    read = pt.read_pt(tmp_path / "m.pt", "another")
    assert list(read) == list(content)
    for theirs in loaded(tmp_path / "m.pt"):
        assert list(theirs) == list(content)
        for name, array in content.items():
            tensor, ours = theirs[name], read[name]
            assert (tensor.dtype, ours.dtype) == (getattr(torch, dtype), np.dtype(dtype))
            assert tuple(tensor.shape) == ours.shape == array.shape
            assert tensor.stride() == torch.empty(array.shape).stride()
            assert bits(ours) == bits(array)
            if tensor.numel():
                assert tensor.reshape(-1).view(torch.uint8).numpy().tobytes() == bits(array)


class TensorSize(NamedTuple):
    rows: int
    columns: int


class Layer(enum.IntEnum):
    LAST = 15


PLAIN = {
    "texts": ["", "x", "𒀀𒁹 šá ḫé", "\0\n'", "\ud800", "y" * 70_000],
    "whole": [0, -1, 255, 256, 65_536, 2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**2000],
    "real": [0.0, -0.0, 0.1, 5e-324, 1.7e308, math.inf, -math.inf, math.nan],
    "others": [None, True, False],
    "empty": [[], (), {}, ""],
    "nested": {"a": [{"b": ([], [[1]], {"c": ()})}], 3: "number", None: 0, (1, "x"): [2], True: 1, 0.5: 2},
    "tuples": [tuple(range(n)) for n in range(6)],
    "many": list(range(3000)),
    "many names": {f"n{i}": float(i) for i in range(3000)},
}


def test_all_but_arrays_comes_back_as_it_was(tmp_path):
    """`repr` tells types, -0.0 and NaN, and the order of a dict."""
    for content in (PLAIN, list(PLAIN.values()), ("x", [1]), 3, None):
        pt.write_pt(tmp_path / "m.pt", content)
        back = [*loaded(tmp_path / "m.pt"), pt.read_any(tmp_path / "m.pt")]
        assert [repr(one) for one in back] == [repr(content)] * len(back)


def test_derived_types_become_plain_ones(tmp_path):
    numbers = [np.float64(0.1), np.float32(0.5), np.int64(3), np.bool_(True), np.str_("x"), ml_dtypes.bfloat16(2)]
    size = TensorSize(3, 4)
    pt.write_pt(tmp_path / "m.pt", OrderedDict({"numbers": numbers, np.int64(3): size}))
    for back in loaded(tmp_path / "m.pt"):
        assert repr(back) == "{'numbers': [0.1, 0.5, 3, True, 'x', 2.0], 3: (3, 4)}"


@dataclass(frozen=True)
class Called:
    """A name in a pickle, and what it is called with."""

    name: str
    given: tuple = ()

    def __call__(self, *given):
        return Called(self.name, given)


class Spelled(pickle.Unpickler):
    """What a pickle says, with `Called` in place of what it would call."""

    def find_class(self, module, name):
        return Called(f"{module}.{name}")

    def persistent_load(self, pid):
        return ("persistent", pid)


def test_a_file_has_the_entries_of_torch_and_its_pickle_says_the_same(tmp_path):
    arrays = {f"{dtype} {shape}": random_bits(dtype, shape) for dtype in TYPES for shape in SHAPES}
    pt.write_pt(tmp_path / "ours.pt", {"arrays": arrays, **PLAIN})
    tensors = {name: torch.empty(a.shape, dtype=getattr(torch, a.dtype.name)) for name, a in arrays.items()}
    for name, tensor in tensors.items():
        tensor.reshape(-1).view(torch.uint8).numpy()[:] = arrays[name].reshape(-1).view(np.uint8)
    saved(tmp_path, {"arrays": tensors, **PLAIN}, "theirs.pt")
    records = []
    for folder, file in (("archive", "ours.pt"), ("theirs", "theirs.pt")):
        with zipfile.ZipFile(tmp_path / file) as archive:
            assert archive.testzip() is None
            records.append({name.removeprefix(f"{folder}/"): archive.read(name) for name in archive.namelist()})
    ours, theirs = records
    for layout in (".format_version", ".storage_alignment"):  # of later versions, for files laid out by torch itself
        theirs.pop(layout, None)
    assert list(ours) == list(theirs)
    numbers = [file.pop(".data/serialization_id") for file in records]
    assert [(len(number), number.isdigit()) for number in numbers] == [(40, True)] * 2
    said = [Spelled(io.BytesIO(file.pop("data.pkl"))).load() for file in records]
    assert repr(said[0]) == repr(said[1])
    assert ours == theirs


def test_the_same_content_is_the_same_bytes_and_other_content_has_another_number(tmp_path):
    files = [tmp_path / name for name in ("a.pt", "b.pt", "c.pt")]
    for path, value in zip(files, (1.0, 1.0, 2.0), strict=True):
        pt.write_pt(path, {"x": np.full(3, value), "y": np.zeros((2, 2)).T, "z": [1, "x"]})
    assert files[0].read_bytes() == files[1].read_bytes()
    assert {entry.date_time[0] for entry in zipfile.ZipFile(files[0]).infolist()} == {1980}
    numbers = {zipfile.ZipFile(path).read("archive/.data/serialization_id") for path in files}
    assert len(numbers) == 2


def test_tensors_are_aligned(tmp_path):
    """After texts and arrays of any length."""
    for length in range(70):
        arrays = [np.ones(n, np.uint8) for n in (1, length + 1, 64)]
        pt.write_pt(tmp_path / "m.pt", ["x" * length, arrays])
        _, read = pt.read_any(tmp_path / "m.pt")
        assert [array.ctypes.data % 64 for array in read] == [0, 0, 0]
        _, mapped = torch.load(tmp_path / "m.pt", mmap=True)
        assert [tensor.data_ptr() % 64 for tensor in mapped] == [0, 0, 0]


@pytest.mark.parametrize("limit", [0, 50, 500, 5000])
def test_files_beyond_the_sizes_of_old_zips_are_read(tmp_path, monkeypatch, limit):
    """With the limit lowered, of sizes and places in the file."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    content = {"big": random_bits("int64", (700,)), "small": random_bits("int64", (3,)), "empty": np.zeros(0)}
    pt.write_pt(tmp_path / "m.pt", content)
    read = pt.read_pt(tmp_path / "m.pt", "another")
    for theirs in loaded(tmp_path / "m.pt"):
        for name, array in content.items():
            np.testing.assert_array_equal(theirs[name].numpy(), array)
            np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({1}, r"numbers, texts and None only, got builtins\.set"),
        (b"x", r"got builtins\.bytes"),
        (1j, r"got builtins\.complex"),
        (np.complex64(1j), r"got builtins\.complex"),
        (np.longdouble(1), r"got numpy\.longdouble"),
        (np.dtype("float32"), r"got numpy\.dtype"),
        (Layer.LAST, r"got test_pt\.Layer"),
        (float, r"got builtins\.type"),
        (Evil("x"), r"got test_pt\.Evil"),
        (torch.zeros(1), r"got torch\.Tensor"),
        (np.zeros(2, np.uint32), r"must be of float64, float32, .*, uint8, bool, got uint32"),
        (np.zeros(2, complex), "got complex128"),
        (np.array([None]), "got object"),
        (np.array(["x"]), "got <U1"),
        (np.zeros(2, "M8[s]"), r"got datetime64\[s\]"),
        (np.zeros(2, [("a", "f4")]), r"got \[\('a', '<f4'\)\]"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_what_is_neither_plain_nor_an_array_is_not_written(tmp_path, value, says):
    with pytest.raises(InputError, match=rf"m\.pt: .*{says}"):
        pt.write_pt(tmp_path / "m.pt", {"a": [1, (value,)]})
    assert not list(tmp_path.iterdir())
