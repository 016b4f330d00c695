import itertools

import jax
import numpy as np
import pytest
from helpers import without_packing

from convert import load_restoration_model, read_checkpoint
from jaxsae import load_samples
from jaxsae.activations import extraction
from jaxsae.activations.extraction import extract
from jaxsae.errors import InputError
from jaxsae.text.batching import pack, plan_batches, run_lengths
from jaxsae.text.samples import Samples


@pytest.fixture(scope="module")
def model(tiny_pt):
    return load_restoration_model(tiny_pt)


@pytest.fixture(scope="module")
def samples(tiny_dataset):
    return load_samples(tiny_dataset, "validation")


def test_run_lengths_are_few_and_close():
    lengths = run_lengths(768)
    assert lengths == [32, 48, 64, 96, 128, 192, 256, 384, 512, 768]
    assert max(b / a for a, b in itertools.pairwise(lengths)) <= 1.5
    assert run_lengths(20) == [20]
    assert run_lengths(45) == [45]
    assert run_lengths(100)[-1] == 100


@pytest.mark.parametrize("chars", [768, 4096])
@pytest.mark.parametrize("seed", range(5))
def test_plan_runs_each_sample_once_whole_in_full_batches(seed, chars):
    lengths = np.random.default_rng(seed).integers(0, 769, 157)
    batches = plan_batches(lengths, 768, chars)
    assert sorted(np.concatenate([b.samples for b in batches]).tolist()) == list(range(157))
    for batch in batches:
        assert (lengths[batch.samples] <= batch.length).all()
    for batch in batches[:-1]:  # the last takes what is left over
        assert len(batch.samples) == max(1, chars // batch.length)
    assert len({b.length for b in batches}) <= len(run_lengths(768))


@pytest.mark.parametrize("seed", range(5))
def test_packing_keeps_each_sample_whole_and_in_order(seed):
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(1 / 190, 157), 768) * (rng.random(157) > 0.05)
    batches = list(pack(lengths, 768))
    assert {batch.sample.shape for batch in batches} <= {(3, 256), (1, 768)}
    seen = []
    for sample, position in batches:
        assert ((sample >= 0) == (position >= 0)).all()
        for row, at in zip(sample, position, strict=True):
            for one in np.unique(row[row >= 0]):
                (where,) = np.nonzero(row == one)
                assert where.tolist() == list(range(where[0], where[0] + lengths[one]))
                assert at[where].tolist() == list(range(lengths[one]))
                seen.append(one)
    assert sorted(seen) == np.flatnonzero(lengths).tolist()
    assert lengths.sum() > 0.93 * sum(batch.sample.size for batch in batches)


def test_the_real_texts_fill_their_rows(real):
    lengths = load_samples(real / "data" / "restoration_dataset", "validation", 200).lengths
    assert lengths.sum() > 0.95 * sum(batch.sample.size for batch in pack(lengths, 768))


def test_a_text_does_not_depend_on_its_neighbours(tiny_pt):
    """In float64 a packed text is the text alone, at every layer, whoever its neighbours are."""
    with jax.enable_x64(True):
        model = read_checkpoint(tiny_pt).model(np.float64)
        rng = np.random.default_rng(0)
        lengths = np.array([20, 9, 1, 13])
        ids = [rng.integers(32, 8000, n) for n in lengths]
        row, text = np.full((1, 45), 32), np.full((1, 45), -1)
        place, ends = np.zeros((1, 45), int), lengths.cumsum()
        for number, (end, n) in enumerate(zip(ends, lengths, strict=True)):
            row[0, end - n : end], text[0, end - n : end], place[0, end - n : end] = ids[number], number, np.arange(n)
        packed = [np.asarray(x) for x in model.stream_packed(row, text, place)]
        for one, end, n in zip(ids, ends, lengths, strict=True):
            for layer, alone in enumerate(model.stream(one[None])):
                np.testing.assert_allclose(packed[layer][0, end - n : end], np.asarray(alone)[0], rtol=0, atol=1e-10)
        others = row.copy()
        others[0, 20:] = 99
        for x, y in zip(packed, model.stream_packed(others, text, place), strict=True):
            np.testing.assert_array_equal(x[0, :20], np.asarray(y)[0, :20])


def test_a_model_that_does_not_pack_is_given_one_sample_a_row(model, samples):
    packed, plain = (extract(one, samples, [3]) for one in (model, without_packing(model)))
    np.testing.assert_array_equal(packed.sample, plain.sample)
    np.testing.assert_array_equal(packed.position, plain.position)
    np.testing.assert_allclose(packed.values[3], plain.values[3], atol=3e-5)


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_rows_are_the_models_own_activations_in_text_order(model, samples, padding):
    rows = extract(model, samples, [1, 3], padding)
    n = int(samples.mask.sum()) if padding == "drop" else samples.mask.size
    assert len(rows.sample) == len(rows.position) == n
    order = rows.sample.astype(int) * 1000 + rows.position
    assert (np.diff(order) > 0).all()
    for layer in (1, 3):
        assert rows.values[layer].shape == (n, 30)
        mask = samples.mask if padding == "drop" else None
        whole = np.asarray(model.resid_post(samples.ids, mask, layer=layer))
        np.testing.assert_allclose(rows.values[layer], whole[rows.sample, rows.position], atol=3e-5)


def test_drop_and_keep_differ(model, samples):
    drop, keep = (extract(model, samples, [3], padding) for padding in ("drop", "keep"))
    real = samples.mask[keep.sample, keep.position] != 0
    assert np.abs(np.asarray(keep.values[3])[real] - np.asarray(drop.values[3])).max() > 1e-2


def test_a_hole_in_the_mask_is_no_row(model, samples):
    mask = samples.mask.copy()
    mask[1, 4] = 0
    rows = extract(model, Samples(samples.ids, samples.labels, mask), [0], "drop")
    assert len(rows.sample) == mask.sum()
    assert not ((rows.sample == 1) & (rows.position == 4)).any()


def test_rows_are_held_once(model, samples, monkeypatch):
    """The buffer that is filled is the buffer that comes out."""
    make, made = extraction._for_device, []
    monkeypatch.setattr(extraction, "_for_device", lambda *about: made.append(make(*about)) or made[-1])
    rows = extract(model, samples, [0, 2], "drop")
    assert [rows.values[layer].unsafe_buffer_pointer() for layer in (0, 2)] == [one.ctypes.data for one in made]


def test_progress_adds_up(model, samples):
    told = []
    extract(model, samples, [0], "drop", on_rows=told.append)
    assert sum(told) == samples.mask.sum()


def test_samples_that_do_not_fit_the_model_are_refused(model, samples):
    ids = samples.ids.copy()
    ids[2, 0] = 8000
    with pytest.raises(InputError, match=r"0\.\.7999 .*got 32\.\.8000"):
        extract(model, Samples(ids, samples.labels, samples.mask), [0])
    wide = np.full((1, 46), 32, np.int32)
    with pytest.raises(InputError, match="at most 45 positions"):
        extract(model, Samples(wide, wide, wide), [0])
    with pytest.raises(InputError, match="only padding"):
        extract(model, Samples(samples.ids, samples.labels, 0 * samples.mask), [0])
    with pytest.raises(InputError, match="layer must be in"):
        extract(model, samples, [4])
