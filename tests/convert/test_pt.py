"""Reading `.pt` files without torch: nothing in them is run, and what is damaged is refused."""

import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch
from conftest import checkpoint_content
from helpers import saved

from convert import load_sae, pickles, pt, read_checkpoint
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
    with pytest.raises(InputError, match=r"HookedTransformer.*; give the best_model\.pt of the restoration model"):
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
        back = pt.to_tensor(array)
        assert back.dtype == dtype
        assert torch.equal(back, content[name])
        assert not array.flags.writeable
    assert read["numbers"] == content["numbers"]
    pt.forget([read["plain"]])
    assert torch.equal(pt.to_tensor(read["plain"]), base)


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
