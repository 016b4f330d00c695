"""Histograms of values on a logarithmic scale, from which AUROC, precision and recall follow."""

import numpy as np
from jaxtyping import Bool, Float, Int

OCTAVES, PER_OCTAVE = 12, 8
BINS = OCTAVES * PER_OCTAVE


class Histograms:
    """Histograms of the values of columns: eight bins an octave, for each half of the texts and each group of rows.

    Bin 0 has the smallest values; values of 0 are in no bin. With `signed`, negative values have as many bins below.
    The last bins belong to the largest value so far: when a larger one comes, the counts move down, and bin 0 takes
    what falls off the end. So the counts do not depend on the order in which values come.
    """

    def __init__(self, groups: int, columns: int, signed: bool = False) -> None:
        self.bins = BINS * (2 if signed else 1)
        self.signed = signed
        self.top: int | None = None
        """The last bin ends at 2 ** top; None: no value yet."""
        self.counts = np.zeros((2, groups, columns, self.bins), np.int32)

    def _reach(self, largest: float) -> None:
        """Move the bins up, if need be, so that the last one is not below this value."""
        if not largest > 0:
            return
        wanted = max(int(np.frexp(largest)[1]), -140)  # largest < 2 ** wanted; below, float32 has few bits
        if self.top is not None and wanted > self.top:
            up, down = (
                (self.counts[..., BINS:], self.counts[..., :BINS][..., ::-1]) if self.signed else (self.counts, None)
            )
            for half in (up, down) if down is not None else (up,):
                shift = min(PER_OCTAVE * (wanted - self.top), BINS - 1)
                lowest = half[..., : shift + 1].sum(axis=-1)
                half[..., : BINS - shift] = half[..., shift:].copy()
                half[..., BINS - shift :] = 0
                half[..., 0] = lowest
        self.top = wanted if self.top is None else max(self.top, wanted)

    def edges(self) -> Float[np.ndarray, " bins"]:
        """The lower edge of each bin."""
        octave, part = np.divmod(np.arange(BINS), PER_OCTAVE)
        up = 2.0 ** (octave + (self.top or 0) - OCTAVES) * (1 + part / PER_OCTAVE)
        return np.concatenate([-up[::-1], up]) if self.signed else up

    def bins_of(self, values: Float[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """The bin of each value; a value must not be 0."""
        # a float32's bits, but for the last twenty, count its octave and eighths of it
        number = (np.abs(values).view(np.int32) >> 20) - PER_OCTAVE * (127 + (self.top or 0) - OCTAVES)
        number = np.clip(number, 0, BINS - 1)
        return np.where(values > 0, BINS + number, BINS - 1 - number) if self.signed else number

    def add(
        self,
        row: Int[np.ndarray, " m"],
        column: Int[np.ndarray, " m"],
        values: Float[np.ndarray, " m"],
        half: Int[np.ndarray, " n"],
        groups: Bool[np.ndarray, "groups n"],
    ) -> None:
        """Count entries (row, column) of a matrix with n rows.

        Args:
          half: of the texts, 0 or 1, in which each row is.
          groups: whether each row belongs to each group.
        """
        self._reach(float(np.abs(values).max(initial=0)))
        _, n_groups, columns, bins = self.counts.shape
        size = columns * bins
        cell = half[row] * size + column * bins + self.bins_of(values)
        for group in range(n_groups):
            rows = groups[group]
            if rows.any():
                cells_of_group = cell if rows.all() else cell[rows[row]]
                self.counts[:, group] += np.bincount(cells_of_group, minlength=2 * size).reshape(2, columns, bins)
