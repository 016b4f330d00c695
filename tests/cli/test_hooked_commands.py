"""The commands on any PyTorch module: its rows, an SAE on them, what that does, and what is refused."""

import json

import numpy as np
import pytest
from conftest import assert_one_line_error, needs_torch
from hooked_modules import CAUSAL, MASKED, TEXTS, write

pytestmark = needs_torch
TRAIN = ("--epochs", 2, "--k-sparse", 3, "--recipe", "modern", "--batch-size", 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mine")
    write(path, CAUSAL, "causal.py")
    write(path, MASKED, "masked.py")
    write(path, "\n".join(TEXTS), "texts.txt")
    return path


def ok(ran):
    assert ran.status == 0, ran.err
    return ran


def test_rows_of_modules_by_name_and_all_that_follows(script, folder, tmp_path):
    model, texts, rows = f"{folder}/causal.py:load", folder / "texts.txt", tmp_path / "rows"
    names = "blocks.1.mlp,blocks.2.mlp"
    ran = ok(script("extract_activations", "--torch", model, "--hook", names, "--texts", texts, "--output", rows))
    assert f"code     running your own code: {model}" in ran.out
    assert "this is not shown" not in ran.out
    assert "every 10th text is the test split" in ran.err
    assert json.loads((rows / "store.json").read_text())["hook_names"] == {"1": "blocks.1.mlp", "2": "blocks.2.mlp"}
    assert json.loads((rows / "pieces.json").read_text())["causal"]

    out = tmp_path / "out"
    assert (
        "layer must be one of the stored 1, 2, got 8" in script("train", "--dataset", rows, *TRAIN, "--output", out).err
    )
    ok(script("train", "--dataset", rows, "--layer", 2, *TRAIN, "--output", out))
    (sae,) = out.glob("sae_layer2_*_optimized.pt")  # with the module's name
    ok(script("evaluate", "--sae", sae, "--dataset", rows, "--json", tmp_path / "alone.json"))
    ok(script("evaluate", "--sae", sae, "--dataset", rows, "--torch", model, "--json", tmp_path / "both.json"))
    ok(script("evaluate", "--sae", sae, "--torch", model, "--texts", texts, "--json", tmp_path / "text.json"))
    alone, both, text = (json.loads((tmp_path / f"{name}.json").read_text())[0] for name in ("alone", "both", "text"))
    assert alone["l0"] == both["l0"]
    assert "ce_clean" not in alone
    assert both["positions"] > text["positions"] > 0
    assert both["ce_clean"] < both["ce_zero"] or both["ce_clean"] != both["ce_sae"]
    ran = ok(script("inspect_sae", "--sae", sae, "--torch", model, "--texts", texts, "--feature", 1, "--text", "ana"))
    assert "tokens" in ran.out
    read = ("--json", tmp_path / "i.json", "--num-samples", "all")
    told = []
    for more in ([], ["--torch", model]):  # what rows tell alone is what they tell beside their model
        ok(script("inspect_sae", "--sae", sae, "--dataset", rows, "--feature", 1, *read, *more))
        told.append(json.loads((tmp_path / "i.json").read_text()))
    assert told[0]["l0"] == told[1]["l0"] == pytest.approx(alone["l0"])
    assert told[0]["feature"][0]["contexts"] == told[1]["feature"][0]["contexts"]


def test_an_sae_of_a_layer_at_once(script, folder, tmp_path):
    """A block by its number or by its module's name is one place."""
    model, texts = f"{folder}/masked.py:load", folder / "texts.txt"
    for name, where in (("number", ("--layer", 1)), ("name", ("--hook", "encoder.layers.1"))):
        ran = ok(script("train", "--torch", model, "--texts", texts, *where, *TRAIN, "--output", tmp_path / name))
        assert "check    none: PyTorch itself runs the model" in ran.out
        assert "test split" in ran.out
    from convert import hook_name_of, load_sae

    files = [load_sae(tmp_path / name / "sae_layer1_optimized.pt") for name in ("number", "name")]
    assert [hook_name_of(file, 1) for file in files] == ["blocks.1.hook_resid_post"] * 2
    np.testing.assert_array_equal(files[0].sae.W_enc, files[1].sae.W_enc)
    sae = tmp_path / "name" / "sae_layer1_optimized.pt"
    ok(script("evaluate", "--sae", sae, "--checkpoint", model, "--texts", texts, "--json", tmp_path / "e.json"))
    assert json.loads((tmp_path / "e.json").read_text())[0]["positions"] > 0
    ok(script("inspect_sae", "--sae", sae, "--model", model, "--texts", texts, "--ablate", 1))
    rows, where = tmp_path / "rows", ("--hook", "encoder.layers.1")
    ok(script("extract_activations", "--torch", model, "--texts", texts, *where, "--output", rows))
    assert "hook_names" not in json.loads((rows / "store.json").read_text())
    ok(script("evaluate", "--sae", tmp_path / "number" / "sae_layer1_optimized.pt", "--dataset", rows))


def test_a_place_is_explained(script, folder, tmp_path):
    model, texts = f"{folder}/masked.py:load", folder / "texts.txt"
    ok(script("train", "--torch", model, "--texts", texts, "--layer", 1, *TRAIN, "--output", tmp_path))
    sae = tmp_path / "sae_layer1_optimized.pt"
    asked = ("--sae", sae, "--torch", model, "--texts", texts, "--sample", 2, "--json", tmp_path / "why.json")
    ran = ok(script("explain", *asked))
    assert "why" in ran.out
    found = json.loads((tmp_path / "why.json").read_text())
    assert found["layers"][0]["latents"] is not None


def test_there_is_nothing_to_verify(script, folder):
    ran = ok(script("verify_activations", "--torch", f"{folder}/causal.py:load"))
    assert "there is nothing to compare" in ran.out


def test_what_is_refused(script, folder, tmp_path):
    model, texts, rows = f"{folder}/causal.py:load", folder / "texts.txt", tmp_path / "rows"
    extract = ("extract_activations", "--texts", texts, "--output", rows, "--torch")
    assert_one_line_error(script(*extract, f"{folder}/causal.py:nothing"), "must define nothing()", "causal.py")
    assert_one_line_error(script(*extract, f"{folder}/causal.py"), "name the function, such as load")
    assert_one_line_error(script(*extract, model, "--hook", "blocks.1.mpl"), "blocks.1.mlp")
    assert_one_line_error(script(*extract, model, "--hook", "attn_out", "--layer", 1), "name a module by its name")
    assert_one_line_error(script(*extract, model, "--layer", 3), "layer must be in 0..2, got 3")
    assert_one_line_error(script(*extract, model, "--hook", "blocks.0,blocks.1.mlp.0"), "of one width, got 18, 36")
    strange = write(tmp_path, "0 1 2", "strange.txt")
    ran = script(*extract, model, "--layer", 1, "--texts", strange)
    assert ran.status == 2
    assert "error: encode('0 1 2') must work, got ValueError: substring not found" in ran.err
    assert not rows.exists()
    ok(script(*extract, model, "--layer", 1))
    ok(script("train", "--dataset", rows, *TRAIN, "--output", tmp_path))
    other = write(tmp_path, CAUSAL.replace("manual_seed(0)", "manual_seed(1)"), "other.py")
    sae = tmp_path / "sae_layer1_optimized.pt"
    refused = script("evaluate", "--sae", sae, "--dataset", rows, "--torch", f"{other}:load")
    assert_one_line_error(refused, "stored rows must be of the model given")
