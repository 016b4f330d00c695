"""On how many rows two latents, or a latent and a character, are both there: a table if that is small, else sparse."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

CSR = Any
"""A `scipy.sparse.csr_array`; the module is heavy, and where figures are kept it is not needed."""
MOST_IN_TABLE = 2**26
"""Pairs of a table, 256 MB: of 8,192 latents. Of more, those alone are kept that occur."""
MOST_PAIRS = 2**25
"""Of those that occur, about 270 MB, and three times as much while they are added up; of more nothing is kept."""
PENDING = 2**20, 2**23
"""How many pairs are at least, and at most, waiting to be added to the others; between, as many as these are."""
DENSE_IS_FASTER = 200
"""So many times as many products a second a dense matrix product makes as a sparse one."""


class PairCounts:
    """Counts of pairs (a, b), a of 0..`shape[0]` - 1 and b of 0..`shape[1]` - 1; above 2^24 they stay there."""

    def __init__(self, of_a: int, of_b: int) -> None:
        self.shape = of_a, of_b
        self.left_out = False
        """Whether there were more pairs than `MOST_PAIRS`: then all counts are 0."""
        self._table = np.zeros(self.shape, np.float32) if of_a * of_b <= MOST_IN_TABLE else None
        self._sum: CSR | None = None
        self._waiting: list[Any] = []

    @property
    def nbytes(self) -> int:
        """The memory that the counts take."""
        if self._table is not None:
            return self._table.nbytes
        waiting = sum(part.data.nbytes + part.row.nbytes + part.col.nbytes for part in self._waiting)
        found = self._sum
        return waiting + (0 if found is None else found.data.nbytes + found.indices.nbytes + found.indptr.nbytes)

    def add(self, a: CSR, b: CSR) -> None:
        """Count the pairs of some rows.

        Args:
          a: [rows, shape[0]], 1 where an a is there, and `b`: [rows, shape[1]], the same of the b.
        """
        if self.left_out or not a.nnz or not b.nnz:
            return
        work = np.diff(a.indptr).astype(np.int64) * np.diff(b.indptr)
        if self._table is not None:
            if DENSE_IS_FASTER * int(work.sum()) > a.shape[0] * self._table.size:
                self._table += a.toarray().T @ b.toarray()
            else:
                pairs = (a.T @ b).tocoo()
                self._table[pairs.row, pairs.col] += pairs.data
            return
        if work.max() > MOST_PAIRS:  # the pairs of one row are all different
            self._leave_out()
            return
        # so many rows at once that the pairs of all of them together are few
        piece = (np.cumsum(work) - work) // PENDING[1]
        for start, end in stretches(piece):
            self._waiting.append((a[start:end].T @ b[start:end]).tocoo())
            known = 0 if self._sum is None else self._sum.nnz
            if sum(part.nnz for part in self._waiting) > min(max(known, PENDING[0]), PENDING[1]):
                self._add_up()
                if self.left_out:
                    return

    def _add_up(self) -> CSR:
        from scipy.sparse import coo_array, csr_array

        if self._waiting:
            parts, self._waiting = self._waiting, []
            row, col, data = (np.concatenate([getattr(one, name) for one in parts]) for name in ("row", "col", "data"))
            added = coo_array((data, (row, col)), self.shape).tocsr()
            self._sum = added if self._sum is None else self._sum + added
        if self._sum is not None and self._sum.nnz > MOST_PAIRS:
            self._leave_out()
        return csr_array(self.shape, dtype=np.float32) if self._sum is None else self._sum

    def _leave_out(self) -> None:
        self.left_out, self._sum, self._waiting = True, None, []

    def row(self, a: int) -> tuple[Int[np.ndarray, " some"], Float[np.ndarray, " some"]]:
        """(every b that is there with an a, ascending, and on how many rows)."""
        if self._table is not None:
            (there,) = np.nonzero(self._table[a])
            return there, self._table[a, there]
        found = self._add_up()
        some = slice(*found.indptr[a : a + 2])
        order = np.argsort(found.indices[some])
        return found.indices[some][order].astype(np.int64), found.data[some][order]

    def entries(
        self,
    ) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]]:
        """(a, b, count) of every pair that occurs, by a and then by b."""
        if self._table is not None:
            a, b = np.nonzero(self._table)
            return a, b, self._table[a, b]
        found = self._add_up()
        found.sort_indices()
        return np.repeat(np.arange(self.shape[0]), np.diff(found.indptr)), found.indices.astype(np.int64), found.data

    def set(
        self, a: Int[np.ndarray, " pairs"], b: Int[np.ndarray, " pairs"], count: Float[np.ndarray, " pairs"]
    ) -> None:
        """Take the counts of pairs, each named once; those of the others are 0."""
        if self._table is not None:
            self._table[a, b] = count
        else:
            from scipy.sparse import coo_array

            self._sum, self._waiting = coo_array((count, (a, b)), self.shape).tocsr(), []

    def matrix(self) -> Float[np.ndarray, "a b"]:
        """All counts, of all pairs."""
        return self._add_up().toarray() if self._table is None else self._table


def stretches(number: Int[np.ndarray, " n"]) -> list[tuple[int, int]]:
    """Where equal numbers stand one behind the other: (start, end) of each stretch."""
    starts = np.flatnonzero(np.diff(number, prepend=-1)).tolist()
    return list(zip(starts, [*starts[1:], len(number)], strict=True))
