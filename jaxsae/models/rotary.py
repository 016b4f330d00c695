"""Rotary positions, for the replica and for the PyTorch reference. Imports no JAX."""

import functools

import numpy as np


@functools.lru_cache
def rotary_table(length: int, d_head: int, base: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the rotary angles, each [length, d_head] float32, both halves of `d_head` alike.

    Made on the host, each stage rounded to float32 as the PyTorch model does: ways that round elsewhere differ by 2e-5
    rad at position 767. Float64 runs use the same float32 table.
    """
    exponent = np.arange(0, d_head, 2, dtype=np.float32) / np.float32(d_head)
    inv_freq = np.float32(1) / (np.float64(base) ** exponent).astype(np.float32)
    angle = (np.arange(length, dtype=np.float32)[:, None] * inv_freq).astype(np.float64)
    return tuple(np.concatenate([f(angle)] * 2, axis=-1).astype(np.float32) for f in (np.cos, np.sin))  # type: ignore[return-value]
