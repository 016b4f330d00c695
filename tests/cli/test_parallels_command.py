"""`jaxsae parallels`: it builds an index where there is none, reads it after that, and refuses what does not fit it."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
from conftest import TINY, assert_one_line_error, checkpoint_content
from helpers import narrowed

from convert import save_sae
from jaxsae.config import SAEConfig
from jaxsae.sae.architectures import init
from jaxsae.text import arrow, loading

QUERY = "1. a-na be-lí-ia # [...] qí-bí-ma"


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_pt):
    """Two SAEs, another model, and text."""
    folder = tmp_path_factory.mktemp("parallels")
    config = SAEConfig(TINY.d_model, 60, k=5, architecture="topk")
    for seed in (0, 1):
        save_sae(folder / f"sae{seed}.pt", init(jax.random.key(seed), config), config, extra={"layer": 1})
    torch.save(checkpoint_content(seed=1), folder / "other.pt")
    texts = [f"a-na be-lí-ia šar-ra-ak {'ABCDEFG'[n % 7]}.E um"[: TINY.max_position] for n in range(50)]
    (folder / "fragments.json").write_text(json.dumps([{"_id": "x", "atf": text} for text in texts]))
    columns = loading.prepare_file(folder / "fragments.json", 42)
    cut = narrowed(columns, TINY.max_position)
    (folder / "dataset").mkdir()
    arrow.save_splits(folder / "dataset", cut)
    return folder


@pytest.fixture
def parallels(script, files, tiny_pt):
    def run(*args, sae="sae0.pt", model=tiny_pt):
        return script("parallels", "--sae", files / sae, "--model", model, *args)

    return run


@pytest.fixture(scope="module")
def index(files, tmp_path_factory):
    return tmp_path_factory.mktemp("made") / "index"


def test_it_is_built_once_and_then_read(parallels, files, index, tmp_path):
    first = parallels(
        "--dataset", files / "dataset", "--index", index, "--text", QUERY, "--top", 7, "--json", tmp_path / "o.json"
    )
    assert first.status == 0, first
    assert "building an index of 40 texts" in first.out
    made = {path: path.stat().st_mtime_ns for path in index.iterdir()}
    written = json.loads((tmp_path / "o.json").read_text())
    assert (written["text"], written["cleaned"], written["by"]) == (QUERY, ". a-na be-lí-ia # # qí-bí-ma", "both")
    assert len(written["parallels"]) == 7
    texts = json.loads((index / "texts.json").read_text())
    for one in written["parallels"]:
        assert texts[one["text_number"]][one["start"] : one["end"]] == one["passage"]
        assert {"feature", "caption", "share"} == set(one["shared"][0])
    assert [f"{one['score']:.3f}" in first.out for one in written["parallels"]] == [True] * 7

    again = parallels("--index", index, "--text", QUERY, "--top", 7, "--json", "-")
    assert again.status == 0, again
    assert json.loads(again.out) == written
    assert "building" not in again.err
    assert {path: path.stat().st_mtime_ns for path in index.iterdir()} == made

    place = parallels("--index", index, "--text", QUERY, "--position", 3, "--by", "letters", "--json", "-")
    found = json.loads(place.out)["parallels"]
    assert found
    assert all(one["letters"] == 1 and not one["shared"] for one in found)
    assert parallels("--index", index).status == 0


def test_what_does_not_fit_the_index_is_refused(parallels, files, index):
    other = "give another folder, or remove this one"
    assert_one_line_error(parallels("--index", index, "--text", "a", sae="sae1.pt"), "must be of the SAE given", other)
    assert_one_line_error(
        parallels("--index", index, "--text", "a", model=files / "other.pt"), "must be of the model given", other
    )
    for flags, name in ((("--split", "test"), "--split"), (("--max-samples", 3), "--max-samples")):
        ran = parallels("--index", index, "--dataset", files / "dataset", "--text", "a", *flags)
        assert_one_line_error(ran, f"{name} must be that of the index")
    ran = parallels("--index", index, "--dataset", files / "fragments.json", "--text", "a")
    assert_one_line_error(ran, "--dataset must be that of the index")
    assert parallels("--index", index, "--dataset", files / "dataset", "--text", "a").status == 0


def test_what_cannot_be_is_said_before_the_work(parallels, files, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    data = "--dataset", files / "dataset"
    for flags, message in (
        (("--index", tmp_path, "--text", "a"), "--index must be an index, or a folder that does not exist"),
        (("--index", tmp_path / "x", "--text", ""), "at least one character"),
        (("--index", tmp_path / "x", "--text", "[a]"), "at least one character"),
        (("--index", tmp_path / "x", "--text", "a" * 46), "at most 45 characters"),
        (("--index", tmp_path / "x", "--position", 3), "--position needs --text"),
        (("--index", tmp_path / "x", "--text", "a b", "--position", 3), "position must be in 0..2, got 3"),
        (("--index", tmp_path / "x", "--text", "a b", "--top", 0), "top must be at least 1"),
    ):
        assert_one_line_error(parallels(*flags, *data), message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note.txt"]


def test_a_damaged_index_is_one_line(parallels, files, tmp_path):
    built = parallels("--dataset", files / "dataset", "--index", tmp_path / "index", "--max-samples", 5)
    assert built.status == 0, built
    np.save(tmp_path / "index" / "latents_weights.npy", np.zeros(3, np.float32))
    assert_one_line_error(parallels("--index", tmp_path / "index", "--text", "a"), "the sizes of an index must agree")


def test_another_sae_than_the_models_is_refused(parallels, files, tmp_path, tiny_pt):
    config = SAEConfig(TINY.d_model, 60, k=5, architecture="topk")
    extra = {"layer": 1, "model_sha256": "0" * 64}
    save_sae(files / "foreign.pt", init(jax.random.key(0), config), config, extra=extra)
    ran = parallels("--index", tmp_path / "x", "--text", "a", sae="foreign.pt")
    assert_one_line_error(ran, "was trained on another model")
    narrow = dataclasses.replace(config, d_in=8)
    save_sae(files / "narrow.pt", init(jax.random.key(0), narrow), narrow, extra={"layer": 1})
    ran = parallels("--dataset", files / "dataset", "--index", tmp_path / "x", "--text", "a", sae="narrow.pt")
    assert_one_line_error(ran, "d_in")
