"""Datasets of other people and other versions: what they mean, or one line that says why not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from conftest import tiny_splits
from helpers import changed_state

from jaxsae.errors import InputError
from jaxsae.text import arrow, loading
from jaxsae.text.loading import load_samples

SPLITS = tiny_splits()
IDS = SPLITS["validation"]["input_ids"]


def arrow_file(path, column, name="indices"):
    table = pa.table({name: pa.array(column)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("key", ["_indices_files", "_indices_data_files"])
def test_rows_that_are_chosen_by_indices_of_any_version(folder, key):
    arrow_file(folder / "validation" / "chosen.arrow", [7, 3, 3, 11])
    changed_state(folder, lambda state: state.update({key: [{"filename": "chosen.arrow"}]}))
    np.testing.assert_array_equal(load_samples(folder).ids, IDS[[7, 3, 3, 11]])
    changed_state(folder, lambda state: state.update({key: [{"filename": "chosen.arrow", "skip": 1, "take": 2}]}))
    np.testing.assert_array_equal(load_samples(folder).ids, IDS[[3, 3]])


def test_parts_of_files_are_taken_as_the_state_says(folder):
    name = "data-00000-of-00001.arrow"

    def set_to(*entries):
        changed_state(folder, lambda state: state.update({"_data_files": [{"filename": name} | e for e in entries]}))

    set_to({"skip": 3, "take": 4})
    np.testing.assert_array_equal(load_samples(folder).ids, IDS[3:7])
    set_to({"skip": 10, "take": None}, {"skip": 0, "take": 2})
    np.testing.assert_array_equal(load_samples(folder).ids, np.concatenate([IDS[10:], IDS[:2]]))
    first = loading.fingerprint(folder)
    set_to({"skip": 9, "take": None}, {"skip": 0, "take": 2})
    assert loading.fingerprint(folder) != first
    set_to({"skip": -1})
    with pytest.raises(InputError, match=r"_data_files of state\.json must be"):
        load_samples(folder)
    set_to({"rows": 3})
    with pytest.raises(InputError, match=r"_data_files of state\.json must be"):
        load_samples(folder)


def test_a_state_that_says_more_is_refused(folder):
    changed_state(folder, lambda state: state.update({"_filter": "x > 3"}))
    with pytest.raises(InputError, match=r"state\.json may have what is known here, got _filter"):
        load_samples(folder)


def test_a_fingerprint_is_of_the_data_that_is_named(folder, tmp_path):
    first = loading.fingerprint(folder)
    (folder / ".DS_Store").write_bytes(b"Bud1")
    (folder / "validation" / "cache-1234.arrow").write_bytes(b"a map's")
    (folder / "validation" / "tmp.lock").touch()
    assert loading.fingerprint(folder) == first
    links = tmp_path / "links"
    links.mkdir()
    shutil.copy(folder / "dataset_dict.json", links)
    for split in SPLITS:
        (links / split).symlink_to(folder / split)
    assert loading.fingerprint(links) == first
    (tmp_path / "other").mkdir()
    arrow.save_splits(tmp_path / "other", tiny_splits(seed=1))
    (links / "test").unlink()
    (links / "test").symlink_to(tmp_path / "other" / "test")
    assert loading.fingerprint(links) != first


def test_one_split_that_was_saved_alone(folder, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(folder / "train", alone)
    for split in ("train", "validation", "test"):  # it does not say which it is
        np.testing.assert_array_equal(load_samples(alone, split).ids, SPLITS["train"]["input_ids"])
    assert not loading.has_samples(alone, "test")
    changed = tmp_path / "named"
    shutil.copytree(alone, changed)
    file = changed / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_split": "train"}))
    for path in (changed, folder / "train"):  # by its own word; by the folder that it lies in
        assert len(load_samples(path, "train")) == 12
        with pytest.raises(
            InputError, match=r"must have the split 'test', got the split 'train' alone; give split train"
        ):
            load_samples(path, "test")


def test_a_split_without_samples(folder):
    assert loading.has_samples(folder, "test")
    changed_state(folder, lambda state: state.update({"_data_files": []}), "test")
    assert not loading.has_samples(folder, "test")
    with pytest.raises(InputError, match="a split must have samples, got none in 'test'"):
        load_samples(folder, "test")


def test_a_mask_of_truth_values(folder):
    columns = {name: pa.array(column.tolist()) for name, column in SPLITS["validation"].items()}
    columns["attention_mask"] = pa.array((SPLITS["validation"]["attention_mask"] != 0).tolist())
    table = pa.table(columns)
    path = str(folder / "validation" / "data-00000-of-00001.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    np.testing.assert_array_equal(load_samples(folder).mask, SPLITS["validation"]["attention_mask"])


def test_a_file_of_no_rows_among_others(folder):
    path = folder / "validation" / "none.arrow"
    schema = pa.schema([(name, pa.list_(pa.int32())) for name in SPLITS["validation"]])
    schema = schema.set(2, pa.field("attention_mask", pa.list_(pa.int8())))
    none = pa.record_batch([pa.array([], kind) for kind in schema.types], schema=schema)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(none)
    state = json.loads((folder / "validation" / "state.json").read_text())
    state["_data_files"].insert(0, {"filename": "none.arrow"})
    (folder / "validation" / "state.json").write_text(json.dumps(state))
    np.testing.assert_array_equal(load_samples(folder).ids, SPLITS["validation"]["input_ids"])


def test_a_column_twice_is_refused(folder):
    columns = {name: pa.array(column.tolist()) for name, column in SPLITS["validation"].items()}
    table = pa.table(columns).append_column("labels", columns["labels"])
    path = str(folder / "validation" / "data-00000-of-00001.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match="columns must differ in name, got several named labels"):
        load_samples(folder)


def test_a_path_that_exists_is_taken_as_it_stands(tmp_path):
    for name in ("Smith, J", "a", "b,c"):
        (tmp_path / name).mkdir()
    a, b, smith = (str(tmp_path / name) for name in ("a", "b,c", "Smith, J"))
    assert loading.paths_in(smith) == [smith]
    assert loading.paths_in(f"{a},{smith},{b}") == [a, smith, b]
    assert loading.paths_in(f"{a},{tmp_path}/none,{b}") == [a, f"{tmp_path}/none", b]
