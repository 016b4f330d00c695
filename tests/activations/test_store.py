"""Stores of rows: what is written is what is extracted, and what is not right is refused."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.activations import store
from jaxsae.activations.extraction import extract, stream, stream_from_rows
from jaxsae.config import TrainConfig
from jaxsae.errors import InputError
from jaxsae.text.loading import load_samples
from jaxsae.train.loop import Member, train_sae, train_saes

ABOUT = {"checkpoint_sha256": "a"}


@pytest.fixture
def samples(tiny_dataset):
    return load_samples(tiny_dataset, "train")


@pytest.fixture
def written(tmp_path, tiny_pt, samples):
    from convert import load_restoration_model

    model = load_restoration_model(tiny_pt)
    store.write(tmp_path / "store", model, samples, [0, 2], "drop", ABOUT)
    return tmp_path / "store", model


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_rows_and_their_origin(tmp_path, tiny_pt, samples, padding):
    from convert import load_restoration_model

    model = load_restoration_model(tiny_pt)
    store.write(tmp_path / "rows", model, samples, [0, 2], padding, ABOUT)
    expected = extract(model, samples, [0, 2], padding)
    found = store.open_stores([str(tmp_path / "rows")], 0)
    assert sorted(found.layers) == [0, 2]
    assert found.about["padding"] == padding
    for layer, values in expected.values.items():
        np.testing.assert_array_equal(found.layers[layer][:], values)
    origin = {name: np.load(tmp_path / "rows" / f"{name}.npy") for name in store.ORIGIN}
    np.testing.assert_array_equal(origin["sample"], expected.sample)
    np.testing.assert_array_equal(origin["position"], expected.position)
    np.testing.assert_array_equal(origin["token"], samples.ids[expected.sample, expected.position])
    np.testing.assert_array_equal(origin["label"], samples.labels[expected.sample, expected.position])
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    text = found.samples()
    for name in ("ids", "labels", "mask"):
        np.testing.assert_array_equal(getattr(text, name), getattr(samples, name))
    again = stream_from_rows(found.only([2]).layers, samples, padding)
    for batch, as_read in zip(stream(model, samples, [2], padding), again, strict=True):
        np.testing.assert_array_equal(batch.sample, as_read.sample)
        np.testing.assert_array_equal(batch.position, as_read.position)
        np.testing.assert_array_equal(batch.values[2][batch.kept], as_read.values[2][as_read.kept])


def test_training_from_disk_is_training(written):
    """Of several layers at once, each as alone, and about as good as of rows in memory."""
    path, _ = written
    rows = store.open_stores([str(path)] * 2, 0).layers
    config = TrainConfig(epochs=4, batch_size=16, lr=1e-3)
    together = train_saes(rows, [Member(0, config), Member(2, config)])
    for layer, trained in zip((0, 2), together, strict=True):
        alone, held = train_sae(rows[layer], config), train_sae(jnp.asarray(rows[layer][:]), config)
        np.testing.assert_allclose(trained.sae.W_enc, alone.sae.W_enc, atol=1e-5)
        np.testing.assert_allclose(trained.epochs[-1].loss, held.epochs[-1].loss, rtol=0.1)
    modern = TrainConfig(recipe="modern", epochs=2, batch_size=16, architecture="batchtopk", target_l0=3)
    assert train_sae(rows[0], modern).sae.threshold is not None


def test_several_stores_and_bare_arrays(written, tmp_path):
    path, _ = written
    one = store.open_stores([str(path)], 0).layers[2][:]
    np.save(tmp_path / "a.npy", one.astype(np.float64))
    np.save(tmp_path / "b.npy", one[:7].astype(np.float16))
    both = store.open_stores([str(tmp_path / "a.npy"), str(tmp_path / "b.npy")], 5)
    assert list(both.layers) == [5]
    np.testing.assert_array_equal(both.layers[5][: len(one)], one)
    assert len(both.layers[5]) == len(one) + 7
    assert store.open_stores([str(path)] * 2, 0).about["checkpoint_sha256"] == "a"


def test_what_is_wrong_is_refused(written, tmp_path, samples):
    path, model = written
    with pytest.raises(InputError, match="the output must not exist, got"):
        store.write(path, model, samples, [0], "drop", {})
    with pytest.raises(InputError, match=r"the disk of .* must have .* MB for the rows, has"):
        store.check_space(tmp_path / "not" / "there", 10**18)

    def refused(message, *paths):
        with pytest.raises(InputError, match=message):
            store.open_stores([str(p) for p in paths or (path,)], 0)

    np.save(tmp_path / "flat.npy", np.ones(4, np.float32))
    refused(r"must hold rows \[n, d_in\] of floating numbers, got float32 \(4,\)", tmp_path / "flat.npy")
    np.save(tmp_path / "whole.npy", np.ones((4, 2), int))
    refused("must hold rows .* got int64", tmp_path / "whole.npy")
    (tmp_path / "text.npy").write_text("rows")
    refused("text.npy: must be a whole .npy file", tmp_path / "text.npy")
    refused("none.npy: must be a whole .npy file", tmp_path / "none.npy")
    np.save(tmp_path / "narrow.npy", np.ones((4, 2), np.float32))
    np.save(tmp_path / "wide.npy", np.ones((4, 3), np.float32))
    refused("stores must have one width, got 2 and 3", tmp_path / "narrow.npy", tmp_path / "wide.npy")
    refused("stores must have the same layers, got 0, 2 in .* and 0 in", path, tmp_path / "narrow.npy")
    store.write(tmp_path / "other", model, samples, [0, 2], "drop", {"checkpoint_sha256": "b"})
    refused("stores must be of one model, got .*other of another than", path, tmp_path / "other")
    of = store.open_stores([str(path)], 0)
    with pytest.raises(InputError, match=r"must be of the model given \(cccc.*\), got rows of a\.\.\.; give"):
        store.text_of(of, "c" * 64)
    with pytest.raises(InputError, match="layer must be one of the stored 0, 2, got 1"):
        of.only([1])
    position = np.load(path / "position.npy")
    for wrong, message in ((position[::-1], "in the order of the text"), (position[1:], "a whole number for each of")):
        np.save(path / "position.npy", wrong)
        with pytest.raises(InputError, match=message):
            of.samples()
    (path / "position.npy").unlink()
    with pytest.raises(InputError, match="must say of which characters they are"):
        store.text_of(of, "a")
    cut = (path / "layer2.npy").read_bytes()[:-8]
    about = json.loads((path / "store.json").read_text())
    for change, message in (
        ({"version": 2}, "must be of version 1 of jaxsae-rows, got 2"),
        ({"format": "other"}, "must be of version 1 of jaxsae-rows, got other"),
        ({"rows": 3}, r"layer0.npy must have shape \(3, "),
        ({"layers": []}, "must have a layer, got none"),
        ({"layers": 8}, "store.json must describe rows, got TypeError"),
    ):
        (path / "store.json").write_text(json.dumps(about | change))
        refused(message)
    (path / "store.json").write_text(json.dumps(about))
    (path / "layer2.npy").write_bytes(cut)
    refused("layer2.npy: must be a whole .npy file")
