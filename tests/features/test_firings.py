"""Which characters are judged on, and where latents fire on them."""

import numpy as np
import pytest
from helpers import firings_of, sample

from jaxsae.features.firings import FiringLog, value_code, value_of
from jaxsae.features.judged_text import JudgedText
from jaxsae.text.samples import joined


def test_codes_rise_with_values_and_cut_exactly():
    values = np.unique(np.exp(np.random.default_rng(6).uniform(-60, 60, 5000)).astype(np.float32))
    codes = value_code(values)
    assert (np.diff(codes.astype(int)) >= 0).all()
    assert (values.view(np.uint32) >> 16 == codes).all()
    low = value_of(codes)
    assert (low <= values).all()
    assert (values < low * 1.008).all()
    for edge in range(0, len(codes), 500):
        np.testing.assert_array_equal(values >= low[edge], codes >= codes[edge])
    assert value_code(np.array([1e-45], np.float32))[0] == 1  # what fires has no code 0


@pytest.mark.parametrize("most", [1, 60, 200])
def test_too_many_firings_are_thinned_by_pairs_of_texts(most):
    rng = np.random.default_rng(7)
    text = JudgedText.of(joined([sample("a-na šar-ru"[: 1 + i % 11]) for i in range(40)]))
    values = np.where(rng.random((len(text), 5)) < 0.3, rng.exponential(size=(len(text), 5)), 0).astype(np.float32)
    whole, log = firings_of(text, values), FiringLog(text, values.shape[1], most)
    for i in range(40):  # text by text, and characters that are not judged beside
        here = np.flatnonzero(text.sample == i)
        row, column = np.nonzero(values[here])
        log.add(np.append(here[row], -1), np.append(column, 2), np.append(values[here][row, column], np.float32(1)))
    thinned = log.firings()
    kept = np.unique(text.sample[thinned.judged])
    assert len(kept) < 40
    assert (kept[::2] % 2 == 0).all()
    assert (kept[1::2] == kept[::2] + 1).all()
    assert len(set(np.diff(kept[::2]))) <= 1  # evenly
    assert len(thinned.row) <= most or len(kept) == 2
    there = thinned.judged[whole.row]
    for name in ("row", "column", "code"):
        np.testing.assert_array_equal(getattr(thinned, name), getattr(whole, name)[there])
    mine = whole.column == 1
    rows, codes = whole.row[mine], whole.code[mine]
    assert rows.tolist() == np.flatnonzero(values[:, 1]).tolist()
    assert codes.tolist() == value_code(values[rows, 1]).tolist()


@pytest.mark.parametrize("most", [1, 100, 300, 10_000])
def test_of_a_long_text_some_pairs_of_samples_are_judged(most):
    samples = joined([sample("a-na " * (1 + i % 5)) for i in range(33)])
    text = JudgedText.of(samples, most)
    kept = np.unique(text.sample)
    assert len(text) == samples.real[kept].sum() == (text.row_at >= 0).sum()
    assert len(text) <= most or len(kept) == 2
    assert (text.row_at[text.sample, text.position] == np.arange(len(text))).all()
    step = int(np.diff(kept // 2).max()) if len(kept) > 2 else 17
    assert sorted(set(kept // 2)) == list(range(0, 17, step))
