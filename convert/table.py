"""Name tables: which PyTorch tensor is which Flax parameter. Data, read in both directions; a table for each family."""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxsae.errors import InputError, listed


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
      InputError: naming every missing, unused and mis-shaped tensor.
    """
    assert sorted(e.path for e in rows) == sorted(shapes), set(shapes) ^ {e.path for e in rows}
    expected = torch_shapes(rows, shapes)
    wrong = [f"missing {name}" for name in expected if name not in tensors]
    wrong += [f"unknown {name}" for name in tensors if name not in expected]
    wrong += [
        f"{name} is {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if wrong:
        raise InputError(
            f"{source}: tensors must be those of its config, got {len(wrong)} differences: {listed(wrong, 3, '; ')}"
        )
    return {e.path: apply_layout(tensors[e.torch_name], e.layout) for e in rows}


def to_torch_names(params: Mapping[str, np.ndarray], rows: Sequence[Entry]) -> dict[str, np.ndarray]:
    """Flax path -> array becomes PyTorch name -> array, in the order of `rows`."""
    return {e.torch_name: apply_layout(params[e.path], e.layout) for e in rows}
