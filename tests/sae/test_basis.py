"""The principal basis, found by several processes that each sum a share of the rows."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jaxsae.activations.rows import RowsOnDisk
from jaxsae.errors import InputError
from jaxsae.sae import basis as basis_lib
from jaxsae.sae.basis import principal_basis

CHUNK, ROWS = 20, 110


@pytest.fixture
def rows(monkeypatch):
    """Six chunks of rows, the last not whole, with a mean and directions of different strength."""
    monkeypatch.setattr(basis_lib, "CHUNK", CHUNK)
    values = np.random.default_rng(0).normal(3, np.arange(1, 6), (ROWS, 5)).astype(np.float32)
    return RowsOnDisk([values])


class Together:
    """What so many threads sum at the same time, each given the sum of all."""

    def __init__(self, count):
        self.barrier, self.given = threading.Barrier(count, timeout=60), {}
        self.dtypes = set()

    def combined(self, index, array):
        self.given[index] = array
        self.dtypes.add(array.dtype)
        self.barrier.wait()
        total = sum(self.given[i] for i in range(self.barrier.parties))
        self.barrier.wait()
        return total


def in_shares(rows, count):
    """The basis that each of several threads finds from its share, and which rows each has read."""
    together, read = Together(count), {index: [] for index in range(count)}

    class Recording(RowsOnDisk):
        index = 0

        def __getitem__(self, which):
            read[self.index].append(which)
            return super().__getitem__(which)

    def find(index):
        own = Recording(rows.parts)
        own.index = index
        return principal_basis(own, (index, count), lambda array: together.combined(index, array))

    with ThreadPoolExecutor(count) as pool:
        found = [pool.submit(find, index) for index in range(count)]
    assert together.dtypes <= {np.dtype(np.float64)}
    return [one.exception() or one.result() for one in found], read


@pytest.mark.parametrize("count", [2, 3, 8])
def test_shares_find_the_basis_of_all_rows(rows, count):
    """Each the same to the bit, and each from its chunks alone."""
    alone = principal_basis(rows)
    found, read = in_shares(rows, count)
    for one in found:
        for part, of_first, expected in zip(one, found[0], alone, strict=True):
            np.testing.assert_array_equal(part, of_first)
            np.testing.assert_allclose(np.abs(part), np.abs(expected), rtol=1e-5, atol=1e-6)
    for index, chunks in read.items():
        mine = [slice(start, start + CHUNK) for start in range(0, ROWS, CHUNK)][index::count]
        assert chunks == mine * 2


def test_one_share_is_all_rows(rows):
    for part, expected in zip(principal_basis(rows), in_shares(rows, 1)[0][0], strict=True):
        np.testing.assert_array_equal(part, expected)


def test_each_share_refuses_what_one_has_that_is_not_finite(rows):
    rows.parts[0][105] = np.nan
    for error in in_shares(rows, 3)[0]:
        assert isinstance(error, InputError)
        assert "rows must be finite numbers" in str(error)
