import json
import math

import numpy as np
import pytest
from toy import Toy

from jaxsae.errors import InputError
from jaxsae.files import to_json
from jaxsae.restore import lengths
from jaxsae.restore.answer import restore_text
from jaxsae.restore.fillings import fill, hole_of, shares
from jaxsae.restore.lengths import length_log_p
from jaxsae.text.damaged_text import read_damaged

MODEL = Toy(3)


def spaced(seed):
    """A model that takes a space for a letter."""
    model = Toy(seed)
    model.tokenizer = type(model.tokenizer)()
    model.tokenizer.encode = lambda text: MODEL.tokenizer.encode(text.replace(" ", "c"))
    return model


def test_a_whole_answer():
    model = spaced(3)
    short = read_damaged("a[##]b{d}1 [xx]c#")
    answer = restore_text(model, short, top=4, beam=4)
    assert [len(every) for every in answer.fillings] == [4, 4, 4]
    assert [(place.gap, place.position) for place in answer.places] == [(0, 1), (0, 2), (1, 5), (1, 6), (2, 8)]
    got = json.loads(to_json(answer.as_json()))
    first = [every[0].text for every in answer.fillings]
    assert got["restored"] == got["top_prediction"] == f"a[{first[0]}]b{{d}}1 [{first[1]}]c{first[2]}"
    assert got["text"] == got["input_text"] == short.written
    assert got["cleaned"] == "a##b ##c#"
    assert [got["text"][i] for i in got["missing"]] == list("##xx#")
    assert [gap["lengths"] for gap in got["gaps"]] == [[2, 2], [2, 2], [1, 1]]
    for gap in got["gaps"]:
        assert set(got["cleaned"][gap["cleaned_start"] : gap["cleaned_end"]]) == {"#"}
        assert [place["position"] for place in gap["places"]] == [*range(gap["cleaned_start"], gap["cleaned_end"])]
        for filling in gap["fillings"]:
            assert filling["probability"] <= math.exp(filling["score"]) + 1e-9
            assert filling["length"] == len(filling["text"])
    assert len(got["predictions"]) == 4
    scores = [one["score"] for one in got["predictions"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(sum(every[0].score for every in answer.fillings))
    for one in got["predictions"]:
        assert len(one["restored"]) == 5
        kept = "".join(c for i, c in enumerate(one["text"]) if i not in one["restored"])
        assert kept == "a[]b{d}1 []c"


def test_places_alone():
    answer = restore_text(MODEL, read_damaged("a##b"), top=3, whole_gaps=False)
    assert answer.fillings == [[]]
    best = "".join(place.candidates[0].character for place in answer.places)
    assert answer.as_json()["restored"] == f"a{best}b"
    assert answer.as_json()["predictions"] == []


def test_where_fillings_outside_brackets_stand():
    got = restore_text(spaced(0), read_damaged("a xx #b"), top=2, beam=2).as_json()
    for one in got["predictions"]:
        assert [one["text"][i] for i in (0, 1, 2, 5, 6, 8)] == ["a", " ", "[", "]", " ", "b"]
        assert one["restored"] == [3, 4, 7]


def test_an_unknown_length_is_one_of_those_that_may_be():
    text = read_damaged("ab[x]ca")
    found = fill(MODEL, text, 0, top=40, beam=8)
    assert {one.length for one in found} <= {1, 2, 3, 4}
    assert len({one.length for one in found}) > 1
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert sum(one.probability for one in found) <= 1 + 1e-6
    answer = restore_text(MODEL, text, top=3, beam=4)
    assert answer.text.cleaned == f"ab{'#' * found[0].length}ca"
    assert len(answer.places) == found[0].length


def test_lengths_are_scored_as_it_is_said(monkeypatch):
    """By hand, with one step: each character when all are open, and the neighbours when the gap is filled."""
    monkeypatch.setattr(lengths, "STEPS", 1)
    text = read_damaged("ab[xxx]ca")
    holes = [hole_of(MODEL, text.resized(0, n), 0) for n in (1, 2, 3, 4)]
    expected = []
    for hole in holes:
        log_p = MODEL.log_p(hole.ids)[hole.start : hole.end]
        ids = hole.ids.copy()
        near = [0, 1, hole.end, hole.end + 1]
        ids[hole.start : hole.end] = log_p.argmax(axis=1)
        ids[near] = 0
        fits = MODEL.log_p(ids)[near, hole.ids[near]].sum()
        expected.append(lengths.SURE * np.exp(log_p.max(axis=1).mean()) + lengths.FITS * fits)
    expected = np.array(expected) - np.log(np.exp(expected).sum())
    np.testing.assert_allclose(length_log_p(MODEL, holes), expected, atol=1e-4)


def test_numbers_that_cannot_be():
    text = read_damaged("a#b")
    for wrong, match in (({"beam": 0}, "beam must be at least 1"), ({"top": 0}, "top must be at least 1")):
        with pytest.raises(InputError, match=match):
            fill(MODEL, text, 0, **wrong)
    with pytest.raises(InputError, match=r"gap must be in 0\.\.0, got 1"):
        fill(MODEL, text, 1)
    with pytest.raises(InputError, match="at most 12"):
        fill(MODEL, read_damaged("#" * 13), 0)


def test_probabilities_of_fillings_are_their_scores_or_come_to_one():
    low = np.log([0.3, 0.2, 0.1])
    np.testing.assert_allclose(shares(low), [0.3, 0.2, 0.1])
    high = shares(np.log([0.8, 0.7, 0.1]))
    assert high.sum() == pytest.approx(1, abs=1e-6)
    assert np.log(high[0]) / np.log(high[1]) == pytest.approx(np.log(0.8) / np.log(0.7), rel=1e-6)
    for sure in ([0.0], [0.0, -0.1], [0.0, 0.0], [-1e-9, -1e-9, -5.0]):
        p = shares(np.array(sure))
        assert p.sum() == pytest.approx(1)
        assert (np.diff(p) <= 0).all()
