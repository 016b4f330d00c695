"""The guide's own commands, in its order, in a folder laid out as the guide has it: all end well, nothing is lost."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import assert_one_line_error, tiny_splits

from convert import load_sae
from jaxsae.config import DEMO
from jaxsae.demo import dataset
from jaxsae.text import arrow

TRAININGS = (
    "--layer 8",
    "--layer 8 --max-samples 500",
    "--layer 2",
    "--layer 14",
    "--layer 8 --l1-coef 1e-4",
    "--layer 8 --l1-coef 3e-3",
    "--layer 8 --l1-coef 5e-3",
    "--layer 8 --expansion 8",
    "--layer 8 --k-sparse 20",
    "--layer 8 --batch-size 512",
)
FEWER = ["--epochs", "1"]
"""Than the guide's 50: what is tested does not need them."""


def test_the_guide_s_commands(script, tmp_path, monkeypatch):
    (tmp_path / "models" / "torso_restoration").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    shutil.copy(DEMO / "best_model.pt", tmp_path / "models" / "torso_restoration")
    dataset.ensure_demo(DEMO / "dataset")
    (tmp_path / "data" / "restoration_dataset").symlink_to(DEMO / "dataset")
    monkeypatch.chdir(tmp_path)
    results, made = tmp_path / "checkpoints" / "sae_results", {}
    for flags in TRAININGS:
        ran = script("train", *flags.split(), *FEWER)
        assert ran.status == 0, (flags, ran)
        assert "note: " not in ran.err, (flags, ran)
        assert "models/torso_restoration/best_model.pt and data/restoration_dataset of this folder" in ran.out
        path = results / f"sae_layer{flags.split()[1]}_optimized.pt"
        assert ("kept     the older" in ran.out) == (path.name in [name for name, _ in made.values()])
        made[flags] = path.name, path.read_bytes()
    # each of the trainings is there, under its own name or one that says in what it differed
    there = {path: path.read_bytes() for path in results.glob("*.pt")}
    assert len(there) == len(TRAININGS)
    assert {content for _, content in made.values()} == set(there.values())
    names = {content: path.name for path, content in there.items()}
    assert "k-20" in names[made["--layer 8 --k-sparse 20"][1]]
    assert "l1-0.003" in names[made["--layer 8 --l1-coef 3e-3"][1]]
    for path in there:
        report = json.loads(path.with_suffix(".json").read_text())
        assert report["losses"] == load_sae(path).losses
        assert path.with_suffix(".png").exists()
    for flags in ("--layer 8", "--layer 8 --histogram --num-samples 20", "--layer 8 --feature 119 --num-samples 20"):
        ran = script("inspect_sae", *flags.split())
        assert ran.status == 0, ran
    assert (results / "sae_layer8_optimized_histogram.png").exists()


@pytest.fixture
def inputs(quick_compiles, tiny_pt, tiny_dataset, tmp_path):
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--layer", 1, "--batch-size", 8, *FEWER, "--verify", 0]
    return [*flags, "--output", tmp_path / "out"]


def test_what_made_a_file_is_told_by_the_name_it_is_kept_under(script, inputs, tmp_path):
    path = tmp_path / "out" / "sae_layer1_optimized.pt"

    def kept(*flags):
        ran = script("train", *inputs, *flags)
        assert ran.status == 0, ran
        return re.findall(r"kept .* as (\S+)", ran.out)

    assert kept() == []
    first = path.read_bytes()
    assert kept() == []  # the same again
    assert path.read_bytes() == first
    assert kept("--l1-coef", "1e-4") == ["sae_layer1_optimized_l1-0.001.pt"]
    assert (tmp_path / "out" / "sae_layer1_optimized_l1-0.001.pt").read_bytes() == first
    assert kept("--l1-coef", "1e-4", "--overwrite") == []
    assert kept() == ["sae_layer1_optimized_l1-0.0001.pt"]
    assert kept("--l1-coef", "1e-4", "--overwrite") == []  # asked for: the first is gone
    assert kept("--seed", "3", "--expansion", "2") == ["sae_layer1_optimized_expansion-4_l1-0.0001_seed0.pt"]


def test_a_file_of_unknown_making_is_kept_too(script, inputs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "sae_layer1_optimized.pt").write_bytes(b"the original script's")
    for number in ("", "_2"):
        assert script("train", *inputs).status == 0
        kept = out / f"sae_layer1_optimized_older{number}.pt"
        assert kept.read_bytes() == b"the original script's"
        (out / "sae_layer1_optimized.json").unlink()
        (out / "sae_layer1_optimized.pt").write_bytes(b"the original script's")


def test_another_model_or_text_is_another_folder_s_business(script, inputs, tmp_path):
    assert script("train", *inputs).status == 0
    before = (tmp_path / "out" / "sae_layer1_optimized.pt").read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    arrow.save_splits(other, tiny_splits(seed=5))
    for more in ([], ["--resume"]):
        ran = script("train", *inputs, "--dataset", other, *more)
        assert_one_line_error(ran, "made with another dataset; give --overwrite or another output")
        assert (tmp_path / "out" / "sae_layer1_optimized.pt").read_bytes() == before
    assert script("train", *inputs, "--dataset", other, "--overwrite").status == 0


def test_what_stands_in_the_guide_s_places_is_said(script, tmp_path, monkeypatch, tiny_pt, tiny_dataset):
    monkeypatch.chdir(tmp_path)
    flags = ["--layer", 1, "--verify", 0, "--quiet", *FEWER]
    ran = script("train", *flags, "--output", "demo", "--max-samples", 5)
    assert ran.status == 0, ran
    assert "note     no --checkpoint and --dataset given: this is the embedded demo, not your model" in ran.out
    assert "\nnote     these are features of the embedded demo" in ran.out
    small = [*flags, "--batch-size", 8]
    ran = script("train", *small, "--checkpoint", tiny_pt, "--split", "nothing", "--output", "mixed")
    assert "the text is the embedded demo's, not that of your model" in ran.out
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "restoration_dataset").symlink_to(tiny_dataset)
    ran = script("train", *flags, "--output", "demo", "--max-samples", 5)
    assert "(this folder has data/restoration_dataset alone)" in ran.out
    (tmp_path / "models" / "torso_restoration").mkdir(parents=True)
    shutil.copy(tiny_pt, tmp_path / "models" / "torso_restoration" / "best_model.pt")
    ran = script("train", *small, "--output", "mine")
    assert ran.status == 0, ran
    assert "models/torso_restoration/best_model.pt and data/restoration_dataset of this folder" in ran.out
    ran = script("train", *small, "--output", "given", "--checkpoint", tiny_pt, "--dataset", tiny_dataset)
    assert "note     no" not in ran.out


def test_files_that_a_plain_reader_misreads_are_said_to_be(script, inputs, tmp_path):
    for flags, word in ((["--k-sparse", 5], "k"), (["--architecture", "batchtopk", "--target-l0", 5], "threshold")):
        ran = script("train", *inputs, *flags, "--overwrite")
        found = re.search(
            r"this file has ([\d.]+) latents on a row, not ([\d.]+); jaxsae applies .* \((\w+)\)", ran.out
        )
        assert found, ran
        assert found[3] == word
        content = torch.load(tmp_path / "out" / "sae_layer1_optimized.pt", weights_only=True)
        # as a program computes that knows the four tensors alone, on the rows that the run was scored on
        report = json.loads((tmp_path / "out" / "sae_layer1_optimized.json").read_text())
        assert f"{report['l0_of_relu_alone']:.1f}" == found[1]
        assert report["l0_of_relu_alone"] > report["l0"]
        rows = rows_scored(inputs)
        pre_acts = rows @ content["W_enc"].numpy() + content["b_enc"].numpy()
        np.testing.assert_allclose((pre_acts > 0).sum(1).mean(), report["l0_of_relu_alone"], rtol=1e-3)
    ran = script("train", *inputs, "--overwrite")
    assert "relu alone" not in ran.out


def rows_scored(inputs):
    from convert import load_restoration_model
    from jaxsae import extract, load_samples

    model, samples = load_restoration_model(inputs[1]), load_samples(inputs[3], "test", 20)
    return np.asarray(extract(model, samples, [1]).values[1])


def test_many_dead_latents_are_noted(script, inputs):
    ran = script("train", *inputs, "--k-sparse", 1, "--expansion", 40, "--overwrite")
    assert re.search(
        r"note     dead latents: [5-9]\d\.\d% of them fire on none .* Try --recipe modern as well", ran.out
    ), ran


def test_a_run_that_fails_leaves_the_older_file_its_name(script, inputs, tmp_path, monkeypatch):
    assert script("train", *inputs).status == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("sae_*")}

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxsae.train.plots.training_plot", fail)
    assert_one_line_error(script("train", *inputs, "--l1-coef", "1e-4"), "must find room on the disk")
    left = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("sae_*.[pj]*")}
    assert left == before
