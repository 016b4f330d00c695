"""The restoration transformer in Flax NNX: a replica of the PyTorch model for inference, every layer within reach.

Character-level, pre-norm, bidirectional, rotary positions.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxsae.models.products import Bias
from jaxsae.models.protocol import Places
from jaxsae.models.restoration_config import ModelConfig
from jaxsae.models.rotary import rotary_table
from jaxsae.models.transformer import Angles, Around, Attention, Block, FeedForward, Stream, Transformer, linear


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(var + 1e-5) * scale + bias, with the biased variance.

    The mean is taken out twice: what rounding left of it the first time goes the second, so that a stream with an
    offset loses no digits. Flax's own layer has another epsilon and, by default, a variance that cancels.
    """

    def __init__(self, d_model: int, *, param_dtype: Any) -> None:
        self.scale = nnx.Param(jnp.ones(d_model, param_dtype))
        self.bias = nnx.Param(jnp.zeros(d_model, param_dtype))
        self.epsilon = 1e-5

    def __call__(self, x: Stream) -> Stream:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(x).mean(axis=-1, keepdims=True)
        return x / jnp.sqrt(variance + self.epsilon) * self.scale[None, None] + self.bias[None, None]


class RestorationBlock(Block):
    """x + attn(ln1(x)), then x + ff(ln2(x))."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any) -> None:
        d_model, make = config.d_model, {"rngs": rngs, "param_dtype": param_dtype}
        self.ln1 = LayerNorm(d_model, param_dtype=param_dtype)
        self.attn = Attention(d_model, config.n_heads, config.d_head, use_bias=True, **make)
        self.ln2 = LayerNorm(d_model, param_dtype=param_dtype)
        self.ff = FeedForward(d_model, config.d_ff, d_model, **make)

    def attn_out(self, x: Stream, cos: Angles, sin: Angles, bias: Bias) -> Stream:
        """What attention adds to the stream."""
        return self.attn(self.ln1(x), cos, sin, bias)

    def hidden(self, x: Stream) -> Float[Array, "batch position d_ff"]:
        """The neurons of the feed-forward network, the stream being as it is behind attention."""
        return self.ff.hidden(self.ln2(x))

    def pattern(self, x: Stream, cos: Angles, sin: Angles, bias: Bias) -> Float[Array, "batch head to from"]:
        """How much each position attends to each other."""
        return self.attn.pattern(self.ln1(x), cos, sin, bias)

    @property
    def down(self) -> nnx.Linear:  # type: ignore[override]
        """The second layer of the feed-forward network."""
        return self.ff.down


run_angles = jax.jit(
    lambda table, position: jnp.asarray(table).at[position].get(mode="fill", fill_value=jnp.nan)[:, None]
)


class RestorationModel(Transformer):
    """x = embed[ids]; x = block_i(x) for every block; logits = head(final_ln(x))."""

    config: ModelConfig

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: Any = jnp.float32) -> None:
        make = {"rngs": rngs, "param_dtype": param_dtype}
        self.config = config
        self.embed = nnx.Embed(config.vocab_size, config.d_model, **make)
        self.layers = nnx.List([RestorationBlock(config, **make) for _ in range(config.n_layers)])
        self.final_ln = LayerNorm(config.d_model, param_dtype=param_dtype)
        self.head = linear(config.d_model, config.vocab_size, **make)

    def around(self, x: Stream, position: Places | None) -> Around:
        """Cosines and sines of the positions, of a table in float32."""
        d_head, base = self.config.d_head, float(self.config.rotary_base)
        if position is None:
            cos, sin = rotary_table(x.shape[1], d_head, base)
            return cos[None, None], sin[None, None]
        cos, sin = (run_angles(part, jnp.asarray(position)) for part in rotary_table(self.max_position, d_head, base))
        return cos, sin

    @property
    def norm_and_head(self) -> tuple[nnx.Module, nnx.Module]:
        """final_ln and head."""
        return self.final_ln, self.head

    def direct_logits(
        self, directions: Float[np.ndarray, "n d_model"], ids: Int[np.ndarray, " ids"]
    ) -> Float[np.ndarray, "n ids"]:
        """((directions - their means) * final_ln.scale) @ head.kernel[:, ids], on the host.

        What directions in the residual stream add to the logits of `ids` past all later blocks, up to the factor that
        the last norm divides by.
        """
        centred = directions - directions.mean(axis=1, keepdims=True)
        return (centred * np.asarray(self.final_ln.scale[...])) @ np.asarray(self.head.kernel[...][:, ids])
