"""Datasets, texts and rows of other people and other versions: what they mean, or one line that says why not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TINY, assert_one_line_error, needs_torch, tiny_splits

from jaxsae.activations import store
from jaxsae.errors import InputError, InputNote
from jaxsae.text import arrow, fragments, loading
from jaxsae.text.loading import load_samples

SPLITS = tiny_splits()
IDS = SPLITS["validation"]["input_ids"]


@pytest.fixture
def folder(tmp_path):
    """A dataset to be changed."""
    path = tmp_path / "ds"
    path.mkdir()
    arrow.save_splits(path, SPLITS)
    return path


def changed_state(folder, change, split="validation"):
    file = folder / split / "state.json"
    state = json.loads(file.read_text())
    change(state)
    file.write_text(json.dumps(state))


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
        with pytest.raises(InputError, match=r"is one split, 'train', got a wish for 'test'; give --split train"):
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


TEXTS = [{"_id": str(i), "atf": f"a-na šar-{'ri' * (i % 5)} {i}"} for i in range(20)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.JSONL", "a.txt"])
@pytest.mark.parametrize("lines", [False, True])
def test_texts_of_any_ending_and_mark(tmp_path, encoding, name, lines):
    whole = "\n".join(json.dumps(t, ensure_ascii=False) for t in TEXTS) if lines else json.dumps(TEXTS, indent=1)
    (tmp_path / name).write_text(whole, encoding=encoding)
    (tmp_path / "plain.json").write_text(json.dumps(TEXTS))
    assert fragments.read_fragments(tmp_path / name) == fragments.read_fragments(tmp_path / "plain.json")


WORDS = [("K.1", 1, 0, "a-na"), ("K.1", 1, 1, "šar-ri"), ("K.1", 2, 0, "um-ma"), ("K.2", 1, 0, "lugal")]


def words_table(path, rows, columns=("fragment_id", "line_num", "word_idx", "value_raw")):
    pq.write_table(pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows]), path)
    return path


def test_rows_of_words_are_joined_to_their_fragments(tmp_path):
    """In the order that they say, else in that of the file; never one word in train and its neighbour in test."""
    for rows in (WORDS, WORDS[::-1], [WORDS[2], WORDS[3], WORDS[0], WORDS[1]]):
        with pytest.warns(InputNote, match="4 rows have 2 different fragment_id; rows of one are joined, by line_num"):
            got = fragments.read_fragments(words_table(tmp_path / "w.parquet", rows), "value_raw")
        assert sorted(got) == ["a-na šar-ri um-ma", "lugal"]
    unordered = [(i, w) for i, _, _, w in WORDS]
    path = words_table(tmp_path / "u.parquet", unordered, ("fragment_id", "value_raw"))
    with pytest.warns(InputNote, match="as they stand"):
        assert fragments.read_fragments(path, "value_raw") == ["a-na šar-ri um-ma", "lugal"]
    apart = [unordered[0], unordered[3], unordered[1]]
    path = words_table(tmp_path / "x.parquet", apart, ("fragment_id", "value_raw"))
    with pytest.raises(InputError, match=r"rows of one fragment must stand together, got those of 'K\.1' apart"):
        fragments.read_fragments(path, "value_raw")
    mixed = [("K.1", None, 0, "a"), ("K.1", 1, 1, "b")]
    with pytest.raises(InputError, match="must have places that can be ordered"):
        fragments.read_fragments(words_table(tmp_path / "m.parquet", mixed), "value_raw")


LINES = [("K.1", "9", 0, "a"), ("K.1", "10", 0, "b"), ("K.1", "10", 1, "c"), ("K.2", "1", 0, "d")]


def test_numbers_of_lines_may_be_text(tmp_path):
    """10 is after 9, however it is written; `10'` is no number, and the order is then that of the file."""
    joined = ["a b c", "d"]
    columns = ("fragment_id", "line", "word_idx", "value_raw")
    path = tmp_path / "w.parquet"
    with pytest.warns(InputNote, match="by line, word_idx"):
        assert sorted(fragments.read_fragments(words_table(path, LINES[::-1], columns), "value_raw")) == ["a b c", "d"]
    labels = [(i, line if line == "9" else f"{line}'", n, word) for i, line, n, word in LINES]
    with pytest.warns(InputNote, match="as they stand"):
        assert fragments.read_fragments(words_table(path, labels, columns), "value_raw") == joined
    with pytest.raises(InputError, match="must stand together"):
        fragments.read_fragments(words_table(path, [labels[0], labels[3], labels[1]], columns), "value_raw")


def test_numbers_that_return_within_a_fragment_do_not_order_it(tmp_path):
    """As where it has two sides, or where numbers of words begin anew with each line."""
    sides = [("K.1", 1, 0, "a"), ("K.1", 2, 0, "b"), ("K.1", 1, 0, "c"), ("K.1", 2, 0, "d")]
    path = tmp_path / "w.parquet"
    with pytest.warns(InputNote, match="as they stand"):
        assert fragments.read_fragments(words_table(path, sides), "value_raw") == ["a b c d"]
    words = [("K.1", 0, "a"), ("K.1", 1, "b"), ("K.1", 0, "c"), ("K.2", 0, "d")]
    with pytest.warns(InputNote, match="as they stand"):
        got = fragments.read_fragments(words_table(path, words, ("fragment_id", "word_idx", "value_raw")), "value_raw")
    assert got == ["a b c", "d"]
    lines = [("K.1", 2, "c"), ("K.1", 1, "a"), ("K.1", 1, "b")]
    with pytest.warns(InputNote, match="by line_num"):
        got = fragments.read_fragments(words_table(path, lines, ("fragment_id", "line_num", "value_raw")), "value_raw")
    assert got == ["a b c"]


def test_a_row_of_a_line_may_have_a_number_of_its_own(tmp_path):
    rows = [("row 1", "K.1", 1, "b"), ("row 2", "K.1", 0, "a"), ("row 3", "K.2", 0, "c")]
    path = words_table(tmp_path / "w.parquet", rows, ("_id", "fragment_id", "line_num", "value_raw"))
    with pytest.warns(InputNote, match="3 rows have 2 different fragment_id"):
        assert fragments.read_fragments(path, "value_raw") == ["a b", "c"]
    bare = [(i, f, text) for i, f, _, text in rows]
    path = words_table(tmp_path / "b.parquet", bare, ("_id", "fragment_id", "value_raw"))
    assert fragments.read_fragments(path, "value_raw") == ["b", "a", "c"]


def test_ids_that_name_nothing_do_not_join(tmp_path):
    for ids in ([{"$oid": "1"}, {"$oid": "1"}], [None, None], ["1", "2"], ["1", "1"]):
        (tmp_path / "a.json").write_text(json.dumps([{"_id": i, "atf": "a-na"} for i in ids]))
        assert fragments.read_fragments(tmp_path / "a.json") == ["a-na", "a-na"]


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
    with pytest.raises(InputError, match=r"is a \.pt file, and rows must be a folder of extract_activations\.py"):
        store.open_stores([str(tmp_path / "h.pt")], 3)


# ----------------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def stored(script, tiny_pt, tiny_dataset, tmp_path):
    """Rows of four samples of the tiny model."""
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--layer", 1, "--max-samples", 4]
    assert script("extract_activations", *flags, "--output", tmp_path / "rows", "--quiet").status == 0
    return tmp_path / "rows"


TRAIN = ["--layer", 1, "--epochs", 1, "--batch-size", 8, "--quiet", "--verify", 0]


@needs_torch
def test_flags_are_obeyed_or_refused_with_stored_rows(script, stored, tmp_path, tiny_pt, tiny_dataset):
    out = tmp_path / "out"
    flags = [*TRAIN, "--dataset", stored, "--output", out]
    for more, says in (
        (["--split", "train"], "--split must be that of the stored rows, 'validation', got 'train'"),
        (["--padding", "keep"], "--padding must be that of the stored rows, 'drop', got 'keep'"),
    ):
        assert_one_line_error(script("train", *flags, *more), says)
        assert not out.exists()
    assert script("train", *flags, "--max-samples", 2, "--split", "validation", "--padding", "drop").status == 0
    report = json.loads((out / "sae_layer1_optimized.json").read_text())
    assert report["rows"] == int((np.load(stored / "sample.npy") < 2).sum())
    assert report["settings"]["max_samples"] == 2
    sae = out / "sae_layer1_optimized.pt"
    for command, more in (("evaluate", ["--split", "train"]), ("inspect_sae", ["--padding", "keep"])):
        rated = ["--sae", sae, "--checkpoint", tiny_pt, "--dataset", stored]
        assert_one_line_error(script(command, *rated, *more), "must be that of the stored rows")
    for command, more in (
        ("verify_activations", []),
        ("extract_activations", ["--layer", 1, "--output", tmp_path / "again"]),
    ):
        ran = script(command, "--checkpoint", tiny_pt, "--dataset", stored, *more)
        assert_one_line_error(ran, "--dataset must be text here, got stored rows")
    np.save(tmp_path / "bare.npy", np.load(stored / "layer1.npy"))
    bare = [*TRAIN, "--dataset", tmp_path / "bare.npy", "--output", tmp_path / "bare"]
    assert_one_line_error(script("train", *bare, "--max-samples", 2), "must say which samples its rows are of")
    assert_one_line_error(script("train", *bare, "--split", "test"), "--split must be that of the stored rows, which")


@needs_torch
def test_a_checkpoint_given_with_stored_rows_is_theirs(script, stored, tmp_path, tiny_pt):
    import torch
    from conftest import checkpoint_content

    other = tmp_path / "other.pt"
    torch.save(checkpoint_content(seed=1), other)
    flags = [*TRAIN, "--output", tmp_path / "out"]
    ran = script("train", *flags, "--dataset", stored, "--checkpoint", other)
    assert_one_line_error(ran, "--checkpoint must be the one that the rows are of")
    assert script("train", *flags, "--dataset", stored, "--checkpoint", tiny_pt).status == 0
    np.save(tmp_path / "bare.npy", np.load(stored / "layer1.npy"))
    flags = [*TRAIN, "--output", tmp_path / "bare_out", "--dataset", tmp_path / "bare.npy"]
    assert script("train", *flags, "--checkpoint", other).status == 0
    sae = tmp_path / "bare_out" / "sae_layer1_optimized.pt"
    ran = script("evaluate", "--sae", sae, "--checkpoint", tiny_pt, "--dataset", stored)
    assert_one_line_error(ran, "was trained on another model")


@needs_torch
def test_a_run_without_a_test_split_is_scored_on_its_rows(script, folder, tmp_path, tiny_pt):
    changed_state(folder, lambda state: state.update({"_data_files": []}), "test")
    flags = ["--checkpoint", tiny_pt, "--dataset", folder]
    ran = script("train", *flags, *TRAIN, "--output", tmp_path / "out")
    assert (ran.status, ran.err) == (0, "")
    assert "(training rows)" in ran.out
    ran = script("evaluate", *flags, "--sae", tmp_path / "out" / "sae_layer1_optimized.pt")
    assert_one_line_error(ran, "a split must have samples, got none in 'test'")


@needs_torch
def test_text_without_damage_is_rated_by_its_reconstruction(script, folder, tmp_path, tiny_pt):
    whole = {split: c | {"labels": np.full_like(c["labels"], -100)} for split, c in SPLITS.items()}
    path = tmp_path / "undamaged"
    path.mkdir()
    arrow.save_splits(path, whole)
    flags = ["--checkpoint", tiny_pt, "--dataset", path]
    assert script("train", *flags, *TRAIN, "--output", tmp_path / "out").status == 0
    rated = [*flags, "--sae", tmp_path / "out" / "sae_layer1_optimized.pt"]
    ran = script("evaluate", *rated, "--json", tmp_path / "e.json")
    assert ran.status == 0
    assert "has no damaged characters: what is restored with an SAE is left out" in ran.err
    [figures] = json.loads((tmp_path / "e.json").read_text())
    assert figures["fvu"] > 0
    assert "ce_sae" not in figures
    assert_one_line_error(script("inspect_sae", *rated, "--ablate", 1), "need damaged characters to restore")
    assert script("inspect_sae", *rated, "--html", tmp_path / "page.html").status == 0


@needs_torch
def test_a_label_outside_the_vocabulary_is_refused_by_name(script, tmp_path, tiny_pt):
    splits = tiny_splits()
    for columns in splits.values():
        sample, position = np.argwhere(columns["labels"] >= 0)[3]
        columns["labels"][sample, position] = TINY.vocab_size + 5
    path = tmp_path / "ds"
    path.mkdir()
    arrow.save_splits(path, splits)
    ran = script("train", "--checkpoint", tiny_pt, "--dataset", path, *TRAIN, "--output", tmp_path / "out")
    character = chr(TINY.vocab_size + 5)
    assert_one_line_error(ran, f"labels must be in 0..{TINY.vocab_size - 1}", repr(character), "of sample")
    assert not (tmp_path / "out").exists()


@needs_torch
def test_several_datasets_are_taken_by_every_command(script, folder, tmp_path, tiny_pt, tiny_dataset):
    both = f"{tiny_dataset},{folder}"
    flags = ["--checkpoint", tiny_pt, "--dataset", both]
    assert script("train", *flags, *TRAIN, "--output", tmp_path / "out").status == 0
    rated = [*flags, "--sae", tmp_path / "out" / "sae_layer1_optimized.pt"]
    ran = script("evaluate", *rated, "--json", tmp_path / "e.json")
    assert ran.status == 0
    assert json.loads((tmp_path / "e.json").read_text())[0]["rows"] == 2 * int(SPLITS["test"]["attention_mask"].sum())
    assert "24 samples" in script("inspect_sae", *rated).out
    assert script("extract_activations", *flags, "--layer", 1, "--output", tmp_path / "rows", "--quiet").status == 0
    assert script("verify_activations", *flags, "--layer", 1, "--samples", 1).status == 0
