"""What comes from outside and is wrong: status 2, one line that says what must hold, and an output folder untouched."""

import pytest
from bad_texts import DATASETS, FRAGMENTS
from bad_weights import CHECKPOINTS, RAN, SAES, STORES, sae_file
from conftest import assert_one_line_error

FLAGS = {
    "--layer 99": "layer must be in 0..",
    "--layer -1": "layer must be at least 0",
    "--layer x": "layer must be a number",
    "--layer 1,1": "layers must differ",
    "--epochs 0": "epochs",
    "--epochs x": "invalid int value",
    "--patience 0": "patience",
    "--batch-size 0": "batch-size",
    "--batch-size 99999": "rows must be at least a batch",
    "--lr 0": "lr",
    "--lr nan": "lr",
    "--lr -1": "lr",
    "--expansion 0": "expansion",
    "--l1-coef -1": "l1-coef",
    "--l1-coef nan": "l1-coef",
    "--k-sparse 0": "k",
    "--k-sparse 9999": "k must be in",
    "--target-l0 0": "target",
    "--target-l0 9999": "target",
    "--decay 2 --recipe modern": "decay",
    "--seed -1": "seed must be in",
    "--seed 99999999999999999999": "seed must be in",
    "--max-samples 0": "max-samples must be at least 1",
    "--max-samples few": "max-samples",
    "--verify -1": "verify must be at least 0",
    "--save-every -1": "save-every must be at least 0",
    "--save-every nan": "save-every must be at least 0",
    "--memory-limit much": "must be like 2GB",
    "--device mps": "use --device cpu",
    "--device abacus": "invalid choice",
    "--padding some": "invalid choice",
    "--precision int4": "invalid choice",
    "--architecture gated": "invalid choice",
    "--architecture jumprelu": "target-l0",
    "--k-sparse 3 --l1-coef 1": "--l1-coef goes with architecture relu, got topk",
    "--k-sparse 3 --target-l0 3": "give either",
    "--split dev": "split must be one of",
    "--nonsense": "unrecognized arguments",
}


def cases(**kinds):
    return [pytest.param(kind, *case, id=f"{kind}: {name}") for kind, of in kinds.items() for name, case in of.items()]


@pytest.mark.parametrize(
    ("kind", "make", "says"),
    cases(checkpoint=CHECKPOINTS, dataset=DATASETS, fragments=FRAGMENTS, sae=SAES, store=STORES),
)
def test_files(script, tiny_pt, tiny_dataset, tmp_path, monkeypatch, kind, make, says):
    monkeypatch.chdir(tmp_path)
    path, out = make(tmp_path / ("bad.json" if kind == "fragments" else "bad")), tmp_path / "out"
    inputs = {"--checkpoint": tiny_pt, "--dataset": tiny_dataset, "--layer": 1}
    if kind == "checkpoint":
        ran = script("train", *sum((inputs | {"--checkpoint": path}).items(), ()), "--output", out)
    elif kind == "sae":
        ran = script("evaluate", "--sae", path, "--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--json", out)
    else:
        ran = script("train", *sum((inputs | {"--dataset": path}).items(), ()), "--batch-size", 8, "--output", out)
    assert_one_line_error(ran, says)
    assert not out.exists()
    assert not (tmp_path / RAN).exists()


@pytest.mark.parametrize(("flags", "says"), FLAGS.items(), ids=FLAGS)
def test_flags(script, tiny_pt, tiny_dataset, tmp_path, flags, says):
    out = tmp_path / "out"
    inputs = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--layer", 1, "--batch-size", 32]
    assert_one_line_error(script("train", *inputs, "--output", out, *flags.split()), says)
    assert not out.exists()


def test_there_are_enough_of_them():
    assert sum(map(len, (CHECKPOINTS, DATASETS, FRAGMENTS, FLAGS, SAES, STORES))) >= 80


def test_an_sae_of_another_model_may_be_meant(script, tiny_pt, tiny_dataset, tmp_path):
    path = sae_file(tmp_path / "sae.pt", config={"checkpoint_sha256": "0" * 64})
    for name in ("evaluate", "inspect_sae"):
        flags = ["--sae", path, "--checkpoint", tiny_pt, "--dataset", tiny_dataset]
        assert_one_line_error(script(name, *flags), "was trained on another model", "--other-model if that is meant")
        ran = script(name, *flags, "--other-model")
        assert ran.status == 0
        assert ran.err.startswith("note: ")
        assert "was trained on another model" in ran.err
