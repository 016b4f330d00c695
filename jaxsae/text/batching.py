"""Samples that are run together: few lengths to compile for, little padding."""

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


WORTH = 3000
"""Characters of padding that are cheaper than to compile for another length."""


def plan(lengths: np.ndarray, max_position: int, chars: int | None = None) -> list[Batch]:
    """Full batches of about `chars` characters (max_position), each sample in the smallest length with company enough.

    What does not fill a batch moves up to the next length, so that no batch has empty places and each length has one
    shape; what is left over at the greatest length is a smaller batch. All move up where that costs little padding.
    """
    todo = np.argsort(lengths, kind="stable")
    out, usual = [], run_lengths(max_position)
    for length, longer in zip(usual, [*usual[1:], None], strict=True):
        size = max(1, (chars or max_position) // length)
        fits = int(np.searchsorted(lengths[todo], length, side="right"))
        taken = fits - fits % size
        if longer is None:
            taken = fits
        elif taken * (longer - length) < WORTH:
            taken = 0
        out += [Batch(todo[start : min(start + size, taken)], length) for start in range(0, taken, size)]
        todo = todo[taken:]
    return out
