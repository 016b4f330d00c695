"""The restoration model in PyTorch, as the original scripts have it. Imports no JAX."""

import torch
from torch import nn

from convert.reference_parts import attend, padding_bias
from jaxsae.models.restoration_config import ModelConfig
from jaxsae.models.rotary import rotary_table

PARTS = {"attn_out": "attn", "mlp_out": "ff"}
"""Hook point -> the module of a block whose output it is."""


class Attention(nn.Module):
    """Bidirectional self-attention with rotary positions (half-split pairs)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(config.d_model, config.d_model) for _ in range(4)
        )

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """[batch, position, d_model] -> the same; `bias` is added to the scores."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.out_proj(attend(q, k, v, self.n_heads, cos, sin, bias))


class Block(nn.Module):
    """x + attn(ln1(x)), then x + ff(ln2(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.d_model)
        self.attn = Attention(config)
        self.ln2 = nn.LayerNorm(config.d_model)
        self.ff = nn.Sequential(
            nn.Linear(config.d_model, config.d_ff), nn.GELU(), nn.Linear(config.d_ff, config.d_model)
        )

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """[batch, position, d_model] -> the same."""
        x = x + self.attn(self.ln1(x), cos, sin, bias)
        return x + self.ff(self.ln2(x))


class Model(nn.Module):
    """The restoration model of the original scripts, inference only, right at every length."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.final_ln = nn.LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """ids [batch, position] -> logits [batch, position, vocab_size]."""
        x = self.embed(ids)
        beside = around(self.config, x, mask)
        for layer in self.layers:
            x = layer(x, *beside)
        return self.head(self.final_ln(x))


def around(
    config: ModelConfig, x: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What a block is given beside its input: cosines and sines of the positions, and the attention's bias."""
    cos, sin = (
        torch.from_numpy(part).to(x.dtype)
        for part in rotary_table(x.shape[1], config.d_head, float(config.rotary_base))
    )
    return cos, sin, padding_bias(x, mask)
