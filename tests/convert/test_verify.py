"""The cross-check passes for the replica and fails for each of the mistakes it exists to find."""

import dataclasses

import jax
import numpy as np
import pytest
from conftest import TINY
from flax import nnx

from convert import read_checkpoint
from convert.verify import LayerCheck, cross_check
from jaxsae import load_samples
from jaxsae.models.restoration import RestorationModel
from jaxsae.models.transformer import params_of, run_block

LAYERS = range(TINY.n_layers)


@pytest.fixture(scope="module")
def checkpoint(tiny_pt):
    return read_checkpoint(tiny_pt)


@pytest.fixture(scope="module")
def samples(tiny_dataset):
    return load_samples(tiny_dataset, "validation", 4)


def passed(checkpoint, samples, model=None, padding="drop"):
    return [c.passed for c in cross_check(model or checkpoint.model(), checkpoint, samples, LAYERS, padding)]


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_the_replica_passes(checkpoint, samples, padding):
    assert all(passed(checkpoint, samples, padding=padding))


@pytest.fixture
def mutate(monkeypatch):
    """Patch the model module, with compiled blocks forgotten before and after."""
    run_block.clear_cache()
    yield lambda name, value: monkeypatch.setattr(f"jaxsae.models.{name}", value)
    run_block.clear_cache()


def test_tanh_gelu_fails(checkpoint, samples, mutate):
    mutate("transformer.FeedForward.hidden", lambda self, x: jax.nn.gelu(self.up(x), approximate=True))
    assert not any(passed(checkpoint, samples))


def test_other_layer_norm_epsilon_fails(checkpoint, samples):
    model = checkpoint.model()
    for block in model.layers:
        block.ln1.epsilon = block.ln2.epsilon = 1e-6
    assert not any(passed(checkpoint, samples, model))


def test_fast_variance_fails_on_an_offset_stream(checkpoint, samples, mutate):
    """The tiny model's stream has mean 3 and deviation 0.3: E[x^2] - E[x]^2 cancels digits there."""

    def fast(self, x):
        mean, square = x.mean(axis=-1, keepdims=True), jax.numpy.square(x).mean(axis=-1, keepdims=True)
        y = (x - mean) * jax.lax.rsqrt(square - mean**2 + self.epsilon)
        return y * self.scale[None, None] + self.bias[None, None]

    mutate("restoration.LayerNorm.__call__", fast)
    assert not any(passed(checkpoint, samples))


def test_interleaved_rotary_pairs_fail(checkpoint, samples, mutate):
    def interleaved(x, cos, sin):
        half = x.shape[-1] // 2
        pairs = jax.numpy.stack([-x[..., 1::2], x[..., ::2]], axis=-1).reshape(x.shape)
        cos, sin = (jax.numpy.repeat(t[..., :half], 2, axis=-1) for t in (cos, sin))
        return x * cos + pairs * sin

    mutate("transformer.rotate", interleaved)
    assert not any(passed(checkpoint, samples))


@pytest.mark.parametrize("layer", LAYERS)
def test_one_swapped_weight_fails_from_its_layer_on(checkpoint, samples, layer):
    tensors = dict(checkpoint.tensors)
    q, k = f"layers.{layer}.attn.q_proj.weight", f"layers.{layer}.attn.k_proj.weight"
    tensors[q], tensors[k] = tensors[k], tensors[q]
    swapped = dataclasses.replace(checkpoint, tensors=tensors).model()
    assert passed(checkpoint, samples, swapped) == [i < layer for i in LAYERS]


def test_one_transposed_weight_fails(checkpoint, samples):
    tensors = dict(checkpoint.tensors)
    tensors["layers.0.attn.v_proj.weight"] = tensors["layers.0.attn.v_proj.weight"].T
    assert not any(passed(checkpoint, samples, dataclasses.replace(checkpoint, tensors=tensors).model()))


@pytest.mark.parametrize(("padding", "name"), [("keep", "stream"), ("drop", "stream_packed")])
def test_layer_index_off_by_one_fails(checkpoint, samples, monkeypatch, padding, name):
    stream = getattr(RestorationModel, name)

    def late(self, ids, *more):
        values = stream(self, ids, *more)
        yield jax.numpy.zeros((*ids.shape, TINY.d_model))
        yield from values

    monkeypatch.setattr(RestorationModel, name, late)
    assert not any(passed(checkpoint, samples, padding=padding))


def test_texts_of_a_row_that_see_each_other_fail(checkpoint, samples, monkeypatch):
    monkeypatch.setattr(
        "jaxsae.models.transformer.run_bias_packed",
        lambda text, dtype: jax.numpy.zeros((len(text), 1, text.shape[1], text.shape[1]), dtype),
    )
    assert not any(passed(checkpoint, samples))


def test_a_single_nan_fails(checkpoint, samples):
    model = checkpoint.model()
    embedding = np.array(params_of(model)["embed.embedding"])
    embedding[samples.ids[0, 0], 0] = np.nan
    model.embed.embedding = nnx.Param(jax.numpy.asarray(embedding))
    assert not any(passed(checkpoint, samples, model))


def test_the_real_checkpoint_agrees_at_every_layer(real):
    checkpoint = read_checkpoint(real / "checkpoints" / "restoration_16x384" / "best_model.pt")
    samples = load_samples(real / "data" / "restoration_dataset", "validation", 1)
    for padding in ("drop", "keep"):
        checks = cross_check(checkpoint.model(), checkpoint, samples, range(16), padding)
        assert [c.layer for c in checks if not c.passed] == []


def test_the_original_codes_activations_agree(real):
    """Hooks in the original code gave these; 1e-5 of the layer's RMS for each block passed."""
    stored = np.load(real / "checkpoints" / "reference_activations.npz")
    model = read_checkpoint(real / "checkpoints" / "restoration_16x384" / "best_model.pt").model()
    ids, mask = stored["ids"].astype(np.int32), stored["mask"].astype(np.int8)
    everywhere = np.ones(mask.shape, bool)
    for name, given, where in (("keep", None, everywhere), ("mask", mask, mask != 0)):
        for layer, x in enumerate(model.stream(ids, given)):
            if f"{name}_L{layer}" in stored:
                expected = stored[f"{name}_L{layer}"][where]
                difference = np.abs(np.asarray(x)[where] - expected)
                limit = 1e-5 * np.sqrt(np.mean(expected**2)) * (layer + 1)
                assert difference.max() <= limit, (name, layer, difference.max(), limit)


@pytest.mark.parametrize(
    ("ours", "ours_max", "passes"),
    [
        (2.9e-5, 3.9e-4, True),
        (3.2e-5, 3.9e-4, False),
        (2.9e-5, 4.2e-4, False),
        (np.nan, 1e-4, False),
        (1e-5, np.nan, False),
    ],
)
def test_the_limits_are_3_times_in_rms_and_4_times_in_maximum(ours, ours_max, passes):
    """Of PyTorch's own 1e-5 and 1e-4, plus 1e-6 of the layer's RMS of 1."""
    check = LayerCheck(0, 0.0, 0.0, ours, 1e-5, ours_max, 1e-4, 1.0, 100)
    assert check.passed is passes
