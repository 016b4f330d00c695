"""Known directions are found again; the measure of it is right by itself."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.config import TrainConfig
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.planted import plant, recovery
from jaxsae.train.loop import train_sae


def true_sae(planted, shrink=1.0, order=None):
    """Orthogonal directions are read and written by themselves."""
    D = planted.directions[order] if order is not None else planted.directions
    features, d_in = D.shape
    arrays = jnp.asarray(shrink * D.T), jnp.zeros(features), jnp.asarray(D), jnp.zeros(d_in), jnp.full(features, 0.1)
    return SAE(*arrays, architecture="jumprelu")


@pytest.fixture
def orthogonal():
    planted = plant(12, 12, 3)
    return planted._replace(directions=np.linalg.qr(planted.directions)[0].T)


def test_rows_are_sums_of_directions():
    planted = plant(30, 8, 4, power=1.0, noise=0.0)
    rows, coefficients = planted.sample(20000, seed=0)
    np.testing.assert_allclose(rows, coefficients @ planted.directions, atol=1e-5)
    np.testing.assert_allclose((coefficients > 0).sum(axis=1).mean(), 4, rtol=0.02)
    np.testing.assert_allclose((coefficients > 0).mean(axis=0), planted.frequency, atol=0.02)
    assert planted.frequency[0] > 5 * planted.frequency[-1]
    noisy = planted._replace(noise=0.5).sample(20000, seed=0)[0]
    np.testing.assert_allclose(np.std(noisy - rows), 0.5, rtol=0.02)


def test_the_true_dictionary_scores_1_in_any_order(orthogonal):
    for order in (None, np.random.default_rng(0).permutation(12)):
        np.testing.assert_allclose(recovery(true_sae(orthogonal, order=order), orthogonal, 5000), 1, rtol=1e-5)


def test_each_figure_tells_its_own_fault(orthogonal):
    shrunk = recovery(true_sae(orthogonal, shrink=0.7), orthogonal, 5000)
    np.testing.assert_allclose(shrunk, (1, 1, 1, 0.7), rtol=1e-5)
    perfect = true_sae(orthogonal)
    deaf = recovery(perfect.replace(threshold=jnp.full(12, 1.0)), orthogonal, 5000)
    np.testing.assert_allclose((deaf.precision, deaf.recall), (1, 0.5), atol=0.05)
    hasty = recovery(perfect.replace(threshold=jnp.full(12, -1.0), b_enc=jnp.full(12, 0.05)), orthogonal, 5000)
    np.testing.assert_allclose((hasty.precision, hasty.recall), (0.25, 1), atol=0.05)
    half = perfect.replace(W_dec=perfect.W_dec.at[:6].set(perfect.W_dec[6:]))
    np.testing.assert_allclose(recovery(half, orthogonal, 5000).mean_max_cosine, 0.5, atol=1e-5)


def test_random_directions_score_low():
    planted = plant(256, 64, 5)
    other = plant(256, 64, 5, seed=3)
    assert recovery(true_sae(other), planted, 2000).mean_max_cosine < 0.5


def test_a_topk_finds_256_directions_in_64_dimensions():
    planted = plant(256, 64, 5)
    config = TrainConfig(recipe="modern", architecture="topk", target_l0=5, expansion=4, epochs=5)
    trained = train_sae(planted.rows(100_000, seed=0), config)
    found = recovery(trained.sae, planted)
    assert found.mean_max_cosine > 0.98
    # a TopK has five latents on every row, be there three directions in it or eight
    assert found.precision > 0.7
    assert found.recall > 0.7
    assert 0.8 < found.shrinkage < 1.02


def test_figures_do_not_depend_on_the_norms_of_decoder_rows():
    """Some libraries' files have others than 1: latents are as much smaller there."""
    planted = plant(features=12, d_in=8, active=2)
    directions = jnp.asarray(planted.directions)
    grown = jnp.linspace(0.5, 4, 12)
    same = [
        SAE(directions.T / by[None, :], jnp.zeros(12), directions * by[:, None], jnp.zeros(8))
        for by in (jnp.ones(12), grown)
    ]
    one, other = (recovery(sae, planted, n=500) for sae in same)
    np.testing.assert_allclose(one, other, rtol=1e-5)
