"""Every hook point of every block is what PyTorch's hooks see there, and what is put in its place goes on as there."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import TINY
from sign_model import content

from convert import read_checkpoint, reference
from convert.families import family_of
from jaxsae.models.hooks import HOOKS

IDS = np.random.default_rng(1).integers(5, 19, (2, 17)).astype(np.int32)
MASK = (np.arange(17) < np.array([[17], [11]])).astype(np.int8)


@pytest.fixture(scope="module", params=["restoration", "signs"])
def checkpoint(request, tmp_path_factory):
    if request.param == "restoration":
        return read_checkpoint(request.getfixturevalue("tiny_pt"))
    path = tmp_path_factory.mktemp("signs") / "model.pt"
    torch.save(content(), path)
    return read_checkpoint(path)


def module_of(checkpoint):
    return reference.build(checkpoint).double()


def parts_of(checkpoint):
    return importlib.import_module(family_of(checkpoint.config).reference).PARTS


@pytest.mark.parametrize("hook", HOOKS)
def test_activations_in_float64(checkpoint, hook):
    layers = range(checkpoint.config.n_layers)
    _, exact = reference.activations(checkpoint, IDS, MASK, layers, hook)
    with jax.enable_x64(True):
        model = checkpoint.model(jnp.float64, hook=hook)
        assert model.hook == hook
        stream = list(model.stream(jnp.asarray(IDS), jnp.asarray(MASK)))
        for layer in layers:
            np.testing.assert_allclose(stream[layer], exact[layer], rtol=0, atol=1e-10)
            one = model.activations(jnp.asarray(IDS), jnp.asarray(MASK), layer=layer)
            np.testing.assert_array_equal(one, stream[layer])
    assert len({float(np.abs(exact[layer]).sum()) for layer in layers}) == len(layers)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("layer", [0, 1])
def test_what_is_put_there_goes_on_as_in_pytorch(checkpoint, hook, layer):
    """Half of what stood there, by a hook of PyTorch's that replaces it."""
    module, family = module_of(checkpoint), family_of(checkpoint.config)
    block = module.get_submodule(f"{family.blocks}.{layer}")
    if hook == "resid_pre":
        handle = block.register_forward_pre_hook(lambda _, inputs: (inputs[0] / 2, *inputs[1:]))
    else:
        part = block if hook == "resid_post" else block.get_submodule(parts_of(checkpoint)[hook])
        handle = part.register_forward_hook(lambda _, __, output: output / 2)
    with torch.no_grad():
        expected = module(torch.from_numpy(IDS).long(), torch.from_numpy(MASK).long())
        handle.remove()
        clean = module(torch.from_numpy(IDS).long(), torch.from_numpy(MASK).long())
    places = np.array([0, 3, 16, 20])
    with jax.enable_x64(True):
        model = checkpoint.model(jnp.float64, hook=hook)
        x = model.activations(jnp.asarray(IDS), jnp.asarray(MASK), layer=layer)
        got = model.logits(jnp.asarray(IDS), jnp.asarray(MASK), places=places, layer=layer, x=x / 2)
        same = model.logits(jnp.asarray(IDS), jnp.asarray(MASK), places=places, layer=layer, x=x)
        whole = model.logits(jnp.asarray(IDS), jnp.asarray(MASK), places=places)
    flat = expected.reshape(-1, expected.shape[-1]).numpy()[places]
    np.testing.assert_allclose(got, flat, rtol=0, atol=1e-10)
    for one in (same, whole):
        np.testing.assert_allclose(one, clean.reshape(-1, clean.shape[-1]).numpy()[places], rtol=0, atol=1e-10)
    assert np.abs(flat - np.asarray(whole)).max() > 1e-3


@pytest.mark.parametrize("hook", HOOKS)
def test_packed_rows_are_those_of_texts_alone(checkpoint, hook):
    with jax.enable_x64(True):
        model = checkpoint.model(jnp.float64, hook=hook)
        alone = [np.asarray(x)[0] for x in model.stream(jnp.asarray(IDS[:1, :9]))]
        text = np.array([[1] * 8 + [2] * 9])
        position = np.array([[*range(8), *range(9)]])
        packed = model.stream_packed(jnp.asarray(np.concatenate([IDS[1:, :8], IDS[:1, :9]], axis=1)), text, position)
        for one, together in zip(alone, packed, strict=True):
            np.testing.assert_allclose(np.asarray(together)[0, 8:], one, rtol=0, atol=1e-10)


def test_a_model_of_a_few_blocks_is_read_there_too(tiny_pt):
    checkpoint = read_checkpoint(tiny_pt)
    few, whole = (checkpoint.model(n_layers=n, hook="mlp_out") for n in (2, None))
    assert (few.n_layers, whole.n_layers) == (2, TINY.n_layers)
    np.testing.assert_array_equal(few.activations(IDS, MASK, layer=1), whole.activations(IDS, MASK, layer=1))
