"""What stands near a character: descriptions are compared with patterns, and the search with planted firings."""

import re

import numpy as np
import pytest
from helpers import firings_of, sample

from jaxsae.features.captions import DENSE, Caption, captions, described
from jaxsae.features.concept_scores import MarkedText
from jaxsae.features.descriptions import COMPLEXITY, MOST_JOINED
from jaxsae.features.judged_text import JudgedText
from jaxsae.features.surroundings import MOST_PLACES, REACH, Search, Surroundings
from jaxsae.text import samples as text_samples

LETTERS = "aeiudgnšLM -"
TEXTS, LENGTH = 400, 50


@pytest.fixture(scope="module")
def text() -> JudgedText:
    """Letters drawn by chance, a tenth of them damaged."""
    rng = np.random.default_rng(0)
    every = []
    for _ in range(TEXTS):
        letters = "".join(rng.choice(list(LETTERS), LENGTH)).replace(" ", " a")[:LENGTH].strip()
        every.append(sample(letters, {int(at): "#" for at in np.flatnonzero(rng.random(len(letters)) < 0.1)}, LENGTH))
    return JudgedText.of(text_samples.joined(every))


@pytest.fixture(scope="module")
def near(text) -> Surroundings:
    return Surroundings.of(text)


def where(text: JudgedText, pattern: str) -> np.ndarray:
    """The characters on which a pattern matches in the text as the model sees it, `#` being damage."""
    seen = np.where(text.damaged, ord("#"), text.true_ids)
    out = np.zeros(len(text), bool)
    for number in np.unique(text.sample):
        rows = np.flatnonzero(text.sample == number)
        for match in re.finditer(f"(?={pattern})", "".join(map(chr, seen[rows]))):
            out[rows[match.start(1)]] = True
    return out


V, C = "[aeiu]", "[dgnš]"
PLANTED = {
    "spaces with n two before": r".{1}(?<=n).( )",
    "hyphens with a vowel right before and š or g right after": rf"{V}(-)[gš]",
    "characters with a damaged character two before and d right before": "#d(.)",
    "a with a hyphen three after": "(a)..-",
    "vowels with a space three before and a consonant right before": rf" .{C}({V})",
    "damaged characters with u two after": "(#).u",
}


@pytest.fixture(scope="module")
def marked(text) -> MarkedText:
    return MarkedText(text, [], np.zeros((0, len(text)), bool))


@pytest.fixture(scope="module")
def planted(text, marked) -> tuple[np.ndarray, list[Caption]]:
    """(on what latents fire, their captions): of each pattern, and of what has a vowel two before."""
    rng, n = np.random.default_rng(1), len(text)
    masks = [where(text, pattern) for pattern in PLANTED.values()]
    fires = [has ^ (rng.random(n) < 0.0001) for has in masks]
    every = np.stack([*fires, where(text, f"{V}.(.)")], axis=1)
    return every, captions(firings_of(text, every.astype(np.float32)), marked)


@pytest.mark.parametrize("words", PLANTED)
def test_a_latent_of_several_places_gets_its_caption(text, near, marked, planted, words):
    at = list(PLANTED).index(words)
    has, fires, found = where(text, PLANTED[words]), planted[0][:, at], planted[1][at]
    assert found.text == words
    assert found.clear
    held_out = text.half == 1
    hit = (has & fires & held_out).sum()
    assert (found.firings, found.places) == ((fires & held_out).sum(), (has & held_out).sum())
    assert (found.precision, found.recall) == (pytest.approx(hit / found.firings), pytest.approx(hit / found.places))
    np.testing.assert_array_equal(near.holds(found.members), has)


def test_described_marks_the_places_of_each_pattern(text, marked, planted):
    masks = [where(text, pattern) for pattern in PLANTED.values()]
    np.testing.assert_array_equal(described(planted[1][:-1], text, marked), np.stack(masks))


def test_what_stands_near_is_not_looked_at_for_dense_latents(planted):
    fires, found = planted
    assert fires[:, -1].mean() > DENSE
    assert found[-1].family not in ("", "surroundings")


def test_no_place_is_of_another_text(text, near):
    starts = np.flatnonzero(np.diff(text.sample, prepend=-1))
    ends = np.append(starts[1:], len(text))
    none = len(near.labels)
    for column, at in enumerate(near.offset.tolist()):
        outside = [starts + i for i in range(-at)] if at < 0 else [ends - 1 - i for i in range(at)]
        for rows in outside:
            assert (near.value[rows, column] == none).all()
    assert sorted(set(near.offset.tolist())) == list(range(-REACH, REACH + 1))


def test_what_is_found_predicts_as_well_as_it_is_said_to(text, near):
    """Also of firings that nothing describes well."""
    rows = np.flatnonzero(text.half == 0)
    search = Search(near, rows)
    rng = np.random.default_rng(2)
    at_chance = [rng.random(len(rows)) < share * np.where(text.damaged[rows], 5, 1) for share in (0.003, 0.02, 0.1)]
    # a second place fits a little better, and is not worth it
    mostly = where(text, f"(i){V}")[rows] | (
        where(text, "(i)")[rows] & (np.random.default_rng(2).random(len(rows)) < 0.33)
    )
    for fires in (*at_chance, mostly):
        found = search.best(np.flatnonzero(fires))
        holds = near.holds(found.members)[rows]
        f1 = 2 * (holds & fires).sum() / (holds.sum() + fires.sum())
        assert found.chosen == pytest.approx(f1 - COMPLEXITY * len(found.members))
        assert 1 <= len(set(near.offset[near.column[found.members]].tolist())) <= MOST_PLACES
        assert len(found.members) < MOST_PLACES + MOST_JOINED
        # no single place does better
        single = max(
            2 * (near.holds([i])[rows] & fires).sum() / (near.holds([i])[rows].sum() + fires.sum())
            for i in range(len(near.labels))
        )
        assert found.chosen >= single - COMPLEXITY - 1e-9


def test_of_two_places_the_best_pair_is_found(text, near):
    """Beside all pairs of labels, one after another."""
    rows = np.flatnonzero(text.half == 0)
    fires = where(text, "n.(i)")[rows] | (np.random.default_rng(3).random(len(rows)) < 0.0005)
    found = Search(near, rows).best(np.flatnonzero(fires))
    holds = np.stack([near.holds([i])[rows] for i in range(len(near.labels))]).astype(np.float64)
    both, hits = holds @ holds.T, (holds * fires) @ holds.T
    f1 = 2 * hits / (both + fires.sum())
    f1[near.offset[near.column][:, None] == near.offset[near.column]] = 0
    assert found.chosen >= f1.max() - 2 * COMPLEXITY - 1e-9
    assert near.words(found.members) == "i with n two before"


def test_a_text_of_nothing_has_no_description():
    empty = JudgedText.of(text_samples.joined([sample("a")]))
    near = Surroundings.of(empty)
    assert near.labels == []
    assert Search(near, np.array([0])).best(np.array([0])).members == []
