"""The name table: which PyTorch tensor is which Flax parameter. Data, read in both directions."""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxsae.errors import InputError, listed
from jaxsae.models.restoration import RestorationModel
from jaxsae.models.restoration_config import ModelConfig


class Entry(NamedTuple):
    """One tensor; `{i}` stands for each block. Both layouts are their own inverse."""

    torch_name: str
    path: str
    layout: Literal["same", "transpose"]


TABLE = (
    Entry("embed.weight", "embed.embedding", "same"),
    Entry("layers.{i}.ln1.weight", "layers.{i}.ln1.scale", "same"),
    Entry("layers.{i}.ln1.bias", "layers.{i}.ln1.bias", "same"),
    Entry("layers.{i}.attn.q_proj.weight", "layers.{i}.attn.q_proj.kernel", "transpose"),
    Entry("layers.{i}.attn.q_proj.bias", "layers.{i}.attn.q_proj.bias", "same"),
    Entry("layers.{i}.attn.k_proj.weight", "layers.{i}.attn.k_proj.kernel", "transpose"),
    Entry("layers.{i}.attn.k_proj.bias", "layers.{i}.attn.k_proj.bias", "same"),
    Entry("layers.{i}.attn.v_proj.weight", "layers.{i}.attn.v_proj.kernel", "transpose"),
    Entry("layers.{i}.attn.v_proj.bias", "layers.{i}.attn.v_proj.bias", "same"),
    Entry("layers.{i}.attn.out_proj.weight", "layers.{i}.attn.out_proj.kernel", "transpose"),
    Entry("layers.{i}.attn.out_proj.bias", "layers.{i}.attn.out_proj.bias", "same"),
    Entry("layers.{i}.ln2.weight", "layers.{i}.ln2.scale", "same"),
    Entry("layers.{i}.ln2.bias", "layers.{i}.ln2.bias", "same"),
    Entry("layers.{i}.ff.0.weight", "layers.{i}.ff.up.kernel", "transpose"),
    Entry("layers.{i}.ff.0.bias", "layers.{i}.ff.up.bias", "same"),
    Entry("layers.{i}.ff.2.weight", "layers.{i}.ff.down.kernel", "transpose"),
    Entry("layers.{i}.ff.2.bias", "layers.{i}.ff.down.bias", "same"),
    Entry("final_ln.weight", "final_ln.scale", "same"),
    Entry("final_ln.bias", "final_ln.bias", "same"),
    Entry("head.weight", "head.kernel", "transpose"),
    Entry("head.bias", "head.bias", "same"),
)


def expand_layers(table: Sequence[Entry], n_layers: int) -> list[Entry]:
    """The table with `{i}` written out, block after block."""
    rows = []
    for of_block, group in itertools.groupby(table, key=lambda entry: "{i}" in entry.path):
        part = list(group)
        for i in range(n_layers if of_block else 1):
            rows += [Entry(e.torch_name.format(i=i), e.path.format(i=i), e.layout) for e in part]
    return rows


def entries(config: ModelConfig) -> list[Entry]:
    """The restoration model's, in the order of tensors in a checkpoint."""
    return expand_layers(TABLE, config.n_layers)


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


def _theirs(rows: Sequence[Entry], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """PyTorch name -> shape, from Flax path -> shape."""
    return {e.torch_name: shapes[e.path][::-1] if e.layout == "transpose" else shapes[e.path] for e in rows}


def torch_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """PyTorch name -> shape of every tensor that a checkpoint of this config has."""
    return _theirs(entries(config), RestorationModel.param_shapes(config))


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
    expected = _theirs(rows, shapes)
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


def to_flax(tensors: Mapping[str, np.ndarray], config: ModelConfig, source: str) -> dict[str, np.ndarray]:
    """`to_flax_names` with the restoration model's table."""
    return to_flax_names(tensors, entries(config), RestorationModel.param_shapes(config), source)


def to_torch(params: Mapping[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """Flax path -> array becomes PyTorch name -> array, in the order of a checkpoint."""
    return {e.torch_name: apply_layout(params[e.path], e.layout) for e in entries(config)}
