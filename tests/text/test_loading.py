import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TINY, assert_one_line_error, tiny_splits
from helpers import narrowed

from jaxsae.activations import store
from jaxsae.errors import InputError
from jaxsae.features import concepts
from jaxsae.files import atomic_path
from jaxsae.text import arrow, fragments, loading, samples
from jaxsae.text.cleaning import clean
from jaxsae.text.samples import COLUMNS


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
    assert_same(loading.load_samples(tmp_path), columns)
    assert_same(loading.load_samples(tmp_path, max_samples=5), {name: c[:5] for name, c in columns.items()})
    assert len(loading.load_samples(tmp_path, max_samples=10_000)) == len(columns["labels"])


def test_reads_several_files(tmp_path, columns):
    save_hf(tmp_path, columns, num_shards={"validation": 5})
    assert len(list((tmp_path / "validation").glob("*.arrow"))) == 5
    assert_same(loading.load_samples(tmp_path), columns)
    assert_same(loading.load_samples(tmp_path, max_samples=4), {name: c[:4] for name, c in columns.items()})


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
    assert_same(loading.load_samples(tmp_path), {name: c[rows] for name, c in columns.items()})
    assert_same(loading.load_samples(tmp_path, max_samples=2), {name: c[rows[:2]] for name, c in columns.items()})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_datasets_opens_what_we_write(tmp_path):
    from datasets import load_from_disk

    splits = tiny_splits()
    arrow.save_splits(tmp_path, splits)
    opened = load_from_disk(str(tmp_path))
    assert list(opened) == ["train", "validation", "test"]
    assert opened["test"].features == hf_dataset(splits["test"]).features
    for split, columns in splits.items():
        for name, column in columns.items():
            assert opened[split][name][:] == column.tolist()


def test_lengths_are_up_to_the_last_real_character():
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]], np.int8)
    ids = np.zeros((4, 4), np.int32)
    assert samples.Samples(ids, ids, mask).lengths.tolist() == [2, 0, 3, 4]


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
    splits = loading.prepare_splits([clean(a) for a in atfs], 42)
    folder = tmp_path / "folder"
    folder.mkdir()
    arrow.save_splits(folder, splits)
    for split in splits:
        assert_same(loading.load_samples(file, split), splits[split])
        assert_same(loading.load_samples(folder, split), splits[split])


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
        loading.load_samples(tmp_path)


def test_wrong_columns_are_refused(tmp_path):
    from datasets import Dataset, DatasetDict

    def refused(columns, says):
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        DatasetDict({"validation": Dataset.from_dict(columns)}).save_to_disk(str(tmp_path / "d"))
        with pytest.raises(InputError, match=says):
            loading.load_samples(tmp_path / "d")

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
        loading.load_samples(file)


def test_absent_split_and_path_are_named(tmp_path, tiny_dataset):
    with pytest.raises(InputError, match="must be one of train, validation, test, got 'dev'"):
        loading.load_samples(tiny_dataset, "dev")
    with pytest.raises(InputError, match="no such file"):
        loading.load_samples(tmp_path / "nothing")


def test_the_real_preprocessing_is_reproduced(real):
    cleaned = json.loads((real / "data" / "fragments_cleaned.json").read_text())
    texts = [one.text for one in fragments.read_fragments(real / "data" / "fragments.json")]
    expected = list(cleaned.values()) if isinstance(cleaned, dict) else cleaned
    assert texts == [t for t in expected if t]
    stored = np.load(real / "data" / "fragments_prepared_seed42.npz")
    for split, columns in loading.prepare_splits(texts, 42).items():
        for name, column in columns.items():
            np.testing.assert_array_equal(column, stored[f"{split}_{name}"])


def test_the_real_dataset_is_read(real):
    samples = loading.load_samples(real / "data" / "restoration_dataset")
    assert samples.ids.shape == (480, 768)
    assert samples.ids[samples.mask == 0].max() == 32
    assert (samples.labels[samples.mask == 0] == -100).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_what_is_prepared_opens_like_the_originals_dataset(real, tmp_path):
    from datasets import load_from_disk

    with atomic_path(tmp_path / "dataset") as aside:
        aside.mkdir()
        arrow.save_splits(aside, loading.prepare_splits([f"a-na {n * 'x'}" for n in range(30)], 42))
    ours, theirs = (load_from_disk(str(path)) for path in (tmp_path / "dataset", real / "data/restoration_dataset"))
    assert list(ours) == list(theirs)
    for split in ours:
        assert ours[split].features == theirs[split].features
        assert ours[split].format == theirs[split].format


def test_texts_keep_their_names(script, tiny_pt, tmp_path):
    """A tablet's number, from the raw file through the dataset and stored rows to the samples that are inspected."""
    from datasets import load_from_disk

    rows = [{"_id": f"K.{n}", "atf": f"a-na {'x' * n}"[: TINY.max_position]} for n in range(1, 31)]
    (tmp_path / "f.json").write_text(json.dumps(rows))
    assert script("prepare_dataset", "--fragments", tmp_path / "f.json", "--out_dir", tmp_path / "d").status == 0
    of_file = loading.load_samples(tmp_path / "f.json", "test")
    of_folder = loading.load_samples(tmp_path / "d", "test")
    names = {clean(row["atf"]): row["_id"] for row in rows}
    for some in (of_file, of_folder, of_folder[1:]):
        assert len(some)
        assert all(names[some.text_of(i)] == some.name_of(i) for i in range(len(some)))
    assert load_from_disk(str(tmp_path / "d"))["test"]["_id"] == [of_folder.name_of(i) for i in range(len(of_folder))]
    parts = [columns["_id"] for columns in loading.prepare_file(tmp_path / "f.json", 42).values()]
    assert sorted(np.concatenate(parts)) == sorted(names.values())
    assert not concepts.column_concepts(of_folder)

    narrow = {"test": narrowed(loading.prepare_file(tmp_path / "f.json", 42), TINY.max_position)["test"]}
    (tmp_path / "narrow").mkdir()
    arrow.save_splits(tmp_path / "narrow", narrow)
    made = ["--checkpoint", tiny_pt, "--dataset", tmp_path / "narrow", "--split", "test", "--layer", 0]
    assert script("extract_activations", *made, "--output", tmp_path / "rows").status == 0
    rows_of = store.open_stores([str(tmp_path / "rows")], 0, 2)
    stored = store.text_of(rows_of, store.model_of(rows_of.about))
    assert stored.tokenizer is of_folder.tokenizer
    assert [stored.name_of(i) for i in range(2)] == [of_folder.name_of(i) for i in range(2)]


def test_datasets_without_names_have_none(tiny_dataset):
    found = loading.load_samples(tiny_dataset)
    assert found.name_of(0) == ""
    assert not found.columns


def test_json_lines_and_parquet_give_the_same_samples(script, tmp_path):
    texts = [f"{'a-na be-li-ia ' * (n % 7 + 1)}{n * 'x'}" for n in range(20)] + [None]
    rows = [{"_id": str(n), "transliteration": one} for n, one in enumerate(texts)]
    (tmp_path / "texts.json").write_text(json.dumps(rows))
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "texts.parquet")
    for end in ("json", "jsonl", "parquet"):
        flags = ["--text-column", "transliteration", "--seed", 7, "--out_dir", tmp_path / f"from_{end}"]
        ran = script("prepare_dataset", "--fragments", tmp_path / f"texts.{end}", *flags)
        assert ran.status == 0, ran
        assert "20 fragments with text" in ran.out
    for split in ("train", "validation", "test"):
        first = arrow.load_columns(tmp_path / "from_json", split, list(COLUMNS), also="_id")
        assert len(first) == 4
        for end in ("jsonl", "parquet"):
            other = arrow.load_columns(tmp_path / f"from_{end}", split, list(COLUMNS), also="_id")
            assert all((first[name] == other[name]).all() for name in first)
    renamed = [{"_id": row["_id"], "atf": row["transliteration"]} for row in rows]
    (tmp_path / "atf.jsonl").write_text("\n".join(json.dumps(row) for row in renamed))
    assert_same(
        loading.load_samples(tmp_path / "atf.jsonl", "train"),
        loading.prepare_splits([clean(one) for one in texts if one], 42)["train"],
    )


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"atf": "a-na"}\n{"atf": ', "a.jsonl: line 2 must be JSON in UTF-8"),
        ("a.jsonl", b'{"atf": "a-na"}\n\xff\n', "a.jsonl: must be JSON in UTF-8, got invalid start byte in line 2"),
        ("a.jsonl", b'{"atf": "x", "atf": "y"}', "line 1 must be JSON in UTF-8: keys of a JSON object must differ"),
        ("a.jsonl", b"[1]", "must be a JSON list of fragments"),
        ("a.jsonl", b'{"atf": 3}', "atf must be a string or null, got another type in fragment 0"),
        ("a.jsonl", b"", "must have at least one fragment with text, got none of 0 in column atf"),
        ("a.parquet", b"PAR1", "must be a whole Parquet file"),
        ("a.parquet", b"x" * 100, "must be a whole Parquet file"),
    ],
)
def test_wrong_texts_are_refused(script, tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    ran = script("prepare_dataset", "--fragments", tmp_path / name, "--out_dir", tmp_path / "out")
    assert_one_line_error(ran, says)
    assert not (tmp_path / "out").exists()


def test_a_parquet_column_must_be_there_and_be_text(script, tmp_path):
    pq.write_table(pa.table({"text": ["a-na"], "n": [3]}), tmp_path / "a.parquet")
    flags = ["--fragments", tmp_path / "a.parquet", "--out_dir", tmp_path / "out"]
    assert_one_line_error(
        script("prepare_dataset", *flags),
        "must have a column atf, got text, n; prepare_dataset.py takes another, as --text-column",
    )
    ran = script("prepare_dataset", *flags, "--text-column", "n")
    assert_one_line_error(ran, "n must be a string or null, got another type in fragment 0")


def test_a_path_where_nothing_is_names_what_is_like_it(tmp_path):
    (tmp_path / "restoration_dataset").mkdir()
    with pytest.raises(InputError, match=r"restoration_datase: no such file; is .*/restoration_dataset meant\?$"):
        loading.load_samples(tmp_path / "restoration_datase")
    with pytest.raises(InputError, match=r"got .*quite_else: no such file$"):
        loading.load_samples(tmp_path / "quite_else")
    with pytest.raises(InputError, match=r": there is no folder .*/a$"):
        loading.load_samples(tmp_path / "a" / "b" / "restoration_dataset")


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_a_file_without_the_column_lists_those_it_has(tmp_path, suffix):
    path, rows = tmp_path / f"fragments{suffix}", [{"_id": "1", "transliteration": "a-na"}] * 2
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)))
    with pytest.raises(
        InputError,
        match=r"must have a column atf, got _id, transliteration; prepare_dataset.py takes another, as text_column",
    ):
        loading.load_samples(path)
