import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from toy import Toy

from jaxsae.errors import InputError
from jaxsae.restore.candidates import candidates
from jaxsae.restore.places import Asked, around, best_tokens, encoded, log_p_of, logits_of
from jaxsae.text.damaged_text import read_damaged


@pytest.fixture(scope="module")
def model(tiny_pt):
    from convert import load_restoration_model

    return load_restoration_model(tiny_pt)


TEXTS = ["a-na be-lí-ia ##-bi", "#", "a ## [...] b", "LUGAL-{d}ma x [xxx] ib-ni", "[a] ### še"]


def log_p_alone(model, ids):
    """What the model says of a text that is run by itself at its own length."""
    logits = np.asarray(model(jnp.asarray(ids)[None]))[0].astype(float)
    return (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )


def test_what_texts_say_together_each_says_alone(model):
    rng = np.random.default_rng(0)
    asked = []
    for n in (1, 5, 31, 32, 33, 40, 44, 45, 45):
        asked.append(Asked(rng.integers(33, 7000, n).astype(np.int32), rng.choice(n, min(n, 7), replace=False)))
    best, logits = best_tokens(model, asked, 5), logits_of(model, asked)
    given = log_p_of(model, asked, [one.ids[one.positions] for one in asked])
    at = 0
    for one, row, of_given in zip(asked, best, given, strict=True):
        alone = log_p_alone(model, one.ids)[one.positions]
        np.testing.assert_allclose(row.log_p, np.sort(alone)[:, ::-1][:, :5], atol=2e-3)
        np.testing.assert_allclose(np.take_along_axis(alone, row.ids, 1), row.log_p, atol=2e-3)
        np.testing.assert_allclose(of_given, alone[np.arange(len(alone)), one.ids[one.positions]], atol=2e-3)
        part = logits[at : at + len(alone)]
        np.testing.assert_allclose(part - part.max(1, keepdims=True), alone - alone.max(1, keepdims=True), atol=2e-3)
        at += len(alone)


def test_candidates_of_each_place_come_from_one_pass(model):
    texts = [read_damaged(line) for line in TEXTS]
    found = candidates(model, texts, top=3)
    for text, places in zip(texts, found, strict=True):
        expected = [(g, p) for g, gap in enumerate(text.gaps) for p in range(gap.start, gap.end)]
        assert [(place.gap, place.position) for place in places] == expected
        log_p = log_p_alone(model, encoded(model, text))
        for place in places:
            assert len(place.candidates) == 3
            for one in place.candidates:
                (token,) = model.tokenizer.encode(one.character)
                assert one.probability == pytest.approx(np.exp(log_p[place.position, token]), rel=1e-2)
            p = [one.probability for one in place.candidates]
            assert p == sorted(p, reverse=True)


def test_a_temperature_flattens(model):
    (sharp,), (flat,) = (candidates(model, [read_damaged("a # b")], top=2, temperature=t)[0] for t in (1.0, 3.0))
    (a, b), (c, d) = ([one.probability for one in place.candidates] for place in (sharp, flat))
    assert c / d == pytest.approx((a / b) ** (1 / 3), rel=1e-3)


def test_a_change_of_the_stream_changes_what_is_said(model):
    text = read_damaged("a-na ## be")
    asked = [Asked(encoded(model, text), np.array([5, 6]))]
    plain = best_tokens(model, asked, 4)[0]
    same = best_tokens(model, asked, 4, change=(1, lambda x: x))[0]
    np.testing.assert_allclose(same.log_p, plain.log_p, atol=1e-4)
    other = best_tokens(model, asked, 4, change=(1, lambda x: x + 10 * jnp.sin(jnp.arange(x.shape[-1]))[None, None]))[0]
    assert np.abs(other.log_p - plain.log_p).max() > 1e-2
    # what a change makes of padding is not seen
    spoiled = best_tokens(model, asked, 4, change=(1, lambda x: x.at[:, len(text.cleaned) :].set(jnp.nan)))[0]
    np.testing.assert_allclose(spoiled.log_p, plain.log_p, atol=1e-4)


def test_a_long_text_is_read_around_each_gap(model):
    line = "ab-" * 20 + "#" + "cd-" * 20 + "##" + "ef-" * 20
    text = read_damaged(line)
    (places,) = candidates(model, [text], top=2)
    assert [place.position for place in places] == [60, 121, 122]
    seen = around(len(line), 60, 61, TINY.max_position)
    log_p = log_p_alone(model, encoded(model, text)[seen])[60 - seen.start]
    assert places[0].candidates[0].probability == pytest.approx(np.exp(log_p.max()), rel=1e-2)


def test_a_window_lies_around_its_place():
    for n, start, end, most in ((10, 4, 5, 20), (100, 0, 3, 20), (100, 97, 100, 20), (100, 50, 54, 20), (7, 3, 4, 7)):
        seen = around(n, start, end, most)
        assert seen.stop - seen.start == min(n, most)
        assert 0 <= seen.start <= start < end <= seen.stop <= n


def test_characters_that_the_model_does_not_know_are_named_where_the_user_wrote_them(model):
    with pytest.raises(InputError, match=r"got '⸢' at 12, '⸣' at 14$"):
        encoded(model, read_damaged("1. a [b] # 2⸢x⸣"))
    with pytest.raises(InputError, match="at most 45"):
        candidates(model, [read_damaged("#" * 46)])


def test_a_model_without_a_token_for_each_character_is_refused():
    model = Toy(0)
    model.tokenizer = type(model.tokenizer)()
    model.tokenizer.encode = lambda text: np.zeros(2, np.int32)
    with pytest.raises(InputError, match="one token for each character"):
        encoded(model, read_damaged("a#b"))
