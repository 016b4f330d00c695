import numpy as np
import pytest
from toy import Toy, every_filling

from jaxsae.restore.search import OPEN, Hole, search, with_gap


def hole(model, text):
    ids = model.tokenizer.encode(text)
    return Hole(ids, text.index("#"), text.rindex("#") + 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("text", ["ab#ca", "a##b", "###", "ca###ab"])
def test_a_wide_beam_finds_what_enumeration_finds(seed, text):
    model = Toy(seed)
    one = hole(model, text)
    every = sorted(every_filling(model, one).items(), key=lambda item: -item[1])
    (found,) = search(model, [one], beam=200, top=200)
    assert len(found) == len({filled.ids for filled in found}) == len(every)
    assert found[0].ids == every[0][0]
    np.testing.assert_allclose([filled.score for filled in found], [score for _, score in every], atol=1e-4)
    assert dict(found) == pytest.approx(dict(every), abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_a_narrow_beam_finds_no_better_than_a_wide_one_and_scores_what_it_finds_right(seed):
    model = Toy(seed)
    one = hole(model, "b####a")
    every = every_filling(model, one)
    scores = []
    for beam in (1, 2, 4, 300):
        (found,) = search(model, [one], beam=beam, top=5)
        assert len(found) <= 5
        assert [filled.score for filled in found] == sorted((filled.score for filled in found), reverse=True)
        assert all(filled.score <= every[filled.ids] + 1e-4 for filled in found)
        scores.append(found[0].score)
    assert scores[-1] == pytest.approx(max(every.values()), abs=1e-4)
    assert max(scores) <= scores[-1] + 1e-4


@pytest.mark.parametrize("seed", range(6))
def test_a_beam_of_one_fills_the_surest_place_first(seed):
    model = Toy(seed)
    one = hole(model, "a###c")
    gap, score = np.full(3, OPEN), 0.0
    for _ in range(3):
        log_p = model.log_p(with_gap(one, gap))[1:4].copy()
        log_p[gap != OPEN] = -np.inf
        place, token = np.unravel_index(log_p.argmax(), log_p.shape)
        score += log_p[place, token]
        gap[place] = token
    (found,) = search(model, [one], beam=1, top=1)
    assert found[0].ids == tuple(gap)
    assert found[0].score == pytest.approx(score, abs=1e-4)


def test_holes_are_filled_alike_alone_and_together():
    model = Toy(0)
    holes = [hole(model, text) for text in ("a##", "#", "ab###ca", "b#a")]
    together = search(model, holes, beam=3, top=4)
    for one, found in zip(holes, together, strict=True):
        (alone,) = search(model, [one], beam=3, top=4)
        assert [filled.ids for filled in alone] == [filled.ids for filled in found]
        np.testing.assert_allclose([f.score for f in alone], [f.score for f in found], atol=1e-5)


def test_the_temperature_divides_the_logits():
    model = Toy(1)
    one = hole(model, "a#b")
    (found,) = search(model, [one], beam=4, top=4, temperature=2.0)
    logits = model.log_p(one.ids)[1] / 2
    expected = logits - np.log(np.exp(logits).sum())
    assert {filled.ids[0]: filled.score for filled in found} == pytest.approx(dict(enumerate(expected)), abs=1e-4)


@pytest.mark.parametrize("beam", [2, 3, 7])
def test_a_beam_keeps_the_best_of_all_children(beam):
    """Step by step, with every child of every state that is kept."""
    model = Toy(5)
    one = hole(model, "a####c")
    states = {(OPEN,) * 4: 0.0}
    for step in range(4):
        children = {}
        for state, score in states.items():
            log_p = model.log_p(with_gap(one, np.array(state)))[1:5]
            for place in np.flatnonzero(np.array(state) == OPEN):
                for token in range(4):
                    child = (*state[:place], token, *state[place + 1 :])
                    children[child] = max(children.get(child, -np.inf), score + log_p[place, token])
        states = dict(sorted(children.items(), key=lambda item: -item[1])[: 6 if step == 3 else beam])
    (found,) = search(model, [one], beam=beam, top=6)
    assert dict(found) == pytest.approx(states, abs=1e-4)
