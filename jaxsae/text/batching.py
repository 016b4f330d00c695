"""Batches of samples, for few shapes to compile for and little padding: of similar length, or packed into rows."""

import bisect
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Batch(NamedTuple):
    """Samples run together, each cut or padded to `length` characters."""

    samples: np.ndarray
    length: int


def run_lengths(max_position: int) -> list[int]:
    """The lengths that samples are run at, ascending to `max_position`, by factors of 4/3 and 3/2 from about 32.

    Few, since each is compiled for; close, since attention and padding cost.
    """
    lengths = {max_position}
    for step in range(16):
        lengths |= {-(-max_position // 2**step), -(-2 * max_position // (3 * 2**step))}
    return sorted(n for n in lengths if n >= 32 or n == max_position)


def padded_length(length: int, max_position: int) -> int:
    """The length that a single text is run at: a multiple of 32 characters, so that there are few to compile for."""
    return min(-(-length // 32) * 32, max_position)


CHEAP_PADDING = 3000
"""So many characters of padding cost less time than compiling for another length."""


def plan_batches(lengths: np.ndarray, max_position: int, chars: int | None = None) -> list[Batch]:
    """Full batches of about `chars` characters (by default `max_position`), each of the smallest length that fits.

    Samples that do not fill a batch are run at the next length, so that no batch has empty places and each length has
    one shape; those that are left at the greatest length are a smaller batch. Where it costs little padding, all
    samples of a length are run at the next one.
    """
    todo = np.argsort(lengths, kind="stable")
    out, all_lengths = [], run_lengths(max_position)
    for length, longer in zip(all_lengths, [*all_lengths[1:], None], strict=True):
        size = max(1, (chars or max_position) // length)
        fits = int(np.searchsorted(lengths[todo], length, side="right"))
        taken = fits - fits % size
        if longer is None:
            taken = fits
        elif taken * (longer - length) < CHEAP_PADDING:
            taken = 0
        out += [Batch(todo[start : min(start + size, taken)], length) for start in range(0, taken, size)]
        todo = todo[taken:]
    return out


class Packed(NamedTuple):
    """Rows of positions in which samples stand one behind the other; where nothing stands, both are -1."""

    sample: Int[np.ndarray, "rows length"]
    position: Int[np.ndarray, "rows length"]
    """Of a position of the row in its sample."""


SHORT = 3
"""Samples of at most one in so many of the longest row's positions get rows of that length: attention over a row
grows with its square, and most texts are short."""


def pack(lengths: np.ndarray, max_position: int) -> Iterator[Packed]:
    """All samples in as few rows as best fit gives; batches of `max_position` positions, of two shapes at most.

    Long samples have a row of that length each, short ones fill what these leave, and then rows of a third of it, some
    to a batch; in the last batch of these there may be empty ones.
    """
    short = -(-max_position // SHORT)
    by_length = [int(i) for i in np.argsort(-lengths, kind="stable") if lengths[i]]
    long_rows: list[list[int]] = []
    short_rows: list[list[int]] = []
    # (room left, row), ascending, for rows of either length: the first that fits is the fullest that fits
    room: list[tuple[int, bool, int]] = []
    for sample in by_length:
        length = int(lengths[sample])
        at = bisect.bisect_left(room, (length, False, -1))
        if at < len(room):
            left, is_short, row = room.pop(at)
        else:
            is_short = length <= short
            rows = short_rows if is_short else long_rows
            left, row = short if is_short else max_position, len(rows)
            rows.append([])
        (short_rows if is_short else long_rows)[row].append(sample)
        bisect.insort(room, (left - length, is_short, row))
    for rows, length in ((short_rows, short), (long_rows, max_position)):
        size = max_position // length
        for start in range(0, len(rows), size):
            yield _laid_out(rows[start : start + size], lengths, size, length)


def _laid_out(rows: list[list[int]], lengths: np.ndarray, size: int, length: int) -> Packed:
    sample, position = (np.full((size, length), -1, np.int32) for _ in range(2))
    for row, samples in enumerate(rows):
        at = 0
        for one in samples:
            end = at + int(lengths[one])
            sample[row, at:end], position[row, at:end] = one, np.arange(end - at)
            at = end
    return Packed(sample, position)
