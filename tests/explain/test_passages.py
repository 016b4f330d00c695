"""Texts are cut into passages of whole words, and letters are counted as scikit-learn counts them."""

import itertools

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from jaxsae.demo import corpus
from jaxsae.explain.letters import Letters
from jaxsae.explain.passages import LENGTH, STEP, Passage, passage_around, passages, words

TEXTS = [one.text for one in corpus.generate(60)]


def test_passages_are_whole_words_and_hold_the_text():
    for number, text in enumerate(TEXTS):
        found = passages(text, number)
        starts, ends = {start for start, _ in words(text)}, {end for _, end in words(text)}
        assert all(one.text == number and one.start in starts and one.end in ends for one in found)
        assert found[0].start == 0
        assert found[-1].end == len(text)
        for before, after in itertools.pairwise(found):
            assert before.start < after.start <= before.end + 1  # nothing between them is left out
            assert after.end > before.end
            assert before.end - before.start >= LENGTH
            assert after.start - before.start >= STEP or len(text[before.start : after.start].split()) == 1


@pytest.mark.parametrize("text", ["", " ", "  a  "])
def test_spaces_make_no_passage(text):
    assert [text[one.start : one.end] for one in passages(text)] == (["a"] if "a" in text else [])


def test_a_word_longer_than_a_passage_is_one():
    assert passages(f"a {'b' * 100} c") == [Passage(0, 0, 102), Passage(0, 103, 104)]


def test_the_passage_around_a_place_holds_it_in_its_middle():
    text = " ".join(["abcd"] * 60)
    for position in range(len(text)):
        one = passage_around(text, position)
        assert one.start <= position <= one.end
        assert LENGTH <= one.end - one.start <= LENGTH + 5
        if LENGTH < position < len(text) - LENGTH:
            assert abs(position - (one.start + one.end) / 2) <= 6
    assert passage_around("ab cd", 4) == Passage(0, 0, 5)


def test_letters_are_those_of_scikit_learn():
    texts = [text[one.start : one.end] for text in TEXTS for one in passages(text)]
    asked = [*texts[:10], "", "a", "#", "ΩΩΩ a-na ΩΩ", "a-na\tšar-ri", "i-fal fu-fir"]  # no text has an f
    theirs = TfidfVectorizer(
        analyzer="char", ngram_range=(2, 4), sublinear_tf=True, lowercase=False, min_df=2, dtype=np.float64
    )
    expected_corpus, expected = theirs.fit_transform(texts), theirs.transform(asked)
    ours = Letters.of(texts)
    assert "f" not in "".join(texts)
    assert len(ours.grams) == len(theirs.vocabulary_)
    got_corpus, got = ours.vectors(texts), ours.vectors(asked)
    np.testing.assert_allclose(
        (got_corpus @ got_corpus.T).toarray(), (expected_corpus @ expected_corpus.T).toarray(), atol=1e-6
    )
    np.testing.assert_allclose((got @ got_corpus.T).toarray(), (expected @ expected_corpus.T).toarray(), atol=1e-6)
    assert got[11].nnz == 0  # nothing of the corpus
    assert (got[14].toarray() ** 2).sum() == pytest.approx(1)
