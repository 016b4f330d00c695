"""Checkpoints of other people, legal and odd: each is the model it means, or is refused by a line that says why."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib

import numpy as np
import pytest
import torch
from conftest import TINY, assert_one_line_error, checkpoint_content, tiny_tensors
from some_sae import sae_pt

from convert import (
    check_model,
    checkpoints,
    load_restoration_model,
    load_sae,
    read_checkpoint,
)
from jaxsae.errors import InputError, InputNote


def saved(path, content):
    torch.save(content, path)
    return path


def stream(path):
    ids = np.arange(40, 40 + 2 * 9).reshape(2, 9).astype(np.int32)
    return np.asarray(load_restoration_model(path).resid_post(ids, None, layer=3))


class Settings:
    """Of a user's own script."""


BESIDE = {
    "history": np.array([1.0, 0.5]),
    "rng": np.random.RandomState(0).get_state(),
    "generator": np.random.default_rng(0),
    "args": argparse.Namespace(lr=1e-4),
    "data_dir": pathlib.PurePosixPath("/data"),
    "saved": datetime.datetime(2025, 1, 2, tzinfo=datetime.UTC),
    "frozen": {"embed"},
    "device": torch.device("cpu"),
    "dtype": torch.float32,
    "log": collections.defaultdict(list, {"loss": [1.0]}),
    "settings": Settings(),
    "counts": collections.Counter("aab"),
    "spectrum": torch.ones(3, dtype=torch.complex64),
    "step": torch.tensor(3),
    "model": torch.nn.Linear(2, 2),
}


@pytest.mark.parametrize("key", BESIDE)
def test_what_lies_beside_the_weights_is_in_nobodys_way(tmp_path, tiny_pt, key):
    path = saved(tmp_path / "m.pt", checkpoint_content() | {key: BESIDE[key]})
    np.testing.assert_array_equal(stream(path), stream(tiny_pt))


def test_reading_a_checkpoint_consumes_config_and_tensors(tmp_path):
    content = checkpoint_content()
    content["config"]["anything"] = 1
    with pytest.raises(InputError, match="does not know: anything"):
        read_checkpoint(saved(tmp_path / "m.pt", content))
    content = checkpoint_content()
    content["model_state_dict"]["layers.0.anything"] = torch.ones(2)
    with pytest.raises(InputError, match=r"unknown layers\.0\.anything"):
        read_checkpoint(saved(tmp_path / "m.pt", content))
    content = checkpoint_content()
    content["config"]["dropout"] = argparse.Namespace()
    with pytest.raises(InputError, match=r"config: must hold tensors and numbers only, got argparse\.Namespace"):
        read_checkpoint(saved(tmp_path / "m.pt", content))


@pytest.mark.parametrize("chain", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "net.encoder.module."])
def test_names_behind_a_wrapper_are_read(tmp_path, tiny_pt, chain):
    content = checkpoint_content()
    content["model_state_dict"] = {chain + name: t for name, t in content["model_state_dict"].items()}
    path = saved(tmp_path / "m.pt", content)
    with pytest.warns(InputNote, match=f"begin with {chain}"):
        np.testing.assert_array_equal(stream(path), stream(tiny_pt))


def test_names_behind_several_wrappers_are_refused_in_one_short_line(script, tmp_path, tiny_dataset):
    content = checkpoint_content()
    names = list(content["model_state_dict"])
    for change in (
        lambda i, name: f"module.{name}" if i % 2 else f"_orig_mod.{name}",
        lambda i, name: f"module.{name}" if i else name,
        lambda i, name: f"module.{name}" if i else "module.extra",
    ):
        content["model_state_dict"] = {change(i, name): tiny_tensors()[name] for i, name in enumerate(names)}
        path = saved(tmp_path / "m.pt", content)
        ran = script("train", "--checkpoint", path, "--dataset", tiny_dataset, "--output", tmp_path / "out")
        assert_one_line_error(ran, "tensors must be those of its config", "and ", "more")
        assert len(ran.err) <= 300


def test_numbers_of_numpy_are_numbers(tmp_path, tiny_pt):
    for kind in (np.int64, np.float64, torch.tensor, float):
        content = checkpoint_content()
        content["config"] = {name: kind(value) for name, value in content["config"].items()}
        content["vocab_size"] = kind(content["vocab_size"])
        path = saved(tmp_path / "m.pt", content)
        np.testing.assert_array_equal(stream(path), stream(tiny_pt))


def test_a_file_without_checksums_is_read_and_one_with_them_is_still_checked(tmp_path, tiny_pt):
    from torch.utils.serialization import config

    config.save.compute_crc32 = False
    try:
        path = saved(tmp_path / "m.pt", checkpoint_content())
    finally:
        config.save.compute_crc32 = True
    with pytest.warns(InputNote, match="saved without checksums"):
        np.testing.assert_array_equal(stream(path), stream(tiny_pt))
    broken = bytearray(tiny_pt.read_bytes())
    broken[len(broken) // 2] ^= 1
    (tmp_path / "broken.pt").write_bytes(broken)
    with pytest.raises(InputError, match="checksums must hold"):
        read_checkpoint(tmp_path / "broken.pt")


def test_tensors_as_they_may_lie_in_a_file(tmp_path):
    content = checkpoint_content()
    state = content["model_state_dict"]
    state["layers.0.ln1.bias"] = torch.full((1,), 0.25).expand(TINY.d_model)
    state["layers.1.ln1.bias"] = torch.zeros(1).expand(TINY.d_model)
    parameter = torch.nn.Parameter(state["head.bias"])
    parameter.no_decay = True
    state["head.bias"] = parameter
    state["layers.2.ln1.bias"] = torch._neg_view(state["layers.2.ln1.bias"])  # negated by a bit beside the storage
    plain = {name: t.detach().resolve_neg().clone().contiguous() for name, t in state.items()}
    path, same = saved(tmp_path / "a.pt", content), saved(tmp_path / "b.pt", content | {"model_state_dict": plain})
    np.testing.assert_array_equal(stream(path), stream(same))


def test_a_model_is_known_by_what_it_computes(tmp_path, tiny_pt):
    """Saved again, wrapped, in another type of the same values, or converted and back, it is the same; else another."""
    first = read_checkpoint(tiny_pt)
    again = saved(tmp_path / "again.pt", checkpoint_content() | {"epoch": 3})
    checkpoints.to_folder(tiny_pt, tmp_path / "folder")
    checkpoints.to_pt(tmp_path / "folder", tmp_path / "back.pt")
    content = checkpoint_content()
    double = {name: t.double() for name, t in content["model_state_dict"].items()}
    saved(tmp_path / "double.pt", content | {"model_state_dict": double})
    content["config"] |= {"dropout": 0.3, "rotary_base": 10000.0}
    saved(tmp_path / "dropout.pt", content)
    for path in (again, tmp_path / "folder", tmp_path / "back.pt", tmp_path / "double.pt", tmp_path / "dropout.pt"):
        assert read_checkpoint(path).identity == first.identity, path
    assert read_checkpoint(again).sha256 != first.sha256
    assert read_checkpoint(tmp_path / "folder").sha256 == first.sha256
    content["config"]["rotary_base"] = 500.0
    others = {"base.pt": content, "seed.pt": checkpoint_content(seed=1)}
    for name, other in others.items():
        assert read_checkpoint(saved(tmp_path / name, other)).identity != first.identity


def test_an_sae_of_a_model_that_was_saved_again_is_its_sae(tmp_path, tiny_pt):
    model = read_checkpoint(tiny_pt)
    new = load_sae(sae_pt(tmp_path, {"model_sha256": model.identity, "checkpoint_sha256": "of the old file"}))
    check_model("sae.pt", new, model.identity, model.sha256)
    with pytest.raises(InputError, match="was trained on another model"):
        check_model("sae.pt", new, "f" * 64, "of the old file")
    old = load_sae(sae_pt(tmp_path, {"checkpoint_sha256": model.sha256}))
    check_model("sae.pt", old, model.identity, model.sha256)
    with pytest.raises(InputError, match="was trained on another model"):
        check_model("sae.pt", old, model.identity, "f" * 64)
