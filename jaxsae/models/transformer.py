"""What families of transformers share: one block after another, and what stands at a hook point of each within reach.

A family has blocks that give what they add to the residual stream, says what they are given beside it, and has an
embedding and a head. All matrix products run at full float32 precision on every device; parameters of another floating
type (float64 in the tests) are computed with as they are.
"""

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
from jaxsae.models.hooks import Hook, check_hook
from jaxsae.models.products import Bias, attention, matmul
from jaxsae.models.protocol import Ids, Mask, ModelShape, Places

M = TypeVar("M", bound=nnx.Module)
T = TypeVar("T", bound="Transformer")
Stream = Float[Array, "batch position d_model"]
Angles = Float[Array | np.ndarray, "texts 1 position d_head"]
"""Cosines or sines of the rotary angles; `texts` is 1 where all are counted from the first position."""
Around = tuple[Any, ...]
"""What a family's blocks are given beside the stream and the attention's bias; the first axis is of texts, or is 1."""


def rotate(
    x: Float[Array, "batch head position d_head"], cos: Angles, sin: Angles
) -> Float[Array, "batch head position d_head"]:
    """Turn each pair (j, j + d_head/2) by its position's angle (half-split pairing; Su et al. 2021, RoFormer)."""
    first, second = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-second, first], axis=-1) * sin


def causal(x: Stream, bias: Bias) -> Float[Array, "batch 1 from to"]:
    """The bias of attention in which a position attends to no later one, added to what else is hidden from it."""
    n = x.shape[1]
    later = jnp.where(jnp.tril(jnp.ones((n, n), bool)), 0, jnp.asarray(-1e9, x.dtype))[None, None]
    return later if bias is None else later + bias


def dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """`lax.dot_general` as a linear layer calls it: the last axis of x with the first of the kernel."""
    return matmul(x, kernel)


def linear(d_in: int, d_out: int, *, rngs: nnx.Rngs, param_dtype: Any, use_bias: bool = True) -> nnx.Linear:
    """x @ kernel + bias, with kernel [d_in, d_out]."""
    return nnx.Linear(d_in, d_out, dot_general=dot_general, param_dtype=param_dtype, rngs=rngs, use_bias=use_bias)


class Attention(nnx.Module):
    """softmax(rot(q) rot(k)^T / sqrt(d_head) + bias) v per head, heads being contiguous slices of n_heads * d_head.

    Args:
      use_bias: whether the four projections have one.
    """

    def __init__(
        self, d_model: int, n_heads: int, d_head: int, *, use_bias: bool, rngs: nnx.Rngs, param_dtype: Any
    ) -> None:
        self.n_heads = n_heads
        make = functools.partial(linear, rngs=rngs, param_dtype=param_dtype, use_bias=use_bias)
        self.q_proj, self.k_proj, self.v_proj = (make(d_model, n_heads * d_head) for _ in range(3))
        self.out_proj = make(n_heads * d_head, d_model)

    def __call__(self, x: Stream, cos: Angles, sin: Angles, bias: Bias) -> Stream:
        batch, position, _ = x.shape
        # one product for the three: a third of the small ones, which cost more than their share; in halves, because
        # what rounding leaves in it is multiplied and goes into an exponential
        three = (self.q_proj, self.k_proj, self.v_proj)
        qkv = matmul(x, jnp.concatenate([p.kernel[...] for p in three], axis=1), halves=True)
        if self.q_proj.bias is not None:
            qkv = qkv + jnp.concatenate([p.bias[...] for p in three if p.bias is not None])[None, None]
        q, k, v = qkv.reshape(batch, position, 3, self.n_heads, -1).transpose(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mixed = attention(q, k, v, bias)
        return self.out_proj(mixed.transpose(0, 2, 1, 3).reshape(batch, position, -1))

    def pattern(self, x: Stream, cos: Angles, sin: Angles, bias: Bias) -> Float[Array, "batch head to from"]:
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

    def __init__(
        self, d_in: int, d_hidden: int, d_out: int, *, rngs: nnx.Rngs, param_dtype: Any, use_bias: bool = True
    ) -> None:
        make = functools.partial(linear, rngs=rngs, param_dtype=param_dtype, use_bias=use_bias)
        self.up, self.down = make(d_in, d_hidden), make(d_hidden, d_out)

    def __call__(self, x: Float[Array, "batch position d_in"]) -> Float[Array, "batch position d_out"]:
        return self.down(self.hidden(x))

    def hidden(self, x: Float[Array, "batch position d_in"]) -> Float[Array, "batch position d_hidden"]:
        """The neurons: gelu(up(x))."""
        return jax.nn.gelu(self.up(x), approximate=False)


class Block(nnx.Module):
    """x + attn(norm(x)), then x + feed-forward(norm(x)).

    A family says what attention adds, `attn_out`, and what the neurons of the feed-forward network are, `hidden`, of
    which `down` makes what it adds; the methods take the residual stream itself, and `around` besides. A norm behind a
    part (post-norm, sandwich) is said by `attn_out` and `mlp_out`: each gives the new stream minus the old one.
    """

    down: nnx.Linear

    def __call__(self, x: Stream, *around: Any) -> Stream:
        x = x + self.attn_out(x, *around)
        return x + self.mlp_out(x)

    def attn_out(self, x: Stream, *around: Any) -> Stream:
        """What attention adds to the stream.

        Args:
          around: what `Transformer.around` gives, and last the bias, [batch, 1, from or 1, to], which is added to the
            scores; None: nothing is hidden.
        """
        raise NotImplementedError

    def mlp_out(self, x: Stream) -> Stream:
        """What the feed-forward network adds to the stream, behind attention."""
        return self.down(self.hidden(x))

    def hidden(self, x: Stream) -> Float[Array, "batch position d_ff"]:
        """The neurons of the feed-forward network, the stream being as it is behind attention."""
        raise NotImplementedError

    def pattern(self, x: Stream, *around: Any) -> Float[Array, "batch head to from"]:
        """How much each position attends to each other."""
        raise NotImplementedError

    def neurons(self, x: Stream, *around: Any) -> Float[Array, "batch position d_ff"]:
        """The hidden values of the feed-forward network."""
        return self.hidden(x + self.attn_out(x, *around))

    def seen(self, x: Stream, hook: str, *around: Any) -> tuple[Stream, Stream]:
        """(what stands at the hook point, the stream after the block)."""
        attn = self.attn_out(x, *around)
        mlp = self.mlp_out(x + attn)
        return {"attn_out": attn, "mlp_out": mlp}[hook], x + attn + mlp

    def with_value(self, x: Stream, value: Stream, hook: str, *around: Any) -> Stream:
        """The stream after the block if `value` stood at the hook point."""
        if hook == "resid_pre":
            return self(value, *around)
        x = x + (value if hook == "attn_out" else self.attn_out(x, *around))
        return x + (value if hook == "mlp_out" else self.mlp_out(x))


# The blocks are alike, so one compiled block serves all of them, and stopping early is not calling the rest. Inside a
# caller's own jit these are inlined.
run_block = jax.jit(lambda block, x, *around: block(x, *around))
run_seen = jax.jit(lambda block, x, hook, *around: block.seen(x, hook, *around), static_argnums=2)
run_with_value = jax.jit(
    lambda block, x, value, hook, *around: block.with_value(x, value, hook, *around), static_argnums=3
)
run_neurons = jax.jit(lambda block, x, *around: block.neurons(x, *around))
run_pattern = jax.jit(lambda block, x, *around: block.pattern(x, *around))
run_embed = jax.jit(lambda embed, ids: embed(ids))
run_bias = jax.jit(lambda mask, dtype: (1 - mask.astype(dtype)[:, None, None, :]) * -1e9, static_argnums=1)
run_bias_packed = jax.jit(
    lambda text, dtype: jnp.where(text[:, :, None] == text[:, None, :], 0, jnp.asarray(-1e9, dtype))[:, None],
    static_argnums=1,
)
run_head = jax.jit(lambda norm, head, x: head(norm(x)))
run_taken = jax.jit(lambda stream, places: stream.reshape(-1, stream.shape[-1])[places][None])


class Transformer(nnx.Module):
    """x = embed[ids]; x = block_i(x) for every block; logits = head(norm(x)).

    A family sets `config`, `embed` and `layers`, and has `norm_and_head`; `embedded` and `around` where its blocks need
    more than the embedding, `direct_logits` where it can say it, see `jaxsae.models.protocol.ModelWithHead`.

    Args:
      config: the shape; `max_position` bounds the length of a text, any shorter one may be given.
      rngs: initialises the parameters (Flax's defaults).
      param_dtype: float32 always, but for float64 comparisons.
    """

    config: Any
    embed: nnx.Embed
    layers: nnx.List

    def __init__(self, config: Any, *, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> None:
        raise NotImplementedError

    hook: str = "resid_post"
    """Of each block, the hook point whose activations are read and replaced, see `jaxsae.models.hooks`."""

    def embedded(self, ids: Ids, position: Places | None) -> Stream:
        """What the first block reads: the embedding, to which a family may add one of the positions.

        Args:
          position: the place of each position in its text, [batch, position]; None: they are counted from 0.
        """
        return run_embed(self.embed, ids)

    def around(self, x: Stream, position: Places | None) -> Around:
        """What the blocks are given beside the stream and the bias.

        Args:
          x: what the first block reads.
          position: as `embedded` is given it.
        """
        return ()

    @property
    def norm_and_head(self) -> tuple[nnx.Module, nnx.Module]:
        """What makes logits of the last block's output, `head(norm(x))`: two Flax modules, as jit takes no function.

        Where the head is the embedding (tied), a small `nnx.Module` around `self.embed`.
        """
        raise NotImplementedError

    @property
    def shape(self) -> ModelShape:
        """Its config."""
        return self.config

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.shape.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.shape.d_model

    @property
    def max_position(self) -> int:
        """Longest text, in tokens."""
        return self.shape.max_position

    @property
    def tokenizer(self) -> Any:
        """What its token ids stand for."""
        return self.shape.tokenizer

    @property
    def dtype(self) -> Any:
        """Of the parameters, and so of the residual stream."""
        return self.embed.embedding.dtype

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` unless the model has such a layer."""
        self.shape.check_layer(layer)

    def hooked_at(self: T, hook: Hook) -> T:
        """The same model, sharing its parameters, read and changed at another hook point of each block."""
        check_hook(hook)
        assert isinstance(hook, str)
        model = nnx.merge(*nnx.split(self))
        model.hook = hook
        return model

    def stream(self, ids: Ids, mask: Mask | None = None) -> Iterator[Stream]:
        """What stands at the hook point of block 0, 1, ...; a block runs when its value is asked for.

        Args:
          ids: token ids in 0..vocab_size-1 (outside: NaN, as everywhere in JAX; `check_samples` finds these before).
          mask: 1 = real, 0 = padding, which no position attends to; None attends to every position.
        """
        x = self._embedded(ids)
        return self._run(x, range(self.n_layers), self.hook, *self._around(x, mask))

    def stream_packed(self, ids: Ids, text: Places, position: Places) -> Iterator[Stream]:
        """As `stream`, of several texts in each row: a position attends to those of the same text in its row.

        Args:
          text: which text of its row a position is of, by any number.
          position: the place in its text, from 0 (from `max_position` on: NaN).
        """
        x = self.embedded(ids, position)
        around = *self.around(x, position), run_bias_packed(jnp.asarray(text), x.dtype)
        return self._run(x, range(self.n_layers), self.hook, *around)

    def _embedded(self, ids: Ids) -> Stream:
        most = self.max_position
        require(
            ids.shape[1] <= most,
            f"a text must have at most {most} {self.tokenizer.unit}s (max_position), got {ids.shape[1]}",
        )
        return self.embedded(ids, None)

    def _run(self, x: Stream, blocks: range, hook: str, *around: Any) -> Iterator[Stream]:
        for block in blocks:
            if hook == "resid_pre":
                yield x
            if hook in ("resid_pre", "resid_post"):
                x = run_block(self.layers[block], x, *around)
            else:
                seen, x = run_seen(self.layers[block], x, hook, *around)
                yield seen
            if hook == "resid_post":
                yield x

    def _around(self, x: Stream, mask: Mask | None) -> Around:
        return *self.around(x, None), None if mask is None else run_bias(jnp.asarray(mask), x.dtype)

    def run_blocks(self, x: Stream, mask: Mask | None, blocks: range) -> Iterator[Stream]:
        """The residual stream after each of `blocks`, `x` being what the first of them reads."""
        return self._run(x, blocks, "resid_post", *self._around(x, mask))

    def activations(self, ids: Ids, mask: Mask | None = None, *, layer: int) -> Stream:
        """What stands at the hook point of block `layer` (0-based); later blocks do not run."""
        self.check_layer(layer)
        return next(itertools.islice(self.stream(ids, mask), layer, None))

    def resid_post(self, ids: Ids, mask: Mask | None = None, *, layer: int) -> Stream:
        """The residual stream after block `layer` (0-based), running only blocks 0..layer.

        What a PyTorch forward hook on the block sees; `blocks.{layer}.hook_resid_post` in TransformerLens.
        """
        self.check_layer(layer)
        return next(itertools.islice(self.run_blocks(self._embedded(ids), mask, range(layer + 1)), layer, None))

    def resid_pre(self, ids: Ids, mask: Mask | None = None, *, layer: int) -> Stream:
        """The residual stream that block `layer` reads: the embedding, or what the block before it gives."""
        self.check_layer(layer)
        return self.resid_post(ids, mask, layer=layer - 1) if layer else self._embedded(ids)

    def neurons(self, ids: Ids, mask: Mask | None = None, *, layer: int) -> Float[Array, "batch position d_ff"]:
        """The hidden values of block `layer`'s feed-forward network, after the GELU."""
        x = self.resid_pre(ids, mask, layer=layer)
        return run_neurons(self.layers[layer], x, *self._around(x, mask))

    def attention_pattern(
        self, ids: Ids, mask: Mask | None = None, *, layer: int
    ) -> Float[Array, "batch head to from"]:
        """How much each position attends to each other in block `layer`; rows sum to 1."""
        x = self.resid_pre(ids, mask, layer=layer)
        return run_pattern(self.layers[layer], x, *self._around(x, mask))

    def neuron_directions(self, layer: int) -> Float[np.ndarray, "d_ff d_model"]:
        """The rows of block `layer`'s down projection."""
        self.check_layer(layer)
        return np.asarray(self.layers[layer].down.kernel[...])

    def logits(
        self,
        ids: Ids,
        mask: Mask | None = None,
        *,
        places: Int[Array | np.ndarray, " n"],
        layer: int | None = None,
        x: Stream | None = None,
    ) -> Float[Array, "n vocab"]:
        """Logits at some places of the batch, `x` standing at the hook point of block `layer`; see the protocol."""
        if layer is None or x is None:
            last = self.resid_post(ids, mask, layer=self.n_layers - 1)
        else:
            self.check_layer(layer)
            last = x
            if self.hook != "resid_post":
                before = x if self.hook == "resid_pre" else self.resid_pre(ids, mask, layer=layer)
                last = run_with_value(self.layers[layer], before, x, self.hook, *self._around(before, mask))
            for after in self.run_blocks(last, mask, range(layer + 1, self.n_layers)):
                last = after
        return self.unembed(run_taken(last, jnp.asarray(places)))[0]

    def unembed(self, x: Stream) -> Float[Array, "batch position vocab"]:
        """Logits over token ids, from the last block's output."""
        return run_head(*self.norm_and_head, x)

    @classmethod
    @functools.lru_cache(maxsize=8)
    def abstract(cls: type[T], config: Any, dtype: Any = jnp.float32) -> T:
        """The model as `nnx.eval_shape` makes it: shapes for parameters. It is kept: not to be changed.

        One block is traced for all, as the time that Flax's initialisation takes grows with the square of what was
        traced.
        """
        if config.n_layers == 1:
            return nnx.eval_shape(lambda: cls(config, rngs=nnx.Rngs(0), param_dtype=dtype))
        model = nnx.clone(cls.abstract(config.with_layers(1), dtype))
        model.config = config
        model.layers = nnx.List([nnx.clone(model.layers[0]) for _ in range(config.n_layers)])
        return model

    @classmethod
    def param_shapes(cls, config: Any) -> dict[str, tuple[int, ...]]:
        """Dotted path -> shape of every parameter of a model of this config; nothing is allocated."""
        return shapes_of(cls.abstract(config))

    @classmethod
    def from_params(
        cls: type[T], config: Any, params: Mapping[str, np.ndarray | jax.Array], dtype: Any = jnp.float32
    ) -> T:
        """The model around given parameters; see `with_params`."""
        return with_params(cls.abstract(config, dtype), params, dtype)

    def __call__(self, ids: Ids, mask: Mask | None = None) -> Float[Array, "batch position vocab"]:
        """Logits over token ids at every position."""
        return self.unembed(self.resid_post(ids, mask, layer=self.n_layers - 1))


def params_of(model: nnx.Module) -> dict[str, jax.Array]:
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
