"""Arrays of rows, often memory-mapped files, joined to one, and shuffled on their way to training."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxsae.runtime import forget

BUFFER = 2**24
"""Bytes of rows that are shuffled together. Twice as much is in memory: the next are read while these are used."""
PIECE = 2**16
"""Bytes of rows that are read at once: neighbours in the text, which shuffling then spreads over batches."""


class RowsOnDisk:
    """Arrays of rows as one, in their order; a slice, or an array of row numbers, gives a float32 array."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts, self.starts = parts, np.cumsum([0, *(len(part) for part in parts)])
        self.shape, self.dtype = (int(self.starts[-1]), parts[0].shape[1]), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in memory, as float32."""
        return self.shape[0] * self.shape[1] * 4

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        if isinstance(which, slice):
            start, stop, _ = which.indices(len(self))
            spans = zip(self.parts, self.starts, strict=False)
            pieces = [part[max(start - at, 0) : max(stop - at, 0)] for part, at in spans]
            out = np.concatenate([piece.astype(np.float32, copy=False) for piece in pieces])
            forget(self.parts)  # else what was read of the files counts as memory
            return out
        out = np.empty((len(which), self.shape[1]), np.float32)
        part_of = np.searchsorted(self.starts, which, side="right") - 1
        for number, part in enumerate(self.parts):
            is_here = part_of == number
            out[is_here] = part[which[is_here] - self.starts[number]]
        forget(self.parts)
        return out


def batches_from_disk(rows: RowsOnDisk, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """An epoch's batches [batch_size, d_in], fixed by (seed, epoch); the last partial one is dropped.

    Pieces of `PIECE` bytes are read in a random order, as many as fit into `BUFFER`, and their rows are shuffled: the
    rows of a batch come from as many places as a buffer has pieces.
    """
    rng = np.random.default_rng((seed, epoch))
    size = max(1, PIECE // (4 * rows.shape[1]))
    pieces = rng.permutation(-(-len(rows) // size))
    per_buffer = max(1, BUFFER // PIECE)
    groups = [pieces[start : start + per_buffer] for start in range(0, len(pieces), per_buffer)]
    orders = rng.spawn(len(groups))

    def load(number: int) -> np.ndarray:
        read = np.concatenate([rows[slice(p * size, (p + 1) * size)] for p in groups[number].tolist()])
        return read[orders[number].permutation(len(read))]

    left = np.empty((0, rows.shape[1]), np.float32)
    with ThreadPoolExecutor(1) as reader:
        next_buffer = reader.submit(load, 0)
        for number in range(len(groups)):
            buffer = next_buffer.result()
            if number + 1 < len(groups):
                next_buffer = reader.submit(load, number + 1)
            if len(left):
                buffer = np.concatenate([left, buffer])
            end = len(buffer) - len(buffer) % batch_size
            for start in range(0, end, batch_size):
                yield buffer[start : start + batch_size]
            left = buffer[end:].copy()


def is_store(path: str) -> bool:
    """Whether a path is of rows, and not of text."""
    return path.endswith((".npy", ".pt")) or (Path(path) / "store.json").exists()
