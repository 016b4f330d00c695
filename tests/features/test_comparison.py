"""Two SAEs beside each other: planted copies, halves and strangers, and a second, plain count of who is alike."""

import dataclasses
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import firings_of, sample
from planted import IDENTITY, LENGTH, TEXTS, D, inspections, planted

from jaxsae.errors import InputError
from jaxsae.features import stability
from jaxsae.features.comparison import compare
from jaxsae.features.judged_text import JudgedText
from jaxsae.features.partners import partners
from jaxsae.files import to_json
from jaxsae.sae.autoencoder import SAE
from jaxsae.text.samples import joined

FIRE = {0, 1, 2, 3, 4, 6, 7, 8, *range(10, 20)}
"""The latents of `first` that fire."""
GONE, NEW = {2, 8, 12}, {25, 26}
ORDER = np.random.default_rng(3).permutation(D)
"""The latent at place `i` of the second is that of number `ORDER[i]`."""
PLACE = {int(latent): place for place, latent in enumerate(ORDER)}


def first() -> np.ndarray:
    """The planted latents, and ten more that fire at random."""
    x = planted()
    here = np.random.default_rng(1).random((TEXTS, LENGTH, 10)) < 0.06
    x[:, :, 10:20] = np.where(here, 1, -10)
    return x


def second(order=ORDER) -> np.ndarray:
    """The same in another order, without three of them, with two others, and one that fires on a little less."""
    x = first()
    x[:, :, [*GONE]] = -10
    x[:, 20, 25] = 1
    x[np.random.default_rng(2).random((TEXTS, LENGTH)) < 0.06, 26] = 1
    x[:40, :, 4] = 0
    return x[:, :, order]


def turned_rows(order=ORDER) -> SAE:
    """An SAE that reads the second stream as its latents, and writes each where the first SAE does."""
    return SAE(jnp.eye(D), jnp.zeros(D), jnp.eye(D)[order], jnp.zeros(D))


def test_permuted_copies_are_matched_and_the_others_are_gone_or_new():
    (one,), (other,) = inspections({1: first()}), inspections({1: second()})
    found = compare(one, other)
    assert found.same_sae  # the identity on two models: directions, alike by number, pair nothing
    assert {(pair.first, pair.second) for pair in found.matched} == {(i, PLACE[i]) for i in FIRE - GONE}
    assert {lone.feature for lone in found.gone} == GONE
    assert {lone.feature for lone in found.new} == {PLACE[i] for i in NEW}
    for pair in found.matched:
        assert (pair.by, pair.mutual) == ("firing", True)
        assert pair.jaccard == pytest.approx(200 / 240 if pair.first == 4 else 1)
        assert pair.first_caption == str(one.captions[pair.first])
        assert pair.second_caption == str(other.captions[pair.second])
        assert pair.first_rate == pytest.approx(one.statistics.fired[pair.first] / (TEXTS * LENGTH))
        assert pair.second_rate == pytest.approx(other.statistics.fired[pair.second] / (TEXTS * LENGTH))
    for rows, side in ((found.gone, one), (found.new, other)):
        named = [row.named for row in rows]
        assert named == sorted(named, reverse=True)
        assert named == [side.captions[row.feature].clear for row in rows]
        assert any(named)
        assert not all(named)
        assert all(row.jaccard < 0.5 and row.rate > 0 for row in rows)
    named = [pair.first_named or pair.second_named for pair in found.matched]
    assert named == sorted(named, reverse=True)
    a, b = found.first, found.second
    assert (a.fire, a.paired, a.by_firing, a.alone) == (len(FIRE), len(FIRE - GONE), len(FIRE - GONE), len(GONE))
    assert (b.fire, b.paired, b.alone) == (len(FIRE - GONE | NEW), len(FIRE - GONE), len(NEW))
    assert a.named_alone == sum(one.captions[i].clear for i in GONE)
    assert a.named == sum(one.captions[i].clear for i in FIRE)
    assert found.characters == TEXTS * LENGTH


def test_of_two_saes_directions_count_as_well():
    """The random latent 10 fires elsewhere in the second; its row is the same there."""
    x = second()
    x[:, :, PLACE[10]] = np.where(np.random.default_rng(7).random((TEXTS, LENGTH)) < 0.06, 1, -10)
    (one,), (other,) = inspections({1: first()}), inspections({1: x}, saes=[turned_rows()])
    found = compare(one, other)
    assert not found.same_sae
    by = {pair.first: pair.by for pair in found.matched}
    assert by == {i: "direction" if i == 10 else "both" for i in FIRE - GONE}
    assert {(pair.first, pair.second) for pair in found.matched} == {(i, PLACE[i]) for i in FIRE - GONE}
    assert all(pair.cosine == pytest.approx(1) for pair in found.matched)
    assert (found.first.paired, found.first.by_firing) == (len(FIRE - GONE), len(FIRE - GONE) - 1)
    for lone in found.gone:  # its row is there, of a latent that never fires
        assert (lone.by_direction, lone.cosine) == (PLACE[lone.feature], pytest.approx(1))


def test_what_each_finds_of_a_concept_and_the_difference():
    (one,), (other,) = inspections({1: first()}), inspections({1: second()})
    changes = {change.name: change for change in compare(one, other).concepts}
    differences = [change.difference for change in compare(one, other).concepts]
    assert differences == sorted(differences, reverse=True)
    assert set(changes) == {"damaged", "sumerian", "akkadian", "-um", "-i"}
    gone, kept = changes["-um"], changes["sumerian"]
    assert (gone.first, gone.first_run, gone.clear) == (8, 1.0, True)
    assert gone.difference == gone.second_run - 1 < -0.5
    assert gone.second == other.scores_of("-um").best[0].latent
    assert (kept.first, kept.second, kept.difference, kept.clear) == (6, PLACE[6], 0.0, False)
    assert kept.first_caption == str(one.captions[6])
    back = {change.name: change for change in compare(other, one).concepts}
    assert back["-um"].difference == -gone.difference
    assert back["-um"].clear


def test_of_a_latent_in_two_parts_the_larger_is_its_partner():
    text = JudgedText.of(joined([sample("a-na šar-ru um-ma") for _ in range(99)]))
    whole = np.zeros((len(text), 1), np.float32)
    whole[:100] = 1
    parts = np.zeros((len(text), 3), np.float32)
    parts[:60, 0] = parts[60:100, 1] = parts[:55, 2] = 1
    narrow = SAE(jnp.ones((3, 1)), jnp.zeros(1), jnp.ones((1, 3)), jnp.zeros(3))
    wide = SAE(jnp.ones((4, 3)), jnp.zeros(3), jnp.ones((3, 4)), jnp.zeros(4))
    firings = firings_of(text, whole), firings_of(text, parts)
    one, other = partners(firings, (narrow, wide), len(text), directions=True)
    assert one.partner.tolist() == [0]
    assert other.partner.tolist() == [0, -1, 0]
    np.testing.assert_allclose(other.largest_jaccard, [0.6, 0.4, 0.55])
    assert one.by_direction.tolist() == [-1]  # the streams are not equally wide


def test_every_latent_that_has_a_partner_is_in_a_pair():
    """The second has latent 10 twice, once on fewer characters: both are like it, and it is most like one."""
    x = first()
    x[:, :, 25] = np.where(np.random.default_rng(5).random((TEXTS, LENGTH)) < 0.8, x[:, :, 10], -10)
    (one,), (other,) = inspections({1: first()}), inspections({1: x})
    found = compare(one, other)
    assert {(pair.first, pair.second, pair.mutual) for pair in found.matched if pair.first == 10} == {
        (10, 10, True),
        (10, 25, False),
    }
    assert (found.first.paired, found.second.paired, len(found.matched)) == (len(FIRE), len(FIRE) + 1, len(FIRE) + 1)
    back = compare(other, one)
    assert {(pair.first, pair.second, pair.mutual) for pair in back.matched if pair.second == 10} == {
        (10, 10, True),
        (25, 10, False),
    }


@pytest.mark.parametrize("at_once", [2, 1024])
def test_partners_are_those_of_a_plain_count(monkeypatch, at_once):
    monkeypatch.setattr(stability, "AT_ONCE", at_once)
    text = JudgedText.of(joined([sample("a-na šar-ru um-ma LUGAL") for _ in range(10)]))
    rng = np.random.default_rng(0)
    n, a, b = len(text), 7, 9
    one = (rng.random((n, a)) < 0.15).astype(np.float32)
    other = (rng.random((n, b)) < 0.15).astype(np.float32)
    for latent in range(5):  # copies that lack a share of the firings; the third has two
        other[:, latent] = one[:, min(latent, 3)] * (rng.random(n) > 0.12 * latent)
    one[:, 5] = other[:, 8] = 0
    rows = [rng.standard_normal((count, 5)).astype(np.float32) for count in (a, b)]
    rows[1][6], rows[1][8] = 2 * rows[0][6], 3 * rows[0][0]  # one that fires elsewhere, one that never does
    saes = tuple(SAE(jnp.asarray(r.T), jnp.zeros(len(r)), jnp.asarray(r), jnp.zeros(5)) for r in rows)
    got = partners((firings_of(text, one), firings_of(text, other)), saes, n, directions=True)
    sets = [[set(np.flatnonzero(column)) for column in values.T] for values in (one, other)]
    units = [r / np.linalg.norm(r, axis=1, keepdims=True) for r in rows]
    for side, mine, theirs in ((0, *sets), (1, *sets[::-1])):
        cosines = units[side] @ units[1 - side].T
        for latent, its in enumerate(mine):
            jaccard = [len(its & their) / max(len(its | their), 1) for their in theirs]
            best = int(np.argmax(jaccard))
            similar = [i for i, their in enumerate(theirs) if cosines[latent, i] >= 0.8 and their and its]
            expected = best if jaccard[best] >= 0.6 else similar[0] if similar else -1
            assert got[side].partner[latent] == expected, (side, latent)
            assert got[side].largest_jaccard[latent] == pytest.approx(jaccard[best])
            assert got[side].by_firing[latent] == (best if jaccard[best] else -1)
            assert got[side].by_direction[latent] == int(np.argmax(cosines[latent]))
            if expected >= 0:
                assert got[side].jaccard[latent] == pytest.approx(jaccard[expected])
                assert got[side].cosine[latent] == pytest.approx(cosines[latent, expected], abs=1e-6)
    assert got[0].partner[6] == 6
    assert not got[0].alike[6]


def test_the_figures_are_json_and_the_tables_are_in_it():
    (one,), (other,) = inspections({1: first()}), inspections({1: second()})
    found = compare(one, other)
    report = json.loads(to_json(found.as_json()))
    for name, rows in found.tables.items():
        assert [list(row.values()) for row in report[name]] == [list(row) for row in rows]
    assert report["first"]["fire"] == len(FIRE)


def test_of_different_texts_or_concepts_nothing_is_compared():
    (one,) = inspections({1: first()})
    (shorter,) = inspections({1: first()[:200]})
    with pytest.raises(InputError, match="must be of one text to be compared, got two"):
        compare(one, shorter)
    fewer = dataclasses.replace(one, marks=dataclasses.replace(one.marks, concepts=one.marks.concepts[1:]))
    with pytest.raises(InputError, match=re.escape("must be of the same concepts to be compared")):
        compare(one, fewer)


def test_an_sae_beside_itself_has_every_latent_once():
    (one,) = inspections({1: first()}, saes=[IDENTITY])
    found = compare(one, one)
    assert sorted((pair.first, pair.second, pair.jaccard) for pair in found.matched) == [
        (i, i, 1.0) for i in sorted(FIRE)
    ]
    assert found.gone == found.new == []
    assert all(change.difference == 0 and not change.clear for change in found.concepts)
