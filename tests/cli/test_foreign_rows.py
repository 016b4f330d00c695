"""Commands on datasets and rows of other people: what they mean, or one line that says why not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import TINY, assert_one_line_error, needs_torch, tiny_splits, without_progress
from helpers import changed_state

from jaxsae.text import arrow

SPLITS = tiny_splits()


@pytest.fixture
def stored(script, tiny_pt, tiny_dataset, tmp_path):
    """Rows of four samples of the tiny model."""
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--layer", 1, "--max-samples", 4]
    assert script("extract_activations", *flags, "--output", tmp_path / "rows", "--quiet").status == 0
    return tmp_path / "rows"


TRAIN = ["--layer", 1, "--epochs", 1, "--batch-size", 8, "--quiet", "--verify", 0]


@needs_torch
def test_flags_are_obeyed_or_refused_with_stored_rows(script, stored, tmp_path, tiny_pt, tiny_dataset):
    out = tmp_path / "out"
    flags = [*TRAIN, "--dataset", stored, "--output", out]
    for more, says in (
        (["--split", "train"], "--split must be that of the stored rows, 'validation', got 'train'"),
        (["--padding", "keep"], "--padding must be that of the stored rows, 'drop', got 'keep'"),
    ):
        assert_one_line_error(script("train", *flags, *more), says)
        assert not out.exists()
    assert script("train", *flags, "--max-samples", 2, "--split", "validation", "--padding", "drop").status == 0
    report = json.loads((out / "sae_layer1_optimized.json").read_text())
    assert report["rows"] == int((np.load(stored / "sample.npy") < 2).sum())
    assert report["settings"]["max_samples"] == 2
    sae = out / "sae_layer1_optimized.pt"
    for command, more in (("evaluate", ["--split", "train"]), ("inspect_sae", ["--padding", "keep"])):
        rated = ["--sae", sae, "--checkpoint", tiny_pt, "--dataset", stored]
        assert_one_line_error(script(command, *rated, *more), "must be that of the stored rows")
    for command, more in (
        ("verify_activations", []),
        ("extract_activations", ["--layer", 1, "--output", tmp_path / "again"]),
    ):
        ran = script(command, "--checkpoint", tiny_pt, "--dataset", stored, *more)
        assert_one_line_error(ran, "--dataset must be text here, got stored rows")
    np.save(tmp_path / "bare.npy", np.load(stored / "layer1.npy"))
    bare = [*TRAIN, "--dataset", tmp_path / "bare.npy", "--output", tmp_path / "bare"]
    assert_one_line_error(script("train", *bare, "--max-samples", 2), "must say which samples its rows are of")
    assert_one_line_error(script("train", *bare, "--split", "test"), "--split must be that of the stored rows, which")


@needs_torch
def test_a_checkpoint_given_with_stored_rows_is_theirs(script, stored, tmp_path, tiny_pt):
    import torch
    from conftest import checkpoint_content

    other = tmp_path / "other.pt"
    torch.save(checkpoint_content(seed=1), other)
    flags = [*TRAIN, "--output", tmp_path / "out"]
    ran = script("train", *flags, "--dataset", stored, "--checkpoint", other)
    assert_one_line_error(ran, "the checkpoint must be the one that the rows are of")
    assert script("train", *flags, "--dataset", stored, "--checkpoint", tiny_pt).status == 0
    np.save(tmp_path / "bare.npy", np.load(stored / "layer1.npy"))
    flags = [*TRAIN, "--output", tmp_path / "bare_out", "--dataset", tmp_path / "bare.npy"]
    assert script("train", *flags, "--checkpoint", other).status == 0
    sae = tmp_path / "bare_out" / "sae_layer1_optimized.pt"
    ran = script("evaluate", "--sae", sae, "--checkpoint", tiny_pt, "--dataset", stored)
    assert_one_line_error(ran, "was trained on another model")


@needs_torch
def test_a_run_without_a_test_split_is_scored_on_its_rows(script, folder, tmp_path, tiny_pt):
    changed_state(folder, lambda state: state.update({"_data_files": []}), "test")
    flags = ["--checkpoint", tiny_pt, "--dataset", folder]
    ran = script("train", *flags, *TRAIN, "--output", tmp_path / "out")
    assert (ran.status, without_progress(ran.err)) == (0, "")
    assert "(training rows)" in ran.out
    rated = [*flags, "--sae", tmp_path / "out" / "sae_layer1_optimized.pt"]
    assert_one_line_error(
        script("evaluate", *rated, "--split", "test"), "a split must have samples, got none in 'test'"
    )
    ran = script("evaluate", *rated)
    assert "has no test split: validation is read" in ran.out
    assert "trained on this text" in ran.err


@needs_torch
def test_text_without_damage_is_rated_by_its_reconstruction(script, folder, tmp_path, tiny_pt):
    whole = {split: c | {"labels": np.full_like(c["labels"], -100)} for split, c in SPLITS.items()}
    path = tmp_path / "undamaged"
    path.mkdir()
    arrow.save_splits(path, whole)
    flags = ["--checkpoint", tiny_pt, "--dataset", path]
    assert script("train", *flags, *TRAIN, "--output", tmp_path / "out").status == 0
    rated = [*flags, "--sae", tmp_path / "out" / "sae_layer1_optimized.pt"]
    ran = script("evaluate", *rated, "--json", tmp_path / "e.json")
    assert ran.status == 0
    assert "has no damaged characters: what is restored with an SAE is left out" in ran.err
    [figures] = json.loads((tmp_path / "e.json").read_text())
    assert figures["fvu"] > 0
    assert "ce_sae" not in figures
    assert_one_line_error(script("inspect_sae", *rated, "--ablate", 1), "need damaged characters to restore")
    assert script("inspect_sae", *rated, "--html", tmp_path / "page.html").status == 0


@needs_torch
def test_a_label_outside_the_vocabulary_is_refused_by_name(script, tmp_path, tiny_pt):
    splits = tiny_splits()
    for columns in splits.values():
        sample, position = np.argwhere(columns["labels"] >= 0)[3]
        columns["labels"][sample, position] = TINY.vocab_size + 5
    path = tmp_path / "ds"
    path.mkdir()
    arrow.save_splits(path, splits)
    ran = script("train", "--checkpoint", tiny_pt, "--dataset", path, *TRAIN, "--output", tmp_path / "out")
    character = chr(TINY.vocab_size + 5)
    assert_one_line_error(ran, f"labels must be in 0..{TINY.vocab_size - 1}", repr(character), "of sample")
    assert not (tmp_path / "out").exists()


@needs_torch
def test_several_datasets_are_taken_by_every_command(script, folder, tmp_path, tiny_pt, tiny_dataset):
    both = f"{tiny_dataset},{folder}"
    flags = ["--checkpoint", tiny_pt, "--dataset", both]
    assert script("train", *flags, *TRAIN, "--output", tmp_path / "out").status == 0
    rated = [*flags, "--sae", tmp_path / "out" / "sae_layer1_optimized.pt"]
    ran = script("evaluate", *rated, "--json", tmp_path / "e.json")
    assert ran.status == 0
    assert json.loads((tmp_path / "e.json").read_text())[0]["rows"] == 2 * int(SPLITS["test"]["attention_mask"].sum())
    assert "24 samples" in script("inspect_sae", *rated).out
    assert script("extract_activations", *flags, "--layer", 1, "--output", tmp_path / "rows", "--quiet").status == 0
    assert script("verify_activations", *flags, "--layer", 1, "--samples", 1).status == 0
