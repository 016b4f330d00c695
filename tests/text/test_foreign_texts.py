"""Texts of other people, in rows of any kind: what they mean, or one line that says why not."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxsae.activations import store
from jaxsae.errors import InputError, InputNote
from jaxsae.text import fragments


def texts_of(*args):
    """The cleaned texts of a file."""
    return [one.text for one in fragments.read_fragments(*args)]


TEXTS = [{"_id": str(i), "atf": f"a-na šar-{'ri' * (i % 5)} {i}"} for i in range(20)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.JSONL", "a.txt"])
@pytest.mark.parametrize("lines", [False, True])
def test_texts_of_any_ending_and_mark(tmp_path, encoding, name, lines):
    whole = "\n".join(json.dumps(t, ensure_ascii=False) for t in TEXTS) if lines else json.dumps(TEXTS, indent=1)
    (tmp_path / name).write_text(whole, encoding=encoding)
    (tmp_path / "plain.json").write_text(json.dumps(TEXTS))
    assert texts_of(tmp_path / name) == texts_of(tmp_path / "plain.json")


WORDS = [("K.1", 1, 0, "a-na"), ("K.1", 1, 1, "šar-ri"), ("K.1", 2, 0, "um-ma"), ("K.2", 1, 0, "lugal")]


def words_table(path, rows, columns=("fragment_id", "line_num", "word_idx", "value_raw")):
    pq.write_table(pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows]), path)
    return path


def test_rows_of_words_are_joined_to_their_fragments(tmp_path):
    """In the order that they say, else in that of the file; never one word in train and its neighbour in test."""
    for rows in (WORDS, WORDS[::-1], [WORDS[2], WORDS[3], WORDS[0], WORDS[1]]):
        with pytest.warns(InputNote, match="4 rows have 2 different fragment_id; rows of one are joined, by line_num"):
            got = texts_of(words_table(tmp_path / "w.parquet", rows), "value_raw")
        assert sorted(got) == ["a-na šar-ri um-ma", "lugal"]
    unordered = [(i, w) for i, _, _, w in WORDS]
    path = words_table(tmp_path / "u.parquet", unordered, ("fragment_id", "value_raw"))
    with pytest.warns(InputNote, match="as they stand"):
        assert texts_of(path, "value_raw") == ["a-na šar-ri um-ma", "lugal"]
    apart = [unordered[0], unordered[3], unordered[1]]
    path = words_table(tmp_path / "x.parquet", apart, ("fragment_id", "value_raw"))
    with pytest.raises(InputError, match=r"rows of one fragment must stand together, got those of 'K\.1' apart"):
        texts_of(path, "value_raw")
    mixed = [("K.1", None, 0, "a"), ("K.1", 1, 1, "b")]
    with pytest.raises(InputError, match="must have places that can be ordered"):
        texts_of(words_table(tmp_path / "m.parquet", mixed), "value_raw")


LINES = [("K.1", "9", 0, "a"), ("K.1", "10", 0, "b"), ("K.1", "10", 1, "c"), ("K.2", "1", 0, "d")]


def test_numbers_of_lines_may_be_text(tmp_path):
    """10 is after 9, however it is written; `10'` is no number, and the order is then that of the file."""
    joined = ["a b c", "d"]
    columns = ("fragment_id", "line", "word_idx", "value_raw")
    path = tmp_path / "w.parquet"
    with pytest.warns(InputNote, match="by line, word_idx"):
        assert sorted(texts_of(words_table(path, LINES[::-1], columns), "value_raw")) == ["a b c", "d"]
    labels = [(i, line if line == "9" else f"{line}'", n, word) for i, line, n, word in LINES]
    with pytest.warns(InputNote, match="as they stand"):
        assert texts_of(words_table(path, labels, columns), "value_raw") == joined
    with pytest.raises(InputError, match="must stand together"):
        texts_of(words_table(path, [labels[0], labels[3], labels[1]], columns), "value_raw")


def test_numbers_that_return_within_a_fragment_do_not_order_it(tmp_path):
    """As where it has two sides, or where numbers of words begin anew with each line."""
    sides = [("K.1", 1, 0, "a"), ("K.1", 2, 0, "b"), ("K.1", 1, 0, "c"), ("K.1", 2, 0, "d")]
    path = tmp_path / "w.parquet"
    with pytest.warns(InputNote, match="as they stand"):
        assert texts_of(words_table(path, sides), "value_raw") == ["a b c d"]
    words = [("K.1", 0, "a"), ("K.1", 1, "b"), ("K.1", 0, "c"), ("K.2", 0, "d")]
    with pytest.warns(InputNote, match="as they stand"):
        got = texts_of(words_table(path, words, ("fragment_id", "word_idx", "value_raw")), "value_raw")
    assert got == ["a b c", "d"]
    lines = [("K.1", 2, "c"), ("K.1", 1, "a"), ("K.1", 1, "b")]
    with pytest.warns(InputNote, match="by line_num"):
        got = texts_of(words_table(path, lines, ("fragment_id", "line_num", "value_raw")), "value_raw")
    assert got == ["a b c"]


def test_a_row_of_a_line_may_have_a_number_of_its_own(tmp_path):
    rows = [("row 1", "K.1", 1, "b"), ("row 2", "K.1", 0, "a"), ("row 3", "K.2", 0, "c")]
    path = words_table(tmp_path / "w.parquet", rows, ("_id", "fragment_id", "line_num", "value_raw"))
    with pytest.warns(InputNote, match="3 rows have 2 different fragment_id"):
        assert texts_of(path, "value_raw") == ["a b", "c"]
    bare = [(i, f, text) for i, f, _, text in rows]
    path = words_table(tmp_path / "b.parquet", bare, ("_id", "fragment_id", "value_raw"))
    assert texts_of(path, "value_raw") == ["b", "a", "c"]


def test_ids_that_name_nothing_do_not_join(tmp_path):
    for ids in ([{"$oid": "1"}, {"$oid": "1"}], [None, None], ["1", "2"], ["1", "1"]):
        (tmp_path / "a.json").write_text(json.dumps([{"_id": i, "atf": "a-na"} for i in ids]))
        assert texts_of(tmp_path / "a.json") == ["a-na", "a-na"]


def test_rows_of_positions_want_their_mask(tmp_path):
    rng = np.random.default_rng(0)
    states, mask = rng.normal(size=(5, 7, 4)).astype(np.float32), rng.random((5, 7)) < 0.6
    np.save(tmp_path / "h.npy", states)
    path = str(tmp_path / "h.npy")
    with pytest.raises(
        InputError, match=r"got \[5, 7, 4\]: of positions some are padding; give the mask .* h_mask\.npy"
    ):
        store.open_stores([path], 3)
    alone = store.fingerprint(path, [3])
    for kind in (bool, np.int8, np.int64):
        np.save(tmp_path / "h_mask.npy", mask.astype(kind))
        found = store.open_stores([path], 3)
        np.testing.assert_array_equal(found.layers[3][:], states[mask])
    assert store.fingerprint(path, [3]) != alone
    np.save(tmp_path / "h_mask.npy", mask[:, :-1])
    with pytest.raises(InputError, match=r"must hold 0 or 1 for each of \[5, 7\]"):
        store.open_stores([path], 3)
    with pytest.raises(InputError, match=r"is a \.pt file, and rows must be a folder that `jaxsae extract` made"):
        store.open_stores([str(tmp_path / "h.pt")], 3)
