import numpy as np
import pytest
from helpers import sample

from jaxsae.errors import InputError
from jaxsae.text.samples import check_samples
from jaxsae.text.tokenizer import UNICODE, CharacterTokenizer


def test_what_is_encoded_is_decoded_and_shown():
    text = "a-na šar-ri \U00012000 \ud800"
    ids = UNICODE.encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == [ord(c) for c in text]
    assert UNICODE.decode(ids) == text
    assert UNICODE.pieces(ids) == list(text)
    assert UNICODE.pieces([-1, 2**21]) == ["", ""]
    assert UNICODE.encode("").shape == (0,)


def test_a_character_outside_the_vocabulary_is_named_with_its_position():
    small = CharacterTokenizer(ord("š"))
    assert small.encode("aŠ").tolist() == [97, 352]
    with pytest.raises(InputError, match=r"the model's vocabulary \(up to U\+0160\), got 'š' at 2, 'ₓ' at 4$"):
        small.encode("a-š-ₓ")


def test_samples_outside_the_vocabulary_or_too_long_are_refused():
    short = sample("a-na", {1: "#"}, width=6)
    check_samples(short, CharacterTokenizer(ord("n") + 1), 6)
    with pytest.raises(
        InputError, match=r"0\.\.109 .*got 32\.\.110: 110 \('n'\) at position 2 of sample 0, and 0 more"
    ):
        check_samples(short, CharacterTokenizer(ord("n")), 6)
    with pytest.raises(InputError, match=r"labels must be in 0\.\.109"):  # what the damage hides counts as well
        check_samples(sample("a-na", {2: "#"}, width=6), CharacterTokenizer(ord("n")), 6)
    with pytest.raises(InputError, match="at most 5 positions"):
        check_samples(short, UNICODE, 5)


def test_samples_know_what_is_real_damaged_and_true():
    one = sample("a-na", {1: "#", 3: "-"}, width=6)
    assert one.real.tolist() == [[True] * 4 + [False] * 2]
    assert np.flatnonzero(one.damaged[0]).tolist() == [1, 3]
    assert UNICODE.decode(one.ids[0]) == "a#n-  "
    assert UNICODE.decode(one.true_ids[0]) == "a-na  "
    assert one.text_of(0) == "a-na"
