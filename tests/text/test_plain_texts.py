"""Texts of plain files as a model with a tokenizer takes them."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxsae.errors import InputError, InputNote
from jaxsae.text import subwords
from jaxsae.text.piece_tokenizer import PieceTokenizer
from jaxsae.text.plain_texts import PlainTexts
from jaxsae.text.stored_tokenizer import StoredTokenizer

WORDS = ["<pad>", "<s>", "</s>", "<mask>", *"abcdefghij"]
TEXTS = [" ".join("abcdefghij"[(i * j) % 10] for j in range(1, 3 + i % 7)) for i in range(40)]


def tokenizer(**how):
    def encode(text):
        return [WORDS.index(word) for word in text.split()]

    def pieces(ids):
        return [WORDS[i] if i < 4 else f" {WORDS[i]}" for i in ids]

    return PieceTokenizer(encode, pieces, len(WORDS), **{"damaged_id": 3, "frame": ((1,), (2,)), **how})


def read(path, split="train", most=None, **how):
    return PlainTexts(tokenizer(**how), 8).load_several([path], split, most)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(["", *TEXTS, ""]) + "\r\n", encoding="utf-8")
    return file


@pytest.mark.filterwarnings("ignore:.*has no splits")
class TestOneFile:
    def test_texts_are_framed_cut_and_padded(self, path):
        samples = read(path)
        assert samples.ids.shape == (36, 8)
        assert (samples.ids[:, 0] == 1).all()
        assert (samples.lengths <= 8).all()
        longest = samples.lengths == 8
        assert longest.any()
        assert (samples.ids[longest, -1] == 2).all()
        for row, length in enumerate(samples.lengths):
            assert samples.ids[row, length - 1] == 2
            assert (samples.ids[row, length:] == 0).all()
            assert not samples.real[row, [0, length - 1]].any()
            assert samples.real[row, 1 : length - 1].all()
        kept = [text for i, text in enumerate(TEXTS) if i % 10 != 9]
        assert [samples.text_of(i) for i in range(36)] == [f" {text}"[:12] for text in kept]

    def test_what_is_hidden_is_labelled_and_always_the_same(self, path):
        samples = read(path)
        hidden = samples.damaged
        assert (samples.ids[hidden] == 3).all()
        assert not (samples.ids[samples.real & ~hidden] == 3).any()
        counts = samples.real.sum(axis=1)
        np.testing.assert_array_equal(hidden.sum(axis=1), np.maximum(1, np.round(0.15 * counts)))
        np.testing.assert_array_equal(read(path).ids, samples.ids)
        np.testing.assert_array_equal(read(path, most=5).ids, samples.ids[:5, : samples.lengths[:5].max()])

    def test_splits_do_not_overlap(self, path):
        every = {split: read(path, split, damaged_id=None) for split in ("train", "validation", "test")}
        assert len(every["train"]) == len(every["validation"]) == 36
        assert len(every["test"]) == 4
        assert every["test"].text_of(0) == f" {TEXTS[9]}"  # the tenth that is none of the empty lines
        assert PlainTexts(tokenizer(), 8).has_samples(path, "test")
        (short := path.with_name("short.txt")).write_text("a b\n" * 9)
        assert len(read(short)) == 9
        assert not PlainTexts(tokenizer(), 8).has_samples(short, "test")

    def test_a_causal_model_predicts_the_next_token(self, path):
        samples = PlainTexts(tokenizer(damaged_id=None, frame=((), ())), 8, causal=True).load_several([path], "train")
        assert samples.special is None
        assert not samples.damaged.any()
        for row, length in enumerate(samples.lengths):
            np.testing.assert_array_equal(samples.labels[row, : length - 1], samples.ids[row, 1:length])
            assert (samples.labels[row, length - 1 :] == -100).all()

    def test_nothing_is_asked_of_a_model_that_predicts_nothing(self, path):
        samples = PlainTexts(tokenizer(), 8, predicts=False).load_several([path], "train")
        assert not samples.scored.any()
        assert not (samples.ids == 3).any()


def test_other_files_say_the_same(tmp_path):
    rows = [{"id": i, "genre": f"g{i % 3}", "text": text, "more": [1]} for i, text in enumerate(TEXTS)]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.txt").write_text("\n".join(TEXTS))
    (folder / "val.json").write_text(json.dumps(TEXTS))
    (folder / "dev2.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "more.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist([row | {"text": row["text"]} for row in rows]), folder / "test.parquet")
    first = read(folder)
    for split in ("validation", "dev2", "more", "test"):
        again = read(folder, split)
        np.testing.assert_array_equal(again.ids, first.ids)
        columns = {name: column.tolist() for name, column in again.columns.items()}
        expected = {"id": [str(i) for i in range(40)], "genre": [f"g{i % 3}" for i in range(40)]}
        assert columns == ({} if split == "validation" else expected)
    texts = PlainTexts(tokenizer(), 8)
    assert texts.has_samples(folder, "test")
    assert not texts.has_samples(folder, "other")
    before = texts.fingerprint(folder)
    (folder / "train.txt").write_text("a")
    assert texts.fingerprint(folder) != before


@pytest.mark.filterwarnings("ignore:.*has no splits")
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", '{"text": "a"}', r"must be a list of texts, or of objects such as"),
        ("a.json", "[1]", r"must be a list of texts"),
        ("a.json", '[{"number": [1]}]', r"must have a column of texts, such as text, got none"),
        (
            "a.json",
            '[{"id": 1, "year": 2}]',
            r"must have a column of texts, such as text, got numbers alone in id, year",
        ),
        ("a.jsonl", '"a"\n{', r"must be JSON"),
        ("a.txt", "\n \n", r"a split must have texts, got none in 'train'"),
        ("a.txt", "a x", r"encode\('a x'\) must work, got ValueError"),
        ("a.parquet", "no", r"must be a whole Parquet file"),
    ],
)
def test_bad_files(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        read(path)


def test_what_a_tokenizer_does_else_is_said(tmp_path):
    """Pieces that are not the text, and special tokens that it adds itself."""
    (tmp_path / "train.txt").write_text("\n".join(TEXTS[:8]))
    odd = tokenizer()
    lossy = dataclasses.replace(odd, to_pieces=lambda ids: [piece.upper() for piece in odd.to_pieces(ids)])
    with pytest.warns(InputNote, match=f"joined pieces of a text should be the text, and are .* for '{TEXTS[0]}'"):
        PlainTexts(lossy, 8).load_several([tmp_path], "train")
    adding = dataclasses.replace(
        odd,
        to_ids=lambda text: [1, *odd.to_ids(text), 2],
        to_pieces=lambda ids: ["" if n < 3 else odd.to_pieces([n])[0] for n in ids],
    )
    assert len(PlainTexts(adding, 8).load_several([tmp_path], "train")) == 8
    bare = dataclasses.replace(adding, frame=((), ()))
    with pytest.warns(InputNote, match=r"all 8 texts begin with the id 1 and end with 2: .* frame=\(\[1\], \[2\]\)"):
        PlainTexts(bare, 8).load_several([tmp_path], "train")


def test_bad_places(tmp_path):
    with pytest.raises(InputError, match="texts must be a file or a folder of files"):
        read(tmp_path / "none")
    with pytest.raises(InputError, match=r"must have a file of the split train, such as train\.txt, got none"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"to_ids": lambda text: 3}, "encode must give a list of token ids, got int"),
        ({"to_ids": lambda text: [99]}, r"encode must give ids in 0\.\.13, got 99"),
        ({"to_ids": lambda text: [0.5]}, "encode must give a list of token ids"),
    ],
)
def test_bad_functions(how, said):
    with pytest.raises(InputError, match=said):
        PieceTokenizer(**{"to_ids": list, "to_pieces": list, "vocab_size": 14, **how}).encode("a")


def test_pieces_are_one_for_each_id():
    with pytest.raises(InputError, match="pieces must give a list of one text for each of 2 ids, got str"):
        PieceTokenizer(list, lambda ids: "ab", 5).pieces([1, 2])
    assert tokenizer().pieces([4, 99, -1, 5]) == [" a", "", "", " b"]


def test_a_stored_tokenizer_divides_by_the_longest_piece():
    known = {1: " ab", 2: "c", 3: " a", 4: "b", 5: "#", 6: "bc"}
    stored = StoredTokenizer(known, 10, damaged_id=5)
    assert stored.encode("ab abc").tolist() == [1, 1, 2]
    assert stored.encode(" abbc").tolist() == [1, 6]
    assert stored.decode(stored.encode("ab ac")) == " ab ac"
    assert stored.pieces([1, 9]) == [" ab", ""]
    with pytest.raises(InputError, match=r"must be made of the 5 pieces that are known here, got '#'"):
        stored.encode("ab#")
    assert stored.with_known(StoredTokenizer({9: "z"}, 10)).pieces([1, 9]) == [" ab", "z"]


def test_how_tokens_are_written_is_seen():
    assert subwords.spelling_of(["a", "##b", "c"]) == "wordpiece"
    assert subwords.spelling_of(["a", "▁b"]) == "sentencepiece"
    assert subwords.spelling_of(["a", "Ġb"]) == "bytes"
    assert subwords.spelling_of(["a", "b"]) == "plain"
    no = [False] * 3
    assert subwords.pieces("wordpiece", ["ab", "##c", "##"], no) == [" ab", "c", ""]
    assert subwords.pieces("sentencepiece", ["▁ab", "c", "▁"], no) == [" ab", "c", " "]
    assert subwords.pieces("words", ["ab", "[CLS]", ""], [False, True, False]) == [" ab", "[CLS]", ""]
    assert subwords.pieces("plain", ["ab", "##c", "▁"], [False, False, True]) == ["ab", "##c", "▁"]
    sign = "Ġ" + "".join(letter for byte in "š".encode() for letter, b in subwords.BYTES.items() if b == byte)
    assert subwords.pieces("bytes", [sign, "<s>", "Ġa"], [False, True, False]) == [" š", "<s>", " a"]
    assert subwords.pieces("bytes", [sign[:2], sign[2], "a"], no) == [" ", "š", "a"]
    assert subwords.pieces("bytes", [sign[:2]], [False]) == [" \ufffd"]
    assert sorted(subwords.BYTES.values()) == list(range(256))
