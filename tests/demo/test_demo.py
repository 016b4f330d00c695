"""The embedded demo: its text and truth on disk, and its checkpoint."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
from conftest import TINY, assert_one_line_error, checkpoint_content

from convert import load_restoration_model, restoration_reference, save_sae
from jaxsae import load_samples
from jaxsae.config import DEMO, SAEConfig
from jaxsae.demo import corpus
from jaxsae.demo.dataset import ensure_demo, load_truth, write_demo
from jaxsae.features import splice
from jaxsae.models import ngram, pretrain_data
from jaxsae.sae.architectures import init
from jaxsae.text import arrow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, n_samples=200, seed=3)
    return folder


def test_the_truth_lies_beside_the_text(folder):
    """Row for row and character for character: what the labels and the visible characters spell is the corpus."""
    texts = {one.text: one for one in corpus.generate(200, 3)}
    labels = json.loads((folder / "truth" / "labels.json").read_text())
    assert labels["fields"] == {field: list(names) for field, names in corpus.LABELS.items()}
    seen = 0
    for split in ("train", "validation", "test"):
        samples = load_samples(folder / "dataset", split)
        truth = arrow.load_columns(folder / "truth", split)
        ids = np.where(samples.labels == -100, samples.ids, samples.labels)
        for row, n in enumerate(samples.lengths):
            one = texts["".join(map(chr, ids[row, :n]))]
            for field, codes in one.truth.items():
                np.testing.assert_array_equal(truth[field][row, :n], codes)
                assert (truth[field][row, n:] == -1).all()
            assert (labels["genre"][split][row], labels["language"][split][row]) == (one.genre, one.language)
            seen += 1
    assert seen == 200


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    write_demo(tmp_path, n_samples=200, seed=3)
    for part in ("dataset", "truth"):
        files = {path.relative_to(folder): path.read_bytes() for path in (folder / part).rglob("*") if path.is_file()}
        assert files
        assert files == {name: (tmp_path / name).read_bytes() for name in files}


def test_a_killed_run_leaves_nothing_in_the_way(tmp_path):
    """The truth was written and the dataset was not: writing again gives both."""
    (tmp_path / "truth").mkdir()
    write_demo(tmp_path, n_samples=20, seed=3)
    assert len(load_samples(tmp_path / "dataset", "train")) == len(
        arrow.load_columns(tmp_path / "truth", "train")["language"]
    )


def test_the_truth_by_character(folder):
    """In the order of the rows that `extract` gives; properties as the grammar wrote them."""
    samples, truth = load_samples(folder / "dataset", "test"), load_truth(folder, "test")
    assert len(truth.genre) == len(truth.position) == samples.mask.sum()
    true = np.where(samples.labels == -100, samples.ids, samples.labels)[samples.mask != 0]
    has = truth.properties()
    np.testing.assert_array_equal(truth.in_word, true != ord(" "))
    capitals = np.array([chr(c).isupper() for c in true])
    assert has["logogram"][capitals].all()
    assert has["suffix"][has["genitive"]].all()
    assert not (has["suffix"] & (truth.fields["morpheme"] == "stem")).any()
    texts = {one.text: one for one in corpus.generate(200, 3)}
    first = texts["".join(map(chr, true[: samples.lengths[0]]))]
    assert truth.genre[0] == first.genre
    np.testing.assert_array_equal(has["language Sumerian"][: samples.lengths[0]], first.truth["language"] == 1)


def test_a_model_is_rated(folder, script, tmp_path):
    """An untrained model: the n-gram is above the majority guess, the model above neither."""
    config = dataclasses.replace(TINY, n_layers=16, max_position=768, vocab_size=7790)
    torch.save(checkpoint_content(config), tmp_path / "model.pt")
    flags = ["--checkpoint", tmp_path / "model.pt", "--folder", folder, "--json", tmp_path / "out.json"]
    ran = script("rate_demo", *flags)
    assert ran.status == 0, ran
    assert "Restored right" in ran.out
    assert "Linear probe" in ran.out
    rated = json.loads((tmp_path / "out.json").read_text())
    everything = rated["restoration"]["all"]
    assert everything["characters"] == (load_samples(folder / "dataset", "test").labels != -100).sum()
    assert everything["ngram"] > everything["majority"] > everything["model"]
    parts = [rated["restoration"][name]["characters"] for name in ("akkadian", "sumerian")]
    assert sum(parts) == everything["characters"]
    # what a character is, layer 0 tells; whether it was visible is what makes it hard
    assert rated["probes"]["logogram"]["all"]["0"] > 0.9
    assert rated["probes"]["logogram"]["all"]["0"] > rated["probes"]["logogram"]["damaged"]["0"]
    torch.save(checkpoint_content(dataclasses.replace(config, n_layers=4)), tmp_path / "model.pt")
    assert_one_line_error(script("rate_demo", *flags), "at least 16 layers, got 4")


def test_latents_are_rated(folder, script, tmp_path):
    """Of an SAE that reads an untrained model's layer: every property, and pairs of a general one and one within it."""
    config = dataclasses.replace(TINY, n_layers=16, max_position=768, vocab_size=7790)
    torch.save(checkpoint_content(config), tmp_path / "model.pt")
    of_sae = SAEConfig(config.d_model, 64, k=4, architecture="topk")
    save_sae(tmp_path / "sae.pt", init(jax.random.key(0), of_sae), of_sae, extra={"layer": 0})
    flags = ["--checkpoint", tmp_path / "model.pt", "--folder", folder, "--json", tmp_path / "out.json"]
    ran = script("rate_demo", *flags, "--sae", tmp_path / "sae.pt")
    assert ran.status == 0, ran
    assert "absorbed (pairs)" in ran.out
    (rated,) = json.loads((tmp_path / "out.json").read_text()).values()
    assert set(rated["all"]) == {"latent", "probe", "random", "windows", "neurons"}
    assert rated["absorption"]["pairs"]
    for one in rated["absorption"]["pairs"]:
        assert one["parent_latent"] != one["child_latent"]
        assert one["absorption"] == pytest.approx(one["silent"] - one["silent_else"])
        assert ": " not in one["child"] or one["child"].startswith(f"{one['parent']}: ")


@pytest.fixture(scope="module")
def demo_dataset():
    ensure_demo(DEMO / "dataset")
    return DEMO / "dataset"


def test_the_checkpoint_is_in_the_original_format():
    """The original's way of loading it: the config makes the module, whose names and shapes are the file's."""
    path = DEMO / "best_model.pt"
    assert path.stat().st_size <= 10e6
    content = torch.load(path, map_location="cpu", weights_only=True)
    assert content["vocab_size"] == content["config"]["vocab_size"]
    assert content["config"]["n_layers"] == 16
    module = restoration_reference.Model(load_restoration_model(path).config)
    module.load_state_dict(content["model_state_dict"], strict=True)


def test_the_checkpoint_has_the_validation_loss_of_its_training(demo_dataset):
    """Half precision in the file moves it by less than a hundredth."""
    best = min(json.loads((DEMO / "training.json").read_text())["epochs"], key=lambda epoch: epoch["loss"])
    model, samples = load_restoration_model(DEMO / "best_model.pt"), load_samples(demo_dataset, "validation")
    clean = splice.effects(model, samples, 0, {})["clean"]
    np.testing.assert_allclose(clean.ce, best["loss"], rtol=0.01)
    np.testing.assert_allclose(clean.top1, best["top1"], atol=0.003)


def test_it_restores_more_than_an_ngram_of_both_sides(demo_dataset):
    model, test = load_restoration_model(DEMO / "best_model.pt"), load_samples(demo_dataset, "test")
    train = load_samples(demo_dataset, "train")
    p, vocab = ngram.predict([pretrain_data.redamage(train, 0, epoch) for epoch in range(4)], test)
    true = test.labels[test.labels != -100]
    counted = np.mean(vocab[p.argmax(axis=1)] == true)
    frequent = np.mean(true == np.bincount(train.true_ids[train.real]).argmax())
    restored = splice.effects(model, test, 0, {})["clean"].top1
    assert restored >= 0.6
    assert restored > counted > frequent
