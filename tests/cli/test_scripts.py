"""train.py as a user runs it, on a tiny model."""

import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, assert_one_line_error, without_progress
from helpers import THRESHOLDED

from convert import load_sae, read_checkpoint
from jaxsae.config import ARCHITECTURES
from jaxsae.text import loading


@pytest.fixture
def inputs(quick_compiles, tiny_pt, tiny_dataset):
    return ["--checkpoint", tiny_pt, "--dataset", tiny_dataset]


@pytest.fixture
def small(inputs, tmp_path):
    """Flags of a run of a few seconds."""
    return [*inputs, "--layer", 2, "--epochs", 3, "--batch-size", 16, "--output", tmp_path / "out"]


def test_train_writes_an_sae_its_figures_and_a_picture(script, small, tmp_path):
    ran = script("train", *small)
    assert (ran.status, without_progress(ran.err)) == (0, ""), ran
    out = tmp_path / "out"
    files = {f"sae_layer2_optimized.{kind}" for kind in ("json", "png", "pt")}
    assert {p.name for p in out.iterdir()} == files | {"metrics.jsonl"}
    order = ["model ", "text ", "check ", "rows ", "trained ", "scored ", "took ", "wrote "]
    assert [line[: len(o)] for line, o in zip(ran.out.splitlines(), order, strict=False)] == order
    assert re.search(r"layer 2: max \|JAX - PyTorch\| = \S+ over 1 positions", ran.out)
    assert "12 samples (all there are; 200 asked for)" in ran.out

    read, figures = (
        load_sae(out / "sae_layer2_optimized.pt"),
        json.loads((out / "sae_layer2_optimized.json").read_text()),
    )
    assert read.config.d_sae == 4 * TINY.d_model
    assert read.extra["layer"] == 2
    assert read.losses == figures["losses"]
    wanted = {
        "layer": 2, "architecture": "relu", "epochs": 3, "d_in": 30, "d_sae": 120, "seed": 0,
        "checkpoint_sha256": read_checkpoint(small[1]).sha256, "final_loss": read.losses[-1],
    }  # fmt: skip
    assert {key: figures[key] for key in wanted} == wanted
    assert figures["rows"] == int(loading.load_samples(small[3], "validation").mask.sum())
    assert figures["rows_scored"].startswith("test split, first 12 samples")
    assert figures["fvu"] > 0
    assert 0 <= figures["dead"] <= 1
    assert figures["peak_memory_bytes"] > 1e8
    assert (out / "sae_layer2_optimized.png").read_bytes().startswith(b"\x89PNG")


def test_topk_is_named_in_the_file(script, small, tmp_path):
    ran = script("train", *small, "--k-sparse", 5, "--padding", "keep", "--verify", 0, "--quiet")
    assert ran.status == 0, ran
    assert "check   " not in ran.out
    file = torch.load(tmp_path / "out" / "sae_layer2_optimized.pt", weights_only=True)
    assert (file["config"]["k"], file["config"]["l1_coef"], file["config"]["architecture"]) == (5, 0.0, "topk")
    figures = json.loads((tmp_path / "out" / "sae_layer2_optimized.json").read_text())
    assert figures["l0"] <= 5
    assert figures["rows"] == 12 * TINY.max_position
    np.testing.assert_allclose(file["W_dec"].norm(dim=1), 1, atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_target_l0_with_every_architecture(script, small, tmp_path, architecture):
    ran = script("train", *small, "--recipe", "modern", "--architecture", architecture, "--target-l0", 6, "--verify", 0)
    assert ran.status == 0, ran
    read = load_sae(tmp_path / "out" / "sae_layer2_optimized.pt")
    assert (read.config.architecture, read.config.target_l0) == (architecture, 6)
    assert (read.sae.threshold is not None) == (architecture in THRESHOLDED)
    figures = json.loads((tmp_path / "out" / "sae_layer2_optimized.json").read_text())
    assert figures["settings"]["recipe"] == "modern"
    assert figures["l1_coef"] == read.config.l1_coef
    ran = script("evaluate", "--sae", tmp_path / "out" / "sae_layer2_optimized.pt", *small[:4])
    assert ran.status == 0, ran


def test_the_newer_architectures_imply_the_modern_recipe(script, small, tmp_path):
    assert script("train", *small, "--architecture", "batchtopk", "--target-l0", 6, "--verify", 0).status == 0
    settings = json.loads((tmp_path / "out" / "sae_layer2_optimized.json").read_text())["settings"]
    assert (settings["recipe"], settings["lr"], settings["epochs"]) == ("modern", 8e-3, 3)


def test_dense_features_are_pointed_out(script, small):
    assert "--k-sparse 20" in script("train", *small).out
    assert "--k-sparse 20" not in script("train", *small, "--k-sparse", 5, "--overwrite").out


def test_two_fresh_processes_give_the_same_bits(small, tmp_path):
    tensors = []
    for name in ("a", "b"):
        command = [sys.executable, "scripts/train.py", *map(str, small[:-1]), str(tmp_path / name), "--verify", "0"]
        env = os.environ | {"PYTHONHASHSEED": name.encode().hex(), "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=env)
        assert (done.returncode, without_progress(done.stderr)) == (0, ""), done
        tensors.append(torch.load(tmp_path / name / "sae_layer2_optimized.pt", weights_only=True))
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(tensors[0][name].view(torch.int32), tensors[1][name].view(torch.int32))


def test_results_of_other_settings_are_not_replaced(script, small, tmp_path):
    assert script("train", *small).status == 0
    target = tmp_path / "out" / "sae_layer2_optimized.pt"
    before = target.read_bytes()
    assert_one_line_error(script("train", *small, "--seed", 1, "--resume"), "another seed", "--overwrite")
    assert target.read_bytes() == before
    assert script("train", *small, "--seed", 1).status == 0
    assert target.with_stem(f"{target.stem}_seed0").read_bytes() == before
    assert script("train", *small, "--overwrite").status == 0
    assert script("train", *small).status == 0  # the same settings: without asking
    assert script("train", *small, "--seed", 1, "--overwrite").status == 0
    assert target.read_bytes() != before
    target.with_suffix(".json").unlink()
    assert_one_line_error(script("train", *small, "--resume"), "what made it is not known")


def test_train_stops_where_the_replica_is_wrong(script, small, tmp_path, monkeypatch):
    """Status 1, and nothing is written."""
    monkeypatch.setattr(
        "convert.table.apply_layout",
        lambda array, layout: (
            array.T
            if array.shape[0] == array.shape[-1] == 30
            else array.reshape(array.shape[::-1])
            if layout == "transpose"
            else array
        ),
    )
    ran = script("train", *small)
    assert ran.status == 1
    assert "differs from PyTorch more than rounding explains" in ran.err
    assert not (tmp_path / "out").exists()


def test_train_on_raw_fragments_and_a_converted_folder(script, tmp_path):
    """A model of width 768, as fragments.json is always prepared."""
    import dataclasses

    from conftest import checkpoint_content

    torch.save(checkpoint_content(dataclasses.replace(TINY, max_position=768)), tmp_path / "m.pt")
    (tmp_path / "fragments.json").write_text(json.dumps([{"atf": "a-na šar-ri " * n} for n in range(1, 41)]))
    assert script("convert_weights", tmp_path / "m.pt", tmp_path / "folder").status == 0
    flags = ["--dataset", tmp_path / "fragments.json", "--epochs", 1, "--layer", 0, "--batch-size", 16]
    ran = script("train", "--checkpoint", tmp_path / "folder", *flags, "--output", tmp_path / "out")
    assert ran.status == 0, ran
    assert "validation: 4 samples" in ran.out


def test_several_saes_in_one_run(script, tiny_pt, tiny_dataset, tmp_path):
    """Layers x penalties x seeds: a file each, with what differs in its name; each as a run alone makes it."""
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--batch-size", 32, "--epochs", 2, "--expansion", 2]
    flags += ["--lr", "1e-3", "--verify", 1]
    ran = script("train", "--layer", "0,3", "--l1-coef", "1e-3,2e-2", "--seed", "0,1", *flags, "--output", tmp_path)
    assert ran.status == 0, ran
    names = [f"sae_layer{n}_optimized_l1-{l1}_seed{s}" for n in (0, 3) for l1 in ("1e-3", "2e-2") for s in (0, 1)]
    for name in names:
        assert {(tmp_path / f"{name}{end}").is_file() for end in (".pt", ".json", ".png")} == {True}
        assert name in ran.out
    assert ran.out.count("check    layer") == 2
    assert (tmp_path / "sae_pareto.png").read_bytes().startswith(b"\x89PNG")
    alone = script("train", "--layer", 3, "--l1-coef", "2e-2", "--seed", 1, *flags, "--output", tmp_path / "alone")
    assert alone.status == 0, alone
    report = json.loads((tmp_path / "sae_layer3_optimized_l1-2e-2_seed1.json").read_text())
    single = json.loads((tmp_path / "alone" / "sae_layer3_optimized.json").read_text())
    assert report["settings"] == single["settings"]
    np.testing.assert_allclose(report["fvu"], single["fvu"], rtol=5e-3)
    np.testing.assert_allclose(report["losses"], single["losses"], rtol=1e-4)
    assert load_sae(tmp_path / "sae_layer3_optimized_l1-2e-2_seed1.pt").extra["layer"] == 3
    # the same again is replaced; with --resume, other settings are refused
    assert (
        script(
            "train", "--layer", "0,3", "--l1-coef", "1e-3,2e-2", "--seed", "0,1", *flags, "--output", tmp_path
        ).status
        == 0
    )
    more = script(
        "train",
        "--layer",
        "0,3",
        "--l1-coef",
        "1e-3,2e-2",
        "--seed",
        "0,1",
        *flags,
        "--epochs",
        3,
        "--resume",
        "--output",
        tmp_path,
    )
    assert_one_line_error(more, "made with another epochs")


def test_all_layers_and_several_ks(script, tiny_pt, tiny_dataset, tmp_path):
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--batch-size", 32, "--expansion", 2, "--verify", 0]
    ran = script("train", "--layer", "all", "--k-sparse", "3,5", "--epochs", 1, *flags, "--quiet", "--output", tmp_path)
    assert ran.status == 0, ran
    assert len(list(tmp_path.glob("*.pt"))) == 2 * TINY.n_layers
    for k in (3, 5):
        file = load_sae(tmp_path / f"sae_layer2_optimized_k-{k}.pt")
        assert (file.config.k, file.extra["layer"]) == (k, 2)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--layer", "2,2"], "layers must differ, got 2,2"),
        (["--layer", "1,x"], "layer must be a number, several separated by commas, or all, got 1,x"),
        (["--seed", "1,1"], "values must differ, got 1,1"),
        (["--l1-coef", "1,x"], "--l1-coef"),
        (["--k-sparse", "2,3", "--target-l0", "4"], "give either --k-sparse or --target-l0"),
    ],
)
def test_wrong_lists(script, flags, says):
    assert_one_line_error(script("train", *flags), says)


def test_rows_that_were_stored_train_as_those_of_text(script, inputs, small, tmp_path):
    ran = script("extract_activations", *inputs, "--layer", "1,2", "--output", tmp_path / "rows")
    assert (ran.status, without_progress(ran.err)) == (0, ""), ran
    assert script("train", *small).status == 0
    flags = [*small[4:], "--verify", 0, "--dataset", tmp_path / "rows", "--output", tmp_path / "again"]
    ran = script("train", *flags)
    assert ran.status == 0, ran
    assert "training rows" in ran.out
    one, other = (load_sae(tmp_path / name / "sae_layer2_optimized.pt") for name in ("out", "again"))
    for a, b in zip(jax.tree.leaves(one.sae), jax.tree.leaves(other.sae), strict=True):
        np.testing.assert_array_equal(a, b)
    figures = json.loads((tmp_path / "again" / "sae_layer2_optimized.json").read_text())
    assert figures["checkpoint_sha256"] == read_checkpoint(inputs[1]).sha256
    both = f"{tmp_path / 'rows'},{tmp_path / 'rows'}"
    ran = script("train", *flags, "--dataset", both, "--layer", "all", "--output", tmp_path / "both")
    assert ran.status == 0, ran
    figures = json.loads((tmp_path / "both" / "sae_layer1_optimized.json").read_text())
    assert figures["rows"] == 2 * int(loading.load_samples(inputs[3], "validation").mask.sum())
    assert_one_line_error(script("train", *flags, "--layer", 0), "layer must be one of the stored 1, 2, got 0")
    assert_one_line_error(
        script("extract_activations", *inputs, "--output", tmp_path / "rows"), "layer must be in 0..", "got 8"
    )


def test_rows_beyond_the_memory_limit_go_to_disk_and_are_gone_at_the_end(script, small, tmp_path):
    ran = script("train", *small, "--memory-limit", "0.01MB")
    assert ran.status == 0, ran
    assert "above the memory limit of 0 MB: they go to disk" in ran.out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "metrics.jsonl",
        *(f"sae_layer2_optimized.{kind}" for kind in ("json", "png", "pt")),
    }
    assert_one_line_error(script("train", *small, "--memory-limit", "much"), "must be like 2GB or 500MB, got much")


def test_two_datasets_are_one(script, small, tmp_path):
    ran = script("train", *small, "--dataset", f"{small[3]},{small[3]}", "--max-samples", 5, "--verify", 0)
    assert ran.status == 0, ran
    assert "10 samples, " in ran.out
