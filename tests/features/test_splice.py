"""An SAE in the model: laws of splicing, on a tiny model with padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import TINY, tiny_splits

from convert import load_restoration_model
from jaxsae.config import SAEConfig
from jaxsae.errors import InputError
from jaxsae.features import splice
from jaxsae.sae.architectures import encode, init
from jaxsae.sae.autoencoder import SAE
from jaxsae.text.samples import Samples

LAYER = 1


@pytest.fixture(scope="module")
def model(tiny_pt):
    return load_restoration_model(tiny_pt)


@pytest.fixture(scope="module")
def samples():
    columns = tiny_splits(seed=2)["test"]
    return Samples(columns["input_ids"], columns["labels"], columns["attention_mask"])


def by_hand(logits, samples):
    """(cross-entropy, top-1, top-5) at damaged positions, by PyTorch in float64."""
    where = samples.labels != -100
    picked, true = torch.from_numpy(np.asarray(logits, np.float64)[where]), torch.from_numpy(samples.labels[where])
    top = picked.topk(5).indices == true[:, None]
    ce = float(torch.nn.functional.cross_entropy(picked, true.long()))
    return ce, float(top[:, 0].double().mean()), float(top.any(1).double().mean())


def logits_with(model, samples, x):
    """At every position, `x` standing after the layer."""
    places = np.arange(samples.ids.size)
    found = model.logits(samples.ids, samples.mask, places=places, layer=LAYER, x=x)
    return found.reshape(*samples.ids.shape, -1)


def test_the_unchanged_model(model, samples):
    """Identity changes nothing, and the figures are those of the whole model's logits."""
    got = splice.effects(model, samples, LAYER, {"same": lambda x: x})
    assert got["same"] == got["clean"]._replace(kl=got["same"].kl)
    assert abs(got["same"].kl) < 1e-6
    ce, top1, top5 = by_hand(model(samples.ids, samples.mask), samples)
    np.testing.assert_allclose(got["clean"].ce, ce, rtol=1e-5)
    np.testing.assert_allclose((got["clean"].top1, got["clean"].top5), (top1, top5), rtol=1e-9)
    assert got["clean"].positions == (samples.labels != -100).sum()


def test_a_change_is_made_at_its_layer_and_not_at_padding(model, samples):
    """Zero, against a forward pass whose stream is set to zero at the real positions by hand."""
    x = model.resid_post(samples.ids, samples.mask, layer=LAYER)
    zeroed = jnp.where(jnp.asarray(samples.mask)[:, :, None] != 0, 0.0, x)
    assert (zeroed != 0).any()
    logits = logits_with(model, samples, zeroed)
    got = splice.effects(model, samples, LAYER, {"zero": jnp.zeros_like})
    np.testing.assert_allclose(got["zero"].ce, by_hand(logits, samples)[0], rtol=1e-5)
    assert got["zero"].kl > 1e-3
    # what the change gives at padding is thrown away
    first = int(np.argmin(samples.lengths * (samples.lengths > 8) + 99 * (samples.lengths <= 8)))
    short = samples[first : first + 1]
    n = int(short.lengths[0])
    wild = splice.effects(
        model, short, LAYER, {"wild": lambda x: jnp.where(jnp.arange(x.shape[1])[None, :, None] < n, x, jnp.nan)}
    )
    assert n < TINY.max_position
    assert wild["wild"].ce == wild["clean"].ce


def test_kl_is_from_the_unchanged_distribution(model, samples):
    where = samples.labels != -100
    x = model.resid_post(samples.ids, samples.mask, layer=LAYER)
    changed = logits_with(model, samples, x * 0.5)
    p, q = (
        torch.log_softmax(torch.from_numpy(np.asarray(logits, np.float64)[where]), -1)
        for logits in (model(samples.ids, samples.mask), changed)
    )
    expected = float((p.exp() * (p - q)).sum(-1).mean())
    got = splice.effects(model, samples, LAYER, {"half": lambda x: x * 0.5})["half"]
    np.testing.assert_allclose(got.kl, expected, rtol=1e-3)


def test_an_sae_that_reconstructs_all_changes_nothing(model, samples):
    """Latents e_i and -e_i: relu(x) - relu(-x) = x."""
    d = TINY.d_model
    eye = jnp.eye(d)
    sae = SAE(jnp.hstack([eye, -eye]), jnp.zeros(2 * d), jnp.vstack([eye, -eye]), jnp.zeros(d))
    got = splice.effects(model, samples, LAYER, {"sae": lambda x: splice.reconstruct(sae, x)})
    np.testing.assert_allclose(got["sae"].ce, got["clean"].ce, rtol=1e-6)
    random = init(jax.random.key(0), SAEConfig(d, 2 * d))
    other = splice.effects(model, samples, LAYER, {"sae": lambda x: splice.reconstruct(random, x)})
    assert abs(other["sae"].ce - got["clean"].ce) > 1e-3


def test_recovered_is_not_clipped():
    effects = [splice.Effect(ce, 0, 0, 0, 1) for ce in (1.0, 3.0, 5.0)]
    clean, bad, worse = effects
    assert splice.recovered(clean, clean, bad) == 1
    assert splice.recovered(clean, bad, bad) == 0
    assert splice.recovered(clean, worse, bad) == -1
    assert np.isnan(splice.recovered(clean, bad, clean))


def test_undamaged_text_is_refused(model, samples):
    whole = Samples(samples.ids, np.full_like(samples.labels, -100), samples.mask)
    with pytest.raises(InputError, match="damaged positions"):
        splice.effects(model, whole, LAYER, {})


def test_a_latent_set_to_what_it_is_changes_nothing_and_its_removal_takes_its_row_away(model, samples):
    sae = init(jax.random.key(3), SAEConfig(TINY.d_model, 40))
    x = model.resid_post(samples.ids, samples.mask, layer=LAYER)
    rows = np.asarray(x).reshape(-1, TINY.d_model)
    latents = np.asarray(encode(sae, jnp.asarray(rows)))
    latent = int((latents > 0).mean(0).argmax())
    removed = np.asarray(splice.with_latents(sae, x, np.array([latent]), np.array([0.0], x.dtype))).reshape(rows.shape)
    np.testing.assert_allclose(
        removed, rows - latents[:, latent : latent + 1] * np.asarray(sae.W_dec[latent]), atol=1e-5
    )
    clamped = np.asarray(splice.with_latents(sae, x, np.array([latent]), np.array([7.0], x.dtype))).reshape(rows.shape)
    step = (7 - latents[:, latent : latent + 1]) * np.asarray(sae.W_dec[latent])
    np.testing.assert_allclose(clamped, rows + step, atol=1e-5)
    # where it has that value already, all stays: the SAE's error too
    at = latents[:, latent] > 0
    one = jnp.asarray(rows[at][:1])[None]
    kept = splice.with_latents(sae, one, np.array([latent]), np.asarray(latents[at][0, [latent]]))
    np.testing.assert_allclose(np.asarray(kept), np.asarray(one), atol=1e-5)


def test_restorations_are_in_the_order_of_the_text(model, samples):
    """Each position's figures stand where it is in the text, whatever the order of the batches."""
    found, read = splice.restorations(model, samples, LAYER, {"half": lambda x: x * 0.5}, lambda x: x[:, :, :3])
    where = samples.labels != -100
    logits = np.asarray(model(samples.ids, samples.mask), np.float64)[where]
    true = torch.from_numpy(samples.labels[where]).long()
    ce = torch.nn.functional.cross_entropy(torch.from_numpy(logits), true, reduction="none").numpy()
    np.testing.assert_allclose(found["clean"].ce, ce, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["clean"].guess, logits.argmax(1))
    x = np.asarray(model.resid_post(samples.ids, samples.mask, layer=LAYER))[where][:, :3]
    np.testing.assert_allclose(read, x, rtol=1e-4, atol=1e-4)
    some = np.arange(len(ce)) % 3 == 0
    assert found["half"].effect(some).positions == some.sum()
    np.testing.assert_allclose(found["clean"].probability(some), np.exp(-ce[some]).mean(), rtol=1e-4)
    assert np.isnan(found["clean"].effect(np.zeros(len(ce), bool)).ce)
