"""Rows that lie on disk, and how they are shuffled on their way to training. Sees only arrays."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

BUFFER = 2**26
"""Bytes of rows that are shuffled together; twice as much is held, for the next are read while these are trained on."""
PIECE = 2**16
"""Bytes of rows that are read at once: neighbours in the text, in another batch each but for chance."""


class RowsOnDisk:
    """Arrays of rows, one after another, float32 when asked for by a slice or by an array of numbers."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts, self.starts = parts, np.cumsum([0, *(len(part) for part in parts)])
        self.shape, self.dtype = (int(self.starts[-1]), parts[0].shape[1]), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """In memory."""
        return self.shape[0] * self.shape[1] * 4

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        if isinstance(which, slice):
            start, stop, _ = which.indices(len(self))
            spans = zip(self.parts, self.starts, strict=False)
            found = [part[max(start - at, 0) : max(stop - at, 0)] for part, at in spans]
            return np.concatenate([piece.astype(np.float32) for piece in found])
        out = np.empty((len(which), self.shape[1]), np.float32)
        part_of = np.searchsorted(self.starts, which, side="right") - 1
        for number, part in enumerate(self.parts):
            mine = part_of == number
            out[mine] = part[which[mine] - self.starts[number]]
        return out


def shuffled_batches(rows: RowsOnDisk, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """An epoch's batches [batch_size, d_in], fixed by (seed, epoch); the last partial one is dropped.

    Pieces of `PIECE` bytes are read in a random order, as many as `BUFFER` holds, and their rows shuffled: a batch is
    of as many places of the whole as a buffer has pieces.
    """
    rng = np.random.default_rng((seed, epoch))
    size = max(1, PIECE // (4 * rows.shape[1]))
    pieces = rng.permutation(-(-len(rows) // size))
    at_once = max(1, BUFFER // PIECE)
    groups = [pieces[start : start + at_once] for start in range(0, len(pieces), at_once)]
    orders = rng.spawn(len(groups))

    def load(number: int) -> np.ndarray:
        read = np.concatenate([rows[slice(p * size, (p + 1) * size)] for p in groups[number].tolist()])
        return read[orders[number].permutation(len(read))]

    left = np.empty((0, rows.shape[1]), np.float32)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(load, 0)
        for number in range(len(groups)):
            buffer = coming.result()
            if number + 1 < len(groups):
                coming = reader.submit(load, number + 1)
            if len(left):
                buffer = np.concatenate([left, buffer])
            end = len(buffer) - len(buffer) % batch_size
            for start in range(0, end, batch_size):
                yield buffer[start : start + batch_size]
            left = buffer[end:].copy()
