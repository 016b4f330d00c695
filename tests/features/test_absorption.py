"""Absorption on planted latents, and against loops over stretches."""

import numpy as np
import pytest
from helpers import firings_of, sample

from jaxsae.features.absorption import Pair, absorption, nested
from jaxsae.features.judge import halves, judge, sparse_halves
from jaxsae.features.judged_text import JudgedText
from jaxsae.text.samples import joined

PARENT, CHILD = 0, 1


@pytest.fixture(scope="module")
def text() -> JudgedText:
    """Words in capitals, of which some are LUGAL, among others."""
    rng = np.random.default_rng(0)
    words = ["LUGAL", "DUMU", "MU", "KI", "a-na", "um"]
    return JudgedText.of(joined([sample(" ".join(rng.choice(words, 7))) for _ in range(120)]))


@pytest.fixture(scope="module")
def has(text) -> np.ndarray:
    """Capitals, and those of LUGAL."""
    capitals = np.array([chr(i).isupper() for i in text.true_ids])
    of_lugal = np.zeros(len(text), bool)
    for word in np.unique(text.word):
        of_lugal[text.word == word] = "".join(chr(i) for i in text.true_ids[text.word == word]) == "LUGAL"
    return np.stack([capitals, capitals & of_lugal])


def first_of_each(text: JudgedText, has: np.ndarray) -> np.ndarray:
    return has & (np.diff(text.word, prepend=-1) != 0)


def found(text: JudgedText, has: np.ndarray, *latents: np.ndarray):
    used = np.ones(len(text), bool)
    marked = halves(text, has, used)
    values = np.stack(latents, axis=1).astype(np.float32)
    choose, score, _ = sparse_halves(firings_of(text, values), text, marked, used)
    return absorption(judge(choose, score, marked), score, nested(has, [PARENT]))


def test_a_parent_that_is_silent_exactly_where_the_child_fires_is_absorbed(text, has):
    """It fires on one character of the others' words; what it does elsewhere does not matter."""
    lugal, others = has[CHILD], has[PARENT] & ~has[CHILD]
    got = found(text, has, first_of_each(text, others) | (~has[PARENT] & (text.position % 7 == 0)), lugal)
    (one,) = got.pairs
    assert (one.parent_latent, one.child_latent) == (0, 1)
    assert (one.silent, one.silent_else, one.share) == (1, 0, 1)
    assert (got.median, got.low, got.high, got.one_latent) == (1, 1, 1, 0)
    held_out = text.half == 1
    assert one.stretches == len(np.unique(text.word[lugal & held_out]))
    assert one.others == len(np.unique(text.word[others & held_out]))


def test_a_parent_that_does_not_care_is_not_absorbed(text, has):
    whole = found(text, has, has[PARENT], has[CHILD])
    assert (whole.median, whole.low, whole.high) == (0, 0, 0)
    kept = np.random.default_rng(1).random(text.word.max() + 1) < 0.7
    got = found(text, has, has[PARENT] & kept[text.word], has[CHILD])
    assert got.low < 0 < got.high
    assert got.pairs[0].silent == pytest.approx(0.3, abs=0.1)
    assert abs(got.median) < 0.15


def test_a_parent_that_fires_weakly_is_not_silent(text, has):
    """Below the threshold at which it is chosen, but above 0."""
    weak = np.where(has[CHILD], 0.1, 1.0) * has[PARENT] + 0.01 * (~has[PARENT] & (text.position % 2 == 0))
    assert found(text, has, weak, has[CHILD]).median == 0


def test_what_is_counted_and_what_is_not(text, has):
    assert nested(np.stack([has[0], has[1], has[0], ~has[0], np.zeros_like(has[0])]), [0, 1, 3]) == [Pair(0, 1)]
    together = found(text, has, has[PARENT])
    assert (together.pairs, together.median, together.one_latent) == ([], 0, 1)
    few = has & (text.sample < 8)
    assert found(text, few, few[PARENT], few[CHILD]).pairs == []
