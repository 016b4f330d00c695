"""Stored rows say what their tokens stand for, what stands around texts, and what else is known of them."""

import json

import numpy as np
import pytest
from helpers import of_words

from jaxsae.activations import store
from jaxsae.errors import InputError
from jaxsae.text.loading import load_samples

ABOUT = {"checkpoint_sha256": "a"}


@pytest.fixture(scope="module")
def model(tiny_pt):
    from convert import load_restoration_model

    return load_restoration_model(tiny_pt)


@pytest.fixture
def samples(tiny_dataset):
    return load_samples(tiny_dataset, "train")


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_what_tokens_stand_for_is_stored_with_them(model, tmp_path, padding):
    """What is read back is the text, its frame and its columns, without the model's tokenizer."""
    samples = of_words(["a b c", "d", "e f g h a"])
    store.write(tmp_path / "rows", model, samples, [1], padding, ABOUT)
    found = store.open_stores([str(tmp_path / "rows")], 1).samples()
    for name in ("ids", "labels", "mask", "special"):
        np.testing.assert_array_equal(getattr(found, name), getattr(samples, name), err_msg=name)
    assert (
        [found.text_of(i) for i in range(3)] == [samples.text_of(i) for i in range(3)] == [" a b c", " d", " e f g h a"]
    )
    assert found.columns["genre"].tolist() == samples.columns["genre"].tolist()
    np.testing.assert_array_equal(found.columns["parity"], samples.columns["parity"])
    tokenizer = found.tokenizer
    assert (tokenizer.unit, tokenizer.vocab_size, tokenizer.damaged_id, tokenizer.frame) == (
        "word",
        45,
        3,
        ((1,), (2,)),
    )
    assert tokenizer.encode("a b").tolist() == samples.tokenizer.encode("a b").tolist()
    assert not found.causal
    assert store.open_stores([str(tmp_path / "rows")], 1, 2).samples().text_of(1) == " d"


def test_stores_of_different_words_are_one_text(model, tmp_path):
    parts = {"a": of_words(["a b c"]), "b": of_words(["g h", "d e f g h"])}
    for name, samples in parts.items():
        store.write(tmp_path / name, model, samples, [1], "drop", ABOUT)
    found = store.open_stores([str(tmp_path / name) for name in parts], 1).samples()
    assert [found.text_of(i) for i in range(3)] == [" a b c", " g h", " d e f g h"]
    assert found.ids.shape == (3, 7)
    assert found.special.sum() == 6


def test_a_store_of_characters_says_nothing_more(model, samples, tmp_path):
    store.write(tmp_path / "rows", model, samples, [1], "drop", ABOUT)
    assert not list((tmp_path / "rows").glob("pieces*"))
    assert not list((tmp_path / "rows").glob("column*"))


def test_what_contradicts_itself_in_a_text_is_refused(model, tmp_path):
    folder = tmp_path / "rows"
    store.write(folder, model, of_words(["a b c", "d"]), [1], "drop", ABOUT)
    said = json.loads((folder / "pieces.json").read_text())
    for change, message in (
        ({"frame": [[1], 2]}, "must say what ids stand for, got TypeError"),
        ({"pieces": {"x": "a"}}, "must say what ids stand for, got ValueError"),
        ({"columns": {"genre": ["g"]}}, "must have a value for each of 2 samples"),
        ({"token_columns": {"parity": ["0"]}}, r"column0\.npy must have the number of a value for each row"),
        ({"frame": [[1, 1, 1], [2]]}, "positions must leave room for what stands around a text"),
    ):
        (folder / "pieces.json").write_text(json.dumps(said | change))
        with pytest.raises(InputError, match=message):
            store.open_stores([str(folder)], 1).samples()
