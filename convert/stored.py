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
    from convert.own_replica import OwnReplica
    from jaxsae.models.own import Shape

AnyCheckpoint = Union[Checkpoint, "HookedCheckpoint", "OwnReplica"]
AnyConfig = Union[Config, "HookedShape", "Shape"]


def read_checkpoint(
    path: str | Path, vocabulary: str | Path | None = None
) -> "Checkpoint | HookedCheckpoint | OwnReplica":
    """Read a model.

    Args:
      path: a `.pt` file or a converted folder of a known family; or a PyTorch module, whose activations are read by
        hooks: a folder of Hugging Face's, or `FILE.py:FUNCTION` of the user's own, which is imported, that is, run.
        The function may return a replica in JAX instead.
      vocabulary: see `convert.checkpoints.read_checkpoint`.

    Raises:
      InputError: not such a file, or what is in it does not fit together.
    """
    if not is_foreign(path):
        return read_tensors(path, vocabulary)
    # threads of PyTorch's that spin while JAX's work can take ten times as long; read when torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    require(vocabulary is None, f"a vocabulary is for models of signs, got {vocabulary} for {path}; leave it out")
    if user_file.names_function(path):
        return read_own(path)
    from convert.huggingface import read_huggingface

    return read_huggingface(path)


def read_own(path: str | Path) -> "HookedCheckpoint | OwnReplica":
    """What `FILE.py:FUNCTION` returns: a PyTorch module, or a replica of one in JAX. The file is the user's code.

    Raises:
      InputError: there is no such function, it fails, or returns something else.
    """
    from jaxsae.models.transformer import Transformer

    function = user_file.user_function(path)
    called = user_file.call(function)
    source = f"{function.file}: {function.name}()"
    if isinstance(called.value, Transformer):
        from convert.own_replica import OwnReplica

        return OwnReplica(called.value, source, called.code)
    from convert.hooked import as_hooked

    return as_hooked(called.value, source, called.code)


def is_foreign(path: str | Path) -> bool:
    """Whether it is of no known family: PyTorch runs it, or the user's own code; there is no reference here."""
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
