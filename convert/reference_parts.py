"""What the PyTorch references of all families are made of. Imports no JAX."""

import torch


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair (j, j + d_head/2) by its position's angle (half-split pairing; Su et al. 2021, RoFormer)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    n_heads: int,
    cos: torch.Tensor,
    sin: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Bidirectional self-attention with rotary positions, heads being contiguous slices; [batch, position, d_inner].

    Args:
      bias: added to the scores.
    """

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (n_heads, -1)).movedim(-2, 1)

    q, k, v = rotate(heads(q), cos, sin), rotate(heads(k), cos, sin), heads(v)

    def mixed(head: int) -> torch.Tensor:
        scores = q[:, head] @ k[:, head].mT * q.shape[-1] ** -0.5
        scores = scores if bias is None else scores + bias[:, 0]
        return scores.softmax(dim=-1) @ v[:, head]

    # head by head: a table of scores in float64 is the largest thing here
    return torch.cat([mixed(head) for head in range(n_heads)], dim=-1)


def padding_bias(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor | None:
    """What is added to the scores, so that no position attends to padding, in the type of `x`."""
    return None if mask is None else (1 - mask[:, None, None, :].to(x.dtype)) * -1e9
