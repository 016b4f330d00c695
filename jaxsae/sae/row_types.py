"""Rows of activations as the functions of this room take them: an array, or what is read like one piece by piece."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float


@runtime_checkable
class SlicedRows(Protocol):
    """Rows [n, d_in] that need not be in memory: a slice, or an array of row numbers, gives a float32 array of them."""

    shape: tuple[int, int]
    dtype: np.dtype

    def __len__(self) -> int:
        """The number of rows."""

    def __getitem__(self, which: slice | np.ndarray) -> Any:
        """Some of the rows."""


AnyRows = Float[Array, "n d_in"] | SlicedRows
"""On the device that computes, or on disk."""
