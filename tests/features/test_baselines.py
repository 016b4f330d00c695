"""What finds concepts without an SAE: planted directions, windows and neurons, and PyTorch's own neurons."""

import numpy as np
import pytest
from conftest import TINY, tiny_splits
from helpers import sample

from convert import load_restoration_model
from jaxsae.features import baselines
from jaxsae.features.judge import halves
from jaxsae.features.judged_text import JudgedText
from jaxsae.models.protocol import ModelWithNeurons
from jaxsae.text.samples import Samples, joined

WORDS = ["a-na", "šar-ru", "um-ma", "DUMU", "i-na", "an-na"]


@pytest.fixture(scope="module")
def text() -> JudgedText:
    rng = np.random.default_rng(0)
    drawn = [" ".join(rng.choice(WORDS, 5)) for _ in range(60)]
    width = max(map(len, drawn))  # some fill their sample, and have no padding around them
    return JudgedText.of(joined([sample(letters, {3: "#"}, width) for letters in drawn]))


def marked_by(text: JudgedText, has: np.ndarray):
    return halves(text, has.reshape(-1, len(text)), everywhere(text))


def everywhere(text: JudgedText) -> np.ndarray:
    return np.ones(len(text), bool)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_axis_is_found_by_many_random_directions_and_not_by_one(text, sign):
    rng = np.random.default_rng(1)
    has = rng.random(len(text)) < 0.1
    rows = rng.standard_normal((len(text), 3)).astype(np.float16)
    rows[has, 1] += sign * 8
    marked = marked_by(text, has)
    many = baselines.random_directions(rows, 600, text, marked, everywhere(text))
    assert many.score[0] > 0.93  # cut at every tenth row more or less, not between any two
    # the best direction lies along the axis, the right way: the second half of a chunk's columns are turned round
    one = baselines.random_directions(rows, 1, text, marked, everywhere(text))
    assert one.score[0] < many.score[0]


def test_chunks_of_directions_change_nothing(text, monkeypatch):
    rng = np.random.default_rng(2)
    marked = marked_by(text, rng.random((3, len(text))) < 0.1)
    rows = rng.standard_normal((len(text), 6)).astype(np.float32)
    rows[marked[0].has.shape[1] :, 0] += 1
    whole = baselines.random_directions(rows, 40, text, marked, everywhere(text))
    in_chunks = baselines.in_chunks
    monkeypatch.setattr(baselines, "in_chunks", lambda columns: in_chunks(columns, 7))
    np.testing.assert_array_equal(
        baselines.random_directions(rows, 40, text, marked, everywhere(text)).score, whole.score
    )


def test_directions_are_chosen_on_even_texts_and_scored_on_odd_ones(text):
    """A property that an axis has on one half alone is not found."""
    rng = np.random.default_rng(3)
    has, found = rng.random(len(text)) < 0.1, {}
    for half in (0, 1):
        rows = rng.standard_normal((len(text), 2)).astype(np.float32)
        rows[has & (text.half == half), 0] += 8
        found[half] = baselines.random_directions(rows, 200, text, marked_by(text, has), everywhere(text)).score[0]
    assert max(found.values()) < 0.5


@pytest.mark.parametrize("sign", [1, -1])
def test_a_property_has_its_own_direction(text, sign):
    """Column p is for property p alone, though another would find it; characters that are not used do not count."""
    rng = np.random.default_rng(5)
    has = rng.random((2, len(text))) < 0.1
    values = rng.standard_normal((len(text), 2)).astype(np.float32)
    values[has[1], 0] += 8
    values[has[1], 1] += sign * 8
    used = rng.random(len(text)) < 0.7
    values[~used] = np.nan
    found = baselines.own_direction(values, text, halves(text, has, used), used)
    assert found.score[1] > 0.93
    assert found.score[0] < 0.4


def test_a_property_of_a_window_is_found_by_that_window(text):
    seen = "".join(chr(i) for i in text.samples.ids[text.sample, text.position])
    ends = np.flatnonzero(np.diff(text.sample, append=-1)) + 1
    padded = [f" {seen[a:b]} " for a, b in zip([0, *ends[:-1]], ends, strict=True)]  # padding is of spaces
    # a character alone, with the one before, with the one behind, and with both
    windows_of = [
        [one[i - before : i + 1 + after] for one in padded for i in range(1, len(one) - 1)]
        for before, after in ((0, 0), (1, 0), (0, 1), (1, 1))
    ]
    alone, with_before, with_after, with_both = map(np.array, windows_of)
    asked = {"-na": with_both, " a-": with_both, "MU ": with_both, "na": with_before, "n-": with_after, "u": alone}
    has = np.array([of == wanted for wanted, of in asked.items()])
    assert has.sum(axis=1).min() > 10
    found, windows = baselines.windows_of_text(text, marked_by(text, has), everywhere(text))
    assert found.score.tolist() == [1] * len(asked)  # by that one, or another that stands at the same places
    expected = [w for of in windows_of for w in {w for w, half in zip(of, text.half, strict=True) if half == 0}]
    assert sorted(windows) == sorted(expected)


def test_windows_are_of_the_text_as_the_model_sees_it(text):
    has = text.damaged
    found, windows = baselines.windows_of_text(text, marked_by(text, has), everywhere(text))
    assert windows[found.column[0]] == "#"
    assert found.score[0] == 1
    assert all(len(one) <= 3 for one in windows)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("masked", [True, False])
def test_neurons_are_those_of_pytorch(tiny_pt, layer, masked):
    torch = pytest.importorskip("torch")
    from convert import read_checkpoint, reference

    model, module = load_restoration_model(tiny_pt), reference.build(read_checkpoint(tiny_pt))
    columns = tiny_splits(seed=3)["test"]
    ids, mask = columns["input_ids"], columns["attention_mask"] if masked else None
    kept = []
    module.layers[layer].ff[1].register_forward_hook(lambda _, __, out: kept.append(out.detach().numpy()))
    with torch.no_grad():
        module(torch.from_numpy(ids).long(), None if mask is None else torch.from_numpy(mask))
    got = np.asarray(model.neurons(ids, mask, layer=layer))
    assert got.shape == (*ids.shape, TINY.d_ff)
    real = np.ones(ids.shape, bool) if mask is None else mask != 0
    np.testing.assert_allclose(got[real], kept[0][real], atol=1e-5, rtol=1e-5)
    assert isinstance(model, ModelWithNeurons)


@pytest.mark.parametrize("masked", [True, False])
def test_the_attention_pattern_is_what_attention_mixes_by(tiny_pt, masked):
    """With it and the values, the block's attention comes out as PyTorch computes it."""
    torch = pytest.importorskip("torch")
    from convert import read_checkpoint, reference

    model, module = load_restoration_model(tiny_pt), reference.build(read_checkpoint(tiny_pt))
    columns = tiny_splits(seed=3)["test"]
    ids, mask = columns["input_ids"], columns["attention_mask"] if masked else None
    inner, outer = [], []
    module.layers[2].attn.v_proj.register_forward_hook(lambda _, __, out: inner.append(out.detach().numpy()))
    module.layers[2].attn.out_proj.register_forward_pre_hook(lambda _, given: outer.append(given[0].detach().numpy()))
    with torch.no_grad():
        module(torch.from_numpy(ids).long(), None if mask is None else torch.from_numpy(mask))
    pattern = np.asarray(model.attention_pattern(ids, mask, layer=2))
    np.testing.assert_allclose(pattern.sum(axis=-1), 1, rtol=1e-5)
    values = inner[0].reshape(*ids.shape, TINY.n_heads, -1)
    mixed = np.einsum("bhqk,bkhd->bqhd", pattern, values).reshape(*ids.shape, -1)
    real = np.ones(ids.shape, bool) if mask is None else mask != 0
    np.testing.assert_allclose(mixed[real], outer[0][real], atol=1e-5, rtol=1e-4)


def test_a_concept_that_a_neuron_computes_is_found_by_it(tiny_pt):
    """Some samples alone are judged on, of several lengths: each neuron's value stands at its character."""
    model = load_restoration_model(tiny_pt)
    columns = tiny_splits(seed=6, n=200)["test"]
    samples = Samples(columns["input_ids"], columns["labels"], columns["attention_mask"])
    text = JudgedText.of(samples, int(samples.real.sum() * 0.6))
    assert 0 < len(text) < samples.real.sum()
    values = np.asarray(model.neurons(samples.ids, samples.mask, layer=1))[text.sample, text.position]
    has = np.stack([values[:, 5] > np.quantile(values[:, 5], 0.95), values[:, 20] < np.quantile(values[:, 20], 0.02)])
    found = baselines.neurons(model, text, 1, marked_by(text, has), everywhere(text))
    assert found.column[0] == 5
    assert (found.score[0] > 0.9).all()


def test_all_baselines_of_a_layer(tiny_pt, text):
    model = load_restoration_model(tiny_pt)
    rng = np.random.default_rng(4)
    marked = marked_by(text, rng.random((2, len(text))) < 0.1)
    rows = rng.standard_normal((len(text), 30)).astype(np.float16)
    got = baselines.baselines(model, text, 1, rows, 16, marked)
    assert got.neurons is not None
    assert got.random.score.shape == got.windows.score.shape == got.neurons.score.shape == (2,)
    np.testing.assert_array_equal(
        got.random.score, baselines.random_directions(rows, 16, text, marked, everywhere(text)).score
    )
