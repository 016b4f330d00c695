"""jaxsae: train sparse autoencoders on a PyTorch transformer, and read what it learned.

A restoration model predicts the hidden characters of damaged text. Rows are its residual stream after one layer, a
vector for each character. A sparse autoencoder (SAE) writes each row as a few latents; a latent is also called a
feature. The original scripts are the PyTorch programs that this project replaces, the guide is the text about them.

Reading order is data flow, with a package for each stage: `text` (text -> token ids), `models` (ids -> residual
stream), `activations` (residual stream -> rows), `sae` and `train` (rows -> sparse autoencoder, and how good it is),
`features` (what its latents mean, and the page that shows it). `restore` fills damaged text and needs no SAE; `explain`
says why it is restored so, and where a corpus has the like; `serve` is the page, alive. `cli` is the command line,
`demo` the corpus of the embedded demo. The readers and writers of PyTorch files live in the sibling package `convert`.
"""

import importlib
from typing import TYPE_CHECKING

# Name -> where it lives. Loaded on first use, so that `--help` costs neither JAX nor Flax; the imports below say the
# same to whoever reads types, and a test compares the two.
_HOME = {
    "InputError": "jaxsae.errors",
    "ModelConfig": "jaxsae.models.restoration_config",
    "SAEConfig": "jaxsae.config",
    "TrainConfig": "jaxsae.config",
    "RestorationModel": "jaxsae.models.restoration",
    "TorchModel": "jaxsae.models.torch_model",
    "SAE": "jaxsae.sae.autoencoder",
    "encode": "jaxsae.sae.architectures",
    "decode": "jaxsae.sae.autoencoder",
    "load_samples": "jaxsae.text.loading",
    "extract": "jaxsae.activations.extraction",
    "train_sae": "jaxsae.train.loop",
    "train_run": "jaxsae.train.run",
    "TextSource": "jaxsae.train.sources",
    "StoreSource": "jaxsae.train.sources",
    "score": "jaxsae.sae.metrics",
    "evaluate": "jaxsae.features.evaluation",
    "evaluate_all": "jaxsae.features.evaluation",
    "inspect": "jaxsae.features.inspection",
    "inspect_all": "jaxsae.features.inspection",
    "compare": "jaxsae.features.comparison",
    "load_concepts": "jaxsae.features.concepts",
    "LayerSAE": "jaxsae.features.statistics",
    "read_damaged": "jaxsae.text.damaged_text",
    "candidates": "jaxsae.restore.candidates",
    "fill": "jaxsae.restore.fillings",
    "restore_text": "jaxsae.restore.answer",
    "explain_place": "jaxsae.explain.explanation",
    "steer": "jaxsae.features.splice",
}
__all__ = list(_HOME)

if TYPE_CHECKING:
    from jaxsae.activations.extraction import extract as extract
    from jaxsae.config import SAEConfig as SAEConfig
    from jaxsae.config import TrainConfig as TrainConfig
    from jaxsae.errors import InputError as InputError
    from jaxsae.explain.explanation import explain_place as explain_place
    from jaxsae.features.comparison import compare as compare
    from jaxsae.features.concepts import load_concepts as load_concepts
    from jaxsae.features.evaluation import evaluate as evaluate
    from jaxsae.features.evaluation import evaluate_all as evaluate_all
    from jaxsae.features.inspection import inspect as inspect
    from jaxsae.features.inspection import inspect_all as inspect_all
    from jaxsae.features.splice import steer as steer
    from jaxsae.features.statistics import LayerSAE as LayerSAE
    from jaxsae.models.restoration import RestorationModel as RestorationModel
    from jaxsae.models.restoration_config import ModelConfig as ModelConfig
    from jaxsae.models.torch_model import TorchModel as TorchModel
    from jaxsae.restore.answer import restore_text as restore_text
    from jaxsae.restore.candidates import candidates as candidates
    from jaxsae.restore.fillings import fill as fill
    from jaxsae.sae.architectures import encode as encode
    from jaxsae.sae.autoencoder import SAE as SAE
    from jaxsae.sae.autoencoder import decode as decode
    from jaxsae.sae.metrics import score as score
    from jaxsae.text.damaged_text import read_damaged as read_damaged
    from jaxsae.text.loading import load_samples as load_samples
    from jaxsae.train.loop import train_sae as train_sae
    from jaxsae.train.run import train_run as train_run
    from jaxsae.train.sources import StoreSource as StoreSource
    from jaxsae.train.sources import TextSource as TextSource
else:  # a type checker would take any name for one that is there

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module 'jaxsae' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
