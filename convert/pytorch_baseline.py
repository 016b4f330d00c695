"""What the original script does, in plain PyTorch: the work that benchmark.py times beside ours."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from convert.restoration_reference import Model
from jaxsae.models.restoration_config import ModelConfig
from jaxsae.text.arrow import save_splits


def product(n: int, kind: str) -> Callable[[], torch.Tensor]:
    """An n x n matrix times itself, in the type named so."""
    a = torch.ones((n, n), dtype=getattr(torch, kind))
    return lambda: a @ a


def tensor(rows: np.ndarray) -> torch.Tensor:
    """The same memory."""
    return torch.from_numpy(rows)


def save_random(config: ModelConfig, path: Path) -> None:
    """A checkpoint of random weights."""
    torch.manual_seed(0)
    state = Model(config).state_dict()
    torch.save({"model_state_dict": state, "config": dataclasses.asdict(config)}, path)


def write_synthetic(folder: Path) -> tuple[str, str]:
    """Write a full-size model of random weights, and random text of the lengths that such texts have.

    Returns:
      (the checkpoint, the dataset).
    """
    config = ModelConfig(vocab_size=12_000)
    save_random(config, folder / "best_model.pt")
    rng, n, width = np.random.default_rng(0), 64, config.max_position
    lengths = np.clip(rng.lognormal(5.2, 0.7, n), 16, width).astype(int)
    mask = np.arange(width)[None] < lengths[:, None]
    ids = np.where(mask, rng.integers(1, config.vocab_size, (n, width)), 0).astype(np.int32)
    labels = np.where(mask & (rng.random((n, width)) < 0.2), ids, -100).astype(np.int32)
    (folder / "dataset").mkdir()
    columns: dict[str, np.ndarray] = {"input_ids": ids, "labels": labels, "attention_mask": mask.astype(np.int8)}
    test = {name: column[:20] for name, column in columns.items()}
    save_splits(folder / "dataset", {"validation": columns, "test": test})
    return str(folder / "best_model.pt"), str(folder / "dataset")


@torch.no_grad()
def extract(model: nn.Module, ids: np.ndarray, layer: int) -> torch.Tensor:
    """Rows of a layer by a forward hook: whole model, one sample at a time, every position, no mask; [n, d_model]."""
    got: list[torch.Tensor] = []
    hook = model.layers[layer].register_forward_hook(lambda module, args, out: got.append(out.detach()))  # type: ignore[index, union-attr]
    for row in ids:
        model(torch.from_numpy(row)[None].long())
    hook.remove()
    return torch.cat(got).reshape(-1, got[0].shape[-1])


def train(
    rows: torch.Tensor, d_sae: int, l1: float, k: int | None, batch: int, epochs: int, lr: float = 1e-4
) -> list[float]:
    """An SAE by the guide's recipe: rows shuffled by copy, Adam, clipping, unit rows; the loss of each epoch."""
    d_in = rows.shape[1]
    W_enc, b_enc = nn.Parameter(0.01 * torch.randn(d_in, d_sae)), nn.Parameter(torch.zeros(d_sae))
    W_dec, b_dec = nn.Parameter(nn.functional.normalize(torch.randn(d_sae, d_in))), nn.Parameter(torch.zeros(d_in))
    params, losses = [W_enc, b_enc, W_dec, b_dec], []
    optimizer = torch.optim.Adam(params, lr=lr)
    for _ in range(epochs):
        shuffled, run = rows[torch.randperm(len(rows))], []
        for start in range(0, len(rows) - batch + 1, batch):
            x = shuffled[start : start + batch]
            pre_acts = x @ W_enc + b_enc
            if k is None:
                latents = pre_acts.relu()
            else:
                top = pre_acts.topk(k, dim=1)
                latents = torch.zeros_like(pre_acts).scatter(1, top.indices, top.values.relu())
            loss = (latents @ W_dec + b_dec - x).pow(2).mean()
            if k is None:
                loss = loss + l1 * latents.abs().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
            with torch.no_grad():
                W_dec.data /= W_dec.data.norm(dim=1, keepdim=True)
            run.append(loss.item())
        losses.append(float(np.mean(run)))
    return losses
