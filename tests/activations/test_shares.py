"""Stores that several processes write, each its share: one store, the same as one process writes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import of_words, without_packing

from jaxsae.activations import store
from jaxsae.activations.extraction import kept_by_share, stream, stream_from_rows
from jaxsae.activations.rows import is_store
from jaxsae.errors import InputError
from jaxsae.text.loading import load_samples
from jaxsae.text.samples import joined, kept_positions

ABOUT = {"model_sha256": "a"}
PADDINGS = pytest.mark.parametrize("padding", ["drop", "keep"])


@pytest.fixture(scope="module")
def model(tiny_pt):
    from convert import load_restoration_model

    return load_restoration_model(tiny_pt)


@pytest.fixture
def samples(tiny_dataset):
    """Texts of two splits, and between them one without any letter."""
    one, other = (load_samples(tiny_dataset, split) for split in ("train", "test"))
    empty = replace(one[:1], mask=np.zeros_like(one.mask[:1]), labels=np.full_like(one.labels[:1], -100))
    return joined([one, empty, other])


def write_parts(folder, count, model, samples, layers=(0, 2), padding="drop", about=ABOUT):
    for index in range(count):
        store.write(folder, model, samples, layers, padding, about, (index, count))


def write_joined(folder, count, model, samples, layers=(0, 2), padding="drop"):
    write_parts(folder, count, model, samples, layers, padding)
    assert not is_store(str(folder))
    store.join(folder, count, samples)
    assert is_store(str(folder))
    return store.open_stores([str(folder)], layers[0])


def assert_same_samples(found, expected):
    for name in ("ids", "labels", "mask", "special"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert found.columns.keys() == expected.columns.keys()
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], column)
    assert [found.text_of(i) for i in range(len(found))] == [expected.text_of(i) for i in range(len(expected))]


def assert_same_store(found, expected):
    """The same in all that a store is read for."""
    assert {key: value for key, value in found.about.items() if key != "parts"} == expected.about
    assert list(found.layers) == list(expected.layers)
    some = np.random.default_rng(0).integers(0, len(next(iter(expected.layers.values()))), 50)
    for layer, rows in expected.layers.items():
        np.testing.assert_array_equal(found.layers[layer][:], rows[:])
        np.testing.assert_array_equal(found.layers[layer][some], rows[some])
    assert_same_samples(found.samples(), expected.samples())


@PADDINGS
@pytest.mark.parametrize("count", [1, 2, 3, 5, 30])
def test_shares_joined_are_the_store_of_one_process(model, samples, tmp_path, padding, count):
    store.write(tmp_path / "one", model, samples, [0, 2], padding, ABOUT)
    found = write_joined(tmp_path / "several", count, model, samples, padding=padding)
    path, one = str(tmp_path / "several"), str(tmp_path / "one")
    assert_same_store(found, store.open_stores([one], 0))
    some = store.open_stores([path], 0, 7)
    assert_same_store(some, store.open_stores([one], 0, 7))
    assert len(some.layers[0]) == kept_positions(samples[:7], padding).sum()
    assert_same_store(store.open_stores([path, one, path], 0), store.open_stores([one] * 3, 0))
    for name in store.ORIGIN:
        np.testing.assert_array_equal(
            np.load(tmp_path / "several" / f"{name}.npy"), np.load(tmp_path / "one" / f"{name}.npy")
        )
    text = store.text_of(found, "a")
    read = stream_from_rows(found.only([2]).layers, text, padding)
    for batch, as_read in zip(stream(model, samples, [2], padding), read, strict=True):
        np.testing.assert_array_equal(batch.values[2][batch.kept], as_read.values[2][as_read.kept])


@PADDINGS
def test_shares_are_of_different_batches_of_one_plan(model, samples, padding):
    whole = list(stream(model, samples, [1], padding))
    of_share = [list(stream(model, samples, [1], padding, (index, 3))) for index in range(3)]
    for number, batch in enumerate(whole):
        one = of_share[number % 3][number // 3]
        np.testing.assert_array_equal(one.sample, batch.sample)
        np.testing.assert_array_equal(one.values[1], batch.values[1])
    assert sum(map(len, of_share)) == len(whole)
    kept = sum(kept_by_share(model, samples, padding, (index, 3)).astype(int) for index in range(3))
    np.testing.assert_array_equal(kept, kept_by_share(model, samples, padding, (0, 1)))
    assert kept.max() == 1


@PADDINGS
def test_a_model_that_does_not_pack_has_shares_too(model, samples, tmp_path, padding):
    plain = without_packing(model)
    store.write(tmp_path / "one", plain, samples, [1], padding, ABOUT)
    found = write_joined(tmp_path / "several", 3, plain, samples, [1], padding)
    assert_same_store(found, store.open_stores([str(tmp_path / "one")], 0))


@PADDINGS
def test_what_tokens_stand_for_is_that_of_all_samples(model, tmp_path, padding):
    texts = of_words(["a b c", "d", "e f g h a", "c c", "b"])
    store.write(tmp_path / "one", model, texts, [1], padding, ABOUT)
    found = write_joined(tmp_path / "several", 2, model, texts, [1], padding)
    assert_same_store(found, store.open_stores([str(tmp_path / "one")], 0))
    assert_same_samples(found.samples(), texts)


def test_a_part_is_a_store_of_its_own(model, samples, tmp_path):
    whole = write_joined(tmp_path / "rows", 3, model, samples, [2])
    part = store.open_stores([str(tmp_path / "rows" / "part-1")], 0)
    mine = kept_by_share(model, samples, "drop", (1, 3))
    np.testing.assert_array_equal(part.layers[2][:], whole.layers[2][np.flatnonzero(mine[samples.mask != 0])])
    text = part.samples()
    np.testing.assert_array_equal(text.ids[text.mask != 0], samples.ids[mine])


def test_a_fingerprint_is_of_all_rows_of_the_layers(model, samples, tmp_path):
    write_joined(tmp_path / "rows", 2, model, samples)
    first = {layers: store.fingerprint(str(tmp_path / "rows"), layers) for layers in ((0,), (0, 2))}
    rows = np.lib.format.open_memmap(tmp_path / "rows" / "part-1" / "layer2.npy", "r+")
    rows[-1, -1] += 1
    rows.flush()
    again = {layers: store.fingerprint(str(tmp_path / "rows"), layers) for layers in first}
    assert [first[layers] == again[layers] for layers in first] == [True, False]


def test_progress_of_all_shares_adds_up(model, samples, tmp_path):
    told = []
    for index in range(3):
        store.write(tmp_path, model, samples, [0], "drop", ABOUT, (index, 3), on_rows=told.append)
    assert sum(told) == samples.mask.sum()


def test_only_shares_that_belong_together_are_joined(model, samples, tmp_path):
    def refused(message, of=samples, count=3):
        with pytest.raises(InputError, match=message) as error:
            store.join(tmp_path / "rows", count, of)
        assert "\n" not in str(error.value)
        assert not is_store(str(tmp_path / "rows"))

    write_parts(tmp_path / "rows", 3, model, samples)
    path = tmp_path / "rows" / "part-1"
    with pytest.raises(InputError, match=r"the output must not exist, got .*part-1"):
        store.write(tmp_path / "rows", model, samples, [0, 2], "drop", ABOUT, (1, 3))
    refused(r"must be share \[0, 2\], got \[0, 3\]; extract all shares again", count=2)
    refused("part-0 must be of these samples, got rows of others", of=samples[:-1])
    refused("must have a row of each position, got none of", of=joined([samples, samples[:2]]))
    refused("part-0 must be of these samples, got rows of others", of=replace(samples, ids=samples.ids + 1))
    good = tmp_path / "good"
    shutil.copytree(path, good)

    def replaced(layers=(0, 2), padding="drop", about=ABOUT, of=samples):
        shutil.rmtree(path)
        store.write(tmp_path / "rows", model, of, layers, padding, about, (1, 3))

    for other, message in (
        ({"about": {"model_sha256": "b"}}, "part-1 must be of the same rows as the others, got another model_sha256"),
        ({"layers": (0,)}, "got another layers"),
        ({"padding": "keep"}, "got another padding"),
        ({"of": samples[:20]}, "must be of these samples, got rows of others|must have a row of each"),
    ):
        replaced(**other)
        refused(message)
    shutil.rmtree(path)
    refused("must have all of 3 shares, got no part-1; extract it")
    for change, message in (
        ({"rows": 3}, r"layer0.npy must have shape \(3, "),
        ({"rows": 0}, "must have a row of each position, got none of"),
        ({"share": [2, 3]}, r"must be share \[1, 3\], got \[2, 3\]"),
        ({"d_in": 31}, "got another d_in"),
        ({"hook_names": {"0": "x"}}, "got another hook_names"),
    ):
        shutil.copytree(good, path)
        said = json.loads((path / "store.json").read_text())
        (path / "store.json").write_text(json.dumps(said | change))
        refused(message)
        shutil.rmtree(path)
    shutil.copytree(good, path)
    (path / "layer2.npy").write_bytes((path / "layer2.npy").read_bytes()[:-8])
    refused("layer2.npy: must be a whole .npy file")
    shutil.rmtree(path)
    shutil.copytree(good, path)
    np.save(path / "position.npy", np.load(path / "position.npy")[::-1])
    refused("part-1 must be of these samples")
    np.save(path / "position.npy", np.load(path / "position.npy")[1:])
    refused("must hold an int32 for each row")
    shutil.rmtree(path)
    shutil.copytree(good, path)
    store.join(tmp_path / "rows", 3, samples)
    with pytest.raises(InputError, match=r"must not be joined yet, got its store.json; remove that"):
        store.join(tmp_path / "rows", 3, samples)


def test_a_manifest_that_is_not_right_is_refused(model, samples, tmp_path):
    good, path = tmp_path / "good", tmp_path / "rows"
    write_joined(good, 3, model, samples)
    shutil.copytree(good, tmp_path / "part-0")  # what a path out of the folder would reach

    def refused(message):
        with pytest.raises(InputError, match=message) as error:
            store.open_stores([str(path)], 0)
        assert "\n" not in str(error.value)
        shutil.rmtree(path)

    about = json.loads((good / "store.json").read_text())
    names = about["parts"]
    for change, message in (
        ({"parts": ["../part-0", *names[1:]]}, r"parts must be names such as part-0, got .*\.\./part-0.*; join"),
        ({"parts": [str(tmp_path / "part-0"), *names[1:]]}, "parts must be names such as part-0"),
        ({"parts": [["part-0"], *names[1:]]}, "parts must be names such as part-0"),
        ({"parts": []}, r"parts must be names such as part-0, got \[\]"),
        ({"parts": "part-0"}, "parts must be names such as part-0, got part-0"),
        ({"parts": names[:2]}, f"parts must have {about['rows']} rows together, got"),
        ({"parts": [*names, "part-7"]}, "must have all of its parts, got no part-7; extract it again"),
        ({"parts": [names[1], names[0], names[2]]}, "runs.npy must say in which part each run of rows is"),
        ({"rows": about["rows"] + 1}, f"parts must have {about['rows'] + 1} rows together, got {about['rows']}"),
        ({"model_sha256": "b"}, "part-0 must be of the same rows as the others, got another model_sha256"),
        ({"layers": [0]}, "part-0 must be of the same rows as the others, got another layers"),
        ({"layers": []}, "must have a layer, got none"),
    ):
        shutil.copytree(good, path)
        (path / "store.json").write_text(json.dumps(about | change))
        refused(message)
    runs = np.load(good / "runs.npy")
    for wrong in (
        runs[1:],
        runs[[0, *range(len(runs))]],
        runs[::-1],
        runs[:, :1],
        runs.astype(float),
        runs + np.array([0, 1]),
        runs - np.array([0, 1]),
        runs[:0],
        runs[0],
    ):
        shutil.copytree(good, path)
        np.save(path / "runs.npy", wrong)
        refused("runs.npy must say in which part each run of rows is, and does not; join the shares again")
    shutil.copytree(good, path)
    (path / "runs.npy").unlink()
    refused("runs.npy: must be a whole .npy file")
    shutil.copytree(good, path)
    (path / "part-1" / "store.json").unlink()
    refused("part-1: store.json must describe rows, got FileNotFoundError")
    shutil.copytree(good, path)
    np.save(path / "part-1" / "layer2.npy", np.load(path / "part-1" / "layer2.npy")[1:])
    refused(r"part-1: layer2.npy must have shape")


def test_the_real_rows_of_two_shares_are_those_of_one(real, tmp_path):
    from convert import load_restoration_model

    model = load_restoration_model(real / "checkpoints" / "restoration_16x384" / "best_model.pt")
    samples = load_samples(real / "data" / "restoration_dataset", "validation", 24)
    store.write(tmp_path / "one", model, samples, [8], "drop", ABOUT)
    found = write_joined(tmp_path / "several", 2, model, samples, [8])
    assert min(len(part) for part in found.layers[8].parts) > 0.3 * len(found.layers[8])
    assert_same_store(found, store.open_stores([str(tmp_path / "one")], 8))
