"""Which latents are found again in other SAEs, and how alike SAEs are, by a second, plain count."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import firings_of, sample

from jaxsae.features import stability
from jaxsae.features.firings import FiringLog
from jaxsae.features.judged_text import JudgedText
from jaxsae.features.stability import best_partners, same_firing, stability_of
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.consistency import directions_of, pw_mcc
from jaxsae.text.samples import joined

D_IN, D_SAE = 40, 12
TEXT = JudgedText.of(joined([sample("a-na šar-ru um-ma LUGAL") for _ in range(20)]))
N = len(TEXT)


def sae_of(W_dec: np.ndarray) -> SAE:
    W_dec = jnp.asarray(W_dec, jnp.float32)
    return SAE(W_dec.T, jnp.zeros(len(W_dec)), W_dec, jnp.zeros(W_dec.shape[1]))


def random_rows(seed: int, rows: int = D_SAE) -> np.ndarray:
    """Rows of unequal norms; random ones of this width have cosines below 0.7."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, D_IN)) * rng.uniform(0.5, 2, (rows, 1))


def random_firing(seed: int, columns: int = D_SAE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((N, columns)) < 0.1, rng.uniform(1, 2, (N, columns)), 0).astype(np.float32)


def turned(rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows, each turned a little."""
    noise = np.random.default_rng(seed).standard_normal(rows.shape) / np.sqrt(rows.shape[1])
    return rows + 0.2 * noise * np.linalg.norm(rows, axis=1, keepdims=True)


def test_turned_and_permuted_copies_have_every_latent():
    rows, fires = random_rows(0), firings_of(TEXT, random_firing(0))
    orders = [np.random.default_rng(i).permutation(D_SAE) for i in (1, 2)]
    copies = [sae_of(turned(rows, i)[order]) for i, order in enumerate(orders)]
    nothing_alike = [firings_of(TEXT, random_firing(i)) for i in (5, 6)]
    found = stability_of(sae_of(rows), copies, fires, nothing_alike)
    assert found.seeds == 2
    assert found.found.tolist() == [1.0] * D_SAE
    assert (found.cosine > 0.95).all()
    assert found.pw_mcc > 0.95
    assert found.as_json()["other_seeds"] == 2


def test_by_firing_a_latent_is_found_whatever_its_direction():
    values = random_firing(0)
    order = np.random.default_rng(1).permutation(D_SAE)
    almost = np.where(np.random.default_rng(2).random(values.shape) < 0.8, values, 0)[:, order]  # Jaccard about 0.8
    found = stability_of(
        sae_of(random_rows(0)), [sae_of(random_rows(1))], firings_of(TEXT, values), [firings_of(TEXT, almost)]
    )
    assert found.found.tolist() == [1.0] * D_SAE
    assert (found.cosine < 0.7).all()
    assert found.pw_mcc < 0.6


def test_of_random_saes_nothing_is_found():
    found = stability_of(
        sae_of(random_rows(0)),
        [sae_of(random_rows(i)) for i in (1, 2)],
        firings_of(TEXT, random_firing(0)),
        [firings_of(TEXT, random_firing(i)) for i in (1, 2)],
    )
    assert found.found.tolist() == [0.0] * D_SAE
    assert (found.jaccard < 0.2).all()


def test_where_half_of_the_latents_are_replaced_the_others_are_found():
    rows = random_rows(0)
    half = np.arange(D_SAE) < D_SAE // 2
    others = [sae_of(np.where(half[:, None], turned(rows, i), random_rows(i))) for i in (1, 2, 3)]
    others.append(sae_of(random_rows(4)))  # one seed more, which has none of them
    fires = [firings_of(TEXT, random_firing(i)) for i in range(5)]
    found = stability_of(sae_of(rows), others, fires[0], fires[1:])
    np.testing.assert_allclose(found.found, np.where(half, 0.75, 0))


def test_jaccards_are_those_of_sets_of_characters(monkeypatch):
    one, other = random_firing(0, 5), random_firing(1, 7)
    other[:, 2], one[:, 4] = one[:, 1], 0
    both = (one > 0).T.astype(float) @ (other > 0)
    got, same = same_firing(both, (one > 0).sum(axis=0)[:, None], (other > 0).sum(axis=0)[None], N)
    assert got.shape == (5, 7)
    monkeypatch.setattr(stability, "AT_ONCE", 2)
    best, alike = best_partners(firings_of(TEXT, one), firings_of(TEXT, other), N)
    np.testing.assert_allclose(best, got.max(axis=1))
    np.testing.assert_array_equal(alike, same.any(axis=1))
    for i, j in np.ndindex(got.shape):
        a, b = set(np.flatnonzero(one[:, i])), set(np.flatnonzero(other[:, j]))
        assert got[i, j] == pytest.approx(len(a & b) / len(a | b) if a | b else 0)
    assert got[1, 2] == 1
    assert same[1, 2]
    assert not got[4].any()


def test_dense_latents_are_not_found_again_by_chance():
    """Two that fire on 80 of 100 characters share two thirds of them if they know nothing of each other."""
    fired = np.array([80])
    assert not same_firing(np.array([[64.0]]), fired, fired, 100)[1].any()  # Jaccard 64 / 96
    assert same_firing(np.array([[76.0]]), fired, fired, 100)[1].all()  # 76 / 84, over 2 / 3 + 1 / 6
    rare = np.array([4])
    assert same_firing(np.array([[3.0]]), rare, rare, 100)[1].all()


def test_firings_are_compared_where_those_of_all_were_kept():
    """An SAE that fires so often that half of the texts were given up."""
    values = random_firing(0)
    dense = FiringLog(TEXT, D_SAE, most=int((values > 0).sum() * 0.7))
    row, column = np.nonzero(values)
    dense.add(row, column, values[row, column])
    found = stability_of(
        sae_of(random_rows(0)), [sae_of(random_rows(1))], firings_of(TEXT, values), [thinned := dense.firings()]
    )
    assert thinned.judged.sum() == N / 2
    np.testing.assert_array_equal(found.jaccard, 1)


def test_pw_mcc_is_the_best_of_all_pairings():
    saes = [sae_of(random_rows(i, 4)) for i in range(3)]
    means = []
    for a, b in itertools.combinations(saes, 2):
        cosines = np.abs(directions_of(a).astype(np.float64) @ directions_of(b).T)
        means.append(max(np.mean([cosines[i, j] for i, j in enumerate(p)]) for p in itertools.permutations(range(4))))
    assert pw_mcc(saes) == pytest.approx(np.mean(means), abs=1e-6)
    assert np.isnan(pw_mcc(saes[:1]))
    rows = random_rows(7)
    assert pw_mcc([sae_of(rows), sae_of(-3 * rows[::-1])]) == pytest.approx(1, abs=1e-6)  # sign and norm do not count
