"""The products that touch only the latents that fire are those over all latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.sae import sparse_topk
from jaxsae.sae.architectures import Aim
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.loss import loss

D_IN, D_SAE, K = 7, 60, 4


@pytest.mark.parametrize("n", [sparse_topk.PIECES * 2, sparse_topk.PIECES + 1], ids=["even pieces", "one piece"])
def test_loss_figures_and_gradients_are_the_dense_ones(n):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        shapes = (D_IN, D_SAE), (D_SAE,), (D_SAE, D_IN), (D_IN,)
        sae = SAE(*(jnp.asarray(rng.standard_normal(shape)) for shape in shapes), architecture="topk", k=K)
        sae = sae.replace(b_enc=sae.b_enc - 4.0)  # so that rows have fewer than k positive pre-activations
        x = jnp.asarray(rng.standard_normal((n, D_IN)))

        def run(is_sparse):
            def of(sae, x):
                return loss(sae, x, Aim(jnp.float64(0), 0.0, 1.0), sparse=is_sparse)

            return jax.jit(jax.value_and_grad(of, argnums=(0, 1), has_aux=True))(sae, x)

        (value, seen), (grads, d_x) = run(True)
        (dense_value, dense_seen), (dense_grads, dense_d_x) = run(False)
        np.testing.assert_allclose(value, dense_value, rtol=1e-12)
        assert 0 < seen.l0 == dense_seen.l0 < K
        np.testing.assert_array_equal(seen.fired, dense_seen.fired)
        np.testing.assert_allclose(d_x, dense_d_x, rtol=0, atol=1e-12)
        for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
            np.testing.assert_allclose(getattr(grads, name), getattr(dense_grads, name), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [64, 33])
def test_a_selection_is_no_sort(n):
    """XLA takes a sort for a top_k of which it sees slices; it is fifty times slower."""
    x, W, b = jnp.ones((n, 128)), jnp.ones((512, 128)), jnp.zeros(512)

    def reconstruct(W):
        return sparse_topk.decode(*sparse_topk.encode(x, W, b, 8), W)

    text = jax.jit(reconstruct).lower(W).compile().as_text()
    assert "TopK" in text
    assert " sort(" not in text
