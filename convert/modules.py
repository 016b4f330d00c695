"""Modules of a PyTorch model by name: its blocks, what these add to the residual stream, and what a hook sees."""

import difflib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from convert.sae_files import parse_hook
from jaxsae.errors import InputError, listed, require
from jaxsae.models.hooks import HOOKS, Hook, hook_point

ATTENTION = ("attn", "attention", "self_attn", "self_attention", "attention.output.dense", "post_attention_layernorm")
FEED_FORWARD = (
    "mlp",
    "ff",
    "ffn",
    "feed_forward",
    "feedforward",
    "output.dense",
    "linear2",
    "post_feedforward_layernorm",
)
"""Usual names in a block of what adds to the residual stream; that it does, is seen when it runs."""


class Place(NamedTuple):
    """What a hook sees of a module."""

    module: str
    """Its dotted name."""
    side: Literal["output", "input"] = "output"
    """The first of what it gives, or of what it is given."""


class Blocks(NamedTuple):
    """The blocks of a model."""

    name: str
    """Of their ModuleList."""
    n: int

    def block(self, layer: int) -> str:
        """The name of a block."""
        return f"{self.name}.{layer}"


def blocks_of(module: nn.Module, name: str | None = None) -> Blocks | None:
    """The blocks by the name of their ModuleList or Sequential, or else of the outermost such lists the longest.

    A Sequential that no name is given for must be of modules of one class, which have parts. None: there is none.

    Raises:
      InputError: the name is not of such a list.
    """
    lists = {at: one for at, one in module.named_modules() if isinstance(one, nn.ModuleList | nn.Sequential) and at}
    if name is not None:
        require(
            name in lists,
            f"blocks must name a ModuleList of the module, got {name!r}; it has {listed(lists) or 'none'}",
        )
        return Blocks(name, len(lists[name]))
    found = {at: one for at, one in lists.items() if isinstance(one, nn.ModuleList) or _is_of_blocks(one)}
    outer = [at for at in found if not any(at.startswith(f"{other}.") for other in found)]
    longest = max(outer, key=lambda at: (len(found[at]), isinstance(found[at], nn.ModuleList)), default=None)
    return None if longest is None else Blocks(longest, len(found[longest]))


def _is_of_blocks(one: nn.Sequential) -> bool:
    """Whether all parts are of one class and have parts."""
    return len({type(part) for part in one}) == 1 and all(next(part.children(), None) is not None for part in one)


def module_place(module: nn.Module, blocks: Blocks | None, name: str) -> Place:
    """The place of a name: of a module, or `blocks.8.hook_resid_post` and the like of a block.

    Raises:
      InputError: there is no such module, or block.
    """
    point = hook_point(name)
    if point is not None and point.hook in ("resid_post", "resid_pre"):
        return block_place(blocks, point.layer, point.hook)
    names = [at for at, _ in module.named_modules() if at]
    if name not in names:
        near = difflib.get_close_matches(name, names, 4, cutoff=0.3) or names
        raise InputError(f"a hook must name a module of the model, got {name!r}; the nearest are {listed(near)}")
    # in an SAE's file such a name is of the model's blocks
    layer = parse_hook(name).get("layer")
    ours = layer is None or (blocks is not None and name == blocks.block(layer))
    known = "none" if blocks is None else blocks.name
    require(ours, f"a block must be one of {known}, got {name}; name the list that is meant by TorchModel(blocks=...)")
    return Place(name)


def block_place(blocks: Blocks | None, layer: int, hook: str) -> Place:
    """The output or the input of a block.

    Raises:
      InputError: there are no blocks, or no such one.
    """
    require(
        blocks is not None, "a model without a ModuleList of blocks must be read at modules by their names, got none"
    )
    assert blocks is not None
    require(0 <= layer < blocks.n, f"layer must be in 0..{blocks.n - 1}, got {layer}")
    return Place(blocks.block(layer), "input" if hook == "resid_pre" else "output")


def check_kind(hook: Hook) -> None:
    """Raise `InputError` where a hook is neither a kind of place nor modules by number."""
    known = not isinstance(hook, str) or hook in HOOKS
    require(known, f"a hook point must be one of {', '.join(HOOKS)}, or a module's name, got {hook!r}")


def first_of(value: Any) -> torch.Tensor | None:
    """The tensor, or the first of several; None: there is no tensor first."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list) and value:
        value = value[0]
    return value if isinstance(value, torch.Tensor) else None


def with_first(value: Any, x: torch.Tensor) -> Any:
    """The same with another tensor first."""
    if isinstance(value, Mapping):
        changed = type(value)(**value)
        changed[next(iter(value))] = x  # type: ignore[index]
        return changed
    if isinstance(value, tuple | list):
        rest = (x, *value[1:])
        return type(value)(*rest) if hasattr(value, "_fields") else type(value)(rest)
    return x


class Seen(NamedTuple):
    """What a module was given and what it gave, in one pass."""

    given: torch.Tensor | None
    gave: torch.Tensor | None


def adding_parts(block: str, seen: Mapping[str, Seen]) -> tuple[str, str] | None:
    """The modules whose outputs are what attention and the feed-forward network of a block add to its stream.

    That they do is seen in the numbers: block(x) = x + attention + feed-forward; or, where norms stand behind the sums,
    one is given x + attention, and another what the first gave + feed-forward.

    Args:
      seen: of every module of the model, by its name.

    Returns:
      Their names; None where no pair of the usual ones does.
    """
    inside = {name.removeprefix(f"{block}."): one for name, one in seen.items() if name.startswith(f"{block}.")}
    whole = seen[block]
    norms = [one for one in inside.values() if one.given is not None and one.gave is not None]
    for attention in (name for name in ATTENTION if name in inside):
        for feed_forward in (name for name in FEED_FORWARD if name in inside):
            a, f = inside[attention].gave, inside[feed_forward].gave
            if _is_sum(whole.gave, whole.given, a, f):
                return f"{block}.{attention}", f"{block}.{feed_forward}"
            behind_first = [one.gave for one in norms if _is_sum(one.given, whole.given, a)]
            if any(_is_sum(one.given, x, f) for one in norms for x in behind_first):
                return f"{block}.{attention}", f"{block}.{feed_forward}"
    return None


def _is_sum(total: torch.Tensor | None, *parts: torch.Tensor | None) -> bool:
    there = [part for part in parts if part is not None]
    if total is None or len(there) < len(parts) or any(part.shape != total.shape for part in there):
        return False
    return torch.allclose(total, sum(there), rtol=1e-4, atol=1e-4 * float(total.abs().max()))  # type: ignore[arg-type]
