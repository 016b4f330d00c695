"""A model by its path, of whatever kind it is: stored tensors of a known family, or a PyTorch module to be hooked."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Union

from convert import user_file
from convert.checkpoints import Checkpoint
from convert.checkpoints import read_checkpoint as read_tensors
from convert.families import Config
from jaxsae.errors import InputError, require
from jaxsae.files import read_json

if TYPE_CHECKING:  # torch
    from convert.hooked import HookedCheckpoint, HookedShape

AnyCheckpoint = Union[Checkpoint, "HookedCheckpoint"]
AnyConfig = Union[Config, "HookedShape"]


def read_checkpoint(path: str | Path, vocabulary: str | Path | None = None) -> "Checkpoint | HookedCheckpoint":
    """Read a model.

    Args:
      path: a `.pt` file or a converted folder of a known family; or a PyTorch module, whose activations are read by
        hooks: a folder of Hugging Face's, or `FILE.py:FUNCTION` of the user's own, which is imported, that is, run.
      vocabulary: see `convert.checkpoints.read_checkpoint`.

    Raises:
      InputError: not such a file, or what is in it does not fit together.
    """
    if not is_pytorch(path):
        return read_tensors(path, vocabulary)
    # threads of PyTorch's that spin while JAX's work can take ten times as long; read when torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    require(vocabulary is None, f"a vocabulary is for models of signs, got {vocabulary} for {path}; leave it out")
    if user_file.names_function(path):
        from convert.hooked import read_hooked

        return read_hooked(path)
    from convert.huggingface import read_huggingface

    return read_huggingface(path)


def is_pytorch(path: str | Path) -> bool:
    """Whether it is a module that PyTorch runs: what is read of it is compared with nothing."""
    return user_file.names_function(path) or is_huggingface(path)


def is_huggingface(path: str | Path) -> bool:
    """Whether it is a folder with a `config.json` as Hugging Face's `transformers` writes it."""
    config = Path(path) / "config.json"
    if not config.is_file():
        return False
    try:
        said = read_json(config)
    except (OSError, InputError):
        return False
    return isinstance(said, dict) and "model_type" in said
