"""The products' own gradients are those of the plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.models import products
from jaxsae.models.products import attention, matmul


def plain_attention(q, k, v, bias):
    scores = jnp.einsum("bhtd,bhsd->bhts", q, k) / jnp.sqrt(q.shape[-1])
    return jnp.einsum("bhts,bhsd->bhtd", jax.nn.softmax(scores if bias is None else scores + bias), v)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("at_once", [products.AT_ONCE, 0], ids=["at once", "head by head"])
def test_attention(masked, at_once, monkeypatch):
    monkeypatch.setattr(products, "AT_ONCE", at_once)
    with jax.enable_x64():
        rng = np.random.default_rng(0)
        q, k, v, weight = (jnp.asarray(rng.standard_normal((2, 3, 7, 4))) for _ in range(4))
        bias = jnp.where(jnp.arange(7) < 5, 0.0, -1e9)[None, None, None].repeat(2, axis=0) if masked else None
        np.testing.assert_allclose(attention(q, k, v, bias), plain_attention(q, k, v, bias), rtol=1e-12)
        ours, plain = (
            jax.grad(lambda q, k, v, f=f: (f(q, k, v, bias) * weight).sum(), argnums=(0, 1, 2))(q, k, v)
            for f in (attention, plain_attention)
        )
        for a, b in zip(ours, plain, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
        if masked:
            assert (ours[2][:, :, 5:] == 0).all()


@pytest.mark.parametrize("length", [512, 513, 768, 1031, 1500])
def test_long_rows_of_scores(length):
    """These are reduced by their parts, where they have any."""
    with jax.enable_x64():
        rng = np.random.default_rng(0)
        q, k, v = (jnp.asarray(rng.standard_normal((1, 1, length, 4))) for _ in range(3))
        np.testing.assert_allclose(attention(q, k, v, None), plain_attention(q, k, v, None), atol=1e-13)


@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 5)])
def test_matmul(shape):
    with jax.enable_x64():
        rng = np.random.default_rng(1)
        a, b = jnp.asarray(rng.standard_normal(shape)), jnp.asarray(rng.standard_normal((5, 4)))
        weight = jnp.asarray(rng.standard_normal((*shape[:-1], 4)))
        np.testing.assert_allclose(matmul(a, b), a @ b, rtol=1e-12)
        ours, plain = (
            jax.grad(lambda a, b, f=f: (f(a, b) * weight).sum(), argnums=(0, 1))(a, b) for f in (matmul, jnp.matmul)
        )
        for x, y in zip(ours, plain, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-12)


def test_matmul_rounds_the_operands_and_not_the_sum():
    """bfloat16 operands: the product of the rounded values, more exactly than bfloat16 could hold it."""
    rng = np.random.default_rng(2)
    a, b = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((8, 64), (64, 8)))
    rounded = [np.asarray(x.astype(jnp.bfloat16), np.float64) for x in (a, b)]
    result = matmul(a, b, "bfloat16")
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, rounded[0] @ rounded[1], atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 3, 9), (16, 30, 30), (255, 64, 100)])
def test_a_bfloat16_product_can_be_transposed_by_what_uses_it(shape):
    """XLA on CPU would fold the transposition into the product, and has no bfloat16 product for that."""
    n, i, o = shape
    rng = np.random.default_rng(3)
    a, b = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((n, i), (i, o)))

    @jax.jit
    def used(a, b):
        d_a, d_b = jax.grad(lambda a, b: (matmul(a, b, "bfloat16") ** 2).sum(), argnums=(0, 1))(a, b)
        return matmul(a, b, "bfloat16").T * 2, d_a.T * 2, d_b.T * 2

    exact = 2 * a.T @ (2 * (a @ b))
    np.testing.assert_allclose(used(a, b)[2], exact.T, atol=0.05 * float(jnp.abs(exact).max()))
