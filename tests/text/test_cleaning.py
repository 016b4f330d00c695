import random
import re

import numpy as np
import pytest
from helpers import odd_lines

from jaxsae.files import read_json
from jaxsae.text.cleaning import clean, clean_traced


@pytest.mark.parametrize(
    ("atf", "plain"),
    [
        ("a [x] b", "a b"),
        ("[a [b] c]", "c]"),  # first opener to first closer; what is unmatched stays
        ("a (b\nc) d {ki}e", "a d e"),
        ("GU₃-šu₂ 12 sìlaₓ", "GU-šu sìlaₓ"),
        ("2. a…b×c\t d ", ". a b c d"),
        ("x²", "x²"),  # only ASCII digits and subscript digits go
        ("[(a] b) c", "b) c"),  # brackets go kind by kind
        ("…", ""),
    ],
)
def test_cleaning(atf, plain):
    assert clean(atf) == plain


def cleaned_by_hand(text: str) -> str:
    """The rules as the original preprocessing has them, one after another."""
    for bracketed in (r"\[[^\]]*\]", r"\([^\)]*\)", r"\{[^\}]*\}"):
        text = re.sub(bracketed, " ", text)
    text = re.sub(r"[0-9₀-₉]", "", text)
    return re.sub(r"\s+", " ", re.sub("[…×]", " ", text)).strip()


def assert_traced(line: str) -> None:
    """Each cleaned character is the one at its origin, or a space that stands for what was replaced there."""
    text, origin = clean_traced(line)
    assert text == clean(line) == cleaned_by_hand(line)
    assert len(text) == len(origin)
    assert (np.diff(origin) > 0).all()
    for character, place in zip(text, origin.tolist(), strict=True):
        assert character == line[place] or (character == " " and re.match(r"[\s\[({…×]", line[place]))


def test_where_characters_come_from():
    assert clean_traced("1. a₂ [b c]-{d}e").origin.tolist() == [1, 2, 3, 5, 11, 12, 15]
    assert clean_traced("").origin.tolist() == []
    for line in odd_lines(random.Random(0), 2000):
        assert_traced(line)


def test_where_characters_of_real_fragments_come_from(real):
    for fragment in read_json(real / "data" / "fragments.json"):
        assert_traced(fragment["atf"])
