"""Arrays of rows, often memory-mapped files, joined to one, and shuffled on their way to training."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxsae.runtime import forget

BUFFER = 2**24
"""Bytes of rows that are shuffled together. Twice as much is in memory: the next are read while these are used."""
PIECE = 2**16
"""Bytes of rows that are read at once: neighbours in the text, which shuffling then spreads over batches."""
LANES = 8
"""Streams of rows of which each gives its share of every batch, so that so many processes can read one each."""


class Runs(NamedTuple):
    """Where the rows of several arrays lie that are read as one: run after run of neighbours in one of them."""

    starts: Int[np.ndarray, " runs_and_1"]
    """The first row of each run, ascending from 0; behind them, the number of all rows."""
    part: Int[np.ndarray, " runs"]
    """The number of the array that each run is in."""
    first: Int[np.ndarray, " runs"]
    """The row of that array that it begins with."""

    @classmethod
    def interleaved(cls, starts: Int[np.ndarray, " runs_and_1"], part: Int[np.ndarray, " runs"]) -> "Runs":
        """Runs of arrays each of which is used up from its first row on."""
        lengths, first = np.diff(starts), np.zeros_like(starts[:-1])
        for number in np.unique(part):
            here = part == number
            first[here] = np.cumsum(lengths[here]) - lengths[here]
        return cls(starts, part, first)

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, slice]]:
        """Where the rows from `start` to `stop` lie: (the number of an array, which of its rows) again and again."""
        runs = slice(int(np.searchsorted(self.starts, start, "right")) - 1, int(np.searchsorted(self.starts, stop)))
        shift = self.first[runs] - self.starts[:-1][runs]
        begins = np.maximum(self.starts[:-1][runs], start) + shift
        ends = np.minimum(self.starts[1:][runs], stop) + shift
        for part, begin, end in zip(self.part[runs].tolist(), begins.tolist(), ends.tolist(), strict=True):
            yield part, slice(begin, end)


class RowsOnDisk:
    """Arrays of rows as one; a slice, or an array of row numbers, gives a float32 array.

    Args:
      parts: the arrays [n, d_in], of one width.
      runs: which of their rows follow which; without it, the arrays follow one another.
    """

    def __init__(self, parts: Sequence[np.ndarray], runs: Runs | None = None) -> None:
        if runs is None:
            starts = np.cumsum([0, *map(len, parts)])
            runs = Runs(starts, np.arange(len(parts)), np.zeros_like(starts[:-1]))
        self.parts, self.runs = parts, runs
        self.shape, self.dtype = (int(runs.starts[-1]), parts[0].shape[1]), np.dtype(np.float32)

    @classmethod
    def joined(cls, several: Sequence["RowsOnDisk"]) -> "RowsOnDisk":
        """Rows that follow one another."""
        rows_before = np.cumsum([0, *map(len, several)])
        parts_before = np.cumsum([0, *(len(rows.parts) for rows in several)])
        starts = [rows.runs.starts[:-1] + at for rows, at in zip(several, rows_before, strict=False)]
        part = [rows.runs.part + at for rows, at in zip(several, parts_before, strict=False)]
        first = np.concatenate([rows.runs.first for rows in several])
        runs = Runs(np.concatenate([*starts, rows_before[-1:]]), np.concatenate(part), first)
        return cls([part for rows in several for part in rows.parts], runs)

    def head(self, n: int) -> "RowsOnDisk":
        """The first n rows, not read yet."""
        starts, part, first = self.runs
        count = int(np.searchsorted(starts, n))
        return RowsOnDisk(self.parts, Runs(np.append(starts[:count], n), part[:count], first[:count]))

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in memory, as float32."""
        return self.shape[0] * self.shape[1] * 4

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        if isinstance(which, slice):
            start, stop, _ = which.indices(len(self))
            out = np.empty((max(stop - start, 0), self.shape[1]), np.float32)
            at, touched = 0, set()
            for number, span in self.runs.spans(start, max(start, stop)):
                end = at + span.stop - span.start
                out[at:end] = self.parts[number][span]
                at = end
                touched.add(number)
        else:
            out = np.empty((len(which), self.shape[1]), np.float32)
            run = np.searchsorted(self.runs.starts, which, side="right") - 1
            part, row = self.runs.part[run], self.runs.first[run] + which - self.runs.starts[run]
            touched = set(np.unique(part).tolist())
            for number in touched:
                is_here = part == number
                out[is_here] = self.parts[number][row[is_here]]
        forget(self.parts[number] for number in touched)  # else what was read of the files counts as memory
        return out


def lanes(batch_size: int) -> int:
    """How many lanes the batches of an epoch are read in: what the number of shares must divide."""
    return math.gcd(batch_size, LANES)


def batches_from_disk(
    rows: RowsOnDisk, batch_size: int, seed: int, epoch: int, share: tuple[int, int] = (0, 1)
) -> Iterator[np.ndarray]:
    """An epoch's batches [batch_size, d_in], fixed by (seed, epoch); the last partial one is dropped.

    Pieces of `PIECE` bytes in a random order are cut into `lanes(batch_size)` lanes of one length. Of each, a buffer is
    read at a time, of `BUFFER` bytes in all lanes together, and its rows are shuffled; a batch is the next few rows of
    each lane. So the rows of a batch come from as many places as all these buffers have pieces.

    Args:
      share: (index, count): of each batch only this part is read and given, [batch_size / count, d_in]. The shares of
        one batch, in their order, are the batch. The number of lanes must be divisible by their count.
    """
    index, count = share
    n_lanes = lanes(batch_size)
    assert index in range(count), f"there is no share {share}"
    assert n_lanes % count == 0, f"{n_lanes} lanes must be divisible by the shares, got {count} of these"
    mine = range(index * n_lanes // count, (index + 1) * n_lanes // count)
    steps, size, width = len(rows) // batch_size, batch_size // n_lanes, rows.shape[1]
    if not steps:
        return
    steps_of_buffer = max(1, BUFFER // n_lanes // (4 * width * size))
    order = _pieces(len(rows), max(1, PIECE // (4 * width)), np.random.default_rng((seed, epoch)))

    def load(start: int) -> np.ndarray:
        """The rows of the buffers that begin with that step [steps, lanes, rows of a lane, d_in]."""
        n = min(steps_of_buffer, steps - start)
        buffers = np.empty((n, len(mine), size, width), np.float32)
        for at, lane in enumerate(mine):
            begin = (lane * steps + start) * size
            read = np.concatenate([rows[span] for _, span in order.spans(begin, begin + n * size)])
            number = start // steps_of_buffer
            rng = np.random.default_rng(np.random.SeedSequence((seed, epoch), spawn_key=(lane, number)))
            buffers[:, at] = read[rng.permutation(len(read))].reshape(n, size, width)
        return buffers

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(load, 0)
        for start in range(0, steps, steps_of_buffer):
            buffers = coming.result()
            if start + steps_of_buffer < steps:
                coming = reader.submit(load, start + steps_of_buffer)
            for batch in buffers:
                yield batch.reshape(-1, width)


def _pieces(n: int, size: int, rng: np.random.Generator) -> Runs:
    """All rows in pieces of that size, one of which may be smaller, in a random order."""
    first = rng.permutation(-(-n // size)) * size
    starts = np.cumsum([0, *np.minimum(size, n - first)])
    return Runs(starts, np.zeros_like(first), first)


def is_store(path: str) -> bool:
    """Whether a path is of rows, and not of text."""
    return path.endswith((".npy", ".pt")) or (Path(path) / "store.json").exists()
