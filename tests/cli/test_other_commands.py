"""The commands besides train.py as a user runs them, on a tiny model; wrong flags; the benchmark."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY, assert_one_line_error
from helpers import USER_FILE

from jaxsae.config import DEMO
from jaxsae.text import loading


@pytest.fixture
def inputs(tiny_pt, tiny_dataset):
    return ["--checkpoint", tiny_pt, "--dataset", tiny_dataset]


@pytest.fixture
def small(inputs, tmp_path):
    """Flags of a run of a few seconds."""
    return [*inputs, "--layer", 2, "--epochs", 3, "--batch-size", 16, "--output", tmp_path / "out"]


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_verify_passes_and_writes_its_table(script, inputs, tmp_path, padding):
    ran = script("verify_activations", *inputs, "--padding", padding, "--json", tmp_path / "v.json")
    assert ran.status == 0, ran
    assert ran.out.count(" ok ") == TINY.n_layers
    report = json.loads((tmp_path / "v.json").read_text())
    assert report["passed"] is True
    assert [row["layer"] for row in report["layers"]] == list(range(TINY.n_layers))
    for row in report["layers"]:
        assert {"max_abs", "rms", "ours_to_float64", "torch_to_float64"} <= row.keys()
        assert 0 < row["rms"] < 1e-4


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_verify_against_the_users_own_file(script, inputs, tmp_path, padding):
    (tmp_path / "model.py").write_text(USER_FILE.replace("SCALE *", ""))
    ran = script("verify_activations", *inputs, "--padding", padding, "--reference", tmp_path / "model.py")
    assert ran.status == 0, ran
    assert "running your own code" in ran.out
    assert "chatter" not in ran.out
    (tmp_path / "model.py").write_text(USER_FILE.replace("SCALE", "1.001"))
    ran = script("verify_activations", *inputs, "--layer", "0,3", "--reference", tmp_path / "model.py")
    assert ran.status == 1
    assert ran.out.count("FAILED") == 2


def test_a_users_file_that_does_not_fit_is_refused(script, inputs, tmp_path):
    for code, says in (("x = 1", "must define RestorationConfig"), ("1 / 0", "ZeroDivisionError")):
        (tmp_path / "model.py").write_text(code)
        assert_one_line_error(script("verify_activations", *inputs, "--reference", tmp_path / "model.py"), says)
    (tmp_path / "model.py").write_text(
        USER_FILE.replace("self.head =", "self.extra = nn.Linear(2, 2); self.head =").replace("SCALE *", "")
    )
    ran = script("verify_activations", *inputs, "--reference", tmp_path / "model.py")
    assert ran.status == 2
    assert_one_line_error(
        script("verify_activations", *inputs, "--reference", tmp_path / "none.py"), "must be a Python file"
    )


def test_convert_there_and_back(script, tiny_pt, tmp_path):
    assert script("convert_weights", tiny_pt, tmp_path / "folder").out.strip() == f"wrote {tmp_path / 'folder'}"
    assert script("convert_weights", tmp_path / "folder", tmp_path / "back.pt").status == 0
    old, new = (torch.load(p, weights_only=True)["model_state_dict"] for p in (tiny_pt, tmp_path / "back.pt"))
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert_one_line_error(script("convert_weights", tiny_pt, tmp_path / "folder"), "must not exist yet")
    assert_one_line_error(
        script("convert_weights", tmp_path, tmp_path / "x.pt"), "must be a folder made by jaxsae convert-weights"
    )


def test_prepare_writes_what_train_reads(script, tmp_path):
    fragments = [{"_id": str(n), "atf": "1. a-na {d}EN.LÍL " * n} for n in range(1, 31)]
    (tmp_path / "f.json").write_text(json.dumps(fragments))
    ran = script("prepare_dataset", "--fragments", tmp_path / "f.json", "--out_dir", tmp_path / "d", "--seed", 42)
    assert ran.status == 0, ran
    assert "30 fragments with text" in ran.out
    for split in ("train", "validation", "test"):
        ours, raw = (loading.load_samples(tmp_path / name, split) for name in ("d", "f.json"))
        np.testing.assert_array_equal(ours.ids, raw.ids)
    again = script("prepare_dataset", "--fragments", tmp_path / "f.json", "--out_dir", tmp_path / "d")
    assert_one_line_error(again, "must not exist yet")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--layer", 4], "layer must be in 0..3, got 4"),
        (["--layer", -1], "layer must be at least 0, got -1"),
        (["--layer", "eight"], "layer must be a number"),
        (["--k-sparse", 5, "--l1-coef", 0.1], "--l1-coef goes with architecture relu, got topk; leave it out"),
        (["--k-sparse", 0], "k must be in 1..120 (d_sae), got 0"),
        (["--k-sparse", 121], "k must be in 1..120"),
        (["--architecture", "topk"], "topk needs --k-sparse"),
        (["--architecture", "batchtopk"], "batchtopk needs --target-l0"),
        (
            ["--architecture", "jumprelu", "--target-l0", 5, "--recipe", "guide"],
            "architecture jumprelu needs recipe modern or reading, got guide",
        ),
        (["--target-l0", 0], "target-l0 must be in 1..120 (d_sae), got 0"),
        (["--target-l0", 121], "target-l0 must be in 1..120"),
        (["--target-l0", 5, "--k-sparse", 5], "give either --k-sparse or --target-l0, got both"),
        (["--target-l0", 5, "--l1-coef", 0.1], "give either --l1-coef or --target-l0"),
        (["--architecture", "jumprelu", "--l1-coef", 0.1], "--l1-coef goes with architecture relu"),
        (["--recipe", "best"], "invalid choice"),
        (["--recipe", "modern", "--decay", 0], "decay must be above 0 and at most 1"),
        (["--architecture", "relu", "--k-sparse", 5], "goes with architecture topk"),
        (["--epochs", 0], "epochs must be at least 1"),
        (["--lr", "nan"], "lr must be a number above 0"),
        (["--l1-coef", "-0.1"], "l1-coef must be a number of at least 0"),
        (["--batch-size", 10**6], "rows must be at least a batch"),
        (["--max-samples", 0], "max-samples must be at least 1"),
        (["--split", "dev"], "split must be one of"),
        (["--padding", "some"], "invalid choice"),
        (["--device", "mps"], "use --device cpu"),
        (["--seed", -1], "seed must be in"),
        (["--verify", -1], "verify must be at least 0"),
        (["--checkpoint", "nowhere.pt"], "got no such file"),
        (["--dataset", "nowhere"], "got nowhere: no such file"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_wrong_flags_are_one_line(script, small, tmp_path, flags, says):
    assert_one_line_error(script("train", *small, *flags), says)
    assert not (tmp_path / "out").exists()


def test_model_and_text_in_each_others_place_are_said_to_be(script, small, tmp_path):
    model, text = (small[small.index(flag) + 1] for flag in ("--checkpoint", "--dataset"))
    ran = script("train", "--checkpoint", text, "--dataset", model, "--output", tmp_path / "out")
    assert_one_line_error(ran, "--checkpoint must be a model and --dataset text", "exchange them")


def test_a_model_on_the_demos_text_says_so_again_at_the_end(script, tmp_path):
    mine = shutil.copyfile(DEMO / "best_model.pt", tmp_path / "best_model.pt")
    flags = ["--checkpoint", mine, "--layer", 1, "--max-samples", 4, "--epochs", 1, "--expansion", 1, "--verify", 0]
    ran = script("train", *flags, "--output", tmp_path / "out")
    assert ran.status == 0, ran.err
    assert "your model was read on the embedded demo's generated text" in ran.out.split("wrote ")[1]


def test_output_that_is_a_file_is_refused(script, small, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert_one_line_error(script("train", *small), "--output must be a folder")
    assert (tmp_path / "out").read_text() == "mine"


def test_debug_shows_the_traceback(script, small):
    from jaxsae.errors import InputError

    with pytest.raises(InputError, match="layer must be"):
        script("train", *small, "--layer", 4, "--debug")


def test_the_benchmark_measures_all_there_is_to_measure(script, inputs, tmp_path):
    """What it says of speed is not for a test; that it compares with PyTorch and ends is."""
    flags = ["--layer", 1, "--rounds", 1, "--samples", 2, "--json", tmp_path / "b.json"]
    ran = script("benchmark", *inputs, *flags, "--part", "peak", "step", "extract")
    assert ran.status == 0, ran
    lines = json.loads((tmp_path / "b.json").read_text())["lines"]
    assert [line["what"].split(",")[0] for line in lines] == ["matrix product"] * 2 + ["step"] * 4 + [
        "extract 2 samples"
    ] * 2
    assert all(line["ratio"] > 0 for line in lines[2:])
    assert_one_line_error(script("benchmark", "--guide", "no.py"), "--guide must be a Python file, got no.py")
