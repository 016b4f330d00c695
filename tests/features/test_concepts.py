import re

import numpy as np
import pytest
from helpers import sample

from jaxsae.errors import InputError
from jaxsae.features import concepts
from jaxsae.text.samples import Samples

BUILT_IN = {concept.name: concept for concept in concepts.load_concepts()}


def shown(has: np.ndarray, letters: str) -> str:
    return "".join(c if h else "_" for c, h in zip(letters, has, strict=True))


@pytest.mark.parametrize(
    ("name", "letters", "expected"),
    [
        ("-um", "šar-ru-um um-ma um", "_______um_________"),
        ("-am", "im-ra-am-ma am ma-ŋar-am", "______________________am"),
        ("-ak", "ša-lu-ak-ka ša-ar-ra-ak", "_____________________ak"),
        ("-šu", "DUMU-šu šu-ma be-el-ša", "____-šu____________-ša"),
        ("-ma", "qí-bí-ma ma-a-ta", "_____-ma________"),
        ("logogram", "a-na LUGAL.E be-lí", "_____LUGAL.E______"),
        ("hyphen", "a-na - x-", "_-_______"),
        ("word-start", "a-na LUGAL", "a____L____"),
        ("word-end", "a-na LUGAL", "___a_____L"),
        ("word-boundary", "a na", "_ __"),
        ("i-", "i-din it-ti-in u-ma-am ad-din", "i-____it-______u-____________"),
        ("mu-", "mu-na-dím a-mu-ru", "mu-______________"),
        ("plural-sign", "DINGIR.MEŠ UDU-MEŠ", "______.MEŠ____-MEŠ"),
        ("numeral", "½ GÍN U GUR MIN", "½_____U_____MIN"),
        ("ina-ana", "ina KUR a-na ana-ku", "ina_____a-na_______"),
        ("omen", "DIŠ AN šum-ma", "DIŠ____šum-ma"),
        ("place", "KUR aš-šur.KI", "KUR_______.KI"),
        ("king", "LUGAL GAL LUGAL-ma", "LUGAL GAL_LUGAL___"),
    ],
)
def test_built_in_patterns(name, letters, expected):
    has = BUILT_IN[name].holds_at(letters, np.zeros(len(letters), bool))
    assert shown(has, letters) == expected


def test_every_question_has_concepts_and_every_pattern_says_what_it_is():
    assert {c.about for c in BUILT_IN.values()} == set(concepts.ABOUT) - {"sign", "dataset"}  # those are of the text
    assert all(c.source.startswith("text pattern") for c in BUILT_IN.values() if c.pattern)
    assert BUILT_IN["damaged"].source == "label"


def test_the_language_is_of_the_whole_text():
    akkadian, sumerian = "a-na be-lí-ia qí-bí-ma um-ma", "lugal-ra mu-na-dím nin-a-ni"
    for letters, name, other in ((akkadian, "akkadian", "sumerian"), (sumerian, "sumerian", "akkadian")):
        nowhere = np.zeros(len(letters), bool)
        assert BUILT_IN[name].holds_at(letters, nowhere).all()
        assert not BUILT_IN[other].holds_at(letters, nowhere).any()


def test_damage_is_known_from_labels_not_from_hyphens():
    samples = sample("a-na be-li", {2: "#", 3: "-", 7: "#"})
    damaged, after, hyphen = (BUILT_IN[name] for name in ("damaged", "after-damage", "hyphen"))
    marks = concepts.concept_masks([damaged, after, hyphen], samples)(0)
    assert np.flatnonzero(marks[0]).tolist() == [2, 3, 7]
    assert np.flatnonzero(marks[1]).tolist() == [4, 8]
    assert np.flatnonzero(marks[2]).tolist() == [1, 7]  # of the text as it was: the sign-joining ones, one damaged


def test_damage_is_alone_or_in_a_span():
    samples = sample("a-na be-li", {0: "#", 2: "#", 3: "-", 4: "#", 9: "#"})
    whole, alone, span = (BUILT_IN[name] for name in ("damaged", "damaged-alone", "damaged-span"))
    marks = concepts.concept_masks([whole, alone, span], samples)(0)
    assert np.flatnonzero(marks[1]).tolist() == [0, 9]
    assert np.flatnonzero(marks[2]).tolist() == [2, 3, 4]
    np.testing.assert_array_equal(marks[0], marks[1] ^ marks[2])


def test_the_commonest_signs_of_a_text():
    several = [sample("lugal-šè a-na"), sample("lugal.šè lugal"), sample("a-na x-lugala šèn")]
    samples = Samples(*(np.concatenate([getattr(s, f) for s in several]) for f in ("ids", "labels", "mask")))
    found = concepts.sign_concepts(samples, 3)
    assert [c.name for c in found] == ["sign lugal", "sign šè", "sign na"]  # not the single letters a and x
    assert {(c.about, c.source) for c in found} == {("sign", "text pattern")}
    for concept, letters, expected in (
        (found[0], "lugal-šè a-lugala.lugal", "lugal_____________lugal"),
        (found[1], "šè-šèn šè", "šè_____šè"),
    ):
        assert shown(concept.holds_at(letters, np.zeros(len(letters), bool)), letters) == expected
    assert len(concepts.sign_concepts(samples)) == 5


def test_the_true_text_keeps_its_spaces():
    letters, damaged = concepts.true_text(sample("a  na be", {1: "#"}), 0)
    assert letters == "a  na be"
    assert damaged.tolist() == [False, True] + 6 * [False]


def test_a_spelling_and_each_of_its_characters():
    every, *each = concepts.spelling_concepts("-ak")
    letters = "ak-ak ma-ak. a-ka"
    nowhere = np.zeros(len(letters), bool)
    assert shown(every.holds_at(letters, nowhere), letters) == "__-ak___-ak______"
    assert [c.title for c in each] == ["[-]ak", "-[a]k", "-a[k]"]
    for i, concept in enumerate(each):
        assert np.flatnonzero(concept.holds_at(letters, nowhere)).tolist() == [2 + i, 8 + i]
    dot = concepts.spelling_concepts(".")  # no regular expression
    assert [c.title for c in dot] == ["every character"]
    assert np.flatnonzero(dot[0].holds_at(letters, nowhere)).tolist() == [11]


def test_what_is_known_of_the_demo_is_cut_to_the_samples():
    has = {"verb": np.array([True, False, False, True, True])}
    [concept] = concepts.concepts_from_truth(has, {"verb": "formula"}, 5)
    two = [sample("ab"), sample("cde")]
    samples = Samples(*(np.concatenate([getattr(s, f) for s in two]) for f in ("ids", "labels", "mask")))
    marks = concepts.concept_masks([concept], samples)
    assert marks(0).tolist() == [[True, False]]
    assert marks(1).tolist() == [[False, True, True]]
    assert concept.source == "known of the demo"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("[a", "must be TOML in UTF-8"),
        ("", "at least one concept"),
        ("a = 1", "must be a table"),
        ('["a"]\nabout = "damage"\npatern = "x"', "may have about, labels, pattern, title, unless, got patern"),
        ('["a"]\nabout = "x"\npattern = "x"', "about must be one of damage"),
        ('["a"]\nabout = "damage"', "either pattern or labels"),
        ('["a"]\nabout = "damage"\npattern = "("', "pattern must be a regular expression, got '('"),
        (
            '["a"]\nabout = "damage"\nlabels = "x"',
            "labels must be one of damage, damage alone, damage span, after damage",
        ),
        ('["a"]\nabout = "damage"\nlabels = "damage"\nunless = "x"', "unless goes with a pattern"),
        ('["a"]\nabout = 3\npattern = "x"', "strings only"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path, content, error):
    (tmp_path / "c.toml").write_text(content)
    with pytest.raises(InputError, match=re.escape(error)):
        concepts.load_concepts(tmp_path / "c.toml")
    with pytest.raises(InputError, match="no such file"):
        concepts.load_concepts(tmp_path / "none.toml")
