import random
import re
import time

import numpy as np
import pytest
from helpers import odd_lines

from jaxsae.files import read_json
from jaxsae.text.cleaning import clean
from jaxsae.text.damaged_text import DamagedText, read_damaged


def summary(line: str, **how: bool) -> list[tuple[str, int, int]]:
    """Of each gap what it is written with, and the least and most characters."""
    text = read_damaged(line, **how)
    return [(line[slice(*gap.written)], gap.lengths[0], gap.lengths[-1]) for gap in text.gaps]


@pytest.mark.parametrize(
    ("line", "gaps"),
    [
        ("a-na #-li", [("#", 1, 1)]),
        ("a-na ### be", [("###", 3, 3)]),
        ("## #", [("##", 2, 2), ("#", 1, 1)]),
        ("[##]-ia", [("##", 2, 2)]),
        ("a-na [...] be", [("...", 1, 20)]),
        ("[…]", [("…", 1, 20)]),
        ("[. . .]", [(". . .", 1, 20)]),
        ("… a ...", [("…", 1, 20), ("...", 1, 20)]),
        ("[... x x]", [("... x x", 5, 20)]),
        ("[x x ...]", [("x x ...", 5, 20)]),
        ("[(...)]", [("(...)", 1, 20)]),
        ("[xxx]", [("xxx", 3, 3)]),
        ("[xxxxxxxxxxxxxxxxxxxxxxxxx]", [("x" * 25, 25, 25)]),
        ("[x]", [("x", 1, 4)]),
        ("[x x x]", [("x x x", 5, 12)]),
        ("[x-x]", [("x-x", 3, 8)]),
        ("[x x x x x x]", [("x x x x x x", 11, 20)]),
        ("[(x x)]", [("(x x)", 1, 8)]),
        ("[x (x)]", [("x (x)", 1, 8)]),
        ("x x-na", [("x x", 3, 8)]),
        ("{d}x ⸢x⸣", [("x", 1, 4), ("x", 1, 4)]),
        ("x\nx", [("x", 1, 4), ("x", 1, 4)]),
        ("[... LUGAL x]-ma", [("...", 1, 20), ("x", 1, 4)]),
        ("[a-na] (x) {d#}", []),
        ("x+1. |x×x| xa ax x₂", []),
        ("a. b.. c", []),
    ],
)
def test_what_counts_as_damage(line, gaps):
    assert summary(line) == gaps


def test_what_the_model_sees():
    text = read_damaged("2. a-na₂ [##]-{d}šu [be-lí] ⸢x⸣")
    assert text.cleaned == ". a-na ##- šu ⸢##⸣"
    assert [(gap.start, gap.end) for gap in text.gaps] == [(7, 9), (15, 17)]
    assert text.origin.tolist() == [1, 2, 3, 4, 5, 6, 8, 10, 10, 13, 14, 17, 18, 19, 28, 29, 29, 30]


def test_what_stands_between_damaged_places_in_brackets():
    assert read_damaged("[##-##]").cleaned == "##-##"
    assert read_damaged("[# a-na #]").cleaned == "# #"
    assert read_damaged("[x?]-na").cleaned == "##-na"


def test_the_users_own_text_comes_back_filled():
    fill = ["A", "B", "C", "D"]
    assert read_damaged("1. a# [...]-{d}na₂ x [a] [x x]").filled(fill) == "1. aA [B]-{d}na₂ [C] [a] [D]"
    assert read_damaged("[x LUGAL]").filled(["A"]) == "[A LUGAL]"
    assert read_damaged("# …").filled([None, "A"]) == "# [A]"
    assert read_damaged("# …").filled(["A", None]) == "A …"


def test_damage_that_the_model_cannot_see_is_named():
    text = read_damaged("a (b ##) {x} #")
    assert [text.written[slice(*where)] for where in text.unseen] == ["##", "x"]
    assert text.filled(["A"]) == "a (b ##) {x} A"


def test_an_atf_file_has_lines_and_flags_that_are_no_damage():
    atf = "&P1 = x\n@tablet\n#lang: akk x\n1. a#-na# LUG#L x# ## a#? ⸢na⸣#\n$ 3 lines broken ...\n2. [...]\n"
    assert summary(atf, atf=True) == [("#", 1, 1), ("x", 1, 4), ("##", 2, 2), ("...", 1, 20)]
    text = read_damaged(atf, atf=True)
    assert text.cleaned == ". a-na LUG#L ## ## a? ⸢na⸣ . ##########"
    assert text.filled(["A", "B", "CC", "D"]) == atf.replace("G#L", "GAL").replace("x# ##", "[B]# CC").replace(
        "[...]", "[D]"
    )
    assert len(summary("a#-na#")) == 2  # elsewhere it is a damaged character


@pytest.mark.parametrize("length", [1, 10, 15, 20])
def test_a_gap_is_given_another_length(length):
    text = read_damaged("# a [...]-na ₂ ## b")
    other = text.resized(1, length)
    assert other.cleaned == f"# a {'#' * length}-na ## b"
    assert [other.cleaned[gap.start : gap.end] for gap in other.gaps] == ["#", "#" * length, "##"]
    assert [gap.written for gap in other.gaps] == [gap.written for gap in text.gaps]
    assert other.resized(1, 10).cleaned == text.cleaned
    assert other.resized(1, 10).origin.tolist() == text.origin.tolist()


def assert_lawful(line: str, atf: bool = False) -> DamagedText:
    """Nothing outside the gaps changes, and the model sees what training would have shown it there."""
    text = read_damaged(line, atf=atf)
    assert text.written == line
    assert text.filled([None] * len(text.gaps)) == line
    at, filled = 0, text.replaced(["\ue000"] * len(text.gaps))
    for gap, piece in zip(text.gaps, filled.split("\ue000"), strict=False):
        start, end = gap.written
        assert line[at:start] == piece
        assert at <= start < end
        at = end
    assert filled.endswith(line[at:])
    assert len(text.origin) == len(text.cleaned)
    assert (np.diff(text.origin) >= 0).all()
    in_gap = np.zeros(len(text.cleaned), bool)
    for gap in text.gaps:
        in_gap[gap.start : gap.end] = True
        assert text.cleaned[gap.start : gap.end] == "#" * (gap.end - gap.start)
        assert (text.origin[gap.start : gap.end] == gap.written[0]).all()
        assert gap.end - gap.start in gap.lengths
    for character, place, damaged in zip(text.cleaned, text.origin.tolist(), in_gap.tolist(), strict=True):
        assert damaged or character in (line[place], " ")
    if "[" not in line and not text.unseen and not atf:  # else cleaning takes away what stands around a gap
        marks = [chr(0xE000 + number) for number in range(len(text.gaps))]
        as_trained = clean(text.replaced(marks))
        for gap, mark in zip(text.gaps, marks, strict=True):
            as_trained = as_trained.replace(mark, "#" * (gap.end - gap.start))
        assert as_trained == text.cleaned
    return text


def test_laws_hold_for_lines_of_any_kind():
    found = 0
    for line in odd_lines(random.Random(1), 3000):
        found += len(assert_lawful(line).gaps)
        if "\u2028" not in line:
            read_damaged(line, atf=True)
    assert found > 2000


def test_text_without_damage_is_cleaned_as_in_training():
    rng, n = random.Random(2), 0
    for line in odd_lines(rng, 3000):
        whole = re.sub("[#x….]", "", line)
        text = read_damaged(whole)
        assert (text.cleaned, text.gaps) == (clean(whole), ())
        n += len(whole) > 10
    assert n > 300


def test_long_runs_take_no_long_time():
    began = time.monotonic()
    for piece in ("x ", ". ", "x-", "[x ", "(x ", "x? ", "[", "...", "x(", "- "):
        read_damaged(piece * 5000 + "a")
        read_damaged("[" + piece * 5000 + "a]")
    assert time.monotonic() - began < 20


def test_real_lines_come_back_untouched(real):
    """With damage of every kind put into them at places that are drawn."""
    rng, kinds = random.Random(3), ("#", "###", "[...]", "[x x]", " x ", " … ", "[xx]")
    lines = [
        line
        for fragment in read_json(real / "data" / "fragments.json")
        for line in fragment["atf"].split("\n")
        if re.search(r"[\[({⸢₀-₉]", line)
    ]
    assert len(lines) >= 1000
    gaps = 0
    for line in lines:
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(line) + 1)
            line = line[:at] + rng.choice(kinds) + line[at:]
        gaps += len(assert_lawful(line).gaps)
    assert gaps > 800
