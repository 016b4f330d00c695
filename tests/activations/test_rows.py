"""Rows that lie on disk: read right, and well shuffled."""

import numpy as np
import pytest

from jaxsae.activations import rows as rows_lib
from jaxsae.activations.rows import RowsOnDisk, Runs, batches_from_disk, lanes


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


def interleaved(lengths, parts, rng) -> RowsOnDisk:
    """Rows that are their numbers, in runs of those lengths, each in an array drawn from so many."""
    part, starts = rng.integers(0, parts, len(lengths)), np.cumsum([0, *lengths])
    of_row, values = part.repeat(lengths), np.arange(starts[-1])[:, None].repeat(2, axis=1)
    arrays = [values[of_row == number].astype(np.float32) for number in range(parts)]
    return RowsOnDisk(arrays, Runs.interleaved(starts, part))


def test_runs_of_several_arrays_are_those_of_one_array():
    rng = np.random.default_rng(0)
    for rows in (interleaved(rng.integers(1, 9, 60), 3, rng), interleaved([1] * 20, 30, rng)):
        n = len(rows)
        for start, stop in rng.integers(0, n + 1, (100, 2)).tolist():
            np.testing.assert_array_equal(rows[slice(start, stop)][:, 1], np.arange(start, stop))
            np.testing.assert_array_equal(rows.head(stop)[start:][:, 1], np.arange(start, stop))
            assert len(rows.head(stop)) == stop
        some = rng.integers(0, n, 50)
        np.testing.assert_array_equal(rows[some][:, 1], some)


def test_joined_rows_follow_one_another(numbered):
    several = [interleaved([3, 1, 4, 1, 5], 2, np.random.default_rng(1)), numbered.head(140), numbered]
    rows, expected = RowsOnDisk.joined(several), np.concatenate([one[:] for one in several])
    assert rows.shape == expected.shape
    np.testing.assert_array_equal(rows[:], expected)
    np.testing.assert_array_equal(rows[10:20], expected[10:20])
    some = np.array([1100, 0, 13, 14, 153, 154])
    np.testing.assert_array_equal(rows[some], expected[some])


def test_only_what_is_read_is_looked_at(monkeypatch):
    """Of many runs and arrays, those of the rows alone."""
    rows = interleaved([2] * 1000, 50, np.random.default_rng(0))
    assert len(list(rows.runs.spans(501, 506))) == 3
    forgotten = []
    monkeypatch.setattr(rows_lib, "forget", lambda arrays: forgotten.append({id(array) for array in arrays}))
    _ = rows[501:506], rows[np.array([501, 502, 503, 504, 505])]
    assert forgotten == [{id(rows.parts[number]) for number in rows.runs.part[250:253]}] * 2


@pytest.mark.parametrize("size", [256, 32, 24, 6, 7])
def test_an_epoch_has_every_row_once(numbered, size):
    batches = list(batches_from_disk(numbered, size, seed=0, epoch=1))
    assert {batch.shape for batch in batches} == {(size, 2)}
    seen = np.concatenate(batches)[:, 0]
    assert len(seen) == len(set(seen)) == 1000 - 1000 % size


class Recording(RowsOnDisk):
    """Rows of one array that note how many are asked for."""

    asked = 0

    def __getitem__(self, which):
        found = super().__getitem__(which)
        self.asked += len(found)
        return found


@pytest.mark.parametrize("size", [256, 24, 6, 7])
def test_shares_are_the_batches_and_read_no_more(numbered, size):
    whole = list(batches_from_disk(numbered, size, seed=0, epoch=1))
    counts = [count for count in (1, 2, 4, 8) if lanes(size) % count == 0]
    assert counts == {256: [1, 2, 4, 8], 24: [1, 2, 4, 8], 6: [1, 2], 7: [1]}[size]
    for count in counts:
        of_each = [Recording(numbered.parts) for _ in range(count)]
        shares = [list(batches_from_disk(rows, size, 0, 1, (i, count))) for i, rows in enumerate(of_each)]
        assert [len(share) for share in shares] == [len(whole)] * count
        for batch, *parts in zip(whole, *shares, strict=True):
            assert {part.shape for part in parts} == {(size // count, 2)}
            np.testing.assert_array_equal(np.concatenate(parts), batch)
        assert {rows.asked for rows in of_each} == {len(whole) * size // count}
    with pytest.raises(AssertionError, match="lanes must be divisible by the shares, got 3"):
        next(batches_from_disk(numbered, size, 0, 1, (0, 3)))


def test_a_batch_comes_from_all_over(numbered):
    """As far apart as if drawn from the whole; and few neighbours meet, though they are read together."""
    batches = [batch[:, 0] for batch in batches_from_disk(numbered, 32, seed=0, epoch=1)]
    spreads = np.array([batch.std() for batch in batches])
    assert 0.7 < spreads.min() / (1000 / np.sqrt(12)) < spreads.max() / (1000 / np.sqrt(12)) < 1.3
    of_one_piece = [np.unique(batch // 4, return_counts=True)[1].max() for batch in batches]
    assert max(of_one_piece) <= 4
    assert np.mean([len(np.unique(batch // 4)) for batch in batches]) > 24  # of 32 rows
    assert abs(np.corrcoef(np.concatenate(batches), np.arange(992))[0, 1]) < 0.3
    of_lanes = np.concatenate([batch.reshape(8, 4) for batch in batches], axis=1)
    assert of_lanes.std(axis=1).min() / (1000 / np.sqrt(12)) > 0.7


def test_the_order_is_fixed_by_seed_and_epoch(numbered):
    def order(seed, epoch):
        return np.concatenate(list(batches_from_disk(numbered, 10, seed, epoch)))[:, 0].tolist()

    assert order(0, 1) == order(0, 1)
    orders = [order(*key) for key in ((0, 1), (0, 2), (1, 1))]
    assert len(set(map(tuple, orders))) == 3
    assert len({frozenset(one[:500]) for one in orders}) == 3  # others are read together, and not just in another order


def test_fewer_rows_than_a_piece(monkeypatch):
    few = RowsOnDisk([np.arange(15, dtype=np.float32).reshape(5, 3)])
    batches = list(batches_from_disk(few, 2, 0, 1))
    assert [batch.shape for batch in batches] == [(2, 3)] * 2
    assert len(set(np.concatenate(batches)[:, 0])) == 4
    for index in range(2):
        share = np.concatenate(list(batches_from_disk(few, 2, 0, 1, (index, 2))))
        np.testing.assert_array_equal(share, np.stack(batches)[:, index])
    assert not list(batches_from_disk(few, 6, 0, 1))
