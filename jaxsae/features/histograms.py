"""Histograms of latents' values on a logarithmic scale."""

import numpy as np
from jaxtyping import Float, Int

OCTAVES, PER_OCTAVE = 12, 8
BINS = OCTAVES * PER_OCTAVE


def per_octave(
    counts: Int[np.ndarray, "... bins"], bounds: Float[np.ndarray, " bounds"]
) -> Float[np.ndarray, "... bins"]:
    """Counts over the widths of their bins in octaves.

    The bins of an octave are equally wide in the value, so on its logarithm the first is wider than the last by two
    thirds: counts alone would jump where an octave begins.
    """
    return counts / np.diff(np.log2(bounds))


class Histograms:
    """Histograms of the values above 0 of each column: eight bins an octave; bin 0 has the smallest values.

    The last bins belong to the largest value so far: when a larger one comes, the counts move down, and bin 0 takes
    what falls off the end. So the counts do not depend on the order in which values come.
    """

    def __init__(self, columns: int) -> None:
        self.top: int | None = None
        """The last bin ends at 2 ** top; None: no value yet."""
        self.counts = np.zeros((columns, BINS), np.int64)

    def _reach(self, largest: float) -> None:
        """Move the bins up, if need be, so that the last one is not below this value."""
        if not largest > 0:
            return
        wanted = max(int(np.frexp(largest)[1]), -140)  # largest < 2 ** wanted; below, float32 has few bits
        if self.top is not None and wanted > self.top:
            shift = min(PER_OCTAVE * (wanted - self.top), BINS - 1)
            lowest = self.counts[:, : shift + 1].sum(axis=1)
            self.counts[:, : BINS - shift] = self.counts[:, shift:].copy()
            self.counts[:, BINS - shift :] = 0
            self.counts[:, 0] = lowest
        self.top = wanted if self.top is None else max(self.top, wanted)

    def edges(self) -> Float[np.ndarray, " bins"]:
        """The lower edge of each bin."""
        return self.bounds()[:-1]

    def bounds(self) -> Float[np.ndarray, " bounds"]:
        """The edges of the bins, from the lower one of the first to the upper one of the last."""
        octave, part = np.divmod(np.arange(BINS + 1), PER_OCTAVE)
        return 2.0 ** (octave + (self.top or 0) - OCTAVES) * (1 + part / PER_OCTAVE)

    def bins_of(self, values: Float[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """The bin of each value; a value must be above 0."""
        # a float32's bits, but for the last twenty, count its octave and eighths of it
        number = (values.view(np.int32) >> 20) - PER_OCTAVE * (127 + (self.top or 0) - OCTAVES)
        return np.clip(number, 0, BINS - 1)

    def add(self, column: Int[np.ndarray, " m"], values: Float[np.ndarray, " m"]) -> None:
        """Count values of the columns."""
        self._reach(float(values.max(initial=0)))
        np.add.at(self.counts.reshape(-1), column * BINS + self.bins_of(values), 1)
