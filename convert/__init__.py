"""Between PyTorch files and jaxsae: readers, writers, name table, reference model.

The only home of torch, which is loaded for writing and for comparing, not for reading.
"""

import importlib
from typing import Any

FORMATS = ("pt", "saelens", "dictionary_learning", "sparsify")
"""Of SAEs on disk: this project's and the original scripts', and other libraries'."""
_HOME = {
    "load_restoration_model": "restoration",
    "read_checkpoint": "restoration",
    "load_sae": "formats",
    "convert_sae": "formats",
    "save_sae": "sae_files",
    "layer_of": "sae_files",
    "check_model": "sae_files",
}
__all__ = ["FORMATS", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'convert' has no attribute {name!r}")
    return getattr(importlib.import_module(f"convert.{_HOME[name]}"), name)
