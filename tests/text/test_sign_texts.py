"""Texts of signs: the vocabulary, words of a table joined to fragments, and which signs are damaged."""

import json
import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sign_model
from sign_model import CONFIG, SIGNS

from jaxsae.errors import InputError, InputNote
from jaxsae.text.samples import check_samples, kept_positions
from jaxsae.text.sign_texts import SignTexts, damage
from jaxsae.text.signs import CLS, MASK, PAD, SEP, SPECIAL, UNK, SignTokenizer, read_vocabulary

TOKENIZER = SignTokenizer(SIGNS)
N = len(SIGNS)


@pytest.fixture
def texts():
    return SignTexts(TOKENIZER, CONFIG.max_seq_len)


def test_signs_become_ids_and_ids_signs():
    ids = TOKENIZER.encode(" lu  gal\nbird šu ")
    assert ids.tolist() == [SIGNS.index("lu"), SIGNS.index("gal"), UNK, SIGNS.index("šu")]
    assert ids.dtype == np.int32
    assert TOKENIZER.decode(TOKENIZER.encode("lu gal šu")) == "lu gal šu"
    assert TOKENIZER.encode("").shape == (0,)


def test_pieces_one_behind_the_other_are_the_text():
    assert "".join(TOKENIZER.pieces(TOKENIZER.encode("lu gal šu"))) == " lu gal šu"
    assert TOKENIZER.pieces([CLS, 5, MASK, UNK, SEP, PAD]) == ["[CLS]", " a", " [MASK]", " [UNK]", "[SEP]", "[PAD]"]
    assert TOKENIZER.pieces([-1, N]) == ["", ""]


def test_without_a_vocabulary_numbers_stand_for_signs():
    unknown = SignTokenizer((), N)
    assert unknown.vocab_size == N
    assert unknown.pieces([CLS, 5, 6, N]) == ["[CLS]", " 5", " 6", ""]
    with pytest.raises(
        InputError, match=r"signs must be known by a vocabulary, got none; give the model's vocab\.json"
    ):
        unknown.encode("a")


def test_a_vocabulary_is_read(tmp_path):
    assert read_vocabulary(sign_model.write_vocabulary(tmp_path / "vocab.json"), N) == SIGNS


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: v.pop("id_to_sign"), "must be a vocab.json with the objects sign_to_id and id_to_sign"),
        (
            lambda v: v["id_to_sign"].update({"7": "x"}),
            "sign_to_id must say the same as id_to_sign, got others: 7 is 'x'",
        ),
        (lambda v: v["sign_to_id"].update(a=6), "must say the same as id_to_sign, got others: 5 is 'a'"),
        (lambda v: v["id_to_sign"].pop("7"), "ids must be 0..18, each once, got none for 7"),
        (lambda v: v["sign_to_id"].pop("an"), "must say the same as id_to_sign, got others: 7 is 'an'"),
        (lambda v: v["sign_to_id"].update(a="5"), "must give each sign a whole number, got others for 'a'"),
        (lambda v: v["id_to_sign"].update(x="a"), "must give each number a sign, got x"),
        (lambda v: v["id_to_sign"].update({"07": "an"}), "id_to_sign must name each id once"),
        (lambda v: v.update(vocab_size=3), "vocab_size must be the number of its signs, 19, got 3"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(tmp_path, change, says):
    content = sign_model.vocabulary()
    change(content)
    (tmp_path / "vocab.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=says.replace(".", r"\.")):
        read_vocabulary(tmp_path / "vocab.json", N)


def test_a_vocabulary_of_another_model_is_refused(tmp_path):
    path = sign_model.write_vocabulary(tmp_path / "vocab.json")
    with pytest.raises(InputError, match=f"must have the model's {N + 1} ids, got {N}; give the model's own"):
        read_vocabulary(path, N + 1)
    shifted = sign_model.write_vocabulary(tmp_path / "shifted.json", (SIGNS[1], SIGNS[0], *SIGNS[2:]))
    with pytest.raises(InputError, match=r"first ids must be \[PAD\], \[UNK\]"):
        read_vocabulary(shifted, N)
    with pytest.raises(InputError, match="which is no file"):
        read_vocabulary(tmp_path / "none.json", N)


def by_pandas(path):
    """Fragment -> text, as the original groups, sorts and joins rows; those without signs are left out."""
    out = {}
    for fragment, rows in pd.read_parquet(path).groupby("fragment_id"):
        out[fragment] = " ".join(rows.sort_values(["line_num", "word_idx"])["value_signs"].dropna().tolist())
    return {fragment: text for fragment, text in out.items() if text.split()}


def read_whole(path):
    """The texts of all samples of a file, long enough for each."""
    samples = SignTexts(TOKENIZER, 10_000).load_several([path])
    return [samples.text_of(i).split() for i in range(len(samples))]


def test_words_are_joined_as_pandas_would(tmp_path):
    path = sign_model.write_words(tmp_path / "words.parquet")
    assert read_whole(path) == [text.split() for text in by_pandas(path).values()]
    assert read_whole(path) == [["be", "du", "zi", "an", "na", "šu", "du", "ki"], ["e", "lu", "gal"]]


@pytest.mark.parametrize("seed", range(8))
def test_any_words_are_joined_as_pandas_would(tmp_path, seed):
    """Numbers as ids, places that are missing, equal, fractions or words, texts with odd blanks."""
    rng = random.Random(seed)
    n = rng.randrange(1, 60)
    ids = [3, 20, 100, -1] if seed % 2 else ["b", "a", "ä", "B", None]
    places = [["x", "y", None], [0, 1, 2, None], [0.5, 1.5, float("nan")], [0, 1]][seed % 4]
    signs = ["a", "an na", "  šu\t\u2028e ", "", None, "lu\u00a0gal"]
    columns = {
        "fragment_id": rng.choices(ids, k=n),
        "line_num": rng.choices(places, k=n),
        "word_idx": rng.choices([0, 1, 2, 3], k=n),
        "value_signs": rng.choices(signs, k=n),
    }
    columns["fragment_id"][0], columns["line_num"][0], columns["value_signs"][0] = ids[0], places[0], "a"
    path = tmp_path / "words.parquet"
    pq.write_table(pa.table(columns), path)
    assert read_whole(path) == [text.split() for text in by_pandas(path).values()]


def test_columns_are_of_fragments_or_of_signs(tmp_path, texts):
    samples = texts.load_several([sign_model.write_words(tmp_path / "words.parquet")])
    assert set(samples.columns) == {"source", "certainty"}
    assert samples.columns["source"].tolist() == ["x", "y"]
    assert samples.columns["certainty"].shape == samples.ids.shape
    first = dict(zip(samples.text_of(0).split(), samples.columns["certainty"][0][samples.real[0]], strict=True))
    assert first == dict.fromkeys(("be", "du", "šu"), "sure") | dict.fromkeys(("an", "na", "zi", "ki"), "lost")
    assert not any(samples.columns["certainty"][~samples.real])


def test_fragments_without_signs_are_left_out(tmp_path, texts):
    """What is known of the others stays theirs."""
    path = sign_model.write_texts(
        tmp_path / "a.parquet", ["", "a", None, " ", "zi an", "u"], source=list("abcdef"), certainty=list("uvwxyz")
    )
    samples = texts.load_several([path])
    assert [samples.text_of(i) for i in range(3)] == [" a", " zi an", " u"]
    assert samples.columns["source"].tolist() == ["b", "e", "f"]
    first = texts.load_several([path], max_samples=2)
    assert first.columns["certainty"].tolist() == ["v", "y"]
    with pytest.raises(InputError, match="must have samples, got none"):
        texts.load_several([sign_model.write_texts(tmp_path / "b.parquet", ["", None])])


def test_samples_are_framed_cut_and_no_wider_than_needed(tmp_path):
    words = ["a an na", "lu " * 30, ""]
    path = sign_model.write_texts(tmp_path / "val_fragments.parquet", words)
    samples = SignTexts(TOKENIZER, 12).load_several([path])
    assert samples.ids.shape == (2, 12)
    assert samples.lengths.tolist() == [5, 12]
    for row, n in enumerate([3, 10]):
        assert samples.true_ids[row, : n + 2].tolist() == [CLS, *TOKENIZER.encode(words[row])[:n], SEP]
        assert samples.real[row].nonzero()[0].tolist() == list(range(1, n + 1))
        assert (samples.ids[row, n + 2 :] == PAD).all()
    assert kept_positions(samples, "drop").sum() == 13
    check_samples(samples, TOKENIZER, 12)
    assert SignTexts(TOKENIZER, 100).load_several([path], max_samples=1).ids.shape == (1, 5)


def test_several_datasets_are_one_behind_the_other(tmp_path, texts):
    words = sign_model.write_words(tmp_path / "words.parquet")
    other = sign_model.write_texts(tmp_path / "texts.parquet", ["zi zi", "u"], certainty=["lost", "sure"])
    samples = texts.load_several([words, other], max_samples=2)
    assert [samples.text_of(i).split()[-1] for i in range(4)][1:] == ["gal", "zi", "u"]
    assert samples.columns["source"].tolist() == ["x", "y", "", ""]
    assert samples.columns["certainty"][2].tolist()[:4] == ["", "lost", "lost", ""]


def test_of_a_folder_the_split_is_read(tmp_path, texts):
    sign_model.write_texts(tmp_path / "train.parquet", ["a"])
    sign_model.write_texts(tmp_path / "val_fragments.parquet", ["an"])
    assert texts.load_several([tmp_path]).text_of(0) == " an"
    assert texts.load_several([tmp_path], "train").text_of(0) == " a"
    assert [texts.has_samples(tmp_path, split) for split in ("train", "validation", "test")] == [True, True, False]
    before = texts.fingerprint(tmp_path)
    assert not texts.has_samples(tmp_path / "train.parquet", "train")  # what is taken whole holds nothing out
    with pytest.raises(InputError, match=r"a Parquet file of the split test, such as test\.parquet, got train"):
        texts.load_several([tmp_path], "test")
    sign_model.write_words(tmp_path / "validation.parquet")  # words say more than fragments
    assert texts.load_several([tmp_path]).text_of(1) == " e lu gal"
    assert texts.fingerprint(tmp_path) != before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"value_signs": None}, "must have the columns fragment_id, line_num, word_idx, value_signs .* or text"),
        ({"word_idx": None}, "must have the columns .*, got fragment_id, line_num, value_signs"),
        ({"value_signs": [1] * 10}, "value_signs must be text, got int64"),
        ({"line_num": [[1]] * 10}, "line_num must hold numbers or text, got list"),
        ({"fragment_id": pa.nulls(10)}, "must have samples, got none"),
    ],
)
def test_other_tables_are_refused(tmp_path, texts, change, says):
    path = sign_model.write_words(tmp_path / "words.parquet", **change)
    with pytest.raises(InputError, match=says):
        texts.load_several([path])


def test_what_is_no_table_is_refused(tmp_path, texts, tiny_dataset):
    (tmp_path / "words.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="must be a whole Parquet file"):
        texts.load_several([tmp_path / "words.parquet"])
    with pytest.raises(InputError, match="no such file"):
        texts.load_several([tmp_path / "none.parquet"])
    with pytest.raises(
        InputError, match=r"must have a Parquet file of the split validation, such as val\.parquet, got none"
    ):
        texts.load_several([tiny_dataset])


def test_many_unknown_signs_are_said(tmp_path, texts):
    path = sign_model.write_texts(tmp_path / "texts.parquet", ["bird a fish"])
    with pytest.warns(InputNote, match=r"2 of 3 signs are not in the vocabulary, and read as \[UNK\]"):
        samples = texts.load_several([path])
    assert samples.true_ids[0].tolist() == [CLS, UNK, SIGNS.index("a"), UNK, SEP]


def test_a_seventh_is_damaged_by_the_rule():
    true = np.random.default_rng(1).integers(len(SPECIAL), 1000, 60_000).astype(np.int32)
    seen, labels = damage(true, 1000, 0)
    chosen = labels != -100
    np.testing.assert_array_equal(labels[chosen], true[chosen])
    np.testing.assert_array_equal(seen[~chosen], true[~chosen])
    assert abs(chosen.mean() - 0.15) < 0.006  # four standard deviations
    of_chosen = seen[chosen]
    masked, kept = of_chosen == MASK, of_chosen == true[chosen]
    others = of_chosen[~masked & ~kept]
    assert abs(masked.mean() - 0.8) < 0.017
    assert abs(kept.mean() - 0.1) < 0.013
    assert abs(len(others) / chosen.sum() - 0.1) < 0.013
    assert others.min() >= len(SPECIAL)
    assert others.max() < 1000
    assert len(np.unique(others)) > 400


def test_damage_is_a_function_of_the_place():
    true = np.arange(5, 505, dtype=np.int32)
    whole = damage(true, 1000, 3)
    for one, part in zip(whole, damage(true[:100], 1000, 3), strict=True):
        np.testing.assert_array_equal(one[:100], part)
    assert (damage(true, 1000, 4)[0] != whole[0]).any()


def test_more_samples_change_nothing_of_the_first(tmp_path, texts):
    path = sign_model.write_texts(tmp_path / "texts.parquet", ["a an na lu gal"] * 4 + ["zi " * 20])
    few, many = texts.load_several([path], max_samples=2), texts.load_several([path])
    width = few.ids.shape[1]
    np.testing.assert_array_equal(few.ids, many.ids[:2, :width])
    np.testing.assert_array_equal(few.labels, many.labels[:2, :width])
    assert not many.damaged[~many.real].any()
