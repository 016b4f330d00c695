"""The newer, sign-level transformer of the same authors in Flax NNX: a replica for inference, every layer within reach.

Pre-norm with RMSNorm, bidirectional, rotary positions, no biases in the blocks; a head of two layers.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxsae.models.products import Bias
from jaxsae.models.protocol import Places
from jaxsae.models.signs_config import SignConfig
from jaxsae.models.transformer import Around, Attention, Block, FeedForward, Stream, Transformer

Positions = Float[Array, "texts position"]
"""The place of each position in its text; `texts` is 1 where all are counted from the first."""


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + epsilon) * scale: nothing is centred, and there is no bias."""

    def __init__(self, d_model: int, epsilon: float, *, param_dtype: Any) -> None:
        self.scale = nnx.Param(jnp.ones(d_model, param_dtype))
        self.epsilon = epsilon

    def __call__(self, x: Stream) -> Stream:
        return x / jnp.sqrt(jnp.square(x).mean(axis=-1, keepdims=True) + self.epsilon) * self.scale[None, None]


class SignAttention(Attention):
    """Attention without biases, with the rotary frequencies as its checkpoint has them.

    They are a buffer of each layer there. The angles are computed in the type of the stream.
    """

    def __init__(self, config: SignConfig, *, rngs: nnx.Rngs, param_dtype: Any) -> None:
        super().__init__(
            config.d_model, config.num_heads, config.d_kv, use_bias=False, rngs=rngs, param_dtype=param_dtype
        )
        self.inv_freq = nnx.Param(jnp.asarray(inverse_frequencies(config), param_dtype))

    def angles(self, position: Positions) -> tuple[Array, Array]:
        """Cosines and sines, [texts, 1, position, d_kv]."""
        angle = position[:, None, :, None] * self.inv_freq[None, None, None]
        both = jnp.concatenate([angle, angle], axis=-1)
        return jnp.cos(both), jnp.sin(both)


def inverse_frequencies(config: SignConfig) -> Float[np.ndarray, " pairs"]:
    """1 / rotary_base^(2j / d_kv), float32."""
    exponent = np.arange(0, config.d_kv, 2, dtype=np.float32) / np.float32(config.d_kv)
    return np.float32(1) / np.float32(config.rotary_base) ** exponent


class SignBlock(Block):
    """x + attn(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, config: SignConfig, *, rngs: nnx.Rngs, param_dtype: Any) -> None:
        d_model, make = config.d_model, {"rngs": rngs, "param_dtype": param_dtype}
        self.norm1, self.norm2 = (RMSNorm(d_model, config.layer_norm_eps, param_dtype=param_dtype) for _ in range(2))
        self.attn = SignAttention(config, **make)
        self.mlp = FeedForward(d_model, config.d_ff, d_model, use_bias=False, **make)

    def attn_out(self, x: Stream, position: Positions, bias: Bias) -> Stream:
        """What attention adds to the stream."""
        return self.attn(self.norm1(x), *self.attn.angles(position), bias)

    def hidden(self, x: Stream) -> Float[Array, "batch position d_ff"]:
        """The neurons of the feed-forward network, the stream being as it is behind attention."""
        return self.mlp.hidden(self.norm2(x))

    def pattern(self, x: Stream, position: Positions, bias: Bias) -> Float[Array, "batch head to from"]:
        """How much each position attends to each other."""
        return self.attn.pattern(self.norm1(x), *self.attn.angles(position), bias)

    @property
    def down(self) -> nnx.Linear:  # type: ignore[override]
        """The second layer of the feed-forward network."""
        return self.mlp.down


class SignModel(Transformer):
    """x = embed[ids]; x = block_i(x) for every block; logits = down(gelu(up(final_norm(x)))) + bias."""

    config: SignConfig

    def __init__(self, config: SignConfig, *, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> None:
        make = {"rngs": rngs, "param_dtype": param_dtype}
        self.config = config
        self.embed = nnx.Embed(config.vocab_size, config.d_model, **make)
        self.layers = nnx.List([SignBlock(config, **make) for _ in range(config.n_layers)])
        self.final_norm = RMSNorm(config.d_model, config.layer_norm_eps, param_dtype=param_dtype)
        self.head = FeedForward(config.d_model, config.d_model, config.vocab_size, **make)

    def around(self, x: Stream, position: Places | None) -> Around:
        """The positions, in the type of the stream."""
        places = jnp.arange(x.shape[1])[None] if position is None else jnp.asarray(position)
        return (places.astype(x.dtype),)

    @property
    def norm_and_head(self) -> tuple[nnx.Module, nnx.Module]:
        """final_norm and head."""
        return self.final_norm, self.head

    def direct_logits(
        self, directions: Float[np.ndarray, "n d_model"], ids: Int[np.ndarray, " ids"]
    ) -> Float[np.ndarray, "n ids"]:
        """What directions in the residual stream add to the logits of `ids` past all later blocks.

        The head has a layer of neurons between: its derivative is taken at a stream of zeros, where each neuron lets a
        half of its input pass if it has no bias: directions * final_norm.scale @ up * gelu'(up.bias) @ down[:, ids].
        """
        assert self.head.up.bias is not None
        bias = self.head.up.bias[...]
        slope = np.asarray(jax.jvp(lambda b: jax.nn.gelu(b, approximate=False), (bias,), (jnp.ones_like(bias),))[1])
        into = directions * np.asarray(self.final_norm.scale[...]) @ np.asarray(self.head.up.kernel[...])
        return (into * slope) @ np.asarray(self.head.down.kernel[...][:, ids])
