"""The sign model in PyTorch, as its authors have it. Imports no JAX."""

import torch
from torch import nn

from convert.reference_parts import attend, padding_bias
from jaxsae.models.signs_config import SignConfig

PARTS = {"attn_out": "attn", "mlp_out": "mlp"}
"""Hook point -> the module of a block whose output it is."""


class Norm(nn.Module):
    """x / sqrt(mean(x^2) + layer_norm_eps) * weight; no mean is taken out, nothing added."""

    def __init__(self, config: SignConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.d_model))
        self.epsilon = config.layer_norm_eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, position, d_model] -> the same."""
        return self.weight * (x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.epsilon))


class Rotary(nn.Module):
    """The frequencies are float32 in the file; angles are computed in the type of what is turned by them."""

    def __init__(self, config: SignConfig) -> None:
        super().__init__()
        exponent = torch.arange(0, config.d_kv, 2).float() / config.d_kv
        self.register_buffer("inv_freq", 1.0 / (config.rotary_base**exponent))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines for [batch, position, ...], each [position, d_kv]."""
        position = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
        angle = torch.outer(position, self.get_buffer("inv_freq").to(x.dtype)).repeat(1, 2)
        return angle.cos(), angle.sin()


class Attention(nn.Module):
    """Bidirectional self-attention with rotary positions, of a width of its own."""

    def __init__(self, config: SignConfig) -> None:
        super().__init__()
        self.n_heads = config.num_heads
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(config.d_model, config.d_inner, bias=False) for _ in range(3)
        )
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=False)
        self.rope = Rotary(config)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """[batch, position, d_model] -> the same; `bias` is added to the scores."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        cos, sin = self.rope(x)
        return self.out_proj(attend(q, k, v, self.n_heads, cos, sin, bias))


class FeedForward(nn.Module):
    """fc2(gelu(fc1(x))), with the exact GELU."""

    def __init__(self, config: SignConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.fc2 = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, position, d_model] -> the same."""
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """x + attn(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, config: SignConfig) -> None:
        super().__init__()
        self.norm1, self.attn = Norm(config), Attention(config)
        self.norm2, self.mlp = Norm(config), FeedForward(config)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """[batch, position, d_model] -> the same."""
        x = x + self.attn(self.norm1(x), bias)
        return x + self.mlp(self.norm2(x))


class Torso(nn.Module):
    """All that comes before the head."""

    def __init__(self, config: SignConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = Norm(config)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """ids [batch, position] -> [batch, position, d_model]."""
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, *around(self.config, x, mask))
        return self.final_norm(x)


class Head(nn.Module):
    """fc2(gelu(fc1(x))), with biases, and the exact GELU."""

    def __init__(self, config: SignConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, config.d_model)
        self.fc2 = nn.Linear(config.d_model, config.vocab_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, position, d_model] -> logits [batch, position, vocab_size]."""
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Model(nn.Module):
    """The sign model, inference only."""

    def __init__(self, config: SignConfig) -> None:
        super().__init__()
        self.torso, self.head = Torso(config), Head(config)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """ids [batch, position] -> logits [batch, position, vocab_size]."""
        return self.head(self.torso(ids, mask))


def around(config: SignConfig, x: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor | None]:
    """What a block is given beside its input: the attention's bias."""
    return (padding_bias(x, mask),)
