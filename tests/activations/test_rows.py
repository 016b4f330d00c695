"""Rows that lie on disk: read right, and well shuffled."""

import numpy as np
import pytest

from jaxsae.activations import rows as rows_lib
from jaxsae.activations.rows import RowsOnDisk, batches_from_disk


@pytest.fixture
def numbered(monkeypatch) -> RowsOnDisk:
    """1,000 rows in three parts, each row its number; pieces of 4 rows, 64 of which are shuffled together."""
    monkeypatch.setattr(rows_lib, "PIECE", 4 * 2 * 4)
    monkeypatch.setattr(rows_lib, "BUFFER", 64 * rows_lib.PIECE)
    values = np.arange(1000)[:, None].repeat(2, axis=1)
    return RowsOnDisk([values[:130].astype(np.float16), values[130:131].astype(np.float64), values[131:].astype("f4")])


def test_slices_and_numbers_are_those_of_one_array(numbered):
    assert numbered.shape == (1000, 2)
    assert len(numbered) == 1000
    assert numbered.nbytes == 8000
    for start, stop in ((0, 1000), (120, 140), (130, 131), (990, 2000), (131, 131)):
        found = numbered[slice(start, stop)]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[:, 0], np.arange(start, min(stop, 1000)))
    some = np.array([131, 0, 999, 130, 129, 0])
    np.testing.assert_array_equal(numbered[some][:, 1], some)


@pytest.mark.parametrize("size", [32, 24], ids=["fills a buffer", "goes on into the next"])
def test_an_epoch_has_every_row_once(numbered, size):
    batches = list(batches_from_disk(numbered, size, seed=0, epoch=1))
    assert {batch.shape for batch in batches} == {(size, 2)}
    seen = np.concatenate(batches)[:, 0]
    assert len(seen) == len(set(seen)) == 1000 - 1000 % size


def test_a_batch_comes_from_all_over(numbered):
    """As far apart as if drawn from the whole; and few neighbours meet, though they are read together."""
    batches = [batch[:, 0] for batch in batches_from_disk(numbered, 32, seed=0, epoch=1)]
    spreads = np.array([batch.std() for batch in batches])
    assert 0.7 < spreads.min() / (1000 / np.sqrt(12)) < spreads.max() / (1000 / np.sqrt(12)) < 1.3
    of_one_piece = [np.unique(batch // 4, return_counts=True)[1].max() for batch in batches]
    assert max(of_one_piece) <= 4
    assert np.mean([len(np.unique(batch // 4)) for batch in batches]) > 24  # of 32 rows
    assert abs(np.corrcoef(np.concatenate(batches), np.arange(992))[0, 1]) < 0.3


def test_the_order_is_fixed_by_seed_and_epoch(numbered):
    def order(seed, epoch):
        return np.concatenate(list(batches_from_disk(numbered, 10, seed, epoch)))[:, 0].tolist()

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(*key)) for key in ((0, 1), (0, 2), (1, 1))}) == 3


def test_fewer_rows_than_a_piece(monkeypatch):
    few = RowsOnDisk([np.ones((5, 3), np.float32)])
    assert [batch.shape for batch in batches_from_disk(few, 2, 0, 1)] == [(2, 3)] * 2
