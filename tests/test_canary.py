"""Does this JAX compute what it is asked to? Compiled results at the shapes in use, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae import runtime
from jaxsae.config import SAEConfig
from jaxsae.errors import InputError
from jaxsae.models.restoration import RestorationBlock
from jaxsae.models.restoration_config import ModelConfig
from jaxsae.models.rotary import rotary_table
from jaxsae.models.transformer import run_block
from jaxsae.sae.architectures import Aim, init
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.loss import loss


@pytest.mark.parametrize("n", [32_768, 32_769, 40_000, 65_536])
def test_small_products_summed_over_many_rows(n):
    """The pattern that jaxlib 0.10.2 compiles wrongly for rows past 32,768 (jax issue 39103)."""
    rows = np.random.default_rng(0).standard_normal((n, 3)).astype(np.float32)
    matrix = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)
    got = jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))(rows)
    expected = ((rows.astype(np.float64) @ matrix.T.astype(np.float64)) ** 2).sum(axis=1)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_version_known_to_be_bad_is_tried_at_the_start(monkeypatch):
    runtime.check_compiler("0.10.2")  # told to be that, this one computes rightly
    monkeypatch.setattr(jax, "vmap", lambda f: lambda rows: jnp.zeros(len(rows)))
    runtime.check_compiler("0.10.1")
    with pytest.raises(InputError, match=r"0\.10\.2 does not here; install 0\.10\.1"):
        runtime.check_compiler("0.10.2")


def numpy_loss_and_grads(sae: SAE, x, l1_coef, k):
    """The loss and its gradients in float64, by hand."""
    W_enc, b_enc, W_dec, b_dec, x = (np.asarray(a, np.float64) for a in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, x))
    pre = x @ W_enc + b_enc
    latents = np.maximum(pre, 0)
    if k is not None:
        latents[pre < np.sort(pre, axis=1)[:, -k, None]] = 0
    error = latents @ W_dec + b_dec - x
    d_x_hat = 2 * error / error.size
    d_pre = (d_x_hat @ W_dec.T + l1_coef / latents.size) * (latents > 0)
    grads = SAE(x.T @ d_pre, d_pre.sum(0), latents.T @ d_x_hat, d_x_hat.sum(0))
    return (error**2).mean() + l1_coef * latents.mean(), grads


@pytest.mark.parametrize("k", [None, 20])
@pytest.mark.parametrize(("d_sae", "batch"), [(1536, 256), (3072, 512)])
def test_the_sae_at_the_guides_shapes(d_sae, batch, k):
    l1_coef = 0.0 if k else 1e-3
    config = SAEConfig(384, d_sae, l1_coef, k, "topk" if k else "relu")
    sae = init(jax.random.key(0), config)
    sae = sae.replace(b_enc=0.1 * jax.random.normal(jax.random.key(1), (d_sae,)))
    x = 5 * jax.random.normal(jax.random.key(2), (batch, 384)) + 1
    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, _), grads = compiled(sae, x, Aim(jnp.float32(l1_coef), 0.0, 1.0))
    expected_loss, expected = numpy_loss_and_grads(sae, x, l1_coef, k)
    np.testing.assert_allclose(value, expected_loss, rtol=1e-5)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        got, wanted = getattr(grads, name), getattr(expected, name)
        assert np.linalg.norm(got - wanted) <= 1e-5 * np.linalg.norm(wanted), name


@pytest.mark.parametrize(("batch", "length"), [(1, 768), (8, 96), (16, 48)])
def test_a_block_at_the_models_shapes(batch, length):
    from flax import nnx

    config = ModelConfig(vocab_size=10)
    x = np.random.default_rng(0).standard_normal((batch, length, 384))
    mask = (np.arange(length) < np.linspace(1, length, batch)[:, None])[:, None, None, :]
    cos, sin = (part[None, None] for part in rotary_table(length, config.d_head, 10000.0))
    bias = (1.0 - mask) * -1e9
    block = RestorationBlock(config, rngs=nnx.Rngs(0), param_dtype=jnp.float32)
    got = np.asarray(run_block(block, *(jnp.asarray(a, jnp.float32) for a in (x, cos, sin, bias))))
    with jax.enable_x64(True):
        block64 = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), block)
        expected = np.asarray(block64(*(jnp.asarray(a, jnp.float64) for a in (x, cos, sin, bias))))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
