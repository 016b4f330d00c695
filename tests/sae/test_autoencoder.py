import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import needs_torch

from convert import load_sae, save_sae
from jaxsae.config import SAEConfig
from jaxsae.errors import InputError
from jaxsae.models.products import matmul
from jaxsae.sae import basis as basis_lib
from jaxsae.sae.architectures import Aim, encode, init, init_tied, jump, kth_largest, nested
from jaxsae.sae.autoencoder import SAE, decode
from jaxsae.sae.loss import aux_k, loss


@pytest.fixture
def sae():
    rng = np.random.default_rng(0)
    shapes = [(6, 40), (40,), (40, 6), (6,)]
    return SAE(*(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes))


@pytest.fixture
def x():
    return jnp.asarray(np.random.default_rng(1).standard_normal((11, 6)), jnp.float32)


def aim(penalty=0.0, l0=3.0, bandwidth=1.0):
    return Aim(jnp.float32(penalty), l0, bandwidth)


def plain_features(sae, x):
    """What any other reader of the file computes."""
    W_enc, b_enc = (np.asarray(a, np.float64) for a in (sae.W_enc, sae.b_enc))
    return np.maximum(np.asarray(x, np.float64) @ W_enc + b_enc, 0)


def test_relu_latents_are_the_plain_formula(sae, x):
    np.testing.assert_allclose(encode(sae, x), plain_features(sae, x), atol=1e-5)
    expected = np.asarray(encode(sae, x), np.float64) @ np.asarray(sae.W_dec, np.float64) + np.asarray(sae.b_dec)
    np.testing.assert_allclose(decode(sae, encode(sae, x)), expected, atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 20, 40])
def test_topk_is_the_k_largest_pre_activations_then_relu(sae, x, k):
    latents = np.asarray(encode(sae.replace(architecture="topk", k=k), x))
    assert (np.count_nonzero(latents, axis=1) <= k).all()
    plain = plain_features(sae, x)
    for row, expected in zip(latents, plain, strict=True):
        kept = np.argsort(expected, kind="stable")[::-1][:k]
        wanted = np.zeros_like(expected)
        wanted[kept] = expected[kept]
        np.testing.assert_allclose(row, wanted, atol=1e-5)


def test_topk_keeps_negative_pre_activations_out(sae, x):
    """Of 40 pre-activations about half are negative: k 40 has no more latents than ReLU."""
    np.testing.assert_array_equal(encode(sae.replace(architecture="topk", k=40), x), encode(sae, x))


def test_ties_do_not_exceed_k(x):
    sae = SAE(jnp.zeros((6, 8)), jnp.ones(8), jnp.zeros((8, 6)), jnp.zeros(6), architecture="topk", k=3)
    latents = np.asarray(encode(sae, x))
    assert latents.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]] * 11


def test_topk_gradient_reaches_the_selected_latents_only(sae, x):
    sae = sae.replace(architecture="topk", k=2)
    grads = jax.grad(lambda s: loss(s, x, aim())[0])(sae)
    fired = np.asarray(encode(sae, x)).any(axis=0)
    assert 0 < fired.sum() < 40
    np.testing.assert_array_equal(np.asarray(grads.b_enc) != 0, fired)
    np.testing.assert_array_equal((np.asarray(grads.W_enc) != 0).any(axis=0), fired)


def test_loss_is_means_over_all_elements(sae, x):
    value, seen = loss(sae, x, aim(0.3))
    latents = plain_features(sae, x)
    x_hat = latents @ np.asarray(sae.W_dec, np.float64) + np.asarray(sae.b_dec)
    expected = ((x_hat - np.asarray(x)) ** 2).mean() + 0.3 * np.abs(latents).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_array_equal(seen.fired, (latents > 0).any(axis=0))
    np.testing.assert_allclose(seen.l0, (latents > 0).sum(axis=1).mean(), rtol=1e-6)


def test_bfloat16_rounds_the_operands_and_sums_in_float32(sae, x):
    def rounded(a):
        return np.asarray(a.astype(jnp.bfloat16), np.float64)

    got = matmul(x, sae.W_enc, "bfloat16")
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, rounded(x) @ rounded(sae.W_enc), atol=1e-6)
    assert np.abs(np.asarray(got) - np.asarray(x @ sae.W_enc)).max() > 1e-3


def test_init_is_the_guides():
    config = SAEConfig(64, 256)
    sae = init(jax.random.key(0), config)
    assert sae.threshold is None
    assert [a.shape for a in jax.tree.leaves(sae)] == [(64, 256), (256,), (256, 64), (64,)]
    assert {a.dtype for a in jax.tree.leaves(sae)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(np.std(sae.W_enc), 0.01, rtol=0.02)
    np.testing.assert_allclose(np.linalg.norm(sae.W_dec, axis=1), 1, atol=1e-6)
    assert not sae.b_enc.any()
    assert not sae.b_dec.any()
    other = init(jax.random.key(1), config)
    assert (np.asarray(other.W_enc) != np.asarray(sae.W_enc)).all()


@needs_torch
@pytest.mark.parametrize(
    ("architecture", "k", "threshold"),
    [("relu", None, None), ("topk", 5, None), ("batchtopk", None, 0.7), ("jumprelu", None, np.linspace(0, 2, 40))],
)
def test_an_exported_file_gives_our_features(sae, x, architecture, k, threshold, tmp_path):
    """Read by torch alone, through the plain formula and what config says besides."""
    import torch

    limits = None if threshold is None else jnp.broadcast_to(jnp.asarray(threshold, jnp.float32), 40)
    sae = sae.replace(architecture=architecture, k=k, threshold=limits)
    save_sae(tmp_path / "sae.pt", sae, SAEConfig(6, 40, 0.0, k, architecture))
    file = torch.load(tmp_path / "sae.pt", weights_only=True)
    pre = torch.from_numpy(np.array(x)) @ file["W_enc"] + file["b_enc"]
    features = pre.relu()
    if "k" in file["config"]:
        top = pre.topk(file["config"]["k"], dim=1)
        features = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    if "threshold" in file["config"]:
        features = features * (pre > torch.tensor(file["config"]["threshold"]))
    np.testing.assert_allclose(encode(sae, x), features, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(encode(sae, x)) > 0, features > 0)
    again = load_sae(tmp_path / "sae.pt")
    np.testing.assert_array_equal(encode(again.sae, x), encode(sae, x))


@pytest.mark.parametrize("k", [0, 11, -1])
def test_k_must_fit(k):
    with pytest.raises(InputError, match=r"k must be in 1\.\.10"):
        SAEConfig(4, 10, k=k, architecture="topk")


def test_a_latent_fires_above_its_threshold_only():
    thresholds = jnp.asarray([0.0, 1.0, 2.0])
    sae = SAE(jnp.eye(3), jnp.zeros(3), jnp.eye(3), jnp.zeros(3), thresholds, architecture="jumprelu")
    x = jnp.asarray([[1.0, 1.0, 1.0], [-1.0, 1.5, 2.5], [0.0, 0.0, 2.0]])
    assert encode(sae, x).tolist() == [[1, 0, 0], [0, 1.5, 2.5], [0, 0, 0]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kth_largest_is_what_a_sort_finds(dtype):
    with jax.enable_x64(dtype == "float64"):
        values = np.random.default_rng(0).standard_normal((30, 40)).astype(dtype)
        values[3] = values[4]  # ties
        ordered = np.sort(values, axis=None)[::-1]
        for k in (1, 2, 17, 400, (values > 0).sum()):
            assert kth_largest(jnp.asarray(values), int(k)) == ordered[k - 1]
        assert kth_largest(jnp.asarray(values), int((values > 0).sum()) + 1) == 0


def test_a_batchtopk_keeps_the_largest_of_the_batch(sae, x):
    value, seen = loss(sae.replace(architecture="batchtopk"), x, aim())
    plain = plain_features(sae, x)
    kept = np.where(plain >= np.sort(plain, axis=None)[-3 * len(x)], plain, 0)
    x_hat = kept @ np.asarray(sae.W_dec, np.float64) + np.asarray(sae.b_dec)
    np.testing.assert_allclose(value, ((x_hat - np.asarray(x)) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(seen.l0, 3, rtol=1e-6)
    assert len(set((kept > 0).sum(axis=1))) > 1, "rows have more or fewer"


def test_matryoshka_is_the_mean_loss_of_its_nested_saes(sae, x):
    assert nested(40) == [2, 5, 10, 20, 40]
    value, seen = loss(sae.replace(architecture="matryoshka"), x, aim())
    plain = plain_features(sae, x)
    kept = np.where(plain >= np.sort(plain, axis=None)[-3 * len(x)], plain, 0)
    losses = []
    for end in (2, 5, 10, 20, 40):
        x_hat = kept[:, :end] @ np.asarray(sae.W_dec, np.float64)[:end] + np.asarray(sae.b_dec)
        losses.append(((x_hat - np.asarray(x)) ** 2).mean())
    np.testing.assert_allclose(value, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(seen.l0, 3, rtol=1e-6)


def test_jump_has_the_papers_straight_through_gradients(sae, x):
    """Against equations 11 and 12 of arXiv 2407.14435, element by element in NumPy."""
    rng = np.random.default_rng(2)
    pre, threshold, width = rng.uniform(-0.5, 1.5, (50, 7)), rng.uniform(0, 1, 7), 0.3
    g_latents, g_fires = rng.standard_normal((2, 50, 7))

    def weighted(pre, threshold):
        latents, fires = jump(pre, threshold, jnp.asarray(width))
        return (latents * g_latents).sum() + (fires * g_fires).sum()

    with jax.enable_x64():
        d_pre, d_threshold = jax.grad(weighted, argnums=(0, 1))(jnp.asarray(pre), jnp.asarray(threshold))
        latents, fires = jump(jnp.asarray(pre), jnp.asarray(threshold), jnp.asarray(width))
    np.testing.assert_array_equal(latents, np.where(pre > threshold, np.maximum(pre, 0), 0))
    np.testing.assert_array_equal(fires, pre > threshold)
    expected = np.zeros(7)
    for i in range(50):
        for j in range(7):
            kernel = float(abs((pre[i, j] - threshold[j]) / width) < 0.5)
            expected[j] -= kernel / width * (threshold[j] * g_latents[i, j] + g_fires[i, j])
    np.testing.assert_allclose(d_threshold, expected, rtol=1e-10)
    np.testing.assert_allclose(d_pre, np.where((pre > threshold) & (pre > 0), g_latents, 0), rtol=1e-10)


def test_that_gradient_is_the_slope_of_the_expected_l0():
    """Of pre-activations spread evenly over 0..2, a rise of the threshold by d silences the share d / 2."""
    with jax.enable_x64():
        pre = jnp.linspace(0, 2, 20001)[:, None]
        slope = jax.grad(lambda t: jump(pre, t, jnp.asarray(0.2))[1].mean())(jnp.asarray([0.7]))
    np.testing.assert_allclose(slope, -0.5, rtol=1e-2)


def test_the_penalty_of_a_jumprelu_reaches_the_thresholds_alone(sae, x):
    sae = sae.replace(architecture="jumprelu", threshold=jnp.full(40, 0.5))

    def grads(penalty, target):
        return jax.grad(lambda s: loss(s, x, aim(penalty, target, 0.4))[0])(sae)

    _, seen = loss(sae, x, aim(1))
    without, above, below = grads(0, 3.0), grads(1, 3.0), grads(1, 2 * float(seen.l0))
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        np.testing.assert_array_equal(getattr(without, name), getattr(above, name))
    # down the gradient: thresholds rise where the L0 is above the target and sink where it is below
    assert (np.asarray(above.threshold - without.threshold) <= 0).all()
    assert (np.asarray(below.threshold - without.threshold) >= 0).all()
    assert (np.asarray(above.threshold) != np.asarray(without.threshold)).any()


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
def test_auxk_reaches_dead_encoders_and_only_those(sae, x, architecture):
    sae = sae.replace(architecture=architecture, k=3 if architecture == "topk" else None)
    dead = jnp.arange(40) % 4 == 0
    sae = sae.replace(b_enc=jnp.where(dead, -0.5, sae.b_enc))

    def grads(dead):
        return jax.grad(lambda s: loss(s, x, aim(), dead=dead)[0])(sae)

    added = jax.tree.map(jnp.subtract, grads(dead), grads(None))
    reached = np.asarray(plain_features(sae, x) > 0).any(axis=0) & np.isin(np.arange(40), range(0, 24, 4))  # d_in
    assert reached.sum() == 6
    for name, of_latent in (("W_enc", added.W_enc.T), ("b_enc", added.b_enc[:, None]), ("W_dec", added.W_dec)):
        changed = (np.asarray(of_latent) != 0).any(axis=1)
        assert not changed[~np.asarray(dead)].any(), name
        assert changed[reached].all(), name
    np.testing.assert_array_equal(added.b_dec, 0)


@pytest.mark.parametrize("last", [40, 27], ids=["more than d_in", "two"])
def test_auxk_is_the_share_of_the_error_that_dead_latents_leave(sae, x, last):
    left = jnp.asarray(np.random.default_rng(5).standard_normal(x.shape), jnp.float32)
    latent = np.arange(40)
    dead = (latent > 20) & (latent % 3 == 0) & (latent < last)
    pre = np.asarray(x, np.float64) @ np.asarray(sae.W_enc) + np.asarray(sae.b_enc)
    first = dead & (latent <= 36)  # d_in of them
    kept = np.where(first, np.maximum(pre, 0), 0)
    expected = ((kept @ np.asarray(sae.W_dec) - np.asarray(left)) ** 2).sum() / (np.asarray(left) ** 2).sum()
    np.testing.assert_allclose(aux_k(sae, x, left, jnp.asarray(dead)), expected, rtol=1e-4)
    assert aux_k(sae, x, left, jnp.zeros(40, bool)) == 0


def a_basis(stretch):
    rng = np.random.default_rng(4)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    return basis_lib.Basis(*(jnp.asarray(a, jnp.float32) for a in (rng.standard_normal(6), rotation, 2.5, stretch)))


@pytest.mark.parametrize("architecture", ["relu", "jumprelu", "batchtopk", "matryoshka"])
def test_folding_a_whitened_basis_keeps_what_latents_do_and_decoders_of_unit_norm(sae, x, architecture):
    basis = a_basis(np.array([0.1, 0.3, 1, 2, 5, 9]))
    sae = sae.replace(architecture=architecture, threshold=None if architecture == "relu" else jnp.full(40, 0.4))
    inside = encode(sae, basis_lib.to_basis(basis, x))
    outside = basis_lib.fold_basis(sae, basis)
    latents = encode(outside, x)
    assert 0 < (inside > 0).mean() < 1
    np.testing.assert_array_equal(latents > 0, inside > 0)
    np.testing.assert_allclose(np.linalg.norm(outside.W_dec, axis=1), 1, rtol=1e-5)
    whole = decode(sae, inside) / basis.stretch[None] @ basis.rotation.T / 2.5 + basis.centre[None]
    np.testing.assert_allclose(decode(outside, latents), whole, rtol=1e-4, atol=1e-3)


def test_a_whitened_basis_is_not_folded_into_a_k(sae):
    with pytest.raises(InputError, match="a whitened basis needs an SAE without k, got k 3"):
        basis_lib.fold_basis(sae.replace(architecture="topk", k=3), a_basis(np.arange(1.0, 7)))


@pytest.mark.parametrize(("architecture", "k"), [("relu", None), ("topk", 3), ("jumprelu", None)])
def test_folding_a_basis_changes_nothing_but_the_unit(sae, x, architecture, k):
    basis = a_basis(np.ones(6))
    rotation = np.asarray(basis.rotation)
    sae = sae.replace(architecture=architecture, k=k)
    sae = sae.replace(threshold=jnp.full(40, 0.4)) if architecture == "jumprelu" else sae
    inside = encode(sae, basis_lib.to_basis(basis, x))
    outside = basis_lib.fold_basis(sae, basis)
    latents = encode(outside, x)
    np.testing.assert_allclose(latents, inside / 2.5, atol=1e-5)
    back = decode(sae, inside) @ rotation.T / 2.5 + basis.centre[None]
    np.testing.assert_allclose(decode(outside, latents), back, atol=1e-4)
    norms = [np.linalg.norm(s.W_dec, axis=1) for s in (sae, outside)]
    np.testing.assert_allclose(*norms, rtol=1e-5)


def test_a_tied_start_reads_what_it_writes():
    sae = init_tied(jax.random.key(0), SAEConfig(16, 64))
    np.testing.assert_array_equal(sae.W_enc, sae.W_dec.T)
    np.testing.assert_allclose(np.linalg.norm(sae.W_dec, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"architecture": "gated"},
            "architecture must be one of relu, topk, batchtopk, jumprelu, matryoshka, got 'gated'",
        ),
        ({"architecture": "topk"}, "k goes with topk, got architecture topk and k None"),
        ({"k": 3}, "k goes with topk, got architecture relu and k 3"),
        ({"threshold": jnp.zeros(40)}, "thresholds go with an architecture that has them, got them for relu"),
    ],
)
def test_an_sae_is_whole_or_not_at_all(sae, fields, says):
    with pytest.raises(InputError, match=says):
        sae.replace(**fields)


def test_an_sae_is_a_pytree_whose_architecture_and_k_are_static(sae, x):
    """Two that differ in them alone are two programs to jit; what is mapped over it keeps them."""
    traced = []

    @jax.jit
    def latents(sae, x):
        traced.append(sae.architecture)
        return encode(sae, x)

    few = sae.replace(architecture="topk", k=2)
    assert (np.count_nonzero(latents(few, x), axis=1) <= 2).all()
    np.testing.assert_array_equal(latents(sae, x), encode(sae, x))
    latents(few, x)
    assert traced == ["topk", "relu"]
    doubled = jax.tree.map(lambda a: 2 * a, few)
    assert (doubled.architecture, doubled.k) == ("topk", 2)
    assert len(jax.tree.leaves(few)) == 4
