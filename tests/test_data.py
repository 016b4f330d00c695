import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from conftest import tiny_splits

from jaxsae import data, text
from jaxsae.config import InputError


def hf_dataset(columns):
    from datasets import Dataset, Features, List, Value

    kinds = {"input_ids": "int32", "labels": "int32", "attention_mask": "int8"}
    features = Features({name: List(Value(kind)) for name, kind in kinds.items()})
    return Dataset.from_dict({name: column.tolist() for name, column in columns.items()}, features=features)


def save_hf(folder, columns, **options):
    from datasets import DatasetDict

    DatasetDict({"validation": hf_dataset(columns)}).save_to_disk(str(folder), **options)


def assert_same(samples, columns):
    np.testing.assert_array_equal(samples.ids, columns["input_ids"])
    np.testing.assert_array_equal(samples.labels, columns["labels"])
    np.testing.assert_array_equal(samples.mask, columns["attention_mask"])
    assert (samples.ids.dtype, samples.labels.dtype, samples.mask.dtype) == (np.int32, np.int32, np.int8)


@pytest.fixture
def columns():
    return tiny_splits()["validation"]


def test_reads_what_datasets_writes(tmp_path, columns):
    save_hf(tmp_path, columns)
    assert_same(data.load_samples(tmp_path), columns)
    assert_same(data.load_samples(tmp_path, max_samples=5), {name: c[:5] for name, c in columns.items()})
    assert len(data.load_samples(tmp_path, max_samples=10_000)) == len(columns["labels"])


def test_reads_several_files(tmp_path, columns):
    save_hf(tmp_path, columns, num_shards={"validation": 5})
    assert len(list((tmp_path / "validation").glob("*.arrow"))) == 5
    assert_same(data.load_samples(tmp_path), columns)
    assert_same(data.load_samples(tmp_path, max_samples=4), {name: c[:4] for name, c in columns.items()})


def test_reads_through_an_indices_file(tmp_path, columns):
    """Rows selected or shuffled without being rewritten: their order stands in a file of its own."""
    save_hf(tmp_path, columns)
    order = np.array([7, 2, 2, 11, 0], np.uint64)
    table = pa.table({"indices": order})
    with (
        pa.OSFile(str(tmp_path / "validation" / "indices.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as w,
    ):
        w.write_table(table)
    state = tmp_path / "validation" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_indices_files": [{"filename": "indices.arrow"}]}))
    rows = order.astype(int)
    assert_same(data.load_samples(tmp_path), {name: c[rows] for name, c in columns.items()})
    assert_same(data.load_samples(tmp_path, max_samples=2), {name: c[rows[:2]] for name, c in columns.items()})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_datasets_opens_what_we_write(tmp_path):
    from datasets import load_from_disk

    splits = tiny_splits()
    data.save_splits(tmp_path, splits)
    opened = load_from_disk(str(tmp_path))
    assert list(opened) == ["train", "validation", "test"]
    assert opened["test"].features == hf_dataset(splits["test"]).features
    for split, columns in splits.items():
        for name, column in columns.items():
            assert opened[split][name][:] == column.tolist()


def test_lengths_are_up_to_the_last_real_character():
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]], np.int8)
    ids = np.zeros((4, 4), np.int32)
    assert data.Samples(ids, ids, mask).lengths.tolist() == [2, 0, 3, 4]


def test_fragments_become_the_same_samples_as_a_prepared_folder(tmp_path):
    atfs = [f"{'a-na be-li-ia ' * (i % 7 + 1)}{i * 'x'}" for i in range(30)]
    file = tmp_path / "fragments.json"
    file.write_text(
        json.dumps(
            [
                {"_id": "none"},
                {"_id": "null", "atf": None},
                {"_id": "empty", "atf": "[...]"},
                *({"atf": a} for a in atfs),
            ]
        )
    )
    splits = data.prepare_fragments([text.clean(a) for a in atfs], 42)
    folder = tmp_path / "folder"
    folder.mkdir()
    data.save_splits(folder, splits)
    for split in splits:
        assert_same(data.load_samples(file, split), splits[split])
        assert_same(data.load_samples(folder, split), splits[split])


def spoil(folder, what):
    split = folder / "validation"
    state = split / "state.json"
    if what == "no dataset_dict":
        (folder / "dataset_dict.json").unlink()
    elif what == "state is not JSON":
        state.write_text("{")
    elif what == "file is gone":
        shutil.move(split / "data-00000-of-00001.arrow", split / "elsewhere")
    elif what == "truncated":
        arrow = split / "data-00000-of-00001.arrow"
        arrow.write_bytes(arrow.read_bytes()[:-3000])


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no dataset_dict", "must have dataset_dict.json"),
        ("state is not JSON", "must be JSON"),
        ("file is gone", "must be a whole Arrow stream"),
        ("truncated", "must be a whole Arrow stream"),
    ],
)
def test_a_spoilt_folder_is_refused(tmp_path, columns, what, says):
    save_hf(tmp_path, columns)
    spoil(tmp_path, what)
    with pytest.raises(InputError, match=says):
        data.load_samples(tmp_path)


def test_wrong_columns_are_refused(tmp_path):
    from datasets import Dataset, DatasetDict

    def refused(columns, says):
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        DatasetDict({"validation": Dataset.from_dict(columns)}).save_to_disk(str(tmp_path / "d"))
        with pytest.raises(InputError, match=says):
            data.load_samples(tmp_path / "d")

    two = [[1, 2], [3, 4]]
    refused({"input_ids": two, "labels": two}, "none named attention_mask")
    refused(
        {"input_ids": [[1, 2], [3]], "labels": two, "attention_mask": two}, "rows of input_ids must have one length"
    )
    refused({"input_ids": [["a"], ["b"]], "labels": two, "attention_mask": two}, "lists of whole numbers")
    refused({"input_ids": two, "labels": [[1, None], [3, 4]], "attention_mask": two}, "must have no nulls")
    refused({"input_ids": two, "labels": [[1, 2], None], "attention_mask": two}, "must have no nulls")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "must be JSON"),
        ("{}", "must be a JSON list"),
        ("[1]", "must be a JSON list"),
        ('[{"atf": 3}]', "another type in fragment 0"),
        ('[{"atf": "[x]"}]', "at least one fragment"),
    ],
)
def test_wrong_fragments_are_refused(tmp_path, content, says):
    file = tmp_path / "fragments.json"
    file.write_text(content)
    with pytest.raises(InputError, match=says):
        data.load_samples(file)


def test_absent_split_and_path_are_named(tmp_path, tiny_dataset):
    with pytest.raises(InputError, match="must be one of train, validation, test, got 'dev'"):
        data.load_samples(tiny_dataset, "dev")
    with pytest.raises(InputError, match="does not exist"):
        data.load_samples(tmp_path / "nothing")


def test_the_real_preprocessing_is_reproduced(real):
    cleaned = json.loads((real / "data" / "fragments_cleaned.json").read_text())
    texts = data.read_fragments(real / "data" / "fragments.json")
    expected = list(cleaned.values()) if isinstance(cleaned, dict) else cleaned
    assert texts == [t for t in expected if t]
    stored = np.load(real / "data" / "fragments_prepared_seed42.npz")
    for split, columns in data.prepare_fragments(texts, 42).items():
        for name, column in columns.items():
            np.testing.assert_array_equal(column, stored[f"{split}_{name}"])


def test_the_real_dataset_is_read(real):
    samples = data.load_samples(real / "data" / "restoration_dataset")
    assert samples.ids.shape == (480, 768)
    assert samples.ids[samples.mask == 0].max() == 32
    assert (samples.labels[samples.mask == 0] == -100).all()
