"""The restoration transformer in Flax NNX: a replica of the PyTorch model for inference, every layer within reach.

Character-level, pre-norm, bidirectional, rotary positions. All matrix products run at full float32 precision on every
device; parameters of another floating type (float64 in the tests) are computed with as they are.
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxsae.errors import require
from jaxsae.models.products import Bias, attention, matmul
from jaxsae.models.protocol import Ids, Mask, Places
from jaxsae.models.restoration_config import ModelConfig
from jaxsae.models.rotary import rotary_table
from jaxsae.text.tokenizer import CharacterTokenizer

M = TypeVar("M", bound=nnx.Module)


Angles = Float[Array | np.ndarray, "texts 1 position d_head"]
"""Cosines or sines of the rotary angles; `texts` is 1 where all are counted from the first position."""


def rotate(
    x: Float[Array, "batch head position d_head"], cos: Angles, sin: Angles
) -> Float[Array, "batch head position d_head"]:
    """Turn each pair (j, j + d_head/2) by its position's angle (half-split pairing; Su et al. 2021, RoFormer)."""
    first, second = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-second, first], axis=-1) * sin


def dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """`lax.dot_general` as a linear layer calls it: the last axis of x with the first of the kernel."""
    return matmul(x, kernel)


def linear(d_in: int, d_out: int, *, rngs: nnx.Rngs, param_dtype: Any) -> nnx.Linear:
    """x @ kernel + bias, with kernel [d_in, d_out]."""
    return nnx.Linear(d_in, d_out, dot_general=dot_general, param_dtype=param_dtype, rngs=rngs)


class Attention(nnx.Module):
    """softmax(rot(q) rot(k)^T / sqrt(d_head) + bias) v per head, heads being contiguous slices of d_model."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any) -> None:
        self.n_heads = config.n_heads

        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            linear(config.d_model, config.d_model, rngs=rngs, param_dtype=param_dtype) for _ in range(4)
        )

    def __call__(
        self,
        x: Float[Array, "batch position d_model"],
        cos: Angles,
        sin: Angles,
        bias: Bias,
    ) -> Float[Array, "batch position d_model"]:
        batch, position, d_model = x.shape
        # one product for the three: a third of the small ones, which cost more than their share; in halves, because
        # what rounding leaves in it is multiplied and goes into an exponential
        three = (self.q_proj, self.k_proj, self.v_proj)
        qkv = matmul(x, jnp.concatenate([p.kernel[...] for p in three], axis=1), halves=True)
        qkv = qkv + jnp.concatenate([p.bias[...] for p in three if p.bias is not None])[None, None]
        q, k, v = qkv.reshape(batch, position, 3, self.n_heads, -1).transpose(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mixed = attention(q, k, v, bias)
        return self.out_proj(mixed.transpose(0, 2, 1, 3).reshape(batch, position, d_model))

    def pattern(
        self,
        x: Float[Array, "batch position d_model"],
        cos: Angles,
        sin: Angles,
        bias: Bias,
    ) -> Float[Array, "batch head to from"]:
        """softmax(rot(q) rot(k)^T / sqrt(d_head) + bias)."""
        batch, position, _ = x.shape
        q, k = (
            rotate(p(x).reshape(batch, position, self.n_heads, -1).transpose(0, 2, 1, 3), cos, sin)
            for p in (self.q_proj, self.k_proj)
        )
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, precision=jax.lax.Precision.HIGHEST) * q.shape[-1] ** -0.5
        return jax.nn.softmax(scores if bias is None else scores + bias, axis=-1)


class FeedForward(nnx.Module):
    """down(gelu(up(x))) with the exact GELU, x * Phi(x), not its tanh approximation."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any) -> None:
        self.up = linear(config.d_model, config.d_ff, rngs=rngs, param_dtype=param_dtype)
        self.down = linear(config.d_ff, config.d_model, rngs=rngs, param_dtype=param_dtype)

    def __call__(self, x: Float[Array, "batch position d_model"]) -> Float[Array, "batch position d_model"]:
        return self.down(self.hidden(x))

    def hidden(self, x: Float[Array, "batch position d_model"]) -> Float[Array, "batch position d_ff"]:
        """The neurons: gelu(up(x))."""
        return jax.nn.gelu(self.up(x), approximate=False)


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(var + 1e-5) * scale + bias, with the biased variance.

    The mean is taken out twice: what rounding left of it the first time goes the second, so that a stream with an
    offset loses no digits. Flax's own layer has another epsilon and, by default, a variance that cancels.
    """

    def __init__(self, config: ModelConfig, *, param_dtype: Any) -> None:
        self.scale = nnx.Param(jnp.ones(config.d_model, param_dtype))
        self.bias = nnx.Param(jnp.zeros(config.d_model, param_dtype))
        self.epsilon = 1e-5

    def __call__(self, x: Float[Array, "batch position d_model"]) -> Float[Array, "batch position d_model"]:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(x).mean(axis=-1, keepdims=True)
        return x / jnp.sqrt(variance + self.epsilon) * self.scale[None, None] + self.bias[None, None]


class Block(nnx.Module):
    """x + attn(ln1(x)), then x + ff(ln2(x))."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any) -> None:
        self.ln1 = LayerNorm(config, param_dtype=param_dtype)
        self.attn = Attention(config, rngs=rngs, param_dtype=param_dtype)
        self.ln2 = LayerNorm(config, param_dtype=param_dtype)
        self.ff = FeedForward(config, rngs=rngs, param_dtype=param_dtype)

    def __call__(
        self,
        x: Float[Array, "batch position d_model"],
        cos: Angles,
        sin: Angles,
        bias: Bias,
    ) -> Float[Array, "batch position d_model"]:
        x = x + self.attn(self.ln1(x), cos, sin, bias)
        return x + self.ff(self.ln2(x))

    def neurons(
        self,
        x: Float[Array, "batch position d_model"],
        cos: Angles,
        sin: Angles,
        bias: Bias,
    ) -> Float[Array, "batch position d_ff"]:
        """The hidden values of the feed-forward network."""
        return self.ff.hidden(self.ln2(x + self.attn(self.ln1(x), cos, sin, bias)))


# The blocks are alike, so one compiled block serves all of them, and stopping early is not calling the rest. Inside a
# caller's own jit these are inlined.
run_block = jax.jit(lambda block, x, cos, sin, bias: block(x, cos, sin, bias))
run_neurons = jax.jit(lambda block, x, cos, sin, bias: block.neurons(x, cos, sin, bias))
run_pattern = jax.jit(lambda block, x, cos, sin, bias: block.attn.pattern(block.ln1(x), cos, sin, bias))
run_embed = jax.jit(lambda embed, ids: embed(ids))
run_bias = jax.jit(lambda mask, dtype: (1 - mask.astype(dtype)[:, None, None, :]) * -1e9, static_argnums=1)
run_angles = jax.jit(
    lambda table, position: jnp.asarray(table).at[position].get(mode="fill", fill_value=jnp.nan)[:, None]
)
run_bias_packed = jax.jit(
    lambda text, dtype: jnp.where(text[:, :, None] == text[:, None, :], 0, jnp.asarray(-1e9, dtype))[:, None],
    static_argnums=1,
)
run_head = jax.jit(lambda final_ln, head, x: head(final_ln(x)))


class RestorationModel(nnx.Module):
    """x = embed[ids]; x = block_i(x) for every block; logits = head(final_ln(x)).

    Args:
      config: the shape; `config.max_position` bounds the length of a text, any shorter one may be given.
      rngs: initialises the parameters (Flax's defaults).
      param_dtype: float32 always, but for float64 comparisons.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> None:
        self.config = config
        self.embed = nnx.Embed(config.vocab_size, config.d_model, param_dtype=param_dtype, rngs=rngs)
        self.layers = nnx.List([Block(config, rngs=rngs, param_dtype=param_dtype) for _ in range(config.n_layers)])
        self.final_ln = LayerNorm(config, param_dtype=param_dtype)
        self.head = linear(config.d_model, config.vocab_size, rngs=rngs, param_dtype=param_dtype)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.config.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.config.d_model

    @property
    def max_position(self) -> int:
        """Longest text, in characters."""
        return self.config.max_position

    @property
    def tokenizer(self) -> CharacterTokenizer:
        """Of characters."""
        return self.config.tokenizer

    @property
    def dtype(self) -> Any:
        """Of the parameters, and so of the residual stream."""
        return self.embed.embedding.dtype

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` unless the model has such a layer."""
        self.config.check_layer(layer)

    def stream(self, ids: Ids, mask: Mask | None = None) -> Iterator[Float[Array, "batch position d_model"]]:
        """The residual stream after block 0, 1, ...; a block runs when its value is asked for.

        Args:
          ids: token ids in 0..vocab_size-1 (outside: NaN, as everywhere in JAX; `check_samples` finds these before).
          mask: 1 = real, 0 = padding, which no position attends to; None attends to every position.
        """
        config, length = self.config, ids.shape[1]
        require(
            length <= config.max_position,
            f"a text must have at most {config.max_position} characters (max_position), got {length}",
        )
        yield from self.run_blocks(run_embed(self.embed, ids), mask, range(config.n_layers))

    def stream_packed(
        self, ids: Ids, text: Places, position: Places
    ) -> Iterator[Float[Array, "batch position d_model"]]:
        """As `stream`, of several texts in each row: a position attends to those of the same text in its row.

        Args:
          text: which text of its row a position is of, by any number.
          position: the place in its text, from 0 (from `max_position` on: NaN).
        """
        table = rotary_table(self.config.max_position, self.config.d_head, float(self.config.rotary_base))
        cos, sin = (run_angles(part, jnp.asarray(position)) for part in table)
        x = run_embed(self.embed, ids)
        return self._run(x, range(self.config.n_layers), cos, sin, run_bias_packed(jnp.asarray(text), x.dtype))

    def run_blocks(
        self, x: Float[Array, "batch position d_model"], mask: Mask | None, blocks: range
    ) -> Iterator[Float[Array, "batch position d_model"]]:
        """The residual stream after each of `blocks`, `x` being what the first of them reads."""
        return self._run(x, blocks, *self._positions(x, mask))

    def _run(
        self, x: Float[Array, "batch position d_model"], blocks: range, cos: Angles, sin: Angles, bias: Bias
    ) -> Iterator[Float[Array, "batch position d_model"]]:
        for block in blocks:
            x = run_block(self.layers[block], x, cos, sin, bias)
            yield x

    def _positions(self, x: Float[Array, "batch position d_model"], mask: Mask | None) -> tuple[Angles, Angles, Bias]:
        """What a block is given beside `x`: cosines and sines of the positions, and the attention's bias."""
        cos, sin = rotary_table(x.shape[1], self.config.d_head, float(self.config.rotary_base))
        bias = None if mask is None else run_bias(jnp.asarray(mask), x.dtype)
        return cos[None, None], sin[None, None], bias

    def neurons(self, ids: Ids, mask: Mask | None = None, *, layer: int) -> Float[Array, "batch position d_ff"]:
        """The hidden values of block `layer`'s feed-forward network, after the GELU."""
        self.check_layer(layer)
        x = self.resid_post(ids, mask, layer=layer - 1) if layer else run_embed(self.embed, ids)
        return run_neurons(self.layers[layer], x, *self._positions(x, mask))

    def attention_pattern(
        self, ids: Ids, mask: Mask | None = None, *, layer: int
    ) -> Float[Array, "batch head to from"]:
        """How much each position attends to each other in block `layer`; rows sum to 1."""
        self.check_layer(layer)
        x = self.resid_post(ids, mask, layer=layer - 1) if layer else run_embed(self.embed, ids)
        return run_pattern(self.layers[layer], x, *self._positions(x, mask))

    def neuron_directions(self, layer: int) -> Float[np.ndarray, "d_ff d_model"]:
        """The rows of block `layer`'s down projection."""
        self.check_layer(layer)
        return np.asarray(self.layers[layer].ff.down.kernel[...])

    def resid_post(self, ids: Ids, mask: Mask | None = None, *, layer: int) -> Float[Array, "batch position d_model"]:
        """The residual stream after block `layer` (0-based), running only blocks 0..layer.

        What a PyTorch forward hook on `model.layers[layer]` sees; `blocks.{layer}.hook_resid_post` in TransformerLens.
        """
        self.check_layer(layer)
        return next(itertools.islice(self.stream(ids, mask), layer, None))

    def resume(
        self, x: Float[Array, "batch position d_model"], mask: Mask | None = None, *, layer: int
    ) -> Float[Array, "batch position d_model"]:
        """The last block's output, `x` being the residual stream after block `layer`, changed or not."""
        self.check_layer(layer)
        rest = self.run_blocks(x, mask, range(layer + 1, self.config.n_layers))
        return collections.deque(itertools.chain([x], rest), maxlen=1)[0]

    def unembed(self, x: Float[Array, "batch position d_model"]) -> Float[Array, "batch position vocab"]:
        """Logits over token ids, from the last block's output."""
        return run_head(self.final_ln, self.head, x)

    def direct_logits(
        self, directions: Float[np.ndarray, "n d_model"], ids: Int[np.ndarray, " ids"]
    ) -> Float[np.ndarray, "n ids"]:
        """((directions - their means) * final_ln.scale) @ head.kernel[:, ids], on the host.

        What directions in the residual stream add to the logits of `ids` past all later blocks, up to the factor that
        the last norm divides by.
        """
        centred = directions - directions.mean(axis=1, keepdims=True)
        return (centred * np.asarray(self.final_ln.scale[...])) @ np.asarray(self.head.kernel[...][:, ids])

    def __call__(self, ids: Ids, mask: Mask | None = None) -> Float[Array, "batch position vocab"]:
        """Logits over token ids at every position."""
        return self.unembed(self.resid_post(ids, mask, layer=self.config.n_layers - 1))


def params_of(model: RestorationModel) -> dict[str, jax.Array]:
    """Dotted path -> parameter, such as `layers.0.attn.q_proj.kernel` -> [d_model, d_model]."""
    return {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def shapes_of(abstract: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Dotted path -> shape of every parameter of a module as `nnx.eval_shape` makes it; nothing is allocated."""
    return {".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(abstract, nnx.Param))}


def with_params(abstract: M, params: Mapping[str, np.ndarray | jax.Array], dtype: Any = jnp.float32) -> M:
    """Such a module around given parameters (paths and shapes as `shapes_of` says), converted to `dtype`."""
    graphdef, state = nnx.split(abstract)
    flat = [
        (path, leaf.replace(jnp.asarray(params[".".join(map(str, path))], dtype)))
        for path, leaf in nnx.to_flat_state(state)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(flat))


@functools.lru_cache(maxsize=4)
def abstract_model(config: ModelConfig, dtype: Any = jnp.float32) -> RestorationModel:
    """The restoration model as `nnx.eval_shape` makes it: shapes for parameters. It is kept: not to be changed.

    One block is traced for all, as the time that Flax's initialisation takes grows with the square of what was traced.
    """
    model = nnx.clone(_of_one_block(dataclasses.replace(config, n_layers=1), dtype))
    model.config = config
    model.layers = nnx.List([nnx.clone(model.layers[0]) for _ in range(config.n_layers)])
    return model


@functools.lru_cache(maxsize=4)
def _of_one_block(config: ModelConfig, dtype: Any) -> RestorationModel:
    return nnx.eval_shape(lambda: RestorationModel(config, rngs=nnx.Rngs(0), param_dtype=dtype))


def param_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """`shapes_of` the restoration model."""
    return shapes_of(abstract_model(config))


def from_params(
    config: ModelConfig, params: Mapping[str, np.ndarray | jax.Array], dtype: Any = jnp.float32
) -> RestorationModel:
    """The restoration model around given parameters; see `with_params`."""
    return with_params(abstract_model(config, dtype), params, dtype)
