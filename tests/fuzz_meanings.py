#!/usr/bin/env python3
"""Feed the readers files whose meaning is known: each is read as it means, or refused; none is read as something else.

    python tests/fuzz_meanings.py --times 20000

Where `fuzz.py` changes bytes, this changes what files say: words renamed, doubled, dropped and added, numbers of other
types, tensors in other types and layouts, other places, other forms of the same table. Whoever makes an input knows
what it means, from the definitions of the formats and not from the readers, and says how sure that is:

    clear    a legal file with one meaning; it should be read
    open     one meaning, in a form that its own program would not write; it may be refused
    unclear  it contradicts itself, or says something that might change the figures; it must be refused

The figures are computed here in float64: the residual stream of a tiny model, the latents and reconstructions of an
SAE and the layer it is of, the arrays of a dataset, the cleaned texts of fragments.
"""

import argparse
import codecs
import collections
import itertools
import json
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

CLEAR, OPEN, UNCLEAR = 0, 1, 2
TOLERANCE = 1e-5
"""Of the largest figure."""
MARGIN = 1e-4
"""Of the largest pre-activation: nearer to its threshold than that, whether a latent fires is left to rounding."""
Figures = tuple[np.ndarray, np.ndarray, float]
"""(what must come out, where it is sure, the largest)."""


@dataclass
class Input:
    """One file or folder, and what it means."""

    rng: random.Random
    folder: Path
    path: Path = Path()
    given: Any = None
    """What is told to the reader besides: a layer, a split with a number of samples, the name of a column."""
    sure: int = CLEAR
    done: list[str] = field(default_factory=list)
    meant: Any = None
    layer: int | None = None
    many: bool = False
    """Whether there is much that is seldom; else it is seldom indeed, for each input to have a few changes."""

    def did(self, what: str, sure: int = CLEAR) -> None:
        """Note a change, and what it does to the certainty."""
        self.done.append(what if sure == CLEAR else f"{what} ({('', 'open', 'unclear')[sure]})")
        self.sure = max(self.sure, sure)

    def maybe(self, chance: float) -> bool:
        return self.rng.random() < (chance if chance > 0.1 or self.many else chance / 3)

    def pick(self, *of: Any) -> Any:
        return self.rng.choice(of)


# ----------------------------------------------------------------------------------------------------- numbers, tensors


def number(one: Input, n: int, what: str, plain: float = 0.6) -> Any:
    """A whole number as a pickle may have it."""
    if one.maybe(plain):
        return n
    forms: list[tuple[str, Any, int]] = [
        ("np.int64", np.int64(n), CLEAR),
        ("np.int32", np.int32(n), CLEAR),
        ("np.float64", np.float64(n), CLEAR),
        ("float", float(n), CLEAR),
        ("tensor", torch.tensor(n), CLEAR),
        ("float tensor", torch.tensor(float(n)), CLEAR),
        ("array", np.array(n), CLEAR),
        ("text", str(n), OPEN),
        ("list", [n], OPEN),
        ("tensor of one", torch.tensor([n]), OPEN),
        ("array of one", np.array([n]), OPEN),
    ]
    bad = [
        ("half", n + 0.5, UNCLEAR),
        ("word", "many", UNCLEAR),
        ("bool", True, UNCLEAR),
        ("negative", -1 - n, UNCLEAR),
        ("nan", float("nan"), UNCLEAR),
        ("dict", {"value": n}, UNCLEAR),
    ]
    name, value, sure = one.rng.choice(bad if one.maybe(0.15) else forms)
    one.did(f"{what} as {name}", sure)
    return value


def json_number(one: Input, n: int, what: str, plain: float = 0.8) -> Any:
    """A whole number as JSON may have it."""
    if one.maybe(plain):
        return n
    forms = [("float", float(n), OPEN), ("text", str(n), OPEN), ("list", [n], OPEN), ("half", n + 0.5, UNCLEAR)]
    forms += [("bool", True, UNCLEAR), ("negative", -1 - n, UNCLEAR), ("word", "many", UNCLEAR)]
    name, value, sure = one.rng.choice(forms)
    one.did(f"{what} as {name}", sure)
    return value


def laid(one: Input, tensor: torch.Tensor, what: str, chance: float = 0.15) -> torch.Tensor:
    """The same tensor, as it may lie in a file."""
    if not one.maybe(chance):
        return tensor
    n, flat = tensor.numel(), tensor.reshape(-1)
    form = one.pick("transposed", "view", "strided", "parameter", "attribute", "grad", "negated", "part", "protocol")
    if form == "transposed" and tensor.ndim == 2:
        tensor = tensor.t().contiguous().t()
    elif form == "view":
        big = torch.full((n + 7,), 9.0, dtype=tensor.dtype)
        big[3 : 3 + n] = flat
        tensor = big[3 : 3 + n].view(tensor.shape)
    elif form == "strided":
        big = torch.full((2 * n,), 9.0, dtype=tensor.dtype)
        big[::2] = flat
        tensor = big[::2] if tensor.ndim == 1 else big.view(tensor.shape[0], -1)[:, ::2]
    elif form == "part" and tensor.ndim == 2:
        big = torch.full((tensor.shape[0] + 2, tensor.shape[1] + 3), 9.0, dtype=tensor.dtype)
        big[1:-1, 2:-1] = tensor
        tensor = big[1:-1, 2:-1]
    elif form in ("parameter", "attribute"):
        tensor = torch.nn.Parameter(tensor)
        if form == "attribute":
            tensor.no_decay = True
    elif form == "grad":
        tensor = tensor.clone().requires_grad_()
    elif form == "negated":  # a bit of the tensor says that its elements are to be negated
        one.did(f"{what} negated by a bit", OPEN)
        return torch._neg_view(-tensor)
    else:
        return tensor
    one.did(f"{what} {form}")
    return tensor


DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def stored(tensor: torch.Tensor) -> np.ndarray:
    """The values that lie in the file, float64."""
    return tensor.detach().resolve_neg().to(torch.float64).numpy().copy()


def tensors_of(one: Input, arrays: dict[str, np.ndarray], chance: float = 0.15) -> dict[str, torch.Tensor]:
    """As tensors of one type, seldom of several; each in a layout of its own."""
    out = {}
    of_all = one.pick(*DTYPES) if one.maybe(0.2) else None
    if of_all:
        one.did(f"tensors in {of_all}")
    for name, array in arrays.items():
        kind = of_all or (one.pick(*DTYPES) if one.maybe(0.03) else None)
        if kind and not of_all:
            one.did(f"{name} in {kind}")
        tensor = torch.from_numpy(np.array(array)).to(DTYPES[kind] if kind else torch.float32)
        out[name] = laid(one, tensor, name, chance)
    return out


def spoiled(one: Input, tensors: dict[str, torch.Tensor], name: str) -> None:
    """One tensor that no figures can come from."""
    if name not in tensors:
        return
    tensor = tensors[name].detach().resolve_neg().clone()
    form = one.pick("nan", "whole numbers", "complex", "sparse", "one too few", "turned", "a list", "none")
    if form == "nan":
        tensor[(0,) * tensor.ndim] = float("nan")
    made: dict[str, Any] = {
        "nan": tensor,
        "whole numbers": tensor.nan_to_num().to(torch.int32),
        "complex": tensor.to(torch.complex64),
        "sparse": tensor.float().to_sparse(),
        "one too few": tensor[:-1],
        "turned": tensor.t() if tensor.ndim == 2 else tensor[None],
        "a list": tensor.tolist(),
        "none": None,
    }
    if form == "turned" and tensor.shape == tensor.t().shape:
        form = "none"  # a square matrix would not show it
    tensors[name] = made[form]
    one.did(f"{name}: {form}", UNCLEAR)


def save(one: Input, content: Any, path: Path) -> None:
    """torch.save in one of its ways."""
    more: dict[str, Any] = {}
    if one.maybe(0.05):
        more["pickle_protocol"] = one.pick(3, 4, 5)
        one.did(f"protocol {more['pickle_protocol']}")
    if one.maybe(0.01):
        more["_use_new_zipfile_serialization"] = False
        one.did("a file of before PyTorch 1.6", OPEN)
    from torch.utils.serialization import config

    config.save.compute_crc32 = not one.maybe(0.02)
    try:
        torch.save(content, path, **more)
    finally:
        config.save.compute_crc32 = True


class Own:
    """Of a user's own script."""


def objects(one: Input) -> Any:
    """Anything that lies in a file and says nothing."""
    return one.pick(
        None,
        1,
        0.5,
        "x",
        True,
        [1, 2],
        {"a": {"b": 1}},
        (1, "2"),
        {3},
        np.float64(1.5),
        np.arange(3),
        torch.ones(2),
        argparse.Namespace(lr=1e-3),
        pathlib.PurePosixPath("/data"),
        torch.float32,
        torch.device("cpu"),
        collections.Counter("aab"),
        collections.defaultdict(list, {"loss": [1.0]}),
        Own,
        float("nan"),
    )


# ---------------------------------------------------------------------------------------------------------- the model

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


# -------------------------------------------------------------------------------------------------------------- SAEs

D_IN, WIDTHS = 6, (10, 110)
X = np.random.default_rng(7).normal(size=(20, D_IN)).astype(np.float32)


def sae_arrays(seed: int, d_sae: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"W_enc": (D_IN, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, D_IN), "b_dec": (D_IN,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


SAES = [sae_arrays(seed, d_sae) for seed in range(3) for d_sae in (10, 10, 10, 110)]


@dataclass
class Meaning:
    """An SAE in the words of all its formats."""

    W_enc: np.ndarray
    W_dec: np.ndarray
    b_dec: np.ndarray
    b_enc: np.ndarray | None = None
    rule: str = "relu"
    k: int | None = None
    threshold: Any = None
    subtracts: bool = False
    factor: float = 1.0
    by_norm: bool = False
    gate: tuple[np.ndarray, ...] = ()
    """b_gate, b_mag, r_mag."""

    def figures(self) -> Figures:
        """Latents and reconstruction side by side."""
        z = self.factor * X.astype(np.float64) - self.b_dec * self.subtracts
        norm = np.linalg.norm(self.W_dec, axis=1) if self.by_norm else 1.0
        u = z @ self.W_enc
        if self.rule == "gated":
            gate, magnitude, grown = self.gate
            pre, on = np.exp(grown) * u + magnitude, u + gate
        else:
            pre = (u + self.b_enc) * norm
            on = pre - (self.threshold if self.rule == "threshold" else 0)
        largest = max(np.abs(pre).max(), np.abs(z).max(), np.abs(self.b_dec).max())
        near = np.abs(on) < MARGIN * largest
        latents = np.where(on > 0, np.maximum(pre, 0), 0)
        if self.rule in ("relu", "topk"):
            near[:] = False
        if self.rule == "topk" and self.k is not None and self.k < pre.shape[1]:
            order = np.sort(pre, axis=1)[:, ::-1]
            kth, following = order[:, self.k - 1], order[:, self.k]
            latents = np.where(pre >= kth[:, None], latents, 0)
            near |= ((kth - following < MARGIN * largest) & (following > -MARGIN * largest))[:, None]
        back = (latents / norm @ self.W_dec + self.b_dec) / self.factor
        sure = np.concatenate([~near, np.repeat(~near.any(1, keepdims=True), back.shape[1], 1)], 1)
        found = np.concatenate([latents, back], 1)
        return found, sure, max(largest, np.abs(found).max())


def read_sae(one: Input) -> np.ndarray:
    """Latents, reconstruction; `one.layer` must be the one that is found."""
    import jax.numpy as jnp

    from convert import layer_of, load_sae
    from jaxsae.sae import autoencoder as sae_lib

    file = load_sae(one.path)
    layer = layer_of(one.path, file, one.given)
    latents = sae_lib.encode(file.sae, jnp.asarray(X), file.config.k)
    out = np.concatenate([np.asarray(latents), np.asarray(sae_lib.decode(file.sae, latents))], 1)
    if one.sure != UNCLEAR and layer != one.layer:
        raise WrongError(f"layer {layer} instead of {one.layer}")
    return out


OUTPUTS = ("blocks.{}.hook_resid_post",)
MODULES = ("layers.{}", "model.layers.{}", "transformer.h.{}", "gpt_neox.layers.{}", "blocks.{}")
NAMED = ("resid_post_layer_{}", "resid_post_{}")
OTHERS = (
    "blocks.{}.hook_mlp_out", "blocks.{}.hook_resid_mid", "blocks.{}.attn.hook_z", "blocks.{}.hook_attn_out",
    "layers.{}.mlp", "layers.{}.attn.out_proj", "mlp_out_layer_{}", "attn_out_layer_{}", "ln_final.hook_normalized",
    "hook_embed", "embed", "head", "final_ln", "blocks.{}.hook_mlp_in", "blocks.{}.ln1.hook_normalized",
    "blocks.{}.hook_resid_post.hook_sae_output",
)  # fmt: skip
NOT_NAMES: tuple[Any, ...] = (["blocks.1.hook_mlp_out"], 5, {"name": "mlp"}, True, 1.5)


def places(one: Input, words: dict[str, tuple[str, ...]], put: Callable[[str, Any], None], numbers: Any) -> list[Any]:
    """Say of which layer and place it is, in none, one or several words; gives what they say.

    Args:
      words: the format's words for "layer" and "hook".
      put: writes a word.
      numbers: `number` or `json_number`.

    Returns: ("block", n), ("input", n), ("layer", n, word) or ("any",) of each statement; a bare word for none of them.
    """
    layer, agree = one.rng.randrange(4), not one.maybe(0.06)
    said: list[Any] = []
    for role in words:
        chance = {"layer": 0.5, "hook": 0.6}[role]
        for word in one.rng.sample(words[role], len(words[role])):
            if not one.maybe(chance):
                continue
            chance = 0.04
            n = layer if agree else one.rng.randrange(4)
            if one.maybe(0.02):
                put(word, None)
                one.did(f"{word} None")
                continue
            if role == "layer":
                put(word, numbers(one, n, word, 0.85))
                said.append(("layer", n, word))
                continue
            match one.rng.random():
                case x if x < 0.75:
                    put(word, one.pick(*OUTPUTS, *OUTPUTS, *MODULES, *NAMED).format(n))
                    if any(s[0] != "layer" for s in said):
                        one.did("two names of a place", OPEN)
                    said.append(("block", n))
                case x if x < 0.87:
                    if any(s[0] != "layer" for s in said):
                        one.did("two names of a place", OPEN)
                    put(word, f"blocks.{n + agree}.hook_resid_pre")
                    said.append(("input", n + agree))
                case x if x < 0.91:
                    put(word, one.pick("resid_post", "hook_resid_post", "residual"))
                    said.append(("any",))
                    one.did("a place of any layer", OPEN)
                case x if x < 0.985:
                    name = one.pick(*OTHERS)
                    put(word, name.format(n))
                    said.append("other")
                    one.did(f"{word} {name}", UNCLEAR)
                case _:
                    put(word, one.pick(*NOT_NAMES))
                    said.append("no name")
                    one.did(f"{word} is no name", UNCLEAR)
    return said


def settle(one: Input, said: list[Any], named: int | None, is_folder: bool) -> None:
    """What the statements, the name and the given layer come to: `one.layer`, or that it is unclear."""
    inputs = {n for kind, n, *_ in (s for s in said if len(s) > 1 and not isinstance(s, str)) if kind == "input"}
    blocks = {n for kind, n, *_ in (s for s in said if len(s) > 1 and not isinstance(s, str)) if kind == "block"}
    layers = {s[1] for s in said if s[0] == "layer"}
    meant = blocks | {n - 1 for n in inputs}
    if inputs and not blocks:
        # the number of a layer beside `hook_resid_pre` may be that of the hook, or of the block whose output it is
        agree = len(inputs) == 1 and len(layers) <= 1 and all(n in (max(inputs), max(inputs) - 1) for n in layers)
        one.did("the next block's input")
        if layers:
            one.did("with a layer", OPEN if agree else UNCLEAR)
    else:
        meant |= layers
    if len(meant) > 1 or -1 in meant:
        one.did("places that differ" if len(meant) > 1 else "before the first block", UNCLEAR)
    if one.maybe(0.3) or (not meant and named is None):
        one.given = max(meant) if meant and not one.maybe(0.1) else one.rng.randrange(4)
        one.did(f"--layer {one.given}")
    if meant:
        if named is not None and named not in meant:
            one.did("a name of another layer", OPEN)
        one.layer = max(meant)
    elif named is not None and not (is_folder and one.given is not None):
        one.layer = named
    else:
        one.layer = one.given
    if one.given is not None and one.given != one.layer:
        one.did("another layer than given", UNCLEAR)
    if one.layer is None:
        one.did("of no layer", UNCLEAR)


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


PT = {"layer": ("layer", "hook_layer", "layer_index"), "hook": ("hook_name", "hook_point", "hook", "submodule_name")}
"""The words of our file; its own is the first."""


def sae_pt(one: Input) -> None:
    """`sae_layer*_optimized.pt`."""
    tensors: dict[str, Any] = tensors_of(one, one.pick(*SAES))
    d_sae = tensors["W_enc"].shape[1]
    meaning = Meaning(**{name: stored(tensor) for name, tensor in tensors.items()})
    config: dict[str, Any] = {}
    beside: dict[str, Any] = {}

    def put(word: str, value: Any, in_config: float = 0.85) -> None:
        (config if one.maybe(in_config) else beside)[word] = value

    for word, size in (("d_in", D_IN), ("d_sae", d_sae)):
        if one.maybe(0.02):
            config[word] = size + one.pick(-1, 1, d_sae)
            one.did(f"another {word}", UNCLEAR)
        elif one.maybe(0.02):
            one.did(f"no {word}", OPEN)
        else:
            config[word] = number(one, size, word, 0.92)
    if one.maybe(0.8):
        config[one.pick("l1_coef", "l1_coef", "l1_coefficient")] = one.pick(1e-3, 0, 0.0, np.float64(1e-3), None)

    k, architecture, activation, limits, value = None, None, None, None, 0.0
    kinds = [one.pick("plain", "plain", "topk", "topk", "threshold", "threshold", "any")]
    if kinds[0] == "topk" or (kinds[0] == "any" and one.maybe(0.4)):
        k = one.rng.randint(1, d_sae)
        for word in one.rng.sample(("k", "k_sparse", "top_k", "topk"), one.pick(1, 1, 1, 2)):
            put(word, number(one, k, word, 0.7))
        if one.maybe(0.04):
            put("k_sparse", k + 1)
            config["k"] = k
            one.did("two ks", UNCLEAR)
        if one.maybe(0.03):
            config["k"] = one.pick(0, d_sae + 1, 10**9)
            for word in ("k_sparse", "top_k", "topk"):
                config.pop(word, None)
                beside.pop(word, None)
            beside.pop("k", None)
            one.did("a k that cannot be", UNCLEAR)
    elif one.maybe(0.05):
        put(one.pick("k", "k_sparse"), None)
        one.did("k None")
    if kinds[0] == "threshold" or (kinds[0] == "any" and one.maybe(0.4)):
        limits, value = limits_of(one, d_sae)
        put(one.pick("threshold", "threshold", "thresholds"), limits)
        if one.maybe(0.04):
            config["threshold"], beside["threshold"] = limits, 0.75
            one.did("two thresholds", UNCLEAR)
    elif one.maybe(0.05):
        put("threshold", None)
        one.did("threshold None")
    if one.maybe(0.5):
        fit = [name for name, (kind, _) in ARCHITECTURES.items() if kind == {"plain": "relu"}.get(kinds[0], kinds[0])]
        name = one.pick(*fit) if fit and not one.maybe(0.1) else one.pick(*ARCHITECTURES)
        architecture, sure = ARCHITECTURES[name]
        put(one.pick("architecture", "architecture", "sae_type"), name)
        one.did(f"architecture {name}", sure)
    if one.maybe(0.25):
        name = one.pick(*ACTIVATIONS) if one.maybe(0.25) else "relu"
        activation, sure = ACTIVATIONS[name]
        put(one.pick("activation", "activation_fn", "activation_function"), name)
        one.did(f"activation {name}", sure)
    meaning.rule, sure = rule(architecture, activation, k, limits is not None, not np.any(value))
    one.did(f"a {meaning.rule}, k {k}, {'' if limits is None else 'thresholds'}", sure)
    meaning.k, meaning.threshold = k, value
    if one.maybe(0.04):
        put("apply_b_dec_to_input", True)
        meaning.subtracts = True
        one.did("b_dec subtracted, in SAELens's word", OPEN)
    elif one.maybe(0.04):
        put("apply_b_dec_to_input", False)
    besides(one, put)
    if one.maybe(0.04):
        spoiled(one, tensors, one.pick(*tensors))
    if one.maybe(0.03):
        name = one.pick(*tensors)
        tensors[one.pick("module.", "W", "encoder.") + name] = tensors.pop(name)
        one.did(f"{name} by another name", OPEN)
    said = places(one, PT, put, number)
    named = one.rng.randrange(4) if one.maybe(0.6) else None
    if named is not None and said and not one.maybe(0.1):
        named = next((s[1] - (s[0] == "input") for s in said if s[0] in ("layer", "block", "input")), None)
    name = one.pick("sae_layer{}_optimized.pt", "sae_layer_{}.pt", "sae_layer{}_best.pt").format(named)
    one.path = one.folder / ("sae.pt" if named is None else name)
    settle(one, said, named, False)
    if one.maybe(0.9):
        losses = [
            [1.0, 0.5], [np.float64(1)], [torch.tensor(1.0)], None, [], (1.0,), np.ones(2), {"a": 1}, "low",
            [float("nan")], [[1.0], [2.0]], [None],
        ]  # fmt: skip
        beside[one.pick("losses", "losses", "training_losses")] = one.rng.choice(losses)
    content = {**tensors, **beside, "config": config}
    if one.maybe(0.03):
        form = one.pick("ordered", "namespace", "no config", "none", "within", "list")
        content["config"] = {"ordered": collections.OrderedDict(config), "namespace": argparse.Namespace(**config)}.get(
            form
        )
        if form == "no config":
            del content["config"]
        elif form == "within":
            content = {"state_dict": {**tensors, **beside}, "config": config}
        elif form == "list":
            content["config"] = list(config.items())
        one.did(
            f"content: {form}", {"ordered": CLEAR, "namespace": OPEN, "within": OPEN, "list": OPEN}.get(form, UNCLEAR)
        )
    save(one, content, one.path)
    if one.sure != UNCLEAR:
        one.meant = meaning.figures()


def write_json(one: Input, content: Any, path: Path) -> None:
    """A config in JSON, seldom in another encoding."""
    text, form = json.dumps(content, indent=one.pick(None, 2, 4), ensure_ascii=one.maybe(0.5)), one.rng.random()
    raw = text.encode()
    if form < 0.03:
        raw = codecs.BOM_UTF8 + raw
        one.did("a byte order mark", OPEN)
    elif form < 0.05:
        raw = text.encode("utf-16")
        one.did("UTF-16", OPEN)
    elif form < 0.07 and isinstance(content, dict) and content:
        key = one.pick(*content)
        raw = (text.rstrip("}\n ") + f', "{key}": null}}').encode()
        one.did(f"{key} twice", UNCLEAR)
    path.write_bytes(raw)


def save_safe(one: Input, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """safetensors has no layouts."""
    save_file({name: t.detach().resolve_neg().clone().contiguous() for name, t in tensors.items()}, path)


def plain_objects(one: Input) -> Any:
    return one.pick(None, 1, 0.5, "x", True, [1, 2], {"a": {"b": 1}})


def config_besides(one: Input, config: dict[str, Any], silent: tuple[str, ...]) -> None:
    """As `besides`, in JSON."""
    for _ in range(one.pick(0, 1, 2)):
        config[one.pick(*silent)] = plain_objects(one)
    if one.maybe(0.05):
        config[one.pick(*UNKNOWN)] = one.pick(1, 2.0, "x", True, [1])
        one.did("an unknown word", UNCLEAR)


SAELENS = (
    "dtype", "device", "neuronpedia_id", "lr", "l1_coefficient", "training_tokens", "sae_lens_version", "dataset_path",
    "context_size", "prepend_bos", "model_name", "seed", "train_batch_size_tokens", "log_to_wandb",
)  # fmt: skip
HOOKS = {"layer": ("hook_layer",), "hook": ("hook_name", "hook_point")}
NEW_HOOKS = {"layer": ("hook_layer",), "hook": ("hook_name",)}


def saelens(one: Input) -> None:
    """A folder of SAELens, of version 6 or older."""
    arrays = one.pick(*SAES)
    d_sae, rng = arrays["W_enc"].shape[1], np.random.default_rng(one.rng.randrange(3))
    kind = one.pick("standard", "standard", "topk", "topk", "jumprelu", "gated")
    old = one.maybe(0.4)
    if kind == "gated":
        arrays = {name: array for name, array in arrays.items() if name != "b_enc"}
        arrays |= {name: rng.normal(size=d_sae).astype(np.float32) for name in ("b_gate", "b_mag")}
        arrays["r_mag"] = (0.3 * rng.normal(size=d_sae)).astype(np.float32)
    if kind == "jumprelu":
        arrays = arrays | {"threshold": rng.uniform(-0.1 if one.maybe(0.2) else 0.05, 1, d_sae).astype(np.float32)}
    tensors: dict[str, Any] = tensors_of(one, arrays, 0)
    values = {name: stored(tensor) for name, tensor in tensors.items()}
    meaning = Meaning(*(values[name] for name in ("W_enc", "W_dec", "b_dec")), values.get("b_enc"), subtracts=True)
    if kind == "gated":
        meaning.rule, meaning.gate = "gated", tuple(values[name] for name in ("b_gate", "b_mag", "r_mag"))
    if kind == "jumprelu":
        meaning.rule, meaning.threshold = "threshold", values["threshold"]
    config: dict[str, Any] = {"architecture": kind}
    metadata: dict[str, Any] = {}
    if not old:
        metadata["sae_lens_version"] = one.pick("6.54.12", "6.0.0")
    for word, size in (("d_in", D_IN), ("d_sae", d_sae)):
        if one.maybe(0.02):
            config[word] = one.pick(size + 1, 0, 1)
            one.did(f"another {word}", UNCLEAR)
        elif one.maybe(0.02):
            one.did(f"no {word}", OPEN)
        else:
            config[word] = json_number(one, size, word, 0.95)
    if kind in ("standard", "topk") and one.maybe(0.02):
        config["architecture"] = one.pick("batchtopk", "abstopk", "transcoder", "temporal", "", 5, ["standard"])
        one.did(f"architecture {config['architecture']!r}", UNCLEAR)
    named = config["architecture"] == kind  # else a later change would take back what is wrong
    if kind == "standard" and named and one.maybe(0.1):
        del config["architecture"]
        one.did("no architecture", CLEAR if old else OPEN)
    if kind == "topk":
        meaning.rule, meaning.k = "topk", one.rng.randint(1, d_sae)
        if old and named and one.maybe(0.6):
            # `activation_fn_kwargs` decides, whatever `architecture` says
            config |= {
                "architecture": one.pick("standard", "topk"),
                one.pick("activation_fn_str", "activation_fn"): "topk",
            }
            config["activation_fn_kwargs"] = {"k": json_number(one, meaning.k, "k", 0.85)}
            if one.maybe(0.2):
                del config["architecture"]
            if one.maybe(0.1):
                config["activation_fn_kwargs"] = one.pick({}, None, [meaning.k], {"k": None})
                one.did("activation_fn topk without its k", UNCLEAR)
            if one.maybe(0.2):
                config["k"] = meaning.k if one.maybe(0.6) else meaning.k % d_sae + 1
                one.did("k twice", CLEAR if config["k"] == meaning.k else UNCLEAR)
        elif one.maybe(0.06):
            meaning.k = 100  # its loader's default
            one.did("no k", OPEN if d_sae > 100 else UNCLEAR)
        else:
            config["k"] = json_number(one, meaning.k, "k", 0.85)
        if one.maybe(0.3):
            meaning.by_norm = one.maybe(0.6)
            config["rescale_acts_by_decoder_norm"] = meaning.by_norm
            one.did(f"rescale {meaning.by_norm}")
        elif one.maybe(0.04):
            config["rescale_acts_by_decoder_norm"] = one.pick("false", "true", 2, [False])
            one.did("rescale in no bool", UNCLEAR)
    elif one.maybe(0.04):
        config["k"] = 3
        one.did("k of no topk", UNCLEAR)
    elif one.maybe(0.03):
        config["rescale_acts_by_decoder_norm"] = one.pick(True, False)
        one.did("rescale of no topk", OPEN)  # its loader does not look at it
    if kind != "topk" and one.maybe(0.15):
        name = "relu" if not one.maybe(0.2) else one.pick("gelu", "tanh-relu", "topk")
        config[one.pick("activation_fn_str", "activation_fn")] = name
        one.did(f"activation_fn {name}", CLEAR if name == "relu" else UNCLEAR)
    if one.maybe(0.6):
        meaning.subtracts = one.maybe(0.4)
        config["apply_b_dec_to_input"] = meaning.subtracts
    elif one.maybe(0.1):
        # its encode multiplies by it: 0 and 1 are as false and true, of what else there is none can be meant
        form, sure = one.pick((0, OPEN), (1, OPEN), (None, UNCLEAR), ("false", UNCLEAR), (0.5, UNCLEAR), ("", UNCLEAR))
        config["apply_b_dec_to_input"], meaning.subtracts = form, form == 1
        one.did(f"apply_b_dec_to_input {form!r}", sure)
    scaler: Any = None
    if one.maybe(0.3):
        form = one.pick("none", "none", False, None, "average", "average")
        if one.maybe(0.1):
            form = one.pick("layer_norm", "constant_norm_rescale", 1, "x")
        if form == "average":
            config["normalize_activations"] = one.pick("expected_average_only_in", "expected_average_only_in", True)
            scaler = meaning.factor = one.pick(0.25, 2.0, 3, 1)
            one.did(f"rows scaled by {scaler}")
            if one.maybe(0.15):
                scaler = one.pick(None, 0, -1, "2", True, float("nan"))
                one.did(f"a factor of {scaler!r}", UNCLEAR)
        else:
            config["normalize_activations"] = form
            one.did(f"normalize_activations {form!r}", CLEAR if form in ("none", False, None) else UNCLEAR)
    elif one.maybe(0.03):
        scaler = one.pick(1, 0.5)
        one.did(f"a factor of {scaler} that no word asks for", OPEN if scaler == 1 else UNCLEAR)
    if one.maybe(0.1):
        form = "none" if not one.maybe(0.3) else one.pick("hook_z", None, "x")
        config["reshape_activations"] = form
        one.did(f"reshape {form}", {"none": CLEAR, None: OPEN}.get(form, UNCLEAR))
    if one.maybe(0.05):
        config["finetuning_scaling_factor"] = one.maybe(0.3)
        # where there is no tensor of factors its loader does nothing
        one.did("finetuning_scaling_factor", OPEN if config["finetuning_scaling_factor"] else CLEAR)
    if one.maybe(0.05):
        ones = one.maybe(0.6)
        tensors["scaling_factor"] = torch.full((d_sae,), 1.0 if ones else 2.0)
        one.did(f"scaling_factor of {'1' if ones else '2'}", CLEAR if ones else UNCLEAR)
    if one.maybe(0.03):
        word, value, sure = one.pick(
            ("hook_head_index", 2, UNCLEAR), ("hook_head_index", None, CLEAR), ("hook_head_index", 0, UNCLEAR),
            ("hook_name_out", "blocks.3.hook_mlp_out", UNCLEAR),
        )  # fmt: skip
        (metadata if word == "hook_name_out" or one.maybe(0.5) else config)[word] = value
        one.did(f"{word} {value}", sure)
    at = config if old else metadata
    said = places(one, HOOKS if old or one.maybe(0.05) else NEW_HOOKS, at.__setitem__, json_number)
    if "hook_point" in at and not old:
        one.did("hook_point in metadata", OPEN)
    if one.maybe(0.04):
        other = metadata if old else config
        other["hook_name"] = f"blocks.{(n := one.rng.randrange(4))}.hook_resid_post"
        said.append(("block", n))
        one.did("a place in the other part of the file too", OPEN)
    config_besides(one, config, SAELENS)
    if one.maybe(0.2):
        metadata[one.pick("anything", "l0", "normalize_activations", "k")] = plain_objects(one)
    if one.maybe(0.04):
        name = one.pick("W_skip", "b_gate", "threshold", "mean", "module.W_enc")
        if name not in tensors:
            tensors[name] = torch.ones(d_sae)
            one.did(f"a tensor {name}", UNCLEAR)
    if one.maybe(0.04):
        del tensors[(name := one.pick(*arrays))]
        one.did(f"no {name}", UNCLEAR)
    elif one.maybe(0.03):
        name = one.pick("W_enc", "W_dec")
        tensors[name] = tensors[name].t()
        one.did(f"{name} turned", UNCLEAR)
    if metadata or one.maybe(0.5):
        config["metadata"] = metadata
    elif one.maybe(0.1):
        config["metadata"] = one.pick(None, [])
        one.did("metadata of no kind", OPEN)
    named = one.rng.randrange(4) if one.maybe(0.3) and (not said or one.maybe(0.1)) else None
    one.path = one.folder / (one.pick("sae", "blocks", "mlp 7") if named is None else f"my_layer_{named}")
    one.path.mkdir()
    write_json(one, config, one.path / "cfg.json")
    save_safe(one, tensors, one.path / "sae_weights.safetensors")
    if scaler is not None:
        (one.path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scaler}))
    if one.maybe(0.2):
        (one.path / "runner_cfg.json").write_text('{"k": 3, "normalize_activations": "layer_norm"}')
        save_file({"sparsity": torch.zeros(d_sae)}, one.path / "sparsity.safetensors")
        one.did("files beside")
    if one.maybe(0.02):
        save_file({"mean": torch.ones(D_IN)}, one.path / "activation_whitening.safetensors")
        one.did("whitening beside", UNCLEAR)
    settle(one, said, named, True)
    if one.maybe(0.2):
        one.path /= "sae_weights.safetensors"
        if named is not None and not any(s[0] in ("block", "layer", "input") for s in said):
            one.did("the folder's name is hidden", UNCLEAR if one.given is None else OPEN)
            one.layer = one.given if one.given is not None else one.layer
    if one.sure != UNCLEAR:
        one.meant = meaning.figures()


DICTIONARY = (
    "trainer_class", "lr", "steps", "seed", "device", "warmup_steps", "decay_start", "wandb_name", "lm_name",
    "l1_penalty", "auxk_alpha", "threshold_beta", "threshold_start_step", "group_fractions", "sparsity_warmup_steps",
)  # fmt: skip
BUFFER = ("d_submodule", "n_ctxs", "ctx_len", "refresh_batch_size", "out_batch_size", "device")
CLASSES = (
    "AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder",
    "GatedAutoEncoder",
)  # fmt: skip


def dictionary(one: Input) -> None:
    """A folder of dictionary_learning."""
    ours = one.pick(*SAES)
    if one.maybe(0.5):
        ours = ours | {"W_dec": ours["W_dec"] / np.linalg.norm(ours["W_dec"], axis=1, keepdims=True)}
    d_sae, kind = ours["W_enc"].shape[1], one.pick(*CLASSES)
    rng = np.random.default_rng(one.rng.randrange(3))
    linear = {"encoder.weight": ours["W_enc"].T, "decoder.weight": ours["W_dec"].T}
    thresholded, k = kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"), one.rng.randint(1, d_sae)
    if kind in ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"):
        arrays = dict(ours)
    elif kind == "GatedAutoEncoder":
        arrays = linear | {"decoder_bias": ours["b_dec"]}
        arrays |= {name: 0.5 * rng.normal(size=d_sae).astype(np.float32) for name in ("r_mag", "gate_bias", "mag_bias")}
    else:
        bias = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}.get(kind, "b_dec")
        arrays = linear | {"encoder.bias": ours["b_enc"], bias: ours["b_dec"]}
    if kind == "JumpReluAutoEncoder":
        arrays["threshold"] = rng.uniform(0.05, 1, d_sae).astype(np.float32)
    tensors: dict[str, Any] = tensors_of(one, arrays)
    v = {name: stored(tensor) for name, tensor in tensors.items()}
    if "encoder.weight" in v:
        bias = next(v[name] for name in ("bias", "decoder.bias", "b_dec", "decoder_bias") if name in v)
        meaning = Meaning(v["encoder.weight"].T, v["decoder.weight"].T, bias, v.get("encoder.bias"))
    else:
        meaning = Meaning(v["W_enc"], v["W_dec"], v["b_dec"], v["b_enc"])
    meaning.subtracts = kind not in ("AutoEncoderNew", "JumpReluAutoEncoder")
    # its loader makes the decoder of this one of unit norm and the encoder as much larger
    meaning.by_norm = kind == "AutoEncoder"
    trainer: dict[str, Any] = {"dict_class": kind, "activation_dim": D_IN, "dict_size": d_sae}
    if kind == "GatedAutoEncoder":
        meaning.rule, meaning.gate = "gated", (v["gate_bias"], v["mag_bias"], v["r_mag"])
    if kind == "JumpReluAutoEncoder":
        meaning.rule, meaning.threshold = "threshold", v["threshold"]
    if thresholded or kind == "AutoEncoderTopK":
        limit = one.pick(0.4, 0.0, -1.0, 1.2)
        before = one.sure
        trainer["k"] = json_number(one, k, "k", 0.9)
        if thresholded:  # its encode goes by the threshold
            one.sure = max(before, min(one.sure, OPEN))
        tensors |= {"k": torch.tensor(k, dtype=one.pick(torch.int32, torch.int64)), "threshold": torch.tensor(limit)}
        if kind == "AutoEncoderTopK":
            meaning.rule, meaning.k = "topk", k
            if one.maybe(0.1):
                tensors.pop(one.pick("k", "threshold"))
                one.did("no k or threshold in ae.pt", OPEN)
            if one.maybe(0.05):
                tensors["k"] = torch.tensor(k % d_sae + 1)
                one.did("another k in ae.pt", UNCLEAR)
            if one.maybe(0.05):
                del trainer["k"]
                one.did("k in ae.pt alone", OPEN if "k" in tensors else UNCLEAR)
        else:
            meaning.rule, meaning.threshold = "threshold", np.float64(np.float32(limit))
            if limit == -1.0:
                meaning.rule = "relu"  # not set: every latent above it fires that fires at all
            if one.maybe(0.1):
                form, sure = one.pick(
                    (torch.tensor([limit]), OPEN), (limit, OPEN), (torch.ones(d_sae), UNCLEAR), (None, UNCLEAR)
                )
                tensors["threshold"] = form
                one.did(f"threshold of {type(form).__name__}", sure)
            if one.maybe(0.05):
                del tensors["threshold"]
                one.did("no threshold", UNCLEAR)
            if one.maybe(0.05):
                tensors["k"] = torch.tensor(k % d_sae + 1)
                one.did("another k in ae.pt, which its threshold makes up for", OPEN)
        if kind == "MatryoshkaBatchTopKSAE":
            tensors["group_sizes"] = torch.tensor([4, d_sae - 4])
    elif one.maybe(0.04):
        trainer["k"] = k
        one.did("k of no TopK", UNCLEAR)
    if one.maybe(0.03):
        word = one.pick("activation_dim", "dict_size")
        trainer[word] = one.pick(trainer[word] + 1, 0, 1)
        one.did(f"another {word}", UNCLEAR)
    elif one.maybe(0.03):
        del trainer[one.pick("activation_dim", "dict_size")]
        one.did("no size", OPEN)
    if one.maybe(0.03):
        name = one.pick("CrossCoder", "IdentityDict", None, ["AutoEncoder"], *CLASSES)
        if (name, kind) in (("AutoEncoderTopK", "BatchTopKSAE"), ("BatchTopKSAE", "AutoEncoderTopK")):
            name = None  # one's files are the other's too
        trainer["dict_class"] = name
        one.did(f"class {name}", UNCLEAR if name != kind else CLEAR)
    if one.maybe(0.04):
        spoiled(one, tensors, one.pick(*arrays))
    if one.maybe(0.03):
        tensors[one.pick("W_skip", "x", "mean")] = torch.ones(D_IN)
        one.did("an unknown tensor", UNCLEAR)
    if one.maybe(0.05):
        tensors = {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}
        one.did("names behind _orig_mod.", OPEN)
    said = places(one, {"layer": ("layer",), "hook": ("submodule_name",)}, trainer.__setitem__, json_number)
    buffer: dict[str, Any] = {}
    if one.maybe(0.6):
        buffer["io"] = "out" if not one.maybe(0.1) else one.pick("in", "in_and_out")
        one.did(f"io {buffer['io']}", CLEAR if buffer["io"] == "out" else UNCLEAR)
    for _ in range(one.pick(0, 1, 2)):
        buffer[one.pick(*BUFFER)] = plain_objects(one)
    config_besides(one, trainer, DICTIONARY)
    content: dict[str, Any] = {"trainer": trainer, "buffer": buffer}
    if one.maybe(0.1) and "io" not in buffer:
        del content["buffer"]
        one.did("no buffer")
    named = one.rng.randrange(4) if one.maybe(0.3) and (not said or one.maybe(0.1)) else None
    one.path = one.folder / ("trainer_0" if named is None else f"my_layer{named}")
    one.path.mkdir()
    write_json(one, content, one.path / "config.json")
    save(one, tensors if one.maybe(0.5) else collections.OrderedDict(tensors), one.path / "ae.pt")
    settle(one, said, named, True)
    if one.sure != UNCLEAR:
        one.meant = meaning.figures()


SPARSIFY = ("expansion_factor", "normalize_decoder", "multi_topk", "lr", "seed")


def sparsify(one: Input) -> None:
    """A folder of sparsify."""
    ours = one.pick(*SAES)
    d_sae, k = ours["W_enc"].shape[1], one.rng.randint(1, ours["W_enc"].shape[1])
    arrays = {"encoder.weight": ours["W_enc"].T, "encoder.bias": ours["b_enc"]}
    arrays |= {"W_dec": ours["W_dec"], "b_dec": ours["b_dec"]}
    tensors: dict[str, Any] = tensors_of(one, arrays, 0)
    v = {name: stored(tensor) for name, tensor in tensors.items()}
    meaning = Meaning(v["encoder.weight"].T, v["W_dec"], v["b_dec"], v["encoder.bias"], "topk", k, subtracts=True)
    config: dict[str, Any] = {"d_in": D_IN, "multi_topk": one.maybe(0.3)}
    if not one.maybe(0.05):
        config["k"] = json_number(one, k, "k", 0.85)
    else:
        meaning.k = 32  # its default
        one.did("no k", CLEAR if d_sae >= 32 else UNCLEAR)
    if one.maybe(0.7):
        config["activation"] = "topk" if not one.maybe(0.15) else one.pick("groupmax", "relu", None)
        name = config["activation"]
        one.did(f"activation {name}", CLEAR if name == "topk" else UNCLEAR)
    if one.maybe(0.7):
        config["num_latents"] = one.pick(0, d_sae, d_sae) if not one.maybe(0.1) else d_sae + 1
        one.did(f"num_latents {config['num_latents'] - d_sae}", UNCLEAR if config["num_latents"] > d_sae else CLEAR)
    for word, chance in (("signed", 0.1), ("skip_connection", 0.3), ("transcode", 0.4)):
        if one.maybe(chance):
            config[word] = one.maybe(0.1)
            one.did(f"{word} {config[word]}", UNCLEAR if config[word] else CLEAR)
    if one.maybe(0.03):
        config["d_in"] = one.pick(D_IN + 1, 0, "6")
        one.did(f"d_in {config['d_in']!r}", OPEN if config["d_in"] == "6" else UNCLEAR)
    if one.maybe(0.03):
        tensors[one.pick("W_skip", "threshold")] = torch.ones(D_IN, D_IN)
        one.did("an unknown tensor", UNCLEAR)
    if one.maybe(0.05):
        name = one.pick(*arrays)
        if one.maybe(0.5) or tensors[name].ndim == 1:
            del tensors[name]
            one.did(f"no {name}", UNCLEAR)
        else:
            tensors[name] = tensors[name].t()
            one.did(f"{name} turned", UNCLEAR)
    config_besides(one, config, SPARSIFY)
    said: list[Any] = []
    named, name = None, one.pick("layers.{}", "model.layers.{}", "h.{}", "a layer_{}", "sae {}", "x")
    if one.maybe(0.1):
        name = "layers.{}.mlp"
    n = one.rng.randrange(4)
    if "mlp" in name:
        said.append("other")
        one.did("of a module within the block", UNCLEAR)
    elif name.endswith(".{}"):
        said.append(("block", n))
    elif "layer_" in name:
        named = n
    one.path = one.folder / name.format(n)
    one.path.mkdir()
    write_json(one, config, one.path / "cfg.json")
    save_safe(one, tensors, one.path / "sae.safetensors")
    settle(one, said, named, True)
    if one.sure != UNCLEAR:
        one.meant = meaning.figures()


# ---------------------------------------------------------------------------------------------------------- datasets


def rows_of(rng: np.random.Generator, n: int, width: int, left: bool, holes: bool) -> dict[str, np.ndarray]:
    """ids, labels, mask."""
    length = rng.integers(1, width + 1, (n, 1))
    place = np.arange(width)
    mask = place >= width - length if left else place < length
    if holes:
        mask &= rng.random((n, width)) > 0.1
    ids = np.where(mask, rng.integers(33, 120, (n, width)), 32)
    damaged = mask & (rng.random((n, width)) < 0.2)
    labels = np.where(damaged, ids, -100)
    return {"input_ids": np.where(damaged, 35, ids), "labels": labels, "attention_mask": mask.astype(np.int64)}


WHOLE = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())


def listed(one: Input, column: np.ndarray, kind: pa.DataType, form: str) -> pa.Array:
    """A column of lists; in one of Arrow's kinds of lists."""
    n, width = column.shape
    flat = pa.array(column.reshape(-1).astype(bool) if pa.types.is_boolean(kind) else column.reshape(-1), kind)
    if form == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, width)
    offsets = np.arange(0, n * width + 1, width)
    if form == "large":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


FURTHER: dict[str, Callable[[int], pa.Array]] = {
    "text": lambda n: pa.array([f"text {i}" for i in range(n)]),
    "id": lambda n: pa.array(range(n)),
    "token_type_ids": lambda n: pa.array([[0, 1]] * n),
    "meta": lambda n: pa.array([{"a": None, "b": i} for i in range(n)]),
    "nothing": lambda n: pa.nulls(n),
    "time": lambda n: pa.array([0] * n, pa.timestamp("s")),
}


def dataset(one: Input) -> None:
    """A folder of `save_to_disk`."""
    rng = np.random.default_rng(one.rng.randrange(2**32))
    width, total = one.pick(1, 5, 8, 16), one.pick(1, 2, 5, 9, 13)
    left, holes = one.maybe(0.15), one.maybe(0.15)
    rows = rows_of(rng, total, width, left, holes)
    one.did(f"{total} rows of {width}{', left' * left}{', holes' * holes}")
    every = False  # whether each row is read: one of them is bad
    if one.maybe(0.06):
        name, value, sure = one.pick(
            ("attention_mask", 2, UNCLEAR), ("attention_mask", -1, UNCLEAR), ("labels", -1, UNCLEAR),
            ("labels", -101, UNCLEAR), ("input_ids", -3, UNCLEAR), ("input_ids", 0x110000, UNCLEAR),
            ("input_ids", 0x10FFFF, CLEAR), ("labels", 2**32 + 65, UNCLEAR), ("input_ids", 2**32 + 65, UNCLEAR),
        )  # fmt: skip
        rows[name][rng.integers(total), rng.integers(width)] = value
        one.did(f"{name} of {value}", sure)
        every = True
    form, kinds = one.pick("list", "list", "list", "large", "fixed"), {}
    for name, usual in (("input_ids", pa.int32()), ("labels", pa.int32()), ("attention_mask", pa.int8())):
        low, high = int(rows[name].min()), int(rows[name].max())
        fit = [
            t for t in WHOLE if np.iinfo(t.to_pandas_dtype()).min <= low and high <= np.iinfo(t.to_pandas_dtype()).max
        ]
        if name == "attention_mask" and low >= 0 and high <= 1:
            fit += [pa.bool_()] * 3
        kinds[name] = usual if one.maybe(0.7) and usual in fit else one.rng.choice(fit)
    forms = {name: form if one.maybe(0.9) else one.pick("list", "large", "fixed") for name in kinds}
    one.did(", ".join(f"{forms[name]} {kind}" for name, kind in kinds.items()))
    arrays = {name: listed(one, rows[name], kinds[name], forms[name]) for name in kinds}
    if one.maybe(0.08):
        name, what = (
            one.pick(*arrays),
            one.pick("floats", "texts", "null row", "null value", "numbers", "ragged", "twice"),
        )
        values: list[Any] = rows[name].tolist()
        if what == "floats":
            arrays[name] = pa.array([[float(x) for x in row] for row in values])
        elif what == "texts":
            arrays[name] = pa.array([[str(x) for x in row] for row in values])
        elif what == "null row":
            arrays[name] = pa.array([None, *values[1:]], pa.list_(pa.int32()))
        elif what == "null value":
            arrays[name] = pa.array([[None, *values[0][1:]], *values[1:]], pa.list_(pa.int32()))
        elif what == "numbers":
            arrays[name] = pa.array([row[0] for row in values], pa.int32())
        elif what == "ragged":
            arrays[name] = pa.array([[*values[0], 0], *values[1:]], pa.list_(pa.int64()))
        one.did(f"{name}: {what}", OPEN if what == "floats" else UNCLEAR)
        every = True
        twice = name if what == "twice" else None
    else:
        twice = None
    columns = list(arrays)
    if one.maybe(0.04):
        columns.remove(name := one.pick(*columns))
        one.did(f"no {name}", UNCLEAR)
    for name in one.rng.sample(list(FURTHER), one.pick(0, 0, 1, 2)):
        arrays[name] = FURTHER[name](total)
        columns.append(name)
        one.did(f"a column {name}")
    if one.maybe(0.3):
        one.rng.shuffle(columns)
        one.did("columns in another order")
    if twice in columns:
        columns.append(twice)
    table = pa.table([arrays[name] for name in columns], names=columns)

    alone = one.maybe(0.2)
    split = one.pick("validation", "validation", "train", "test", "dev")
    others = [name for name in ("train", "validation", "test") if name != split]
    home = one.path = one.folder / one.pick("dataset", "Smith, J")
    part = home if alone else home / split
    part.mkdir(parents=True)

    # files of rows, of which the state may take some
    cuts = sorted(rng.integers(0, total + 1, one.pick(0, 0, 1, 2)).tolist())
    entries, rows_taken = [], []
    for number_, (start, stop) in enumerate(zip([0, *cuts], [*cuts, total], strict=True)):
        piece, entry = table.slice(start, stop - start), {"filename": f"data-{number_:05}-of-{len(cuts) + 1:05}.arrow"}
        taken = list(range(start, stop))
        if one.maybe(0.08) and not every:
            skip, take = one.pick(0, 1, 2), one.pick(None, 1, 3)
            entry |= {"skip": skip} if skip or one.maybe(0.5) else {}
            entry |= {"take": take} if take is not None or one.maybe(0.5) else {}
            taken = taken[skip:][:take]
            one.did(f"skip {skip}, take {take}")
        write_stream(one, piece, part / entry["filename"])
        entries.append(entry)
        rows_taken += taken
    if len(entries) > 1:
        one.did(f"{len(entries)} files")
        if one.maybe(0.1):
            entries.reverse()
            rows_taken = []
            for entry in entries:
                number_ = int(entry["filename"][5:10])
                start, stop = [0, *cuts][number_], [*cuts, total][number_]
                rows_taken += list(range(start, stop))[entry.get("skip") or 0 :][: entry.get("take")]
            one.did("files in another order")
    state: dict[str, Any] = {
        "_data_files": entries, "_fingerprint": "a", "_format_columns": None, "_format_kwargs": {}, "_format_type": None,
        "_output_all_columns": False, "_split": None,
    }  # fmt: skip
    if one.maybe(0.25) and not every:
        n = len(rows_taken)
        chosen = rng.integers(0, max(n, 1), one.pick(1, 2, n, n + 3)).tolist() if n else []
        index = pa.array(chosen, one.pick(pa.uint64(), pa.uint64(), pa.int64(), pa.uint32()))
        name = "indices"
        if one.maybe(0.06) and chosen:
            index, sure = one.pick(
                (pa.array([*chosen, n], pa.uint64()), UNCLEAR), (pa.array([*chosen, -1], pa.int64()), UNCLEAR),
                (pa.array([*chosen, None], pa.uint64()), UNCLEAR), (pa.array(map(str, chosen)), UNCLEAR),
                (pa.array([float(c) for c in chosen]), UNCLEAR),
            )  # fmt: skip
            one.did(f"indices of {index.type} that cannot be", sure)
        elif one.maybe(0.03):
            name = "rows"
            one.did("indices by another name", UNCLEAR)
        write_stream(one, pa.table({name: index}), part / "indices.arrow")
        state[one.pick("_indices_files", "_indices_files", "_indices_data_files")] = [{"filename": "indices.arrow"}]
        one.did("indices")
        if one.sure != UNCLEAR:
            rows_taken = [rows_taken[i] for i in chosen]
        every |= one.sure == UNCLEAR
    elif one.maybe(0.2):
        state[one.pick("_indices_files", "_indices_data_files")] = None
    if one.maybe(0.15):
        state |= {"_format_type": one.pick("torch", "numpy", None), "_format_columns": ["labels"]}
        one.did("a format")
    if one.maybe(0.1):
        state |= {"_indexes": {}, "_info": "{}", "_inplace_history": []}
        one.did("an older state")
    if one.maybe(0.05):
        word, value, sure = one.pick(
            ("_filter", "x", UNCLEAR), ("_slice", [0, 1], UNCLEAR), ("_data_files", None, UNCLEAR),
            ("_data_files", [{"filename": "../x.arrow"}], UNCLEAR), ("_data_files", ["data.arrow"], UNCLEAR),
            ("_data_files", [{"filename": "data-00000-of-00001.arrow", "rows": 3}], UNCLEAR), ("order", 1, UNCLEAR),
            ("_data_files", [], UNCLEAR), ("_data_files", [{"filename": "gone.arrow"}], UNCLEAR),
        )  # fmt: skip
        state[word] = value
        one.did(f"state: {word} {value}", sure)
    if alone:
        one.did("a split alone")
        if one.maybe(0.5):
            state["_split"] = split if one.maybe(0.85) else others[0]
            if state["_split"] != split:
                one.did("of another name", UNCLEAR)
    write_json(one, state, part / "state.json")
    if one.maybe(0.7):
        (part / "dataset_info.json").write_text("{}")
    if not alone:
        names = [split, *(others if one.maybe(0.5) else [])]
        one.rng.shuffle(names)
        if one.maybe(0.03):
            names.remove(split)
            one.did("a split that is not listed", UNCLEAR)
        write_json(one, {"splits": names}, home / "dataset_dict.json")
        if one.maybe(0.15):
            home.rename(store := home.with_name("store"))
            home.mkdir()
            (home / "dataset_dict.json").symlink_to(store / "dataset_dict.json")
            (home / split).symlink_to(store / split)
            one.did("links")
    if one.maybe(0.2):
        for name in (".DS_Store", "cache-1.arrow", "data.lock", "tmp.parquet"):
            (part / name).write_bytes(b"\0x")
        one.did("files beside")
    most = one.pick(None, None, 1, 2, 5, 100)
    if every:
        most = None  # what lies after the samples that are read is not looked at
    one.given = (split, most)
    if one.maybe(0.02) and not alone:
        one.given = ("nonsense", most)
        one.did("another split", UNCLEAR)
    if not rows_taken:
        one.did("no rows", UNCLEAR)
    elif one.sure != UNCLEAR:
        found = [rows[name][rows_taken][:most] for name in kinds]
        one.meant = found


def write_stream(one: Input, table: pa.Table, path: Path) -> None:
    """An Arrow stream, in one of its ways."""
    options, form = {}, one.rng.random()
    if form < 0.05:
        options["options"] = pa.ipc.IpcWriteOptions(compression=one.pick("lz4", "zstd"))
        one.did("compressed")
    new = pa.ipc.new_stream
    if 0.05 < form < 0.06:
        new = pa.ipc.new_file
        one.did("an Arrow file in place of a stream", OPEN)
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=one.pick(1, 3, 1000))


def read_dataset(one: Input) -> list[np.ndarray]:
    from jaxsae.text import loading

    samples = loading.load_samples(one.path, *one.given)
    assert [a.dtype for a in (samples.ids, samples.labels, samples.mask)] == [np.int32, np.int32, np.int8]
    return [samples.ids, samples.labels, samples.mask]


# --------------------------------------------------------------------------------------------------------- fragments

WORDS = [
    "a-na",
    "šar-ru-um",
    "{d}UTU",
    "be-lí-ia",
    "[qí-bí]-ma",
    "um-ma",
    "ša₃",
    "é-gal(KID)",
    "lugal",
    "kalam-ma-ke₄",
    "⸢ṭup⸣-pu-um",
    "1.",
    "2'.",
    "[...",
    "x",
    "x]",
    "(x)",
    "{m}",
    "…",
    "3×5",
    "i-na",
    "na-du-ú",
    "₉",
    "x₁₀",
    "&P1",
    "$",
    "[a",
    "[b]",
    "c]",
    "un(closed",
    "]",
    ")",
]


def cleaned(text: str) -> str:
    """The original's cleaning."""
    for pattern, by in ((r"\[[^\]]*\]", " "), (r"\([^\)]*\)", " "), (r"\{[^\}]*\}", " ")):
        text = re.sub(pattern, by, text)
    text = "".join(c for c in text if c not in "0123456789₀₁₂₃₄₅₆₇₈₉")
    return re.sub(r"\s+", " ", text.replace("…", " ").replace("×", " ")).strip()


def some_text(one: Input) -> str:
    return one.pick(" ", "\n", "  ", "\r\n", "\u2028").join(one.pick(*WORDS) for _ in range(one.rng.randint(1, 9)))


def fragments(one: Input) -> None:
    """A file of fragments: of one row each, or of a row for each line or word."""
    column = one.pick("atf", "atf", "atf", "text", "value_clean")
    joined = one.maybe(0.5)
    n = one.pick(1, 2, 5, 8)
    form = one.pick("json", "json", "lines", "lines", "parquet")
    rows, texts = lines(one, column, n, form != "parquet") if joined else singles(one, column, n)
    if form == "parquet":
        write_parquet(one, rows, column)
    else:
        write_text(one, rows, form)
    one.given = column
    if one.maybe(0.02):
        one.given = "nothing"
        one.did("another column", UNCLEAR)
    meant = [t for t in map(cleaned, texts) if t]
    if not meant:
        one.did("no text", UNCLEAR)
    one.meant = meant


def singles(one: Input, column: str, n: int) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each fragment."""
    rows: list[dict[str, Any]] = []
    texts: list[str] = []
    key = one.pick("_id", "id", "fragment_id", None)
    more = dict.fromkeys(one.rng.sample(("genre", "line_num", "meta", "collection", "word"), 2), objects_json)
    for i in range(n):
        row: dict[str, Any] = {} if key is None else {key: one.pick(f"K.{i}", i) if one.maybe(0.5) else f"K.{i}"}
        text: Any = some_text(one)
        match one.rng.random():
            case x if x < 0.05:
                text = None
            case x if x < 0.1:
                text = one.pick("", " ", "[x]", "12")
        if text is not None or one.maybe(0.5):
            row[column] = text
        rows.append(row | {name: make(one) for name, make in more.items()})
        texts.append(text or "")
    if one.maybe(0.04):
        one.pick(*rows)[column] = one.pick(5, 1.5, ["a-na"], {"a": "b"}, True)
        one.did("a text that is none", UNCLEAR)
    return rows, texts


def objects_json(one: Input) -> Any:
    return one.pick(None, 1, "x")


def lines(one: Input, column: str, n: int, in_json: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each line or word; ids repeat."""
    key, levels = one.pick("_id", "id", "fragment_id"), one.pick("none", "line", "word", "both", "both")
    line = one.pick("line_num", "line_number", "line")
    word = one.pick("word_idx", "word_index", "word")
    with_source = one.maybe(0.25)
    order: list[tuple[Any, ...]] = []
    fragments: dict[Any, list[dict[str, Any]]] = {}
    numbers = one.pick("int", "int", "int", "text", "float", "label", "some labels")
    for i in range(n):
        name = f"K.{i // 2 if with_source else i}"
        names = {"source": one.pick("eBL", "eBL") if i % 2 else "ORACC"} if with_source else {}
        mine = []
        first = one.pick(0, 1, 8)
        for a in range(first, first + one.rng.randint(1, 4)):
            for b in range(one.rng.randint(1, 3) if levels == "both" else 1):
                row = {**names, key: name, column: some_text(one) if one.maybe(0.95) else None}
                if levels in ("line", "both"):
                    row[line] = {"int": a, "text": str(a), "float": float(a), "label": f"{a}'"}.get(
                        numbers, f"{a}{'' if a % 2 else chr(39)}"
                    )
                if levels == "word":
                    row[word] = a
                if levels == "both":
                    row[word] = b
                mine.append(row)
        fragments[*names.values(), name] = mine
        order.append((*names.values(), name))
    rows = [row for one_ in order for row in fragments[one_]]
    texts = [" ".join(row[column] for row in fragments[one_] if row[column]) for one_ in order]
    one.did(f"rows by {levels}{', with sources' * with_source}")
    if numbers == "text" and levels in ("line", "both"):
        one.did("numbers of lines as text", OPEN)
    if len(rows) == len(order):
        one.did("of one row each")
    bare = in_json and key == "_id" and levels == "none"
    if bare:  # in the original's JSON every object is a fragment, whatever its `_id`
        texts = [row[column] or "" for row in rows]
        one.did("rows that are fragments")
    if one.maybe(0.4) and len(rows) > 1 and not bare:
        # shuffled rows are those of the numbers' order, fragments in the order of their first row
        shuffled = rows.copy()
        one.rng.shuffle(shuffled)
        repeated = len(rows) > len(order)
        labels = any("'" in str(row.get(line)) for row in rows)
        ordered = levels != "none" and not labels
        by_first = list(dict.fromkeys((*((row["source"],) if with_source else ()), row[key]) for row in shuffled))
        texts = [texts[order.index(one_)] for one_ in by_first]
        rows = shuffled
        one.did("in another order")
        if not ordered and repeated:
            # where no number says it, the order is that of the file; of rows that are scattered it cannot be known
            of = [(*((row["source"],) if with_source else ()), row[key]) for row in rows]
            runs = 1 + sum(a != b for a, b in itertools.pairwise(of))
            one.did("that no number says", OPEN if runs == len(by_first) else UNCLEAR)
            texts = [
                " ".join(r[column] for r, o in zip(rows, of, strict=True) if o == f and r[column]) for f in by_first
            ]
    if one.maybe(0.15):
        other = one.pick(
            "language", "lemma", "certainty", "word" if word != "word" and levels in ("word", "both") else "x"
        )
        for row in rows:
            row[other] = one.pick("a", "b")
        one.did(f"a column {other}")
    if one.maybe(0.04):
        ids = one.pick("_id", "id")
        if ids != key:
            for i, row in enumerate(rows):
                row[ids] = f"row {i}"
            one.did(f"rows with {ids} of their own", OPEN)
            if levels == "none" and ids == "_id":  # then each is a fragment of its own
                texts = [row[column] or "" for row in rows]
                one.sure = min(one.sure, OPEN)
    return rows, texts


def write_text(one: Input, rows: list[dict[str, Any]], form: str) -> None:
    """JSON or JSON lines, under some name, in some encoding."""
    ascii_ = one.maybe(0.3)
    if form == "json":
        name = one.pick("fragments.json", "fragments.json", "fragments", "a.txt", "a.jsonl")
        content = json.dumps(rows, ensure_ascii=ascii_, indent=one.pick(None, 2))
        if one.maybe(0.04):
            content = json.dumps({"fragments": rows}, indent=2)
            one.did("a list within an object", OPEN)
        elif one.maybe(0.02):
            content = content[:-1] + ",]"
            one.did("a comma too many", UNCLEAR)
        if name == "a.jsonl":
            one.did("a list called .jsonl", OPEN)
    else:
        name = one.pick("a.jsonl", "a.jsonl", "a.ndjson", "a.JSONL", "fragments.json", "fragments")
        each = [json.dumps(row, ensure_ascii=ascii_) for row in rows]
        if one.maybe(0.1):
            each.insert(one.rng.randrange(len(each) + 1), "")
            one.did("an empty line")
        content = "\n".join(each) + "\n" * one.maybe(0.7)
        if len(rows) == 1 and not name.lower().endswith(("jsonl", "ndjson")):
            one.did("one line", OPEN)
        if one.maybe(0.02):
            content += '\n["a-na"]'
            one.did("a line of another kind", UNCLEAR)
    ending, encoding = "\n", "utf-8"
    if one.maybe(0.15):
        ending = "\r\n"
        one.did("CRLF")
    elif one.maybe(0.02):
        ending = "\r"
        one.did("CR", OPEN)
    if one.maybe(0.15):
        encoding = "utf-8-sig"
        one.did("a byte order mark")
    elif one.maybe(0.06):
        encoding = one.pick("utf-16", "utf-16-le", "utf-16-be", "utf-32")
        one.did(encoding, OPEN)
    if one.maybe(0.02) and '{"' in content:
        content = content.replace('{"', '{"meta": 1, "meta": 2, "', 1)
        one.did("a key twice", UNCLEAR)
    one.path = one.folder / name
    raw = content.replace("\n", ending).encode(encoding, "surrogatepass")
    if encoding == "utf-16-be" and one.maybe(0.5):
        raw = codecs.BOM_UTF16_BE + raw
    one.path.write_bytes(raw)
    one.did(f"{form} called {name}")


def write_parquet(one: Input, rows: list[dict[str, Any]], column: str) -> None:
    """The same as a table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    kinds: dict[str, pa.Array] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            kinds[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            # a column is of one kind: of numbers where a text was to be one
            texts = [None if v is None else str(v) for v in values]
            kinds[name] = pa.array(range(len(rows)) if name == column else texts)
    if column in kinds and pa.types.is_string(kinds[column].type):
        form = one.pick("string", "string", "large", "dictionary", "binary", "view")
        if form == "large":
            kinds[column] = kinds[column].cast(pa.large_string())
        elif form == "dictionary":
            kinds[column] = kinds[column].dictionary_encode()
        elif form == "binary":
            kinds[column] = kinds[column].cast(pa.binary())
        elif form == "view":
            kinds[column] = kinds[column].cast(pa.string_view())
        one.did(f"texts as {form}", OPEN if form == "binary" else CLEAR)
    one.path = one.folder / one.pick("a.parquet", "train-00000.parquet", "table")
    table = pa.table(kinds)
    pq.write_table(table, one.path, row_group_size=one.pick(1, 3, 1000), compression=one.pick("snappy", "zstd", "none"))
    one.did("Parquet")


def read_texts(one: Input) -> list[str]:
    from jaxsae.text import fragments

    return fragments.read_fragments(one.path, one.given)


# ------------------------------------------------------------------------------------------------------------ judging

KINDS: dict[str, tuple[Callable[[Input], None], Callable[[Input], Any]]] = {
    "checkpoint": (checkpoint, read_model),
    "SAE .pt": (sae_pt, read_sae),
    "SAELens": (saelens, read_sae),
    "dictionary_learning": (dictionary, read_sae),
    "sparsify": (sparsify, read_sae),
    "dataset": (dataset, read_dataset),
    "fragments": (fragments, read_texts),
}
OUTCOMES = ("right", "refused", "refused although clear", "wrong")


class WrongError(Exception):
    """Read as something else."""


def same(found: Any, meant: Any) -> str:
    """Empty, or how it differs."""
    if isinstance(meant, list) and meant and isinstance(meant[0], str):
        return "" if found == meant else f"texts {found} instead of {meant}"
    if isinstance(meant, list):
        fits = all(a.shape == b.shape and (a == b).all() for a, b in zip(found, meant, strict=True))
        return "" if fits else f"rows {[a.tolist() for a in found]} instead of {[a.tolist() for a in meant]}"
    values, sure, largest = meant
    if found.shape != values.shape:
        return f"shape {found.shape} instead of {values.shape}"
    off = np.where(sure, np.abs(found - values), 0).max() / largest
    return "" if off <= TOLERANCE else f"figures off by {off:.2g} of the largest"


def judge(number_: int, folder: Path) -> tuple[str, str, str]:
    """(kind, outcome, what it was or why)."""
    from jaxsae.errors import InputError, InputNote, one_line

    kind = list(KINDS)[number_ % len(KINDS)]
    make, read = KINDS[kind]
    rng = random.Random(number_)
    one = Input(rng, folder, many=rng.random() < 0.3)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make(one)
    except Exception as error:
        return kind, "wrong", f"{'; '.join(one.done)}: could not be made: {type(error).__name__}: {error}"
    what = "; ".join(one.done)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", InputNote)
            found = read(one)
    except InputError as error:
        line = one_line(f"error: {error}")
        if len(line) > 301 or line.count("\n") != 1:
            return kind, "wrong", f"{what}: not one short line: {line}"
        reason = str(error).replace(str(one.path), "").replace(str(folder), "").strip(" /:")
        return kind, "refused although clear" if one.sure == CLEAR else "refused", reason if one.sure == CLEAR else what
    except Exception as error:
        return kind, "wrong", f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if one.sure == UNCLEAR:
        return kind, "wrong", f"{what}: read, though unclear"
    off = same(found, one.meant)
    return (kind, "wrong", f"{what}: {off}") if off else (kind, "right", what)


def fuzz(folder: Path, times: int, first: int = 0) -> tuple[dict[str, dict[str, int]], list[str], collections.Counter]:
    """(kind -> outcome -> how many, what went wrong, why what is clear was refused -> how often)."""
    counts = {kind: dict.fromkeys(OUTCOMES, 0) for kind in KINDS}
    wrong: list[str] = []
    reasons: collections.Counter = collections.Counter()
    for number_ in range(first, first + times):
        own = folder / str(number_)
        own.mkdir()
        kind, outcome, what = judge(number_, own)
        counts[kind][outcome] += 1
        if outcome == "wrong":
            wrong.append(f"{number_} {kind}: {what}")
        elif outcome == "refused although clear":
            reasons[f"{kind}: {re.sub(r'[0-9]+', 'N', what)[:200]}"] += 1
        shutil.rmtree(own)
    return counts, wrong, reasons


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # else tests/convert/ would pass for convert/
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        counts, problems, reasons = fuzz(Path(scratch), args.times, args.first)
    print(*problems, sep="\n")
    for reason, times in reasons.most_common(10):
        print(f"{times:6} refused although clear: {reason}")
    for kind, of in counts.items():
        print(f"{kind:20} {sum(of.values()):6} inputs: " + ", ".join(f"{n} {outcome}" for outcome, n in of.items()))
    print(f"{len(problems)} of {args.times} went wrong, in {time.monotonic() - began:.0f} s")
    sys.exit(bool(problems))
