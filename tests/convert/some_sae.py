"""One small SAE by its arrays, as other people's files are made of; its latents by each rule."""

import json

import jax.numpy as jnp
import numpy as np
import torch
from safetensors.numpy import save_file

from convert import load_sae
from jaxsae import encode

D_IN, D_SAE, K = 6, 10, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, D_IN)).astype(np.float32)
W = {
    "W_enc": RNG.normal(size=(D_IN, D_SAE)),
    "b_enc": RNG.normal(size=D_SAE),
    "W_dec": RNG.normal(size=(D_SAE, D_IN)),
    "b_dec": RNG.normal(size=D_IN),
}
W = {name: array.astype(np.float32) for name, array in W.items()}
PRE = X @ W["W_enc"] + W["b_enc"]
SHAPE = {"d_in": D_IN, "d_sae": D_SAE, "l1_coef": 0.0}
LIMITS = np.linspace(0.1, 1, D_SAE).astype(np.float32)


def sae_pt(folder, config=(), **more):
    tensors = {name: torch.from_numpy(array) for name, array in W.items()}
    path = folder / "sae.pt"
    torch.save({**tensors, "losses": [1.0], "config": SHAPE | dict(config), **more}, path)
    return path


def latents(path):
    file = load_sae(path)
    return np.asarray(encode(file.sae, jnp.asarray(X), file.config.k))


def relu(x):
    return np.maximum(x, 0)


def top(x, k):
    return np.where(x >= np.sort(x, axis=1)[:, [-k]], relu(x), 0)


def saelens(path, tensors=None, scaler=None, **config):
    path.mkdir()
    usual = {"architecture": "standard", "d_in": D_IN, "d_sae": D_SAE, "apply_b_dec_to_input": False}
    usual["metadata"] = {"hook_name": "blocks.1.hook_resid_post"}
    (path / "cfg.json").write_text(json.dumps(usual | config))
    save_file(W if tensors is None else tensors, path / "sae_weights.safetensors")
    if scaler is not None:
        (path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scaler}))
    return path


def dictionary(path, buffer=None, tensors=None, **trainer):
    path.mkdir()
    usual = {"dict_class": "JumpReluAutoEncoder", "activation_dim": D_IN, "dict_size": D_SAE, "layer": 1, "lr": 1e-3}
    (path / "config.json").write_text(json.dumps({"trainer": usual | trainer, "buffer": buffer or {"io": "out"}}))
    content = W | {"threshold": LIMITS} if tensors is None else tensors
    torch.save({name: torch.as_tensor(array) for name, array in content.items()}, path / "ae.pt")
    return path


def sparsify(path, **config):
    path.mkdir(parents=True)
    (path / "cfg.json").write_text(
        json.dumps({"activation": "topk", "k": K, "d_in": D_IN, "multi_topk": True} | config)
    )
    tensors = {
        "encoder.weight": W["W_enc"].T.copy(),
        "encoder.bias": W["b_enc"],
        "W_dec": W["W_dec"],
        "b_dec": W["b_dec"],
    }
    save_file(tensors, path / "sae.safetensors")
    return path
