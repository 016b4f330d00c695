"""Between PyTorch files and jaxsae: readers, writers, name tables, reference models.

The only home of torch, which is loaded for comparing alone: files are read and written without it.
"""

import importlib
from typing import TYPE_CHECKING

FORMATS = ("pt", "saelens", "dictionary_learning", "sparsify")
"""Of SAEs on disk: this project's and the original scripts', and other libraries'."""

# As in jaxsae/__init__.py.
_HOME = {
    "load_restoration_model": "convert.checkpoints",
    "read_checkpoint": "convert.stored",
    "load_sae": "convert.formats",
    "convert_sae": "convert.formats",
    "save_sae": "convert.sae_files",
    "layer_of": "convert.sae_files",
    "check_model": "convert.sae_files",
    "TorchModel": "jaxsae.models.torch_model",
    "hook_name_of": "convert.sae_files",
}
__all__ = ["FORMATS", *_HOME]

if TYPE_CHECKING:
    from convert.checkpoints import load_restoration_model as load_restoration_model
    from convert.formats import convert_sae as convert_sae
    from convert.formats import load_sae as load_sae
    from convert.sae_files import check_model as check_model
    from convert.sae_files import hook_name_of as hook_name_of
    from convert.sae_files import layer_of as layer_of
    from convert.sae_files import save_sae as save_sae
    from convert.stored import read_checkpoint as read_checkpoint
    from jaxsae.models.torch_model import TorchModel as TorchModel
else:

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module 'convert' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
