"""jaxsae explain, and latents that are set in jaxsae restore: what they print and write, on a tiny model."""

import json

import jax
import numpy as np
import pytest
from conftest import TINY, assert_one_line_error, tiny_splits

from convert import load_restoration_model, save_sae
from jaxsae import LayerSAE, explain_place, read_damaged, restore_text, steer
from jaxsae.config import SAEConfig
from jaxsae.sae.architectures import init

TEXT = "a-na {d}b#-li₂ [x] um-ma [a-na] ##"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """SAEs of two layers."""
    folder = tmp_path_factory.mktemp("explain")
    for layer in (1, 2):
        config = SAEConfig(TINY.d_model, 60, k=5, architecture="topk")
        save_sae(
            folder / f"sae_layer{layer}_optimized.pt",
            init(jax.random.key(layer), config),
            config,
            extra={"layer": layer},
        )
    return folder


def sae_of(layer):
    return init(jax.random.key(layer), SAEConfig(TINY.d_model, 60, k=5, architecture="topk"))


@pytest.fixture
def run(script, folder, tiny_pt, tiny_dataset):
    def run(name, *args, layer="1"):
        flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--output", folder, "--layer", layer]
        return script(name, *flags, *args)

    return run


def test_what_is_written_is_what_the_library_says(run, tiny_pt, tmp_path):
    where = TEXT.index("##")
    out = {"--json": tmp_path / "why.json", "--graph": tmp_path / "graph.json"}
    ran = run(
        "explain", "--text", TEXT, "--position", where + 1, *(x for pair in out.items() for x in pair), layer="1,2"
    )
    assert ran.status == 0, ran
    content = json.loads(out["--json"].read_text())
    assert content["text"] == TEXT
    assert content["cleaned"][content["position"]] == "#"
    assert content["position"] == len(content["cleaned"]) - 1
    model = load_restoration_model(tiny_pt)
    ids = model.tokenizer.encode(content["cleaned"])
    saes = {str(layer): LayerSAE(layer, sae_of(layer)) for layer in (1, 2)}
    expected = explain_place(model, ids, content["position"], saes)
    assert content["candidate"] == expected.piece(expected.candidate)
    np.testing.assert_allclose(content["logit_difference"], expected.difference, atol=1e-4)
    assert [one["word"] for one in content["words"]] == [one.word for one in expected.words]
    assert [one["layer"] for one in content["layers"]] == [1, 2]
    for got, layer in zip(content["layers"], expected.layers, strict=True):
        found = [(one["feature"], one["position"]) for one in got["latents"]]
        assert set(found) == {(one.feature, one.position) for one in layer.latents}
        np.testing.assert_allclose(got["error_effect"], layer.error_effect, atol=1e-4)
        assert all(one["caption"] for one in got["latents"])
    graph = json.loads(out["--graph"].read_text())
    assert {node["feature_type"] for node in graph["nodes"]} >= {"embedding", "logit"}
    assert "Words, each taken out" in ran.out
    assert ran.out.count("What is kept of the way") == 2
    assert f"{content['logit_difference']:+.2f}" in ran.out
    assert "Over depth" in ran.out
    assert f"{content['layers'][1]['error_effect']:+.2f}" in ran.out.split("Over depth")[1]


def test_a_sample_and_a_character_that_is_visible(run, tmp_path):
    columns = tiny_splits()["test"]
    real = columns["attention_mask"][1] != 0
    visible = int(np.flatnonzero(columns["labels"][1][real] == -100)[3])
    ran = run("explain", "--sample", 1, "--position", visible, "--json", tmp_path / "why.json")
    assert ran.status == 0, ran
    content = json.loads((tmp_path / "why.json").read_text())
    assert content["cleaned"][visible] == "#"
    ran = run("explain", "--sample", 1, "--json", tmp_path / "first.json")
    damaged = int(np.flatnonzero(columns["labels"][1][real] != -100)[0])
    assert json.loads((tmp_path / "first.json").read_text())["position"] == damaged


def test_of_a_long_text_what_is_around_the_place(run, tmp_path):
    text = "šar-ru " * 12 + "b#-li"
    ran = run("explain", "--text", text, "--json", tmp_path / "why.json")
    assert ran.status == 0, ran
    content = json.loads((tmp_path / "why.json").read_text())
    assert content["cleaned"] == text[-TINY.max_position :]
    assert content["cleaned"][content["position"] - 1 : content["position"] + 2] == "b#-"


def test_latents_that_are_set(run, tiny_pt, tmp_path):
    settings = ["--ablate", 7, "--clamp", "3=25"]
    ran = run("explain", "--text", TEXT, *settings, "--json", tmp_path / "why.json")
    assert ran.status == 0, ran
    content = json.loads((tmp_path / "why.json").read_text())
    assert content["settings"] == [{"feature": 7, "value": 0.0}, {"feature": 3, "value": 25.0}]
    assert content["candidates"] != content["candidates_before"]
    ran = run("restore", "--text", TEXT, *settings, "--top", 3, "--beam", 2, "--json", tmp_path / "restored.json")
    assert ran.status == 0, ran
    restored = json.loads((tmp_path / "restored.json").read_text())
    model, change = load_restoration_model(tiny_pt), (1, steer(sae_of(1), [(7, 0.0), (3, 25.0)]))
    how = {"beam": 2, "top": 3, "temperature": restored["temperature"]}
    for content, change_ in ((restored, change), (restored["before"], None)):
        expected = restore_text(model, read_damaged(TEXT), change=change_, **how)
        assert content["restored"] == expected.text.filled(expected.best)
    assert restored["restored"] != restored["before"]["restored"]
    assert f"before   {restored['before']['restored']}" in ran.out


@pytest.mark.parametrize(
    ("name", "args", "layer", "message"),
    [
        ("explain", [], "1", "give a text by --text, or a sample by --sample: one of them"),
        ("explain", ["--text", "a#", "--sample", 1], "1", "one of them"),
        ("explain", ["--text", " "], "1", "--text must have at least one character, got none"),
        ("explain", ["--text", "a-na"], "1", "must have a damaged place such as # or [...], got none"),
        ("explain", ["--text", "a-#", "--position", 3], "1", "position must be in 0..2, got 3"),
        ("explain", ["--text", "{d}#", "--position", 1], "1", "position must be of a character that the model sees, got 1: 'd'"),
        ("explain", ["--sample", 12], "1", "--sample must be in 0..11, got 12"),
        ("explain", ["--sample", 0, "--position", 45], "1", "--position must be in 0..0, got 45"),
        ("explain", ["--text", "a-#", "--candidate", "ab"], "1", "--candidate must be one character, got 'ab'"),
        ("explain", ["--text", "a-#", "--candidate", "a", "--against", "a"], "1", "got the same one twice"),
        ("explain", ["--text", "a-#", "--top", 0], "1", "top must be at least 1, got 0"),
        ("explain", ["--text", "a-#", "--ablate", 60], "1", "feature must be in 0..59, got 60"),
        ("explain", ["--text", "a-#", "--ablate", 3], "1,2", "--ablate and --clamp take one SAE, got 2"),
        ("explain", ["--text", "a-#", "--ablate", 3, 3], "1", "a feature must be set once, got 3, 3"),
        ("restore", ["--text", "a-#", "--clamp", "3=1"], "1,2", "--ablate and --clamp take one SAE, got 2"),
        ("restore", ["--text", "a-#", "--sae", "x.pt"], "1", "--sae is for --ablate and --clamp, got neither; leave it out"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(run, name, args, layer, message):
    assert_one_line_error(run(name, *args, layer=layer), message)
