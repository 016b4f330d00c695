import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import load_sae, save_sae
from jaxsae import sae as sae_lib
from jaxsae.config import InputError, SAEConfig
from jaxsae.sae import SAE, decode, encode, init, loss


@pytest.fixture
def sae():
    rng = np.random.default_rng(0)
    shapes = [(6, 40), (40,), (40, 6), (6,)]
    return SAE(*(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes))


@pytest.fixture
def x():
    return jnp.asarray(np.random.default_rng(1).standard_normal((11, 6)), jnp.float32)


def plain_features(sae, x):
    """What any other reader of the file computes."""
    W_enc, b_enc = (np.asarray(a, np.float64) for a in sae[:2])
    return np.maximum(np.asarray(x, np.float64) @ W_enc + b_enc, 0)


def test_relu_latents_are_the_plain_formula(sae, x):
    np.testing.assert_allclose(encode(sae, x), plain_features(sae, x), atol=1e-5)
    expected = np.asarray(encode(sae, x), np.float64) @ np.asarray(sae.W_dec, np.float64) + np.asarray(sae.b_dec)
    np.testing.assert_allclose(decode(sae, encode(sae, x)), expected, atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 20, 40])
def test_topk_is_the_k_largest_pre_activations_then_relu(sae, x, k):
    latents = np.asarray(encode(sae, x, k))
    assert (np.count_nonzero(latents, axis=1) <= k).all()
    plain = plain_features(sae, x)
    for row, expected in zip(latents, plain, strict=True):
        kept = np.argsort(expected, kind="stable")[::-1][:k]
        wanted = np.zeros_like(expected)
        wanted[kept] = expected[kept]
        np.testing.assert_allclose(row, wanted, atol=1e-5)


def test_topk_keeps_negative_pre_activations_out(sae, x):
    """Of 40 pre-activations about half are negative: k 40 has no more latents than ReLU."""
    np.testing.assert_array_equal(encode(sae, x, 40), encode(sae, x))


def test_ties_do_not_exceed_k(x):
    sae = SAE(jnp.zeros((6, 8)), jnp.ones(8), jnp.zeros((8, 6)), jnp.zeros(6))
    latents = np.asarray(encode(sae, x, 3))
    assert latents.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]] * 11


def test_topk_gradient_reaches_the_selected_latents_only(sae, x):
    grads = jax.grad(lambda s: loss(s, x, jnp.float32(0), k=2)[0])(sae)
    fired = np.asarray(encode(sae, x, 2)).any(axis=0)
    assert 0 < fired.sum() < 40
    np.testing.assert_array_equal(np.asarray(grads.b_enc) != 0, fired)
    np.testing.assert_array_equal((np.asarray(grads.W_enc) != 0).any(axis=0), fired)


def test_loss_is_means_over_all_elements(sae, x):
    value, l0 = loss(sae, x, jnp.float32(0.3))
    latents = plain_features(sae, x)
    x_hat = latents @ np.asarray(sae.W_dec, np.float64) + np.asarray(sae.b_dec)
    expected = ((x_hat - np.asarray(x)) ** 2).mean() + 0.3 * np.abs(latents).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(l0, (latents > 0).sum(axis=1).mean(), rtol=1e-6)


def test_bfloat16_rounds_the_operands_and_sums_in_float32(sae, x):
    def rounded(a):
        return np.asarray(a.astype(jnp.bfloat16), np.float64)

    got = sae_lib.matmul(x, sae.W_enc, "bfloat16")
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, rounded(x) @ rounded(sae.W_enc), atol=1e-6)
    assert np.abs(np.asarray(got) - np.asarray(x @ sae.W_enc)).max() > 1e-3


def test_init_is_the_guides():
    config = SAEConfig(64, 256)
    sae = init(jax.random.key(0), config)
    assert [a.shape for a in sae] == [(64, 256), (256,), (256, 64), (64,)]
    assert {a.dtype for a in sae} == {jnp.dtype("float32")}
    np.testing.assert_allclose(np.std(sae.W_enc), 0.01, rtol=0.02)
    np.testing.assert_allclose(np.linalg.norm(sae.W_dec, axis=1), 1, atol=1e-6)
    assert not sae.b_enc.any()
    assert not sae.b_dec.any()
    other = init(jax.random.key(1), config)
    assert (np.asarray(other.W_enc) != np.asarray(sae.W_enc)).all()


@pytest.mark.parametrize("k", [None, 5])
def test_an_exported_file_gives_our_features(sae, x, k, tmp_path):
    """Read by torch alone, through the plain formula and config.k."""
    import torch

    save_sae(tmp_path / "sae.pt", sae, SAEConfig(6, 40, 0.0, k))
    file = torch.load(tmp_path / "sae.pt", weights_only=True)
    pre = torch.from_numpy(np.array(x)) @ file["W_enc"] + file["b_enc"]
    features = pre.relu()
    if "k" in file["config"]:
        top = pre.topk(file["config"]["k"], dim=1)
        features = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    np.testing.assert_allclose(encode(sae, x, k), features, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(encode(sae, x, k)) > 0, features > 0)
    again = load_sae(tmp_path / "sae.pt")
    np.testing.assert_array_equal(encode(again.sae, x, again.config.k), encode(sae, x, k))


@pytest.mark.parametrize("k", [0, 11, -1])
def test_k_must_fit(k):
    with pytest.raises(InputError, match=r"k must be in 1\.\.10"):
        SAEConfig(4, 10, k=k)
