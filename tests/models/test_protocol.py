"""A model is what the protocol says and no more: one of words and plain functions goes all the way through."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from jaxsae.activations.extraction import extract
from jaxsae.config import TrainConfig
from jaxsae.errors import InputError, require
from jaxsae.features import splice
from jaxsae.features.inspection import inspect
from jaxsae.models.protocol import ResidualModel
from jaxsae.text.samples import Samples
from jaxsae.train.loop import train_sae

WORDS = ("_", "#", *"ana bēl šarri mār ummân bīt ekalli tuppu šulmu".split())  # noqa: SIM905 - a text


class WordTokenizer:
    """A token is a word; its id is its place in `WORDS`."""

    vocab_size, unit, padding_id, damaged_id, frame = len(WORDS), "word", 0, 1, ((), ())

    def encode(self, text):
        return np.array([WORDS.index(word) for word in text.split()], np.int32)

    def decode(self, ids):
        return "".join(self.pieces(ids))[1:]

    def pieces(self, ids):
        return [f" {WORDS[i]}" if 0 <= i < len(WORDS) else "" for i in ids]


class WordModel:
    """x + tanh(mean over the real positions + x @ W) per block: no parameters by name, no module, no config."""

    n_layers, d_model, max_position, tokenizer = 2, 6, 10, WordTokenizer()
    dtype, hook = jnp.dtype("float32"), "resid_post"

    def __init__(self):
        embed, head, *blocks = jax.random.split(jax.random.key(0), 2 + self.n_layers)
        self.embedding = jax.random.normal(embed, (len(WORDS), self.d_model))
        self.head = jax.random.normal(head, (self.d_model, len(WORDS)))
        self.weights = [jax.random.normal(key, (self.d_model, self.d_model)) for key in blocks]

    def check_layer(self, layer):
        require(0 <= layer < self.n_layers, f"layer must be in 0..{self.n_layers - 1}, got {layer}")

    def run(self, x, mask, blocks):
        real = jnp.ones(x.shape[:2]) if mask is None else jnp.asarray(mask, x.dtype)
        for block in blocks:
            mean = (x * real[:, :, None]).sum(axis=1, keepdims=True) / real.sum(axis=1)[:, None, None]
            x = x + jnp.tanh(x @ self.weights[block] + mean)
            yield x

    def stream(self, ids, mask=None):
        yield from self.run(self.embedding[jnp.asarray(ids)], mask, range(self.n_layers))

    def activations(self, ids, mask=None, *, layer):
        return list(self.stream(ids, mask))[layer]

    def logits(self, ids, mask=None, *, places, layer=None, x=None):
        if layer is None:
            layer, x = self.n_layers - 1, self.activations(ids, mask, layer=self.n_layers - 1)
        last = [x, *self.run(x, mask, range(layer + 1, self.n_layers))][-1]
        return last.reshape(-1, self.d_model)[places] @ self.head

    def direct_logits(self, directions, ids):
        return directions @ np.asarray(self.head)[:, ids]


@pytest.fixture(scope="module")
def model():
    return WordModel()


@pytest.fixture(scope="module")
def samples():
    """Forty texts of words; every fourth word is damaged."""
    rng = np.random.default_rng(0)
    shape = (40, WordModel.max_position)
    mask = (np.arange(shape[1]) < rng.integers(3, shape[1] + 1, shape[0])[:, None]).astype(np.int8)
    true = np.where(mask, rng.integers(2, len(WORDS), shape), 0).astype(np.int32)
    damaged = (mask != 0) & (np.arange(mask.size).reshape(shape) % 4 == 1)
    ids, labels = (np.where(damaged, a, b).astype(np.int32) for a, b in ((1, true), (true, -100)))
    return Samples(ids, labels, mask, tokenizer=WordTokenizer())


@pytest.fixture(scope="module")
def sae(model, samples):
    rows = extract(model, samples, [1]).values[1]
    return train_sae(rows, TrainConfig(epochs=3, batch_size=32, expansion=2, k_sparse=2)).sae


def test_it_is_one(model):
    assert isinstance(model, ResidualModel)


def test_rows_are_the_models_own(model, samples):
    rows = extract(model, samples, [0, 1])
    assert rows.values[0].shape == (samples.real.sum(), model.d_model)
    for layer in (0, 1):
        expected = np.asarray(model.activations(samples.ids, samples.mask, layer=layer))[samples.real]
        np.testing.assert_allclose(rows.values[layer], expected, atol=1e-6)


def test_what_it_has_not_is_refused(model, samples):
    with pytest.raises(InputError, match=r"layer must be in 0\.\.1, got 2"):
        extract(model, samples, [2])
    strange = Samples(np.where(samples.real, len(WORDS), samples.ids), samples.labels, samples.mask)
    with pytest.raises(InputError, match=r"token ids must be in 0\.\.10 .*: 11 at position 0 of sample 0"):
        extract(model, strange, [0])


def test_an_sae_is_trained_spliced_in_and_read(model, samples, sae):
    assert sae.W_enc.shape == (model.d_model, 2 * model.d_model)
    effects = splice.effects(
        model, samples, 1, {"same": lambda x: x, "sae": lambda x: splice.reconstruct(sae, x), "zero": jnp.zeros_like}
    )
    assert effects["same"].ce == effects["clean"].ce
    assert effects["clean"].positions == samples.damaged.sum()
    np.testing.assert_allclose(effects["zero"].ce, np.log(len(WORDS)), rtol=1e-5)  # logits of 0
    assert len({effect.ce for effect in effects.values()}) == 3

    of = inspect(model, samples, sae, 1)
    assert of.statistics.rows == samples.real.sum()
    assert 0 < of.statistics.l0 <= 2
    assert of.character_names == ["hidden", *WORDS[2:]]
    assert model.tokenizer.pieces(of.output_ids) == [f" {word}" for word in WORDS[2:]]
    assert [row.character for row in of.on_text("ana bēl šarri")] == ["ana", "bēl", "šarri"]
    (strongest,) = of.strongest_latents(1)
    (effect,) = of.causal_effects([(strongest, 50.0)])
    assert effect.swaps
    assert {word for swap in effect.swaps for word in swap[:2]} <= set(WORDS)
    promoted = of.feature(strongest).promotes[0].character
    assert promoted == WORDS[2 + int(of.direct_logits[strongest].argmax())]


def named(path: Path) -> set[str]:
    """Every module, and every name, that a file's code says; not what its texts say."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ImportFrom():
                found |= {node.module or "", *(alias.name for alias in node.names)}
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.Name():
                found.add(node.id)
            case ast.Attribute():
                found.add(node.attr)
    return found


def test_nothing_but_its_room_and_the_converter_names_a_family():
    """The facade gives users the class itself."""
    code = [path for room in ("jaxsae", "scripts") for path in (ROOT / room).rglob("*.py")]
    others = [path for path in code if path.parent.name != "models" and path != ROOT / "jaxsae" / "__init__.py"]
    family = {"RestorationModel", "jaxsae.models.restoration"}
    assert len(others) > 50
    assert not [str(path) for path in others if named(path) & family]
