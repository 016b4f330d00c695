"""The generated corpus by hand: numbers, totals, inflection, whole sentences."""

import random

import pytest

from jaxsae.demo import archives, contracts, words
from jaxsae.demo.corpus import LABELS, lay_out
from jaxsae.demo.tablet import Tablet


class FixedScribe:
    """Stands for the generator of a tablet: every coin falls on the same side."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value

    def randrange(self, n):
        return int(self.value * n)

    def choice(self, choices):
        return choices[0]


def written(template, formula="none", language="akkadian", coin=0.99, **slots):
    """A template as a scribe with fixed habits writes it: by default in syllables, closed signs, no capitals."""
    tablet = Tablet(FixedScribe(coin), language, 100)
    tablet.write(template, formula, **slots)
    return lay_out(tablet.written)


UNITS = ("diš", "min", "eš", "limmu", "iá", "àš", "imin", "ussu", "ilimmu")
VALUES = {
    **{unit: i for i, unit in enumerate(UNITS, 1)},
    **{"u": 10, "niš": 20, "ùšu": 30, "nimin": 40, "ninnu": 50, "géš": 60, "géš-u": 600},
    **{f"géš-{unit}": 60 * i for i, unit in enumerate(UNITS, 1)},
}


def test_numbers_are_sexagesimal():
    tablet = Tablet(FixedScribe(0.99), "sumerian", 100)
    for n in range(1, 1200):
        assert sum(VALUES[word.text] for word in tablet.expand(tablet.number(n), {})) == n


@pytest.mark.parametrize(("compose", "language"), [(archives.receipt, "sumerian"), (contracts.account, "akkadian")])
def test_totals_add_up(compose, language):
    checked = 0
    for seed in range(200):
        tablet = Tablet(random.Random(seed), language, 350)
        compose(tablet)
        sums = {"none": 0, "total": 0}
        for word, _, formula in tablet.written:
            if word.word_class == "nu" and formula in sums:
                sums[formula] += VALUES[word.text.lower().replace(".", "-")]
        if sums["total"]:
            assert sums["total"] == sums["none"], " ".join(word.text for word, _, _ in tablet.written)
            checked += 1
    assert checked > 30


def test_a_whole_sentence_by_hand():
    """`The king gave silver to my lord`, each character checked."""
    text, truth = written("@king.nom @silver.acc a-na/pr @lord.gen.ia !give.pret.3s")
    assert text == "šar-rum ka-as-pa-am a-na be-li-ia id-di-in"
    space = (" ", "separator", "separator")
    segments = [
        *[("šar-r", "stem", "noun"), ("um", "nominative", "noun"), space],
        *[("ka-as-p", "stem", "noun"), ("a-am", "accusative", "noun"), space],
        *[("a-na", "stem", "preposition"), space],
        *[("be-l", "stem", "noun"), ("i", "genitive", "noun"), ("-ia", "possessive my", "noun"), space],
        *[("i", "subject prefix", "verb"), ("d-di-in", "stem", "verb")],
    ]
    assert "".join(segment for segment, _, _ in segments) == text
    for field, column in (("morpheme", 1), ("word_class", 2)):
        expected = [segment[column] for segment in segments for _ in segment[0]]
        assert [LABELS[field][code] for code in truth[field]] == expected
    assert truth["position"].tolist() == [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        -1,
        *range(11),
        -1,
        0,
        1,
        2,
        3,
        -1,
        *range(8),
        -1,
        *range(8),
    ]
    assert set(truth["language"].tolist()) == {LABELS["language"].index("akkadian")}
    assert set(truth["logogram"].tolist()) == set(truth["numeral"].tolist()) == {0}


def test_word_signs_numerals_and_formulas_by_hand():
    text, truth = written("LUGAL|-im:gen/n $n|-kam:ord mu/n", "date", "sumerian", n="*niš/nu *eš/nu")
    assert text == "LUGAL-im niš eš-kam mu"
    assert "".join("x" if code else "." for code in truth["logogram"]) == "xxxxx................."
    assert "".join("x" if code else "." for code in truth["numeral"]) == ".........xxx.xx......."
    assert set(truth["formula"].tolist()) == {LABELS["formula"].index("date")}
    assert set(truth["language"].tolist()) == {LABELS["language"].index("sumerian")}


@pytest.mark.parametrize(
    ("word", "spelling"),
    [
        (words.verb("send", "pret", "3s"), "i:subj š-pu-ur"),
        (words.verb("send", "pret", "2f", "vent"), "ta-a:subj š-pu-r i:vfem -im:vent"),
        (words.verb("send", "imp", "2m", "vent"), "šu-up-r a-am:vent"),
        (words.verb("go", "pret", "3p", "vent"), "i:subj l-li-k u:vpl -nim:vent"),
        (words.verb("take", "pret", "3s", "sub"), "i:subj l-q ú-ú:sub"),
        (words.verb("build", "pret", "1s"), "a:subj b-ni"),
        (words.verb("heal", "prec", "3p", "ki"), "li-:prec ba-al-li-ṭ ú:vpl -ki:obj"),
        (words.verb("bring", "perf", "1s", "vent", "kim"), "u:subj š-ta-bi-l a-ak:vent -ki-im:dsuf"),
        (words.verb("inform", "pret", "3p", "vent", "ni"), "ú-:subj la-am-mi-d u:vpl -ni-in:vent -ni:obj"),
        (words.stative("split", "3f"), "pa-aṭ-r a-at:stat"),
        (words.noun("house", "acc", "šu", words.Habits(True, True, True), False), "bi-it -sú:his"),
        (words.noun("house", "acc", "", words.Habits(True, True, True), True), "É -am:acc"),
        (words.noun("king", "nom", "", words.Habits(True, False, True), False), "šar-r u:nom"),
        (words.adjective("great", "gen", True, words.Habits(False, True, True), False), "ra-bi-t im:gen"),
    ],
)
def test_inflection(word, spelling):
    assert " ".join(f"{m.text}:{m.label}".rstrip(":") for m in word.morphemes) == spelling


@pytest.mark.parametrize("notation", ["lugal/x", "lugal|-ra:dative/n", "lugal|/n"])
def test_a_slip_in_a_template_is_an_error(notation):
    with pytest.raises(ValueError, match=r"unknown word class|bad morpheme"):
        words.parse(notation)
