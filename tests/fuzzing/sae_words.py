"""The words of an SAE's file: what they say of its rule, its thresholds, and of nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fuzzing.inputs import CLEAR, OPEN, UNCLEAR, Input
from fuzzing.sae_meaning import D_IN
from fuzzing.values import Own, objects

SILENT = (
    "lr", "learning_rate", "batch_size", "epoch", "epochs", "seed", "optimizer", "optimizer_state_dict", "patience",
    "l1_lambda", "val_loss", "loss", "best_loss", "model_name", "dataset", "date", "version", "device", "dtype",
    "notes", "n_steps", "warmup_steps", "expansion_factor", "weight_decay", "explained_variance", "fvu", "l0",
    "dead_latents", "git_commit", "wandb_name", "max_samples", "scheduler", "aux_k", "history", "training_time",
)  # fmt: skip
UNKNOWN = (
    "gain", "temperature", "log_scale", "W_skip", "b_mag", "r_mag", "K", "alpha", "clip", "transform", "rotation",
    "encoder_scale", "log_threshold", "postprocess", "mask", "tau", "whitening_matrix", "pre_encoder_bias", "norm",
)  # fmt: skip
NEUTRAL: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "normalize": ((None, False, "none"), (True, "layer_norm", 2.0)),
    "normalize_activations": ((None, False, "none"), ("layer_norm", "constant_norm_rescale", True)),
    "input_scale": ((1, 1.0, None), (2.0, 0.5, 0, "sqrt", True)),
    "scaling_factor": ((1.0, torch.ones(()), torch.ones(1), np.float64(1)), (3.0, torch.full((1,), 2.0))),
    "pre_bias": ((0, None, torch.zeros(6)), (torch.ones(6), 1.0, True)),
    "mean": ((0.0, torch.zeros(6)), (np.ones(6), "batch")),
    "reshape_activations": (("none", None), ("hook_z",)),
    "hook_head_index": ((None,), (0, 2)),
    "tied": ((False, None), (True,)),
}


def besides(one: Input, put: Callable[[str, Any], None], d_in: int = D_IN) -> None:
    """Words that say nothing, that something is not done, that it is done, or that nobody knows."""
    for _ in range(one.pick(0, 1, 1, 2)):
        put(one.pick(*SILENT), objects(one))
    if one.maybe(0.15):
        word = one.pick(*NEUTRAL)
        does = one.maybe(0.3)
        put(word, one.rng.choice(NEUTRAL[word][does]))
        one.did(f"{word} {'done' if does else 'not done'}", UNCLEAR if does else CLEAR)
    if one.maybe(0.07):
        word, value = one.pick(*UNKNOWN), one.pick(1, 2.0, "x", True, False, torch.ones(d_in), [1], {}, None, Own)
        put(word, value)
        one.did(f"an unknown {word}", OPEN if value is None else UNCLEAR)


ARCHITECTURES = {
    "relu": ("relu", CLEAR), "standard": ("relu", CLEAR), "vanilla": ("relu", CLEAR), "ReLU": ("relu", CLEAR),
    "topk": ("topk", CLEAR), "TopK": ("topk", CLEAR), "top_k": ("topk", CLEAR), "k-sparse": ("topk", OPEN),
    "jumprelu": ("threshold", CLEAR), "JumpReLU": ("threshold", CLEAR), "batchtopk": ("threshold", CLEAR),
    "batch_topk": ("threshold", OPEN), "matryoshka": ("threshold", CLEAR), "matryoshka_batchtopk": ("threshold", OPEN),
    "gated": ("", UNCLEAR), "transcoder": ("", UNCLEAR), "abstopk": ("", UNCLEAR), "crosscoder": ("", UNCLEAR),
}  # fmt: skip
ACTIVATIONS: dict[Any, tuple[str, int]] = {
    "relu": ("relu", CLEAR), "ReLU": ("relu", CLEAR), "topk": ("topk", CLEAR), "TopK": ("topk", CLEAR),
    "jumprelu": ("threshold", CLEAR), "gelu": ("", UNCLEAR), "softplus": ("", UNCLEAR), "identity": ("", UNCLEAR),
    "leaky_relu": ("", UNCLEAR), torch.nn.ReLU: ("relu", OPEN), torch.nn.GELU: ("", UNCLEAR), 3: ("", UNCLEAR),
}  # fmt: skip


def rule(architecture: str | None, activation: str | None, k: int | None, limits: bool, zero: bool) -> tuple[str, int]:
    """What is computed by all that is said.

    Args:
      architecture: what the word for it means, None where there is none; `activation` likewise.
      limits: whether there are thresholds.
      zero: whether these are all 0, where every latent fires that fires at all.
    """
    matters = limits and not zero
    a, c = architecture, activation
    if a == "topk" or (a is None and c == "topk"):
        return "topk", UNCLEAR if k is None or matters or c == "threshold" else CLEAR
    if a == "threshold" or (a is None and c == "threshold"):
        return "threshold", UNCLEAR if not limits or k is not None or c == "topk" else CLEAR
    if a == "relu":
        if c == "topk" and k is not None and not matters:
            return "topk", OPEN  # as SAELens once said it
        if c == "threshold" and limits and k is None:
            return "threshold", OPEN
        return "relu", UNCLEAR if k is not None or matters or c not in (None, "relu") else CLEAR
    if k is not None:
        return "topk", UNCLEAR if matters else CLEAR
    if limits:
        return "threshold", OPEN if c == "relu" and matters else CLEAR
    return "relu", CLEAR


def limits_of(one: Input, d_sae: int) -> tuple[Any, np.ndarray | float]:
    """(thresholds as a file has them, their values)."""
    values = np.linspace(0.1, 1, d_sae).astype(np.float32)
    forms: list[tuple[str, Any, Any, int]] = [
        ("one number", 0.5, 0.5, CLEAR),
        ("of NumPy", np.float64(0.5), 0.5, CLEAR),
        ("a tensor of none", torch.tensor(0.5), 0.5, CLEAR),
        ("a tensor of one", torch.tensor([0.5]), 0.5, CLEAR),
        ("a list", values.tolist(), values, CLEAR),
        ("a tuple", tuple(values.tolist()), values, CLEAR),
        ("an array", values, values, CLEAR),
        ("a tensor", torch.from_numpy(values), values, CLEAR),
        ("a parameter", torch.nn.Parameter(torch.from_numpy(values.copy())), values, CLEAR),
        ("bfloat16", torch.full((d_sae,), 0.5).bfloat16(), 0.5, CLEAR),
        ("zeros", torch.zeros(d_sae), 0.0, CLEAR),
        ("zero", 0, 0.0, CLEAR),
        ("text", "0.5", 0.5, OPEN),
        ("a row", torch.from_numpy(values)[None], values, OPEN),
        ("a list of tensors", list(torch.from_numpy(values)), values, CLEAR),
        ("negative", -0.5, 0.0, OPEN),
        ("some negative", torch.from_numpy(values - 0.5), np.maximum(values - 0.5, 0), OPEN),
        ("too few", values[:-1], values, UNCLEAR),
        ("a bool", True, 0.5, UNCLEAR),
        ("a bool of NumPy", np.bool_(True), 0.5, UNCLEAR),
        ("bools", torch.ones(d_sae, dtype=torch.bool), 0.5, UNCLEAR),
        ("nan", float("nan"), 0.5, UNCLEAR),
        ("a dict", {"value": 0.5}, 0.5, UNCLEAR),
        ("texts", ["0.5"] * d_sae, 0.5, OPEN),
        ("complex", torch.full((d_sae,), 0.5 + 1j), 0.5, UNCLEAR),
        ("nothing in it", [], 0.5, UNCLEAR),
    ]
    weights = [3 if sure == CLEAR else 1 for *_, sure in forms]
    name, form, value, sure = one.rng.choices(forms, weights)[0]
    one.did(f"threshold: {name}", sure)
    return form, value
