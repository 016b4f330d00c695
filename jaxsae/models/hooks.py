"""Names of the places in a model where activations are read, in TransformerLens's words. Imports neither JAX nor NumPy.

`blocks.8.hook_resid_post` is the residual stream after block 8, counted from 0; in short, layer 8.
"""

import re

_RESID_POST = re.compile(r"blocks\.(\d+)\.hook_resid_post", re.ASCII)


def hook_name(layer: int) -> str:
    """The name of the residual stream after block `layer`."""
    return f"blocks.{layer}.hook_resid_post"


def layer_of_hook(name: str) -> int | None:
    """The layer that a name of `hook_name` is of; None: it is the name of something else."""
    found = _RESID_POST.fullmatch(name)
    return int(found[1]) if found else None
