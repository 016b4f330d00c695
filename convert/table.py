"""Name tables: which PyTorch tensor is which Flax parameter. Data, read in both directions; a table for each family."""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxsae.errors import InputError, require


class Entry(NamedTuple):
    """One tensor; `{i}` stands for each block. Both layouts are their own inverse."""

    torch_name: str
    path: str
    layout: Literal["same", "transpose"]


def expand_layers(table: Sequence[Entry], n_layers: int) -> list[Entry]:
    """The table with `{i}` written out, block after block."""
    rows = []
    for of_block, group in itertools.groupby(table, key=lambda entry: "{i}" in entry.path):
        part = list(group)
        for i in range(n_layers if of_block else 1):
            rows += [Entry(e.torch_name.format(i=i), e.path.format(i=i), e.layout) for e in part]
    return rows


def apply_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """The array in a layout, as a view; applied twice it is the array again."""
    return array.T if layout == "transpose" else array


def wrapper(names: Iterable[str], expected: Collection[str]) -> str:
    """The prefix that PyTorch's wrappers have put before every name (`module.`, `_orig_mod.`, `model.`).

    Empty unless all names begin with it, and without it are exactly the expected ones.
    """
    found = list(names)
    first = next(iter(expected))
    prefixes = {name.removesuffix(first) for name in found if name.endswith(f".{first}")}
    for prefix in prefixes:
        bare = {name.removeprefix(prefix) for name in found if name.startswith(prefix)}
        if len(bare) == len(found) and bare == set(expected):
            return prefix
    return ""


def torch_shapes(rows: Sequence[Entry], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """PyTorch name -> shape, from Flax path -> shape."""
    return {e.torch_name: shapes[e.path][::-1] if e.layout == "transpose" else shapes[e.path] for e in rows}


def to_flax_names(
    tensors: Mapping[str, np.ndarray], rows: Sequence[Entry], shapes: Mapping[str, tuple[int, ...]], source: str
) -> dict[str, np.ndarray]:
    """PyTorch name -> array becomes Flax path -> array, each of its own type.

    Args:
      rows: a table with `{i}` written out; it must name all paths of `shapes` and no others.
      shapes: Flax path -> shape.
      source: names the file in errors.

    Raises:
      InputError: the table is not of these paths; or naming missing, unused and mis-shaped tensors.
    """
    named = [e.path for e in rows]
    odd = [f"no row for {path}" for path in shapes if path not in named]
    odd += [f"{path} is not there" for path in named if path not in shapes]
    odd += [f"{path} twice" for path in dict.fromkeys(named) if named.count(path) > 1]
    require(not odd, f"{source}: the table must name each parameter of the replica once, got {_whole(odd)}")
    expected = torch_shapes(rows, shapes)
    wrong = [f"missing {name}" for name in expected if name not in tensors]
    wrong += [f"unknown {name}" for name in tensors if name not in expected]
    wrong += [
        f"{name} is {list(tensors[name].shape)} instead of {list(shape)}{_reversed(tensors[name].shape, shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if wrong:
        raise InputError(
            f"{source}: tensors must be those of its config, got {len(wrong)} differences: {_whole(wrong)}"
        )
    return {e.path: apply_layout(tensors[e.torch_name], e.layout) for e in rows}


def _reversed(got: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    return " (transposed?)" if len(got) > 1 and got == wanted[::-1] else ""


def _whole(words: Sequence[str], most: int = 3, room: int = 200) -> str:
    """The first few, none of them cut, in so many characters where one is not longer; and how many more there are."""
    shown = list(words[:1])
    for word in words[1:most]:
        if len("; ".join([*shown, word])) > room:
            break
        shown.append(word)
    more = f" and {len(words) - len(shown)} more" if len(words) > len(shown) else ""
    return "; ".join(shown) + more


def to_torch_names(params: Mapping[str, np.ndarray], rows: Sequence[Entry]) -> dict[str, np.ndarray]:
    """Flax path -> array becomes PyTorch name -> array, in the order of `rows`."""
    return {e.torch_name: apply_layout(params[e.path], e.layout) for e in rows}
