"""A model so small that everything it may say can be enumerated: four tokens, one layer, weights that are drawn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae.errors import require

TOKENS = "#abc"


class ToyTokenizer:
    vocab_size, unit, padding_id, damaged_id, frame = len(TOKENS), "character", 0, 0, ((), ())

    def encode(self, text):
        require(set(text) <= set(TOKENS), "unknown")
        return np.array([TOKENS.index(character) for character in text], np.int32)

    def decode(self, ids):
        return "".join(TOKENS[i] for i in ids)

    def pieces(self, ids):
        return list(self.decode(ids))


class Toy:
    """What it says of a position depends on all other positions; padding is as if it were not there."""

    n_layers, d_model, max_position, dtype, hook = 1, 4, 12, jnp.float32, "resid_post"
    tokenizer = ToyTokenizer()

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.mix = rng.standard_normal((4, self.max_position, self.max_position)).astype(np.float32)
        self.mix *= 1 - np.eye(self.max_position, dtype=np.float32)
        self.out = rng.standard_normal((4, 4)).astype(np.float32)

    def check_layer(self, layer):
        require(layer == 0, "layer must be 0")

    def activations(self, ids, mask=None, *, layer):
        n = ids.shape[1]
        real = jnp.ones(ids.shape) if mask is None else mask
        seen = jax.nn.one_hot(ids, 4) * real[..., None]
        return jnp.tanh(jnp.einsum("bnk,kmn->bmk", seen, self.mix[:, :n, :n]))

    def stream(self, ids, mask=None):
        yield self.activations(ids, mask, layer=0)

    def logits(self, ids, mask=None, *, places, layer=None, x=None):
        x = self.activations(ids, mask, layer=0) if x is None else x
        return 3 * x.reshape(-1, 4)[places] @ self.out

    def direct_logits(self, directions, ids):
        return directions @ self.out[:, ids]

    def log_p(self, ids):
        """Log-probabilities at every position of one text."""
        logits = np.asarray(self.logits(np.asarray(ids, np.int32)[None], places=np.arange(len(ids)))).astype(float)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def every_filling(model, hole):
    """Every filling of a hole with its score by the best of all orders."""
    places = range(hole.start, hole.end)
    said = {}

    def log_p(ids):
        if tuple(ids) not in said:
            said[tuple(ids)] = model.log_p(ids)
        return said[tuple(ids)]

    out = {}
    for filling in itertools.product(range(4), repeat=len(places)):
        scores = []
        for order in itertools.permutations(range(len(places))):
            ids, score = hole.ids.copy(), 0.0
            for at in order:
                score += log_p(ids)[places[at], filling[at]]
                ids[places[at]] = filling[at]
            scores.append(score)
        out[filling] = max(scores)
    return out
