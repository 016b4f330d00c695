"""Captions of planted latents, whose figures are counted again, character by character, from the definitions."""

import itertools
import re

import numpy as np
import pytest
from helpers import firings_of, sample

from jaxsae.features.captions import CLEAR, Caption, captions, described
from jaxsae.features.concept_scores import MarkedText, concept_scores
from jaxsae.features.concepts import Concept, concept_masks
from jaxsae.features.descriptions import (
    COMPLEXITY,
    MOST_JOINED,
    Family,
    Label,
    character_class,
    families,
    joined,
)
from jaxsae.features.discoveries import CANDIDATES, candidates
from jaxsae.features.judged_text import JudgedText
from jaxsae.features.stability import Stability
from jaxsae.text import samples as text_samples

WORDS = [
    "a-na",
    "i-din",
    "šu-šè",
    "lugal-šè",
    "mu-šè",
    "šè-ri",
    "DUMU-ki",
    "šar-ru",
    "be-el",
    "nin-ak",
    "u-šar",
    "e-šu",
    "ba-an",
]
SUMERIAN = Concept("sumerian", "language", "text in Sumerian", re.compile("lugal|nin"), re.compile("a-na|i-din"))
TEXTS = 120


def made(texts=TEXTS, seed=0, odd_seed=None) -> MarkedText:
    """Texts of 4 to 7 words, in which a sixth of the characters is damaged; odd ones may be drawn by another seed."""
    every = []
    for i in range(texts):
        rng = np.random.default_rng([seed if odd_seed is None or i % 2 == 0 else odd_seed, i])
        letters = " ".join(rng.choice(WORDS, rng.integers(4, 8)))[:60]
        every.append(sample(letters, {int(at): "#" for at in np.flatnonzero(rng.random(len(letters)) < 1 / 6)}, 60))
    samples = text_samples.joined(every)
    text = JudgedText.of(samples)
    return MarkedText(text, [SUMERIAN], text.properties(concept_masks([SUMERIAN], samples), 1))


def each_text(marked: MarkedText) -> list[tuple[str, np.ndarray]]:
    """(letters before the damage, which are damaged) of each text."""
    text, letters = marked.text, "".join(chr(i) for i in marked.text.true_ids)
    ends = np.flatnonzero(np.diff(text.sample, append=-1)) + 1
    starts = [0, *ends[:-1]]
    return [(letters[a:b], text.damaged[a:b]) for a, b in zip(starts, ends, strict=True)]


def where(marked: MarkedText, pattern: str, inside=None) -> np.ndarray:
    """Which characters a pattern matches in the text as it was (`inside` None), or as seen with `#` for damage."""
    out = []
    for letters, damaged in each_text(marked):
        shown = letters if inside is None else "".join("#" if d else c for c, d in zip(letters, damaged, strict=True))
        has = np.zeros(len(letters), bool)
        for match in re.finditer(pattern, shown):
            has[slice(*match.span())] = True
        out.append(has)
    return np.concatenate(out)


SEEN = "as seen"
PLANTED = {
    "vowels a, u, i": lambda m: where(m, "[aui]", SEEN),
    "vowels": lambda m: where(m, "[aeuiè]", SEEN),
    "damaged characters": lambda m: m.text.damaged,
    "hyphens": lambda m: where(m, "-", SEEN),
    "capitals": lambda m: where(m, "[A-Z]", SEEN),
    "š of -šè at a word's end": lambda m: where(m, "(?<=-)š(?=è(?:$| ))"),
    "damaged vowels": lambda m: m.text.damaged & where(m, "[aeuiè]"),
    "damaged š": lambda m: m.text.damaged & where(m, "š"),
    "text in Sumerian": lambda m: m.has[0],
    "the word after DUMU-ki": lambda m: where(m, "(?<= DUMU-ki )[^ ]+|(?<=^DUMU-ki )[^ ]+"),
    "the sign ki": lambda m: where(m, "(?<=DUMU-)ki"),
    "what follows spaces": lambda m: where(m, "(?<= ).", SEEN),
    "what stands before š": lambda m: where(m, ".(?=š)", SEEN),
    "a after n": lambda m: where(m, "(?<=n)a", SEEN),
    "n between hyphens and a": lambda m: where(m, "(?<=-)n(?=a)", SEEN),
    "the word šar-ru": lambda m: where(m, r"(?<!\S)šar-ru(?!\S)"),
    "š at a word's beginning": lambda m: where(m, r"(?<!\S)š"),
    "the sign šar": lambda m: where(m, r"(?<![^ -])šar(?![^ -])"),
}


def latents(marked: MarkedText, fires: list[np.ndarray], seed=1, missed=0.03, elsewhere=0.002) -> np.ndarray:
    """One latent for each mask: it misses some of its places, and fires on some others."""
    rng = np.random.default_rng(seed)
    n = len(marked.text)
    on = [np.where(has, rng.random(n) >= missed, rng.random(n) < elsewhere) for has in fires]
    return (np.stack(on, axis=1) * rng.uniform(1, 2, (n, len(fires)))).astype(np.float32)


@pytest.fixture(scope="module")
def marked() -> MarkedText:
    return made()


@pytest.fixture(scope="module")
def planted(marked) -> tuple[np.ndarray, list[Caption]]:
    values = latents(marked, [find(marked) for find in PLANTED.values()])
    return values, captions(firings_of(marked.text, values), marked)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_latent_gets_its_caption(marked, planted, name):
    at = list(PLANTED).index(name)
    values, found = planted[0][:, at], planted[1][at]
    assert found.text == name
    assert found.clear
    # precision and recall of the planted places, which the words are true of, on texts of odd number
    held_out = marked.text.sample % 2 == 1
    has, fired = PLANTED[name](marked)[held_out], values[held_out] > 0
    assert found.precision == pytest.approx((has & fired).sum() / fired.sum())
    assert found.recall == pytest.approx((has & fired).sum() / has.sum())
    assert (found.firings, found.places) == (fired.sum(), has.sum())
    assert str(found) == f"{found.text} ({found.precision:.0%} of firings, {found.recall:.0%} of places)"
    # `described` marks these places and no others
    [places] = described([found], marked.text, marked)
    np.testing.assert_array_equal(places, PLANTED[name](marked))


def test_a_caption_that_predicts_nothing_is_unclear(marked):
    rng = np.random.default_rng(3)
    n = len(marked.text)
    noise = rng.random(n) < 0.03
    part = where(marked, "[aui]", SEEN) & (rng.random(n) < 0.06)  # on vowels alone, but on few of them
    rare = np.zeros(n, bool)
    rare[np.flatnonzero(marked.text.half == 0)[:9]] = True
    values = latents(marked, [noise, part, np.zeros(n, bool), rare], missed=0, elsewhere=0)
    found = captions(firings_of(marked.text, values), marked)
    assert str(found[0]) == "unclear"
    held_out = part & (marked.text.half == 1)
    of_firings = (PLANTED["vowels a, u, i"](marked) & held_out).sum() / held_out.sum()
    assert of_firings == 1
    assert str(found[1]).startswith("unclear; ")
    assert "of firings on" in str(found[1])
    assert found[1].f1 < CLEAR
    assert str(found[2]) == "never fires here"
    assert str(found[3]) == "unclear; fires too rarely"
    assert not any(one.clear for one in found)
    assert found[3].as_json()["f1"] == 0


def test_the_strongest_firings_may_have_a_caption_of_their_own(marked):
    """Noise everywhere, and a quarter of the firings, by far the strongest, on one thing."""
    n, letter = len(marked.text), where(marked, "n", SEEN)
    noise = np.random.default_rng(4).random(n) < 3 * letter.mean()
    values = np.where(letter, 5.0, np.where(noise, 1.0, 0.0)).astype(np.float32)[:, None]
    [found] = captions(firings_of(marked.text, values), marked)
    assert found.strong
    assert found.named
    assert not found.clear
    assert str(found).startswith("strongest on n (")
    always = np.ones((n, 1), np.float32)
    [dense] = captions(firings_of(marked.text, always), marked)
    assert not dense.named  # whatever is true of half of the text has an F1 of 0.67


def test_captions_are_chosen_on_even_texts_alone():
    names = list(PLANTED)
    one, other = made(240), made(240, odd_seed=9)
    assert (each_text(one)[0][0], each_text(one)[1][0]) != (each_text(other)[0][0], each_text(other)[1][0])
    found = []
    for marked in (one, other):
        values = latents(marked, [PLANTED[name](marked) for name in names], missed=0, elsewhere=0)
        values[(marked.text.half == 1) & (np.arange(len(marked.text)) % 3 == 0)] = 0  # figures differ, words do not
        found.append(captions(firings_of(marked.text, values), marked))
    assert [c.text for c in found[0]] == [c.text for c in found[1]]
    assert [c.chosen for c in found[0]] == [c.chosen for c in found[1]]
    assert [c.recall for c in found[0]] != [c.recall for c in found[1]]


def test_the_simpler_of_two_descriptions_is_taken_where_it_fits_nearly_as_well(marked):
    """What is joined, or says more, must be worth it: `COMPLEXITY` for each step."""
    values = latents(marked, [where(marked, "[aui]", SEEN), where(marked, "[aui]|DUM", SEEN)], missed=0, elsewhere=0)
    found = captions(firings_of(marked.text, values), marked)
    first = marked.text.half == 0
    assert found[0].chosen == pytest.approx(1 - 2 * COMPLEXITY)  # two values are joined to the first
    fires = values[:, 1] > 0
    best = max(
        2 * (fires & where(marked, letter, SEEN) & first).sum()
        / ((fires & first).sum() + (where(marked, letter, SEEN) & first).sum())
        for letter in "aui"
    )  # fmt: skip
    assert found[1].single == pytest.approx(best)
    assert len(found[1].members) <= MOST_JOINED


# ---- the words


def by_hand() -> dict[str, list[str]]:
    """Family -> its label for each character of `LUGAL a-na ½`, the second `a` being damaged; `·`: none."""
    samples = text_samples.joined([sample("LUGAL a-na ½", {9: "#"})] * 12)
    text = JudgedText.of(samples)
    out = {}
    for family in families(text):
        values = family.value.reshape(12, -1)
        assert (values == values[0]).all()
        out[family.name] = ["·" if i < 0 else str(family.labels[i]) for i in values[0]]
    return out


def test_every_family_says_what_is_true_of_a_text():
    found = by_hand()
    letters = "LUGAL a-na ½"
    none = ["·"]

    def each(*parts: str) -> list[str]:
        """`L U G`: a label for each character; `5*x`: five times the same."""
        out: list[str] = []
        for part in parts:
            times, _, label = part.partition("*")
            out += int(times) * [label] if label and times.isdigit() else [part]
        return out

    assert found.pop("class") == each(
        "5*capitals", "spaces", "vowels", "hyphens", "consonants", "damaged characters", "spaces", "numerals"
    )
    shown = [*"LUGAL", "spaces", "a", "hyphens", "n", "damaged characters", "spaces", "½"]
    assert found.pop("character") == shown
    assert found.pop("damaged class") == [*9 * none, "damaged vowels", *2 * none]
    assert found.pop("damaged character") == [*9 * none, "damaged a", *2 * none]
    first, last, inner = " at a word's beginning", " at a word's end", " within a word"
    assert found.pop("character in the word") == [
        "L" + first, "U" + inner, "G" + inner, "A" + inner, "L" + last, "·", "a" + first, "hyphens" + inner,
        "n" + inner, "a" + last, "·", "½ as a word",
    ]  # fmt: skip
    assert found.pop("word") == each("5*the word LUGAL", "·", "4*the word a-na", "·", "the word ½")
    assert found.pop("character of a word") == [
        *(f"{letters[:i]}[{letters[i]}]{letters[i + 1 : 5]}" for i in range(5)), "·", "[a]-na", "a[-]na", "a-[n]a",
        "a-n[a]", "·", "·",
    ]  # fmt: skip
    assert found.pop("sign") == each("5*the sign LUGAL", "3*·", "2*the sign na", "2*·")
    assert found.pop("sign in the word") == each(
        "5*LUGAL as a word", "·", "a- at a word's beginning", "·", "2*-na at a word's end", "·", "½ as a word"
    )
    assert found.pop("character of a sign") == [
        "L of [L]UGAL", "U of LUGAL", "G of LUGAL", "A of LUGAL", "L of LUGA[L]", *3 * none, "n of na", "a of na",
        *2 * none,
    ]  # fmt: skip
    assert found.pop("character of a sign in the word") == [
        "L of [L]UGAL as a word", *(f"{c} of LUGAL as a word" for c in "UGA"), "L of LUGA[L] as a word", *3 * none,
        "n of -na at a word's end", "a of -na at a word's end", *2 * none,
    ]  # fmt: skip
    assert found.pop("before") == ["·", *(f"what follows {c}" for c in shown[:-1])]
    assert found.pop("after") == [*(f"what stands before {c}" for c in shown[1:]), "·"]
    assert found.pop("pair before") == ["·", *(f"{b} after {a}" for a, b in itertools.pairwise(shown))]
    assert found.pop("pair after") == [*(f"{a} before {b}" for a, b in itertools.pairwise(shown)), "·"]
    assert found.pop("window") == [
        "·", *(f"{b} between {a} and {c}" for a, b, c in zip(shown, shown[1:], shown[2:], strict=False)), "·",
    ]  # fmt: skip
    after = "the sign after "
    assert found.pop("sign before") == [*6 * none, after + "LUGAL", "·", after + "a", after + "a", "·", after + "na"]
    assert found.pop("word before") == [*6 * none, *4 * ["the word after LUGAL"], "·", "the word after a-na"]
    assert found == {}


def test_classes():
    told = {c: character_class(c) for c in "aèŠŋ½- .u"}
    assert told == {
        "a": "vowels", "è": "vowels", "Š": "capitals", "ŋ": "consonants", "½": "numerals", "-": "hyphens",
        " ": "spaces", ".": "other marks", "u": "vowels",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([Label("{}", ("a",)), Label("{}", ("u",))], "vowels a, u"),
        ([Label("{}", ("a",)), Label("{}", ("n",))], "a, n"),
        ([Label("{}", ("a",)), Label("{}", ("damaged characters",))], "a, damaged characters"),
        ([Label("{} after {}", ("a", "n")), Label("{} after {}", ("u", "n"))], "a, u after n"),
        ([Label("{} after {}", ("a", "n")), Label("{} after {}", ("a", "m"))], "a after n, m"),
        ([Label("{} after {}", ("a", "n")), Label("{} after {}", ("u", "m"))], "a after n, u after m"),
        ([Label("the word {}", ("a-na",)), Label("the word {}", ("um",))], "the word a-na, um"),
        ([Label("{} as a word", ("a",)), Label("{} at a word's end", ("u",))], "a as a word, u at a word's end"),
        ([Label("{}", ("a",))], "a"),
    ],
)
def test_what_labels_have_in_common_is_said_once(labels, words):
    assert joined(labels) == words


def test_a_value_that_is_rare_where_captions_are_chosen_is_not_used():
    text = JudgedText.of(text_samples.joined([sample("ab" if i in (0, 2, 4, 6, 1, 3) else "ac") for i in range(20)]))
    by_name: dict[str, Family] = {family.name: family for family in families(text)}
    assert {str(label) for label in by_name["character"].labels} == {"a", "c"}  # of b four in even texts
    assert (by_name["character"].value == -1).sum() == 6


# ---- discoveries


def test_candidates_say_more_than_a_character_and_are_not_said_twice(marked):
    ending, after = PLANTED["š of -šè at a word's end"](marked), PLANTED["the word after DUMU-ki"](marked)
    letter = where(marked, "n", SEEN)
    rng = np.random.default_rng(5)
    values = latents(marked, [letter, ending, ending, after, rng.random(len(letter)) < 0.03])
    found = captions(firings_of(marked.text, values), marked)
    latents_, descriptions = candidates(found, marked, None)
    assert set(latents_) == {latents_[0], latents_[1]} <= {1, 2, 3}
    assert len({1, 2} & set(latents_)) == 1
    assert [c.name for c in descriptions.concepts] == [found[i].text for i in latents_]
    np.testing.assert_array_equal(descriptions.has, described([found[i] for i in latents_], marked.text, marked))
    # each is scored for the latent that it was made for, though another may do better
    firings = firings_of(marked.text, values)
    every = concept_scores(firings, descriptions, latents={1: 4})
    assert [one.best[0].latent for one in every][1] == 4
    assert every[0].best[0].latent in (1, 2, 3)
    # a latent that no other seed has comes last
    ones = np.ones(5)
    in_seeds = Stability(2, np.where(np.isin(np.arange(5), [1, 2]), 0.0, 1.0), ones, ones, 1.0)
    assert candidates(found, marked, in_seeds)[0] == [3, 1]
    assert len(candidates(found * CANDIDATES, marked, None)[0]) <= CANDIDATES
