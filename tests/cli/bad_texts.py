"""Datasets and fragments that are wrong: what makes one -> what the error line says."""

import json

import numpy as np
import pyarrow as pa
from conftest import TINY, tiny_splits

from jaxsae.text import arrow


def written(path, content):
    path.write_bytes(content)
    return path


def dataset(path, change=lambda columns: None, **columns):
    splits = tiny_splits()
    splits["validation"] |= columns
    change(splits["validation"])
    path.mkdir()
    arrow.save_splits(path, splits)
    return path


def dataset_of(path, table):
    """A dataset whose validation split is that table."""
    dataset(path)
    file = str(path / "validation" / "data-00000-of-00001.arrow")
    with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def table(**columns):
    good = {name: column.tolist() for name, column in tiny_splits()["validation"].items()}
    return pa.table({name: column for name, column in (good | columns).items() if column is not None})


def with_file(path, name, content):
    (dataset(path) / name).write_bytes(content)
    return path


def ids(change):
    column = tiny_splits()["validation"]["input_ids"].copy()
    change(column)
    return column


def truncated(path):
    file = dataset(path) / "validation" / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:-400])
    return path


ROWS = [[65] * n for n in (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)]
GOOD = tiny_splits()["validation"]
DATASETS = {
    "nothing there": (lambda p: p, "no such file"),
    "a folder of something else": (lambda p: p.mkdir() or p, "must have dataset_dict.json"),
    "splits that are a word": (
        lambda p: with_file(p, "dataset_dict.json", b'"validation"'),
        'must be {"splits": [...]}',
    ),
    "splits that are not JSON": (lambda p: with_file(p, "dataset_dict.json", b"{"), "must be JSON"),
    "no such split": (
        lambda p: with_file(p, "dataset_dict.json", b'{"splits": ["test"]}'),
        "split must be one of test",
    ),
    "no state": (lambda p: (dataset(p) / "validation" / "state.json").unlink() or p, "must have state.json"),
    "a state of another type": (lambda p: with_file(p, "validation/state.json", b"[1]"), "must name its _data_files"),
    "a state that names numbers": (
        lambda p: with_file(p, "validation/state.json", b'{"_data_files": [1]}'),
        '[{"filename": ...}, ...]',
    ),
    "a state that names files elsewhere": (
        lambda p: with_file(p, "validation/state.json", b'{"_data_files": [{"filename": "../../x.arrow"}]}'),
        "files of that folder",
    ),
    "a truncated file": (truncated, "must be a whole Arrow stream"),
    "text in its place": (
        lambda p: with_file(p, "validation/data-00000-of-00001.arrow", b"rows"),
        "whole Arrow stream",
    ),
    "no labels": (lambda p: dataset_of(p, table(labels=None)), "got none named labels"),
    "rows of unlike length": (lambda p: dataset_of(p, table(input_ids=ROWS)), "rows of input_ids must have one length"),
    "columns of unlike length": (lambda p: dataset_of(p, table(input_ids=[[65]] * 12)), "must have one shape"),
    "numbers that are not whole": (lambda p: dataset_of(p, table(labels=[[0.5]] * 12)), "lists of whole numbers"),
    "strings": (lambda p: dataset_of(p, table(input_ids=["abc"] * 12)), "lists of whole numbers, got string"),
    "nulls": (lambda p: dataset_of(p, table(labels=[None, *GOOD["labels"].tolist()[1:]])), "must have no nulls"),
    "an id beyond the vocabulary": (
        lambda p: dataset(p, input_ids=ids(lambda c: c.__setitem__((1, 1), TINY.vocab_size))),
        "token ids must be in 0..",
    ),
    "an id below 0": (
        lambda p: dataset(p, input_ids=ids(lambda c: c.__setitem__((1, 1), -1))),
        "input_ids must be in 0..",
    ),
    "a label that is none": (
        lambda p: dataset(p, labels=np.where(GOOD["labels"] < 0, -7, 65)),
        "or -100 where there is",
    ),
    "a label beyond Unicode": (
        lambda p: dataset(p, labels=np.full_like(GOOD["labels"], 2**30)),
        "labels must be in -100..",
    ),
    "a mask of twos": (
        lambda p: dataset(p, attention_mask=2 * GOOD["attention_mask"]),
        "attention_mask must be in 0..1",
    ),
    "padding only": (lambda p: dataset(p, attention_mask=0 * GOOD["attention_mask"]), "got only padding"),
    "no samples": (lambda p: dataset_of(p, table().slice(0, 0)), "a split must have samples, got none"),
    "samples that are too long": (
        lambda p: (p.mkdir(), arrow.save_splits(p, tiny_splits(width=TINY.max_position + 3)))[0] or p,
        f"at most {TINY.max_position} positions",
    ),
}


def fragments(content):
    return lambda p: written(p, content if isinstance(content, bytes) else json.dumps(content).encode())


FRAGMENTS = {
    "a table": (fragments(b"id,atf\n1,a-na"), "must be JSON in UTF-8"),
    "another encoding": (fragments('[{"_id": "1", "atf": "šar"}]'.encode("latin2")), "must be JSON in UTF-8"),
    "cut short": (fragments(b'[{"_id": "1", "atf": "a-na'), "must be JSON in UTF-8"),
    "too deep": (fragments(b"[" * 100_000), "must be JSON in UTF-8"),
    "one fragment": (fragments({"_id": "1", "atf": "a"}), "must be a JSON list of fragments"),
    "strings alone": (fragments(["a-na"]), "must be a JSON list of fragments"),
    "a number as text": (fragments([{"_id": "1", "atf": 7}]), "another type in fragment 0"),
    "no text in any": (fragments([{"_id": "1", "atf": None}, {"_id": "2"}]), "at least one fragment with text"),
    "none": (fragments([]), "at least one fragment with text, got none of 0"),
    "a key twice": (fragments(b'[{"_id": "1", "atf": "a", "atf": "b"}]'), "must differ, got 'atf' twice"),
}
