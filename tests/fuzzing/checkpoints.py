"""The `.pt` of a restoration model, and its residual stream in float64."""

import argparse
import collections
from typing import Any

import numpy as np
import torch

from fuzzing.inputs import CLEAR, OPEN, UNCLEAR, Input
from fuzzing.values import number, objects, save, spoiled, stored, tensors_of

BASE = {"vocab_size": 40, "max_position": 12, "d_model": 16, "n_heads": 4, "d_ff": 20, "n_layers": 3}
DEFAULTS = {"max_position": 768, "d_model": 384, "n_heads": 8, "d_ff": 1536, "n_layers": 16, "rotary_base": 10000}
IDS = np.random.default_rng(5).integers(0, 40, (2, 9)).astype(np.int32)
MASK = (np.arange(9) < np.array([[9], [6]])).astype(np.int32)


def model_arrays(seed: int) -> dict[str, np.ndarray]:
    """Tensors by their PyTorch names; the numbers matter each."""
    rng, d, ff, v = np.random.default_rng(seed), BASE["d_model"], BASE["d_ff"], BASE["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (v, d)}
    for i in range(BASE["n_layers"]):
        for norm in ("ln1", "ln2"):
            shapes |= {f"layers.{i}.{norm}.weight": (d,), f"layers.{i}.{norm}.bias": (d,)}
        for q in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"layers.{i}.attn.{q}.weight": (d, d), f"layers.{i}.attn.{q}.bias": (d,)}
        shapes |= {f"layers.{i}.ff.0.weight": (ff, d), f"layers.{i}.ff.0.bias": (ff,)}
        shapes |= {f"layers.{i}.ff.2.weight": (d, ff), f"layers.{i}.ff.2.bias": (d,)}
    shapes |= {"final_ln.weight": (d,), "final_ln.bias": (d,), "head.weight": (v, d), "head.bias": (v,)}
    out = {name: 0.3 * rng.normal(size=shape) for name, shape in shapes.items()}
    return {n: (a + 1 if n.endswith("weight") and a.ndim == 1 else a).astype(np.float32) for n, a in out.items()}


MODELS = [model_arrays(seed) for seed in range(3)]


def stream(t: dict[str, np.ndarray], n_heads: int, base: float, layer: int) -> np.ndarray:
    """The residual stream after a block, float64, with the attention mask on."""
    d = t["embed.weight"].shape[1]
    d_head, n = d // n_heads, IDS.shape[1]
    inverse = 1.0 / np.float32(base) ** (np.arange(0, d_head, 2, dtype=np.float32) / np.float32(d_head))
    angle = np.outer(np.arange(n, dtype=np.float32), inverse).astype(np.float32)
    cos, sin = (np.concatenate([f(angle)] * 2, 1).astype(np.float32).astype(np.float64) for f in (np.cos, np.sin))

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return y * t[f"{name}.weight"] + t[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def turned(x: np.ndarray) -> np.ndarray:
        return x * cos + np.concatenate([-x[..., d_head // 2 :], x[..., : d_head // 2]], -1) * sin

    x = t["embed.weight"][IDS]
    for i in range(layer + 1):
        h = norm(x, f"layers.{i}.ln1")
        q, k, v = (
            linear(h, f"layers.{i}.attn.{c}_proj").reshape(*IDS.shape, n_heads, d_head).swapaxes(1, 2) for c in "qkv"
        )
        scores = turned(q) @ turned(k).swapaxes(-1, -2) * d_head**-0.5 + (1 - MASK[:, None, None, :]) * -1e9
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(1, 2).reshape(*IDS.shape, d)
        x = x + linear(mixed, f"layers.{i}.attn.out_proj")
        h = linear(norm(x, f"layers.{i}.ln2"), f"layers.{i}.ff.0")
        x = x + linear(torch.nn.functional.gelu(torch.from_numpy(h)).numpy(), f"layers.{i}.ff.2")
    return x


CHANGES_MODEL = ("activation", "norm_eps", "causal", "scale", "n_kv_heads", "window", "tie_weights", "max_len")
OTHER_NAMES = {"n_layers": "num_layers", "n_heads": "num_heads", "d_ff": "dim_feedforward", "d_model": "hidden_size"}
WRAPPERS = ("module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "model.module.", "net.")


def checkpoint(one: Input) -> None:
    """A restoration model's `.pt`."""
    arrays = dict(one.pick(*MODELS))
    n_heads, base = one.pick(1, 2, 4, 8), one.pick(10000, 10000, 500, 10000.0, 123.5)
    said: dict[str, Any] = BASE | {"n_heads": n_heads, "dropout": 0.1, "rotary_base": base}
    tensors: dict[str, Any] = tensors_of(one, arrays, 0.02)
    if one.maybe(0.1):
        tensors["head.weight"] = tensors["embed.weight"]
        one.did("tied")
    if one.maybe(0.05):
        name = one.pick("layers.0.ln1.bias", "layers.1.attn.q_proj.bias", "final_ln.bias")
        tensors[name] = torch.tensor([0.25]).expand(16)
        one.did(f"{name} expanded")
    meaning: dict[str, Any] = dict(said)
    config: dict[str, Any] = {}
    for name, value in said.items():
        config[name] = value
        if name in DEFAULTS and one.maybe(0.05):
            del config[name]
            meaning[name] = DEFAULTS[name]
            shaped = name in ("d_model", "d_ff", "n_layers")  # the tensors say otherwise
            one.did(f"no {name}", UNCLEAR if shaped else CLEAR)
        elif one.maybe(0.01) and name in OTHER_NAMES:
            config[OTHER_NAMES[name]] = config.pop(name)
            one.did(f"{name} by another name", OPEN)
        elif name in BASE and one.maybe(0.06):
            config[name] = number(one, value, name, 0)
    if one.maybe(0.06):
        name, wrong = one.pick(
            ("n_heads", 3), ("n_heads", 0), ("n_heads", 16), ("n_layers", 2), ("n_layers", 4), ("d_ff", 19),
            ("d_model", 32), ("vocab_size", 41), ("vocab_size", 10**12), ("rotary_base", "big"), ("rotary_base", 0),
            ("rotary_base", float("inf")), ("n_heads", None), ("dropout", 1.5), ("dropout", "some"),
        )  # fmt: skip
        config[name] = wrong
        one.did(f"{name} {wrong!r}", UNCLEAR)
    if "rotary_base" in config and one.maybe(0.1) and type(config["rotary_base"]) in (int, float):
        form = one.pick(np.float64, torch.tensor, np.float32, str)
        config["rotary_base"] = form(config["rotary_base"])
        one.did(f"rotary_base by {form.__name__}", OPEN if form is str else CLEAR)
    if one.maybe(0.05):
        word = one.pick(*CHANGES_MODEL)
        config[word] = one.pick(True, 1e-6, "relu", 2)
        one.did(f"config says {word}", UNCLEAR)
    if one.maybe(0.05):
        config[one.pick("lr", "batch_size", "seed", "epochs", "name")] = one.pick(1, 1e-3, "x", None)
        one.did("config says how it was trained", OPEN)
    if one.maybe(0.04):
        name = one.pick("layers.0.gate.weight", "norm.weight", "layers.3.ln1.bias", "layers.0.attn.q_proj.lora", "x")
        tensors[name] = torch.ones(16)
        one.did(f"a tensor {name}", UNCLEAR)
    if one.maybe(0.04):
        name = one.pick(*arrays)
        del tensors[name]
        one.did(f"no {name}", UNCLEAR)
    if one.maybe(0.05):
        spoiled(one, tensors, one.pick("layers.0.attn.k_proj.weight", "layers.0.ff.0.bias", "embed.weight"))
    names = {name: name for name in tensors}
    match one.rng.random():
        case x if x < 0.15:
            chain = one.pick(*WRAPPERS)
            names = {name: chain + name for name in tensors}
            one.did(f"names behind {chain}")
        case x if x < 0.19:
            chain, other = one.rng.sample(WRAPPERS, 2)
            names = {name: (chain if i % 2 else other) + name for i, name in enumerate(tensors)}
            one.did(f"names behind {chain} and {other}", OPEN)
        case x if x < 0.22:
            names = {name: name if i == 3 else "module." + name for i, name in enumerate(tensors)}
            one.did("all names but one behind module.", OPEN)
    written: Any = {names[name]: tensor for name, tensor in tensors.items()}
    if one.maybe(0.02):
        written |= {f"other.{name}": torch.zeros_like(t) for name, t in tensors.items() if torch.is_tensor(t)}
        one.did("the names twice, with other tensors", UNCLEAR)
    if one.maybe(0.2):
        written = collections.OrderedDict(written)
        written._metadata = collections.OrderedDict({"": {"version": 1}})
        one.did("a state_dict of a module")
    content: dict[str, Any] = {"model_state_dict": written, "config": config}
    if one.maybe(0.6):
        content["vocab_size"] = number(one, said["vocab_size"], "vocab_size beside", 0.7)
    if one.maybe(0.03):
        content["vocab_size"] = 39
        one.did("another vocab_size beside", UNCLEAR)
    for _ in range(one.pick(0, 0, 1, 2)):
        content[one.pick("epoch", "history", "args", "optimizer_state_dict", "rng", "best_val_loss", "x")] = objects(
            one
        )
    if one.maybe(0.03):
        form = one.pick("ordered", "namespace", "text", "pairs", "none", "missing", "state_dict", "bare")
        if form == "ordered":
            content["config"] = collections.OrderedDict(config)
        elif form in ("namespace", "text"):
            content["config"] = argparse.Namespace(**config) if form == "namespace" else repr(config)
        elif form in ("pairs", "none"):
            content["config"] = list(config.items()) if form == "pairs" else None
        elif form == "missing":
            del content["config"]
        elif form == "state_dict":
            content["state_dict"] = content.pop("model_state_dict")
        else:
            content = written
        one.did(
            f"content: {form}", CLEAR if form == "ordered" else UNCLEAR if form in ("none", "missing", "bare") else OPEN
        )
    one.path = one.folder / one.pick("best_model.pt", "last_model.pt", "m.pth")
    save(one, content, one.path)
    one.layer = one.rng.randrange(3)
    if one.sure != UNCLEAR:
        values = {name: stored(tensor) for name, tensor in tensors.items()}
        x = stream(values, meaning["n_heads"], float(meaning["rotary_base"]), one.layer)
        one.meant = (x, np.ones(x.shape, bool), np.abs(x).max())


def read_model(one: Input) -> np.ndarray:
    from convert import load_restoration_model

    assert one.layer is not None
    return np.asarray(load_restoration_model(one.path).resid_post(IDS, MASK, layer=one.layer))
