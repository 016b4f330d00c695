"""What the configs of all families of models check alike. Imports neither JAX nor NumPy."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from jaxsae.errors import listed, plain_number, require, whole_number

C = TypeVar("C")

BESIDE: Mapping[str, Any] = {"beside": True}
"""Metadata of a field that is known from another file than the checkpoint, and that its `config` does not have."""


def settings(config: Any) -> dict[str, Any]:
    """The fields of a checkpoint's `config`, by the names that they have there."""
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if not f.metadata.get("beside")}


def check_sizes(config: Any, most: Mapping[str, int]) -> None:
    """Raise `InputError` unless the fields named in `most` are whole numbers from 1 to what it says."""
    for name, limit in most.items():
        value = getattr(config, name)
        ok = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit
        require(ok, f"the model's {name} must be a whole number in 1..{limit}, got {value!r}")


def check_rates(dropout: Any, rotary_base: Any) -> None:
    """Raise `InputError` unless `dropout` and `rotary_base` are numbers that a model can have."""
    dropout_ok = isinstance(dropout, (int, float)) and 0 <= dropout < 1
    require(dropout_ok, f"the model's dropout must be in [0, 1), got {dropout!r}")
    base_ok = isinstance(rotary_base, (int, float)) and rotary_base > 1 and math.isfinite(rotary_base)
    require(base_ok, f"the model's rotary_base must be a number above 1, got {rotary_base!r}")


def check_layer(layer: int, n_layers: int) -> None:
    """Raise `InputError` unless a model of so many layers has this one."""
    require(0 <= layer < n_layers, f"layer must be in 0..{n_layers - 1}, got {layer}")


def from_settings(config: type[C], whole: Mapping[str, Any], given: Any, source: str) -> C:
    """Read a checkpoint's `config`; a field that the replica lacks is refused.

    Args:
      whole: names the fields that are whole numbers.
      source: names the file in errors.
    """
    require(isinstance(given, dict), f"{source}: config must be a dict, got {type(given).__name__}")
    known = {f.name for f in dataclasses.fields(config) if not f.metadata.get("beside")}  # type: ignore[arg-type]
    unknown = sorted(map(str, set(given) - known))
    require(not unknown, f"{source}: config has fields this replica does not know: {listed(unknown)}")
    require("vocab_size" in given, f"{source}: config must have vocab_size, got {listed(given) or 'nothing'}")
    return config(
        **{name: whole_number(value) if name in whole else plain_number(value) for name, value in given.items()}
    )
