"""Names of the places in a model where activations are read, in TransformerLens's words. Imports neither JAX nor NumPy.

`blocks.8.hook_resid_post` is the residual stream after block 8, counted from 0; in short, layer 8.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxsae.errors import require

HOOKS = ("resid_post", "resid_pre", "attn_out", "mlp_out")
"""Of each block: the residual stream after it and before it, and what attention and the feed-forward network add."""

Hook = str | Mapping[int, str]
"""Where a model is read: one of `HOOKS`, of every block; or of a model that is PyTorch's, its modules by number."""

_NAME = re.compile(rf"blocks\.(\d+)\.hook_({'|'.join(HOOKS)})", re.ASCII)


class HookPoint(NamedTuple):
    """A place in a model."""

    layer: int
    hook: str
    """One of `HOOKS`."""


def hook_name(layer: int, hook: str = "resid_post") -> str:
    """The name of a hook point of block `layer`."""
    return f"blocks.{layer}.hook_{hook}"


def hook_point(name: str) -> HookPoint | None:
    """What a name of `hook_name` is of; None: it is the name of something else."""
    found = _NAME.fullmatch(name)
    return HookPoint(int(found[1]), found[2]) if found else None


def hook_names(hook: Hook, layers: Iterable[int]) -> dict[int, str]:
    """The name of each layer's hook point."""
    return {layer: hook_name(layer, hook) if isinstance(hook, str) else hook[layer] for layer in layers}


def hook_of(names: Mapping[int, str]) -> Hook:
    """What a model is to be read at so that its layers are those of `names`.

    Raises:
      InputError: they are of several kinds.
    """
    points = [hook_point(name) for name in names.values()]
    if None in points:
        return dict(names)
    kinds = sorted({point.hook for point in points if point})
    require(len(kinds) <= 1, f"hook points must be of one kind at a time, got {' and '.join(kinds)}; give one kind")
    return kinds[0] if kinds else HOOKS[0]


def file_stem(layer: int, hook: Hook) -> str:
    """What an SAE file is called, without its ending."""
    name = hook if isinstance(hook, str) else hook_names(hook, [layer])[layer]
    return f"sae_layer{layer}{'' if name == HOOKS[0] else f'_{_slug(name)}'}_optimized"


def _slug(name: str) -> str:
    """A name as a part of a file's name."""
    return re.sub(r"[^\w.-]", "_", name)[:80]


def numbered(names: Sequence[str]) -> dict[int, str]:
    """Modules by number: the first number of `blocks.8.mlp.0` in which all differ, else their places in the list.

    Where none of their parts is a number, the last one within a part counts, as of `layer8`.
    """
    parts = [[int(part) for part in name.split(".") if part.isdecimal()] for name in names]
    parts = [found or [int(n) for n in re.findall(r"\d+", name)[-1:]] for name, found in zip(names, parts, strict=True)]
    columns = [[found[at] for found in parts] for at in range(min(map(len, parts)))]
    found = next((column for column in columns if len(set(column)) == len(names)), range(len(names)))
    return dict(zip(found, names, strict=True))


def points_of(layers: Sequence[int], hook: str) -> tuple[list[int], str]:
    """Layers and hook as they are read: what a block reads is what the block before it gives.

    `hidden_states` counts as Hugging Face does: 0 is the embedding, n the residual stream after n blocks.

    Raises:
      InputError: the embedding, which no block gives, is asked for beside other layers.
    """
    if hook not in ("resid_pre", "hidden_states"):
        return list(layers), hook
    require(
        0 not in layers or len(layers) == 1,
        f"layer 0 of {hook}, the embedding, must be asked for by itself, got {', '.join(map(str, layers))}",
    )
    return ([0], "resid_pre") if 0 in layers else ([layer - 1 for layer in layers], "resid_post")


def check_hook(hook: Hook) -> None:
    """Raise `InputError` unless blocks have such a hook point."""
    got = hook if isinstance(hook, str) else ", ".join(hook.values())
    require(got in HOOKS, f"a hook point of this model must be one of {', '.join(HOOKS)}, got {got}")
