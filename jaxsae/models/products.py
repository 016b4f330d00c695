"""Matrix products and attention, for transformer and SAE: sums that round less, gradients that are fast on CPU."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxsae.mesh import parts

HIGHEST = jax.lax.Precision.HIGHEST  # else a GPU would round the operands to TF32, PyTorch does not


def _product(a: Array, b: Array, dtype: str | None = None) -> Array:
    a_, b_ = (a, b) if dtype is None else (_laid_out(a.astype(dtype)), _laid_out(b.astype(dtype)))
    # the barrier: else XLA folds a transposition of what comes out into the product, and has no fast one for that
    return jax.lax.optimization_barrier(jnp.matmul(a_, b_, precision=HIGHEST, preferred_element_type=a.dtype))


def _laid_out(a: Array) -> Array:
    """a, its last axis laid out last: XLA on CPU has a bfloat16 product for no other, and sees through a mere copy."""
    if a.ndim != 2 or jax.default_backend() != "cpu" or parts("rows") > 1:  # divided, it would be gathered
        return a
    return a.at[jnp.arange(a.shape[0])].get(mode="promise_in_bounds")


def _transposed(a: Array) -> Array:
    """a with its last axes exchanged, laid out so: a product with a transposed left side is a slow one on CPU."""
    return jax.lax.optimization_barrier(a.swapaxes(-1, -2))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def matmul(
    a: Float[Array, "*n i"], b: Float[Array, "i o"], dtype: str | None = None, halves: bool = False
) -> Float[Array, "*n o"]:
    """a @ b at full precision, or with the operands rounded to `dtype` and sums kept in a's own type.

    The two products of the gradient hold to the same types.

    Args:
      halves: take the sum over i in two halves. XLA's sums on CPU run straight through their length, PyTorch's in
        blocks: this halves the largest difference between the two, and costs half of the product's time more.
    """
    if not halves:
        return _product(a, b, dtype)
    half = a.shape[-1] // 2
    return _product(a[..., :half], b[:half], dtype) + _product(a[..., half:], b[half:], dtype)


def _matmul_fwd(a: Array, b: Array, dtype: str | None, halves: bool) -> tuple[Array, tuple[Array, Array]]:
    return matmul(a, b, dtype, halves), (a, b)


def _matmul_bwd(dtype: str | None, halves: bool, operands: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    a, b = operands
    rows, grads = a.reshape(-1, a.shape[-1]), grad.reshape(-1, grad.shape[-1])
    if rows.shape[1] <= grads.shape[1]:  # the narrower of the two is the one to lay out anew
        d_b = _product(_transposed(rows), grads, dtype)
    else:
        d_b = _product(_transposed(grads), rows, dtype).T
    return _product(grads, b.T, dtype).reshape(a.shape), d_b


matmul.defvjp(_matmul_fwd, _matmul_bwd)


def total(a: Num[Array, "n ..."]) -> Num[Array, ""]:
    """The sum of all elements: over the first axis, then the rest.

    XLA on CPU sums over a first axis on its fast path, and to a single number at once in passes that take longer.
    """
    return jax.lax.optimization_barrier(a.sum(axis=0)).sum()


LONG_ROW = 512
"""XLA on CPU reduces longer rows than this five times as slowly."""


def _along_rows(reduce: Callable[..., Array], a: Float[Array, "*n row"]) -> Float[Array, "*n 1"]:
    """`reduce`, the maximum or the sum, of each row: of long ones by their parts first."""
    length = a.shape[-1]
    pieces = next((n for n in range(-(-length // LONG_ROW), 9) if length % n == 0), 1)
    if pieces > 1:
        a = jax.lax.optimization_barrier(reduce(a.reshape(*a.shape[:-1], pieces, length // pieces), axis=-1))
    return reduce(a, axis=-1, keepdims=True)


AT_ONCE = 3 * 2**22
"""Bytes of attention scores that are made at once: of more, writing and reading them takes longest."""

Heads = Float[Array, "batch head position d_head"]
Bias = Float[Array, "batch 1 from_or_all to"] | None
"""Added to the scores; the third axis is 1 where every position attends alike."""


def _weights(q: Heads, k: Heads, bias: Bias) -> Float[Array, "batch head to from"]:
    """Attention's pattern but for the sums of its rows, which are to be 1."""
    scores = _product(q, k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5
    scores = scores if bias is None else scores + bias
    return jnp.exp(scores - _along_rows(jnp.max, scores))


@jax.custom_vjp
def attention(q: Heads, k: Heads, v: Heads, bias: Bias) -> Heads:
    """softmax(q k^T / sqrt(d_head) + bias) v.

    For its gradient nothing of the pattern is kept: it is a position by position table per head, and computing it again
    costs less than writing it and reading it. `bias` is a constant: it has no gradient.
    """
    size = math.prod(q.shape[:-1]) * q.shape[-2] * q.dtype.itemsize
    if size > AT_ONCE and q.shape[1] > 1:  # head by head

        def of_head(qkv: tuple[Array, ...]) -> Array:
            return attention(*(a[:, None] for a in qkv), bias)[:, 0]

        return jax.lax.map(of_head, tuple(a.swapaxes(0, 1) for a in (q, k, v))).swapaxes(0, 1)
    weights = _weights(q, k, bias)
    # the sums are divided by where they are few: after the product, not before
    return _product(weights, v) / _along_rows(jnp.sum, weights)


def _attention_fwd(q: Heads, k: Heads, v: Heads, bias: Bias) -> tuple[Heads, tuple[Heads, Heads, Heads, Bias, Heads]]:
    out = attention(q, k, v, bias)
    return out, (q, k, v, bias, out)


def _attention_bwd(kept: tuple, grad: Heads) -> tuple[Heads, Heads, Heads, None]:
    q, k, v, bias, out = kept
    pattern = _weights(q, k, bias)
    pattern /= _along_rows(jnp.sum, pattern)
    d_v = _transposed(_product(_transposed(grad), pattern))
    d_pattern = _product(grad, _transposed(v))
    # softmax: p * (dp - sum(p dp)), and that sum is the one of grad * out
    d_scores = pattern * (d_pattern - (grad * out).sum(axis=-1, keepdims=True)) * q.shape[-1] ** -0.5
    return _product(d_scores, k), _transposed(_product(_transposed(q), d_scores)), d_v, None


attention.defvjp(_attention_fwd, _attention_bwd)
