"""Batches of samples of similar length: few lengths to compile for, little padding."""

from typing import NamedTuple

import numpy as np


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
