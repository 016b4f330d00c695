"""Why a place is restored as it is: exact effects beside PyTorch hooks, an attribution exact where it must be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import TINY

from convert import load_restoration_model, read_checkpoint, reference
from jaxsae.config import SAEConfig
from jaxsae.errors import InputError, require
from jaxsae.explain import latents
from jaxsae.explain.explanation import explain_place
from jaxsae.explain.faithfulness import Kept, only_first
from jaxsae.explain.graph import to_graph
from jaxsae.explain.latents import Parts, latent_parts
from jaxsae.explain.readout import Readout
from jaxsae.explain.words import word_effects, words_of
from jaxsae.features.splice import steer
from jaxsae.features.statistics import LayerSAE
from jaxsae.sae.architectures import encode, init
from jaxsae.text.tokenizer import UNICODE

TEXT = "a-na LUGAL b#-lí um-ma ### ša-ar-ru"
PLACE = TEXT.index("#")
LAYER = 1


@pytest.fixture(scope="module")
def model(tiny_pt):
    return load_restoration_model(tiny_pt)


@pytest.fixture(scope="module")
def module(tiny_pt):
    return reference.build(read_checkpoint(tiny_pt))


@pytest.fixture(scope="module")
def sae():
    made = init(jax.random.key(1), SAEConfig(TINY.d_model, 48))
    return made.replace(W_enc=20 * made.W_enc, b_enc=made.b_enc - 0.3)


@pytest.fixture(scope="module")
def readout(model):
    return Readout(model, UNICODE.encode(TEXT), PLACE)


def torch_logits(module, ids, hook=None):
    """Logits at the place by PyTorch; `hook` changes the stream [position, d_model] after the layer."""

    def change(_, __, out):
        return torch.from_numpy(hook(out[0].numpy()))[None]

    handle = module.layers[LAYER].register_forward_hook(change) if hook else None
    try:
        with torch.no_grad():
            return module(torch.from_numpy(np.asarray(ids))[None].long(), None)[0, PLACE].double().numpy()
    finally:
        if handle:
            handle.remove()


def test_words_are_taken_out_as_pytorch_would(model, module, readout):
    found = word_effects(readout)
    assert sorted((one.start, one.word) for one in found) == [
        (0, "a-na"), (5, "LUGAL"), (11, "b#-lí"), (17, "um-ma"), (27, "ša-ar-ru")
    ]  # fmt: skip
    clean = torch_logits(module, readout.ids)
    assert readout.candidate == clean.argmax()
    for one in found:
        without = torch_logits(module, UNICODE.encode(TEXT[: one.start] + "#" * len(one.word) + TEXT[one.end :]))
        lost = clean - without
        np.testing.assert_allclose(one.effect, lost[readout.candidate] - lost[readout.against], atol=2e-4)
        assert one.guess == without.argmax()
    assert [abs(one.effect) for one in found] == sorted((abs(one.effect) for one in found), reverse=True)


def test_spaces_alone_part_words():
    assert words_of(UNICODE, UNICODE.encode(" a  ## b#\nc ")) == [(1, 2), (7, 9), (10, 11)]


def test_latents_are_ablated_as_by_a_hook_of_pytorch(module, readout, sae):
    x = readout.stream(LAYER)
    parts = latent_parts(sae, x)
    assert len(parts.value) > 100
    some = np.arange(0, len(parts.value), 17)
    found = readout.of_streams(LAYER, {"whole": [x], "ablated": latents.ablated(x, parts, some)})
    clean = torch_logits(module, readout.ids)
    W_dec = np.asarray(sae.W_dec)
    for i, difference in zip(some, found["ablated"], strict=True):

        def without(stream, position=parts.position[i], latent=parts.number[i]):
            values = np.asarray(encode(sae, jnp.asarray(stream)))
            stream[position] -= values[position, latent] * W_dec[latent]
            return stream

        logits = torch_logits(module, readout.ids, without)
        np.testing.assert_allclose(difference, logits[readout.candidate] - logits[readout.against], atol=2e-4)
    np.testing.assert_allclose(found["whole"][0], clean[readout.candidate] - clean[readout.against], atol=2e-4)


def test_padding_and_batches_change_nothing(model, readout):
    """Its text is padded, and another one is not."""
    assert readout.room > len(readout.ids)
    x = np.asarray(model.resid_post(readout.ids[None], layer=LAYER))[0]
    logits = np.asarray(model(readout.ids[None]))[0, PLACE]
    np.testing.assert_allclose(readout.stream(LAYER), x, atol=1e-5)
    np.testing.assert_allclose(readout.logits, logits, atol=1e-4)
    many = readout.of_streams(LAYER, {"one": [x], "more": [x * k for k in np.linspace(0, 1, readout.size + 3)]})
    np.testing.assert_allclose(many["more"][-1], many["one"][0], atol=1e-5)
    assert len(many["more"]) == readout.size + 3
    assert readout.probabilities().sum() == pytest.approx(1)
    assert readout.probabilities(2.0).max() < readout.probabilities().max()


class Quadratic:
    """The logit of token 1 is a sum over positions of a quadratic form of the stream there; that of token 0 is 0."""

    n_layers, d_model, max_position, tokenizer = 1, 6, 64, UNICODE
    dtype, hook = jnp.dtype("float32"), "resid_post"

    def __init__(self):
        rng = np.random.default_rng(0)
        self.embedding = jnp.asarray(rng.standard_normal((200, self.d_model)), jnp.float32)
        form = rng.standard_normal((self.d_model, self.d_model))
        self.form = jnp.asarray(form + form.T, jnp.float32)
        self.line = jnp.asarray(rng.standard_normal(self.d_model), jnp.float32)

    def check_layer(self, layer):
        require(layer == 0, "layer must be 0")

    def stream(self, ids, mask=None):
        yield self.embedding[jnp.asarray(ids)]

    def activations(self, ids, mask=None, *, layer):
        return self.embedding[jnp.asarray(ids)]

    def logits(self, ids, mask=None, *, places, layer=None, x=None):
        x = self.embedding[jnp.asarray(ids)] if x is None else x
        real = jnp.ones(x.shape[:2]) if mask is None else jnp.asarray(mask, x.dtype)
        value = jnp.einsum("bpd,de,bpe->bp", x, self.form, x) + x @ self.line
        total = jnp.repeat((value * real).sum(axis=1), x.shape[1])[places]
        return jnp.zeros((len(places), 200)).at[:, 1].set(total)


def test_the_attribution_is_exact_where_the_model_is_quadratic_at_each_position():
    """Which the gradient at the stream itself is not, nor integrated gradients from a stream without latents."""
    model = Quadratic()
    sae = init(jax.random.key(0), SAEConfig(model.d_model, 12))
    sae = sae.replace(W_enc=100 * sae.W_enc)
    readout = Readout(model, np.arange(40) + 50, 3, candidate=1, against=0)
    x = readout.stream(0)
    parts = latent_parts(sae, x)
    assert np.bincount(parts.position).max() > 4
    every = np.arange(len(parts.value))
    found = readout.of_streams(0, {"whole": [x], "ablated": latents.ablated(x, parts, every)})
    exact = found["whole"][0] - found["ablated"]
    fast = latents.attribution(readout, 0, x, parts)
    scale = np.abs(exact).max()
    np.testing.assert_allclose(fast, exact, atol=1e-4 * scale)
    (at_x,) = readout.gradients(0, [x])
    assert np.abs(parts.along(every, at_x) - exact).max() > 0.05 * scale
    steps = (np.arange(8) + 0.5) / 8
    empty = x - parts.written(every, len(x))
    path = np.mean(list(readout.gradients(0, (empty + t * (x - empty) for t in steps))), axis=0)
    assert np.abs(parts.along(every, path) - exact).max() > 0.05 * scale


def test_parts_beyond_the_last_rank_are_attributed_too():
    parts = Parts(
        np.zeros(40, int), np.arange(40), np.linspace(1, 2, 40).astype(np.float32), np.eye(40, 6, dtype=np.float32)
    )
    readout = Readout(Quadratic(), np.array([50, 60]), 0, candidate=1, against=0)
    found = latents.attribution(readout, 0, readout.stream(0), parts)
    assert (found[:6] != 0).all()  # those that write something
    assert (found[6:] == 0).all()


def test_what_few_parts_keep():
    """Two of the parts carry the difference; the others write where nothing is read."""
    model = Quadratic()
    model.form, model.line = jnp.zeros((6, 6)), jnp.asarray([1.0, 0, 0, 0, 0, 0])
    readout = Readout(model, np.arange(20) + 50, 3, candidate=1, against=0)
    x = readout.stream(0)
    directions = np.eye(2, 6, dtype=np.float32)
    position = np.arange(20)
    number = np.where(np.isin(position, (4, 9)), 0, 1)
    parts = Parts(position, number, np.where(position == 4, 5, 3).astype(np.float32), directions)
    order = np.concatenate([[4, 9], np.delete(position, [4, 9])])
    counts = (0, 1, 2, 5, 20)
    whole = float(readout.of_streams(0, {"x": [x]})["x"][0])
    kept = Kept.of(readout.of_streams(0, {"only": only_first(x, parts, order, counts)})["only"], whole)
    np.testing.assert_allclose(kept.share, [0, 5 / 8, 1, 1, 1], atol=1e-5)
    np.testing.assert_allclose(kept.without, whole - 8, rtol=1e-4)
    assert kept.needed(counts) == 2
    backwards = Kept.of(readout.of_streams(0, {"o": only_first(x, parts, order[::-1], counts)})["o"], whole)
    assert backwards.needed(counts) == 20
    assert Kept.of(np.zeros(5), 0.0).needed(counts) is None  # nothing to keep
    assert not kept.little
    assert Kept.of(np.array([4.8, 3.2, 5.0]), 5.0).little  # whose shares would be -800 % and 100 %
    assert not Kept.of(np.array([4.0, 3.2, 5.0]), 5.0).little


def test_a_whole_explanation(model, module, readout, sae):
    found = explain_place(
        model, readout.ids, PLACE, {"one": LayerSAE(LAYER, sae)}, counts=(0, 3, 9999), exact=20, temperature=1.5
    )
    assert (found.candidate, found.against) == (readout.candidate, readout.against)
    assert found.difference == pytest.approx(readout.difference, abs=1e-5)
    (layer,) = found.layers
    assert len(layer.latents) == 20
    assert layer.active == len(latent_parts(sae, readout.stream(LAYER)).value)
    assert set(layer.kept) == {"latents", "random", "neurons"}
    for kept in layer.kept.values():
        np.testing.assert_allclose(kept.share[[0, 2]], [0, 1], atol=1e-4)

    def reconstructed(stream):
        values = np.asarray(encode(sae, jnp.asarray(stream)))
        return values @ np.asarray(sae.W_dec) + np.asarray(sae.b_dec)

    logits = torch_logits(module, readout.ids, reconstructed)
    expected = readout.difference - (logits[readout.candidate] - logits[readout.against])
    np.testing.assert_allclose(layer.error_effect, expected, atol=2e-4)

    hidden = []
    handle = module.layers[LAYER].ff[1].register_forward_hook(lambda _, __, out: hidden.append(out[0].numpy()))
    torch_logits(module, readout.ids)
    handle.remove()
    written = hidden[0] @ module.layers[LAYER].ff[2].weight.detach().numpy().T
    logits = torch_logits(module, readout.ids, lambda stream: stream - written)
    expected = logits[readout.candidate] - logits[readout.against]
    np.testing.assert_allclose(layer.kept["neurons"].without, expected, atol=5e-4)
    content = found.as_json()
    assert sum(one["probability"] for one in content["candidates"]) <= 1
    assert content["words"][0]["effect"] == found.words[0].effect
    captioned = [one | {"caption": "unclear"} for one in content["layers"][0]["latents"]]
    graph = to_graph(
        {"text": TEXT} | content | {"layers": [content["layers"][0] | {"latents": captioned}]}, scan="tiny"
    )
    assert len(graph["nodes"]) == len(content["words"]) + 20 + 2


def test_an_sae_that_is_silent_explains_nothing(model, readout, sae):
    silent = sae.replace(b_enc=sae.b_enc - 1e6)
    (layer,) = explain_place(model, readout.ids, PLACE, {"one": LayerSAE(LAYER, silent)}, counts=(0, 1)).layers
    assert (layer.active, layer.latents) == (0, [])
    assert layer.kept["latents"].needed((0, 1)) is None
    assert np.isnan(layer.kept["latents"].share).all()


def test_where_they_are_active_alone(model, readout, sae):
    x = readout.stream(LAYER)
    values = np.asarray(encode(sae, jnp.asarray(x)))
    latent = int(((values > 0).mean(0) * (values <= 0).mean(0)).argmax())
    got = np.asarray(steer(sae, [(latent, 2.0)], where_active=True)(jnp.asarray(x)[None]))[0]
    fires = values[:, latent] > 0
    assert 0 < fires.sum() < len(x)
    np.testing.assert_array_equal(got[~fires], x[~fires])
    step = (2 - values[fires, latent])[:, None] * np.asarray(sae.W_dec[latent])
    np.testing.assert_allclose(got[fires], x[fires] + step, atol=1e-5)


def test_latents_that_are_set(model, module, readout, sae):
    latent = int(np.bincount(latent_parts(sae, readout.stream(LAYER)).number).argmax())
    change = steer(sae, [(latent, 4.0), (latent - 1 if latent else 1, 0.0)])
    steered = Readout(model, readout.ids, PLACE, readout.candidate, readout.against, (LAYER, change))

    def by_hand(stream):
        values = np.asarray(encode(sae, jnp.asarray(stream)))
        for number, value in ((latent, 4.0), (latent - 1 if latent else 1, 0.0)):
            stream = stream + (value - values[:, number : number + 1]) * np.asarray(sae.W_dec[number])
        return stream

    logits = torch_logits(module, readout.ids, by_hand)
    np.testing.assert_allclose(steered.difference, logits[readout.candidate] - logits[readout.against], atol=2e-4)
    assert abs(steered.difference - readout.difference) > 1e-3
    np.testing.assert_allclose(steered.stream(LAYER), by_hand(readout.stream(LAYER)), atol=1e-4)
    found = explain_place(
        model, readout.ids, PLACE, {"one": LayerSAE(LAYER, sae)}, change=(LAYER, change), exact=3, counts=(0, 1)
    )
    np.testing.assert_allclose(found.difference, Readout(model, readout.ids, PLACE, change=(LAYER, change)).difference)
    with pytest.raises(InputError, match="what is changed after layer 1 must be explained there, got layer 2"):
        steered.stream(2)


@pytest.mark.parametrize(
    ("ids", "position", "tokens", "message"),
    [
        ([], 0, {}, r"1\.\.45 characters, got 0"),
        ([60] * 46, 0, {}, r"1\.\.45 characters, got 46"),
        ([60, 61], 2, {}, r"position must be in 0\.\.1, got 2"),
        ([60, 61], 0, {"candidate": 8000}, r"candidate must be in 0\.\.7999, got 8000"),
        ([60, 61], 0, {"candidate": 9, "against": 9}, "got the same one twice"),
    ],
)
def test_what_cannot_be_explained(model, ids, position, tokens, message):
    with pytest.raises(InputError, match=message):
        Readout(model, np.array(ids, np.int32), position, **tokens)


@pytest.mark.parametrize("settings", [[(48, 0.0)], [(-1, 0.0)], [(3, 1.0), (3, 2.0)]])
def test_what_cannot_be_set(sae, settings):
    with pytest.raises(InputError, match="feature must be"):
        steer(sae, settings)


def test_sae_of_another_layer_under_a_change_is_refused(model, readout, sae):
    change = (LAYER, steer(sae, [(0, 1.0)]))
    with pytest.raises(InputError, match="must be explained there"):
        explain_place(model, readout.ids, PLACE, {"one": LayerSAE(LAYER + 1, dataclasses.replace(sae))}, change=change)
