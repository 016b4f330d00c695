"""The restoration model in PyTorch: the bundled reference, or the user's own file, with hooks on its layers.

Imports no JAX: it runs in a process of its own as well.
"""

import contextlib
import importlib.util
import inspect
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from jaxsae.errors import InputError, require
from jaxsae.models.restoration_config import ModelConfig
from jaxsae.models.rotary import rotary_table

TORCH_TYPES = (torch.float32, torch.float64)


class Weights(Protocol):
    """A checkpoint, as far as it is needed here."""

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""

    @property
    def tensors(self) -> Mapping[str, np.ndarray]:
        """Tensors by their PyTorch names."""


class Attention(nn.Module):
    """Bidirectional self-attention with rotary positions (half-split pairs)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.d_head = config.n_heads, config.d_head
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(config.d_model, config.d_model) for _ in range(4)
        )

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """[batch, position, d_model] -> the same; `bias` is added to the scores."""

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.unflatten(-1, (self.n_heads, self.d_head)).movedim(-2, 1)

        def rotate(y: torch.Tensor) -> torch.Tensor:
            first, second = y.chunk(2, dim=-1)
            return y * cos + torch.cat((-second, first), dim=-1) * sin

        q, k, v = rotate(heads(self.q_proj(x))), rotate(heads(self.k_proj(x))), heads(self.v_proj(x))

        def mixed(head: int) -> torch.Tensor:
            scores = q[:, head] @ k[:, head].mT * self.d_head**-0.5
            scores = scores if bias is None else scores + bias[:, 0]
            return scores.softmax(dim=-1) @ v[:, head]

        # head by head: a table of scores in float64 is the largest thing here
        return self.out_proj(torch.cat([mixed(head) for head in range(self.n_heads)], dim=-1))


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


class ReferenceModel(nn.Module):
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
        around = _around(self.config, x, mask)
        for layer in self.layers:
            x = layer(x, *around)
        return self.head(self.final_ln(x))


def _around(
    config: ModelConfig, x: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What a block is given beside its input: cosines and sines of the positions, and the attention's bias."""
    cos, sin = (
        torch.from_numpy(part).to(x.dtype)
        for part in rotary_table(x.shape[1], config.d_head, float(config.rotary_base))
    )
    return cos, sin, None if mask is None else (1 - mask[:, None, None, :].to(x.dtype)) * -1e9


def build(checkpoint: Weights) -> nn.Module:
    """The bundled reference with the checkpoint's weights in float32."""
    with torch.device("meta"):
        module = ReferenceModel(checkpoint.config)
    module.load_state_dict(_float32(checkpoint.tensors, list(module.state_dict())), assign=True)
    return module.eval()


def build_from_file(checkpoint: Weights, path: str | Path) -> nn.Module:
    """The user's own model with the checkpoint's weights in float32.

    The file is imported, that is, run; it must define RestorationConfig and RestorationModel.
    """
    module = _user_model(Path(path), checkpoint.config)
    try:
        module.load_state_dict(_float32(checkpoint.tensors, list(checkpoint.tensors)), assign=True)
    except RuntimeError as error:
        raise InputError(f"{path}: its RestorationModel must take the checkpoint's tensors, got: {error}") from None
    return module.eval()


def _float32(tensors: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(tensors[name], np.float32, order="C")) for name in names}


def _user_model(path: Path, config: ModelConfig) -> nn.Module:
    require(path.is_file(), f"the reference model must be a Python file, got {path}")
    spec = importlib.util.spec_from_file_location("user_reference", path)
    require(
        spec is not None and spec.loader is not None, f"the reference model must be a Python file (.py), got {path}"
    )
    assert spec is not None
    assert spec.loader is not None
    user = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = user  # dataclasses look their module up
    fields = {name: getattr(config, name) for name in ModelConfig.__dataclass_fields__}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            spec.loader.exec_module(user)
            return user.RestorationModel(user.RestorationConfig(**fields))
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: must define RestorationConfig and RestorationModel(config), got {got}") from error


@torch.no_grad()
def resid_post(
    module: nn.Module, ids: np.ndarray, mask: np.ndarray | None, layers: Sequence[int], dtype: torch.dtype
) -> dict[int, np.ndarray]:
    """What forward hooks on `module.layers[layer]` see, layer -> [batch, position, d_model], computed in `dtype`.

    One sample at a time, as the original scripts run; the forward pass is left after the last layer asked for, and the
    blocks behind it are dropped from `module`.
    """

    class Enough(Exception):  # noqa: N818 - not an error: it ends the forward pass
        pass

    blocks: nn.ModuleList = module.layers  # type: ignore[assignment]
    del blocks[max(layers) + 1 :]
    module = module.to(dtype)
    got: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}

    def hook(layer: int, output: torch.Tensor) -> None:
        got[layer].append(output.detach().numpy())
        if layer == max(layers):
            raise Enough

    handles = [blocks[i].register_forward_hook(lambda _, __, out, i=i: hook(i, out)) for i in layers]
    takes_mask = mask is not None and len(inspect.signature(module.forward).parameters) > 1
    require(
        takes_mask or mask is None,
        "the reference model's forward must take (input_ids, attention_mask) for padding drop",
    )
    try:
        for i, row in enumerate(ids):
            arguments = [torch.from_numpy(row[None]).long()]
            if mask is not None:
                arguments.append(torch.from_numpy(mask[i][None]).long())
            with contextlib.suppress(Enough), contextlib.redirect_stdout(io.StringIO()):
                module(*arguments)
    except Exception as error:
        raise InputError(f"the reference model must run on the samples, got {type(error).__name__}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    return {layer: np.concatenate(parts) for layer, parts in got.items()}


Activations = dict[int, np.ndarray]
"""Layer -> what a hook on it sees, [batch, position, d_model]."""


@torch.no_grad()
def activations(
    checkpoint: Weights, ids: np.ndarray, mask: np.ndarray | None, layers: Sequence[int]
) -> tuple[Activations, Activations]:
    """What `resid_post` finds of the bundled reference, in float32 and in float64; one block at a time is in memory.

    Tensors are asked for in the order of the blocks, and each once: `checkpoint.tensors` may read them on the way.
    """
    config, found = checkpoint.config, (Activations(), Activations())
    masks = [None if mask is None else torch.from_numpy(row[None]).long() for row in (ids if mask is None else mask)]
    embedding = torch.from_numpy(np.asarray(checkpoint.tensors["embed.weight"], np.float32)[ids])
    streams = [[row[None].to(dtype) for row in embedding] for dtype in TORCH_TYPES]
    with torch.device("meta"):
        block = Block(config)
    for layer in range(max(layers) + 1):
        names = {f"layers.{layer}.{name}": name for name in block.state_dict()}
        state = _float32(checkpoint.tensors, list(names))
        block.load_state_dict({names[name]: tensor for name, tensor in state.items()}, assign=True)
        del state
        for number, dtype in enumerate(TORCH_TYPES):
            block.to(dtype)
            streams[number] = [
                block(x, *_around(config, x, one)) for x, one in zip(streams[number], masks, strict=True)
            ]
            if layer in layers:
                found[number][layer] = torch.cat(streams[number]).numpy()
    return found


def hooked(
    checkpoint: Weights, file: str | Path, ids: np.ndarray, mask: np.ndarray | None, layers: Sequence[int]
) -> tuple[Activations, Activations]:
    """As `activations`, of the user's own model: its file is imported, that is, run."""
    module = build_from_file(checkpoint, file)
    theirs, exact = (resid_post(module, ids, mask, layers, dtype) for dtype in TORCH_TYPES)
    return theirs, exact
