import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.sae import metrics
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.metrics import score


def rows_of(n=700, d=5, seed=0, offset=0.0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((n, d)) + offset, jnp.float32)


def identity_sae(d=5):
    """x = relu(x) - relu(-x)."""
    eye = jnp.eye(d)
    return SAE(jnp.concatenate([eye, -eye], axis=1), jnp.zeros(2 * d), jnp.concatenate([eye, -eye]), jnp.zeros(d))


def constant_sae(value, d_sae=4):
    d = len(value)
    return SAE(jnp.zeros((d, d_sae)), -jnp.ones(d_sae), jnp.zeros((d_sae, d)), jnp.asarray(value))


def test_perfect_reconstruction_scores_0():
    result = score(identity_sae(), rows_of())
    assert result.fvu < 1e-12
    np.testing.assert_allclose(result.l0, 5)
    assert (result.dead, result.dense, result.explained_variance) == (0, 1, 1 - result.fvu)
    assert result.rows == 700
    for name in ("cosine", "norm_ratio", "relative_reconstruction_bias"):
        np.testing.assert_allclose(getattr(result, name), 1, rtol=1e-6)


def test_the_mean_of_all_rows_scores_1_wherever_the_rows_lie():
    for offset in (0.0, 100.0):
        rows = rows_of(offset=offset)
        result = score(constant_sae(np.asarray(rows, np.float64).mean(0).astype(np.float32)), rows)
        np.testing.assert_allclose(result.fvu, 1, rtol=1e-4)
        assert (result.l0, result.dead) == (0, 1)


def test_a_constant_offset_is_penalised():
    rows = rows_of()
    off = identity_sae().replace(b_dec=jnp.full(5, 5.0))
    expected = 25 * rows.size / np.square(rows - rows.mean(0, keepdims=True)).sum()
    np.testing.assert_allclose(score(off, rows).fvu, expected, rtol=1e-4)


def test_batching_changes_nothing(monkeypatch):
    rng = np.random.default_rng(3)
    sae = SAE(
        *(jnp.asarray(rng.standard_normal(s), jnp.float32) for s in [(5, 30), (30,), (30, 5), (5,)]),
        architecture="topk",
        k=3,
    )
    rows, whole = rows_of(), None
    for chunk in (700, 64, 7):
        monkeypatch.setattr(metrics, "CHUNK", chunk)
        result = score(sae, rows)
        whole = whole or result
        np.testing.assert_allclose(result.fvu, whole.fvu, rtol=1e-6)
        np.testing.assert_array_equal(result.density, whole.density)
    assert whole.l0 <= 3


def test_density_and_dead_count_rows():
    sae = SAE(jnp.eye(3), jnp.zeros(3), jnp.eye(3), jnp.zeros(3))
    rows = jnp.asarray([[1.0, -1, 0], [1, 1, 0], [1, -1, 0], [1, -1, -2]])
    result = score(sae, rows)
    assert result.density.tolist() == [1.0, 0.25, 0.0]
    np.testing.assert_allclose(result.dead, 1 / 3)
    np.testing.assert_allclose(result.l0, 1.25)


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_constant_rows_have_no_variance_to_explain(constant):
    assert np.isnan(score(identity_sae(), jnp.full((20, 5), constant)).fvu)


def test_shrinkage_is_seen_where_the_direction_is_right():
    """x_hat = x / 2: a cosine of 1, half the norm, and a bias of |x|^2 / 4 over |x|^2 / 2."""
    half = identity_sae()
    result = score(half.replace(W_dec=half.W_dec / 2), rows_of())
    np.testing.assert_allclose(result.cosine, 1, rtol=1e-6)
    np.testing.assert_allclose(result.norm_ratio, 0.5, rtol=1e-6)
    np.testing.assert_allclose(result.relative_reconstruction_bias, 0.5, rtol=1e-6)
    np.testing.assert_allclose(result.fvu, 0.25, rtol=5e-3)


def test_rows_of_zeros_have_no_direction():
    rows = rows_of().at[:3].set(0.0)
    result = score(identity_sae(), rows)
    np.testing.assert_allclose((result.cosine, result.norm_ratio), 1, rtol=1e-6)
    nothing = score(constant_sae(np.zeros(5, np.float32)), rows_of())
    assert (nothing.cosine, nothing.norm_ratio) == (0, 0)
