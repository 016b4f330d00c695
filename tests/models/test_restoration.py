import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import TINY
from flax import nnx

from convert import read_checkpoint, reference
from jaxsae.errors import InputError
from jaxsae.models.restoration import RestorationModel
from jaxsae.models.restoration_config import ModelConfig
from jaxsae.models.rotary import rotary_table
from jaxsae.models.transformer import params_of, run_block, shapes_of


@pytest.fixture(scope="module")
def checkpoint(tiny_pt):
    return read_checkpoint(tiny_pt)


@pytest.fixture(scope="module")
def model(checkpoint):
    return checkpoint.model()


def some_ids(length, batch=2, seed=0):
    return np.random.default_rng(seed).integers(0, TINY.vocab_size, (batch, length)).astype(np.int32)


def test_rotary_table_is_torchs_float32_table():
    """Written as the original does, stage by stage in float32; the last cosine may round the other way."""
    exponent = torch.arange(0, 48, 2).float() / 48
    angle = torch.outer(torch.arange(768).float(), 1.0 / 10000**exponent)
    cos, sin = rotary_table(768, 48, 10000.0)
    assert cos.dtype == sin.dtype == np.float32
    np.testing.assert_allclose(cos, torch.cat([angle.cos()] * 2, -1).numpy(), atol=6e-8, rtol=0)
    np.testing.assert_allclose(sin, torch.cat([angle.sin()] * 2, -1).numpy(), atol=6e-8, rtol=0)


@pytest.mark.parametrize("length", [1, 7, 45])
@pytest.mark.parametrize("masked", [False, True])
def test_float64_parity_at_every_layer_and_the_logits(checkpoint, length, masked):
    """1e-10 leaves no room for a wrong epsilon, GELU, angle or scale: only for rounding."""
    ids = some_ids(length)
    mask = (np.arange(length) < np.array([[length], [max(1, length - 3)]])).astype(np.int8) if masked else None
    layers = range(TINY.n_layers)
    module = reference.build(checkpoint)
    expected = reference.hook_outputs(module, ids, mask, layers, torch.float64)
    with torch.no_grad():
        torch_mask = None if mask is None else torch.from_numpy(mask)
        expected_logits = module(torch.from_numpy(ids).long(), torch_mask).numpy()
    with jax.enable_x64(True):
        model = checkpoint.model(jnp.float64)
        got = [np.asarray(x) for x in model.stream(jnp.asarray(ids), None if mask is None else jnp.asarray(mask))]
        logits = np.asarray(model(jnp.asarray(ids), None if mask is None else jnp.asarray(mask)))
    assert logits.dtype == np.float64
    for layer in layers:
        np.testing.assert_allclose(got[layer], expected[layer], rtol=0, atol=1e-10, err_msg=f"layer {layer}")
    np.testing.assert_allclose(logits, expected_logits, rtol=0, atol=1e-10)


def test_padding_changes_nothing_at_real_positions(model):
    ids = some_ids(20)
    alone = model.resid_post(jnp.asarray(ids), jnp.ones((2, 20), jnp.int8), layer=3)
    padded = np.full((2, 45), 32, np.int32)
    padded[:, :20] = ids
    mask = jnp.asarray((np.arange(45) < 20)[None].repeat(2, 0).astype(np.int8))
    together = model.resid_post(jnp.asarray(padded), mask, layer=3)[:, :20]
    np.testing.assert_allclose(together, alone, atol=2e-5)
    unmasked = model.resid_post(jnp.asarray(padded), layer=3)[:, :20]
    assert np.abs(unmasked - alone).max() > 1e-2  # the check above can fail


def test_stopping_early_runs_only_the_blocks_needed(model, monkeypatch):
    ran = []
    monkeypatch.setattr(
        "jaxsae.models.transformer.run_block", lambda block, *args: ran.append(block) or run_block(block, *args)
    )
    model.resid_post(jnp.asarray(some_ids(5)), layer=1)
    assert len(ran) == 2


def test_a_block_is_compiled_once_for_all_layers(model):
    run_block.clear_cache()
    model(jnp.asarray(some_ids(9)))
    assert run_block._cache_size() == 1


def test_inside_a_callers_jit(model):
    ids = jnp.asarray(some_ids(6))
    inlined = jax.jit(lambda m, i: m.resid_post(i, layer=2))(model, ids)
    np.testing.assert_allclose(inlined, model.resid_post(ids, layer=2), atol=1e-5)


def test_too_long_and_absent_layer_are_refused(model):
    with pytest.raises(InputError, match="at most 45 characters"):
        model(jnp.zeros((1, 46), jnp.int32))
    with pytest.raises(InputError, match=r"layer must be in 0\.\.3, got 4"):
        model.resid_post(jnp.zeros((1, 5), jnp.int32), layer=4)


def test_shapes_and_params_agree(model):
    shapes = RestorationModel.param_shapes(TINY)
    assert {path: p.shape for path, p in params_of(model).items()} == shapes
    assert shapes["layers.3.ff.up.kernel"] == (30, 37)
    assert all(p.dtype == jnp.float32 for p in params_of(model).values())


def test_parameters_are_float32_even_where_float64_is_on(checkpoint):
    with jax.enable_x64(True):
        assert checkpoint.model()(jnp.zeros((1, 3), jnp.int32)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_heads": 7}, "divisible by n_heads"),
        ({"n_heads": 2, "d_model": 30}, "must be even"),
        ({"n_layers": 0}, "n_layers must be a whole number in 1..1024, got 0"),
        ({"d_ff": 1.5}, "d_ff must be a whole number"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"rotary_base": 1}, "rotary_base must be"),
    ],
)
def test_impossible_configs_are_refused(changes, says):
    with pytest.raises(InputError, match=says):
        dataclasses.replace(TINY, **changes)


def test_config_defaults_are_the_originals():
    config = ModelConfig.from_dict({"vocab_size": 11812}, "file")
    assert dataclasses.asdict(config) == {
        "vocab_size": 11812, "max_position": 768, "d_model": 384, "n_heads": 8,
        "d_ff": 1536, "n_layers": 16, "dropout": 0.1, "rotary_base": 10000,
    }  # fmt: skip
    assert sum(np.prod(shape) for shape in RestorationModel.param_shapes(config).values()) == 37_475_620


def test_a_fresh_model_is_finite():
    model = RestorationModel(TINY, rngs=nnx.Rngs(0))
    assert jnp.isfinite(model(jnp.asarray(some_ids(4)))).all()


def test_one_block_is_traced_for_all():
    """And the model is the same as when each is: its structure is what compiled blocks are found by."""
    shared, traced = RestorationModel.abstract(TINY), nnx.eval_shape(lambda: RestorationModel(TINY, rngs=nnx.Rngs(0)))
    assert jax.tree.structure(shared) == jax.tree.structure(traced)
    assert nnx.graphdef(shared) == nnx.graphdef(traced)
    assert list(shapes_of(shared).items()) == list(shapes_of(traced).items())
    model = RestorationModel.from_params(
        TINY, {path: np.ones(shape, np.float32) for path, shape in shapes_of(shared).items()}
    )
    assert len({id(leaf) for leaf in params_of(model).values()}) == len(shapes_of(shared))
    assert nnx.state(shared) == nnx.state(traced)  # what was made from it has left it as it was
