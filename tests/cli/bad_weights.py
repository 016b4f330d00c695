"""Checkpoints, SAEs and stores of rows that are wrong: what makes one -> what the error line says."""

import json
import pickle
import zipfile

import jax
import numpy as np
import torch
from bad_texts import written
from conftest import TINY, checkpoint_content

from convert import save_sae
from jaxsae.activations import store
from jaxsae.config import SAEConfig
from jaxsae.sae.architectures import init

RAN = "jaxsae-was-fooled"


class Evil:
    """Unpickled by a reader that runs what it reads, it makes a file."""

    def __reduce__(self):
        return (eval, (f"open({RAN!r}, 'w')",))


def saved(path, content):
    torch.save(content, path)
    return path


def sae_file(path, d_in=TINY.d_model, config=None, **changes):
    """An SAE file, with parts of it changed; None takes a part away."""
    shape = SAEConfig(d_in, 60)
    save_sae(path, init(jax.random.key(0), shape), shape, extra={"layer": 1})
    content = torch.load(path, weights_only=True) | changes
    content["config"] |= config or {}
    for name in [key for key, value in content["config"].items() if value is None]:
        del content["config"][name]
    return saved(path, {name: value for name, value in content.items() if value is not None})


def changed_content(**changes):
    content = checkpoint_content()
    content["config"] |= changes
    return content


def with_tensor(path, change, name="layers.1.attn.q_proj.weight"):
    content = checkpoint_content()
    tensors = content["model_state_dict"]
    name = next(key for key in tensors if key.endswith(name.split(".", 2)[-1]) and "1" in key)
    tensors[name] = change(tensors[name])
    return saved(path, content)


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """A good file, its entries as `change` has them."""
    good = saved(path.with_suffix(".good"), checkpoint_content())
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name.split("/")[-1], old.read(name)))
    return path


def bytes_of(path, change):
    return written(path, change(saved(path, checkpoint_content()).read_bytes()))


def flipped(content):
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]


def nan_at(tensor, value=float("nan")):
    tensor = tensor.clone()
    tensor.view(-1)[3] = value
    return tensor


CHECKPOINTS = {
    "a pickle that runs code": (lambda p: saved(p, {"config": Evil()}), "eval (nothing was run)"),
    "code beside good tensors": (lambda p: saved(p, checkpoint_content() | {"x": Evil()}), "eval (nothing was run)"),
    "a whole module (tl_model.pt)": (lambda p: saved(p, torch.nn.Linear(2, 2)), "must hold tensors and numbers only"),
    "a Git LFS pointer": (lambda p: written(p, b"version https://git-lfs.github.com/spec/v1\noid x"), "git lfs pull"),
    "an HTML page": (lambda p: written(p, b"<!DOCTYPE html><html>"), "an HTML page (a failed download?)"),
    "an empty file": (lambda p: written(p, b""), "got an empty file"),
    "text": (lambda p: written(p, b"weights"), "must be a zip file as torch.save writes it"),
    "a bare pickle": (lambda p: written(p, pickle.dumps({"a": 1})), "a bare pickle"),
    "half a file": (lambda p: bytes_of(p, lambda b: b[: len(b) // 2]), "truncated or damaged"),
    "a flipped bit": (lambda p: bytes_of(p, flipped), "checksums must hold"),
    "a zip bomb": (lambda p: rewritten(p, lambda n, b: b, zipfile.ZIP_DEFLATED), "stored uncompressed"),
    "a pickle that is damaged": (
        lambda p: rewritten(p, lambda n, b: b[:-9] if n == "data.pkl" else b),
        "must be a file as torch.save writes it",
    ),
    "big-endian numbers": (
        lambda p: rewritten(p, lambda n, b: b"big" if n == "byteorder" else b),
        "little-endian order, got b'big'",
    ),
    "a storage that is too short": (
        lambda p: rewritten(p, lambda n, b: b[:8] if n == "0" else b),
        "must have the length that is declared, got 8 bytes",
    ),
    "no such file": (lambda p: p, "got no such file"),
    "a folder of something else": (lambda p: p.mkdir() or p, "a folder made by jaxsae convert-weights"),
    "a list": (lambda p: saved(p, [1, 2]), "must hold a dict, got list"),
    "no weights": (lambda p: saved(p, {"config": {}}), "must have model_state_dict and config, got config"),
    "no config": (lambda p: saved(p, {"model_state_dict": {}}), "must have model_state_dict and config"),
    "an SAE": (lambda p: sae_file(p), "give the best_model.pt of a restoration or sign model"),
    "whole numbers as weights": (
        lambda p: with_tensor(p, lambda t: t.int()),
        "dense floating-point numbers, got int32",
    ),
    "complex weights": (lambda p: with_tensor(p, lambda t: t.to(torch.complex64)), "ComplexFloatStorage"),
    "a weight that is NaN": (lambda p: with_tensor(p, nan_at), "must be finite, got NaN or infinity"),
    "a weight that is infinite": (lambda p: with_tensor(p, lambda t: nan_at(t, float("inf"))), "must be finite"),
    "a weight that is a number": (lambda p: with_tensor(p, lambda t: 3.0), "must be a tensor, got float"),
    "a tensor of another shape": (
        lambda p: with_tensor(p, lambda t: t[:-1].clone()),
        "is [29, 30] instead of [30, 30]",
    ),
    "a tensor of another name": (
        lambda p: saved(
            p,
            checkpoint_content()
            | {"model_state_dict": {"x": torch.ones(2)} | checkpoint_content()["model_state_dict"]},
        ),
        "unknown x",
    ),
    "a tensor that is missing": (
        lambda p: saved(
            p,
            checkpoint_content()
            | {"model_state_dict": dict(list(checkpoint_content()["model_state_dict"].items())[1:])},
        ),
        "missing embed.weight",
    ),
    "a width that is a word": (
        lambda p: saved(p, changed_content(d_model="wide")),
        "d_model must be a whole number in 1..",
    ),
    "a negative width": (lambda p: saved(p, changed_content(d_model=-4)), "d_model must be a whole number in 1.."),
    "heads that do not divide": (
        lambda p: saved(p, changed_content(n_heads=7)),
        "d_model must be divisible by n_heads",
    ),
    "a thousand million layers": (
        lambda p: saved(p, changed_content(n_layers=10**9)),
        "n_layers must be a whole number in 1..",
    ),
    "another vocabulary": (lambda p: saved(p, checkpoint_content() | {"vocab_size": 5}), "vocab_size must be config's"),
}


SAES = {
    "another width": (lambda p: sae_file(p, TINY.d_model + 2), f"d_in must be {TINY.d_model} (the model's d_model)"),
    "no decoder": (lambda p: sae_file(p, W_dec=None), "got none of W_dec"),
    "a decoder the wrong way round": (
        lambda p: sae_file(p, W_dec=torch.ones(TINY.d_model, 60)),
        "shapes must be W_enc",
    ),
    "NaN": (lambda p: sae_file(p, b_enc=torch.full((60,), float("nan"))), "b_enc must be finite"),
    "whole numbers": (lambda p: sae_file(p, b_enc=torch.ones(60, dtype=torch.long)), "got int64"),
    "no width said": (lambda p: sae_file(p, config={"d_in": None}), "config must have whole d_in and d_sae"),
    "an architecture not known here": (
        lambda p: sae_file(p, config={"architecture": "gated"}),
        "got architecture 'gated'",
    ),
    "a k that is not applied": (lambda p: sae_file(p, config={"k": 3}), "config must describe relu, topk with k"),
    "a k that is not whole": (
        lambda p: sae_file(p, config={"k": 2.5, "architecture": "topk"}),
        "must be a whole number",
    ),
    "too few thresholds": (
        lambda p: sae_file(p, config={"architecture": "jumprelu", "threshold": [0.1, 0.2]}),
        "config.threshold must be a number",
    ),
    "a word that is not known": (lambda p: sae_file(p, config={"gain": 2.0}), "got 'gain'"),
    "a layer that the model has not": (lambda p: sae_file(p, config={"layer": 77}), "layer must be in 0.."),
    "another model's": (
        lambda p: sae_file(p, config={"checkpoint_sha256": "0" * 64}),
        "was trained on another model (000000000000...)",
    ),
    "a checkpoint": (lambda p: saved(p, checkpoint_content()), "give an sae_layer*_optimized.pt"),
    "a pickle that runs code": (lambda p: saved(p, {"config": Evil()}), "eval (nothing was run)"),
}


def rows(path, array, **about):
    path.mkdir()
    np.save(path / "layer1.npy", array, allow_pickle=True)
    head = {"format": store.FORMAT, "version": store.VERSION, "layers": [1], "rows": len(array), "d_in": 4} | about
    (path / "store.json").write_text(json.dumps(head))
    return path


def bare(array):
    def make(path):
        np.save(path.with_suffix(".npy"), array, allow_pickle=True)
        return path.with_suffix(".npy")

    return make


MANY = np.ones((300, 4), np.float32)
STORES = {
    "of another version": (lambda p: rows(p, MANY, version=9), "must be of version 1 of jaxsae-rows, got 9"),
    "of other layers": (lambda p: rows(p, MANY, layers=[3]), "whole .npy file"),
    "of another number of rows": (lambda p: rows(p, MANY, rows=7), "layer1.npy must have shape (7, 4)"),
    "objects": (bare(np.array([[Evil()]], object)), "must be a whole .npy file"),
    "a line of numbers": (bare(np.ones(300, np.float32)), "must hold rows [n, d_in] of floating numbers"),
    "whole numbers": (bare(np.ones((300, 4), int)), "must hold rows [n, d_in] of floating numbers, got int64"),
    "text": (lambda p: written(p.with_suffix(".npy"), b"rows"), "must be a whole .npy file"),
    "NaN": (bare(np.where(np.arange(1200).reshape(300, 4) == 900, np.nan, MANY)), "must stay finite"),
    "fewer than a batch": (bare(MANY[:5]), "rows must be at least a batch, got 5 rows"),
}
