"""jaxsae: train sparse autoencoders on a PyTorch restoration transformer, and read what it learned.

Reading order is data flow: `text` and `data` (text -> token ids), `model` (ids -> residual stream), `activations`
(residual stream -> rows), `sae` and `train` (rows -> sparse autoencoder), `metrics` and `splice` (how good it is),
`concepts`, `survey` and `dossier` (what its latents mean), `answers` and `report` (the page that shows it). The readers
and writers of PyTorch files live in the sibling package `convert`.
"""

import importlib
from typing import Any

# Loaded on first use, so that `--help` of a script costs neither JAX nor Flax.
_HOME = {
    "InputError": "errors",
    "ModelConfig": "config",
    "SAEConfig": "config",
    "TrainConfig": "config",
    "RestorationModel": "models.restoration",
    "SAE": "sae.autoencoder",
    "encode": "sae.architectures",
    "decode": "sae.autoencoder",
    "load_samples": "text.loading",
    "extract": "activations.extraction",
    "train_sae": "train.loop",
    "score": "sae.metrics",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jaxsae' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxsae.{_HOME[name]}"), name)
