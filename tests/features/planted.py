"""Planted latents on a hand-made text, and a second, plain implementation of how they are scored.

240 texts of 22 characters, `xxxxx xxxxx xxxxx umi` and `s` or `a`; the first two characters are damaged. Half of the
texts end in `s`: Sumerian; the others in `a`: Akkadian. In layer 1,

    latent 0 fires on the first character
    latent 1 on the first three, on the damaged two of them twice as strongly
    latent 2 on the second word
    latent 3 on the first character, in ten texts
    latent 6 on characters 6 to 17 of Sumerian texts
    latent 7 on character 12 of Akkadian texts
    latent 8 on `um`

and the other 22 of 30 never do.
"""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from flax import nnx
from helpers import sample

from jaxsae.activations.extraction import StreamBatch
from jaxsae.features import inspection
from jaxsae.features.concept_scores import ConceptScores
from jaxsae.features.concepts import Concept
from jaxsae.features.inspection import Inspection, inspect_all
from jaxsae.features.statistics import LayerSAE
from jaxsae.models.restoration import RestorationModel
from jaxsae.sae.autoencoder import SAE
from jaxsae.text.samples import Samples, joined

TEXTS, LENGTH, D = 240, 22, 30
CONCEPTS = [
    Concept("damaged", "damage", "damaged character", labels="damage"),
    Concept("sumerian", "language", "text in Sumerian", re.compile("s"), re.compile("a")),
    Concept("akkadian", "language", "text in Akkadian", re.compile("a"), re.compile("s")),
    Concept("-um", "morphology", "nominative", re.compile("um")),
    Concept("-i", "morphology", "genitive", re.compile("i")),
]
MODEL = RestorationModel(TINY, rngs=nnx.Rngs(0))  # of its neurons alone
IDENTITY = SAE(jnp.eye(D), jnp.zeros(D), jnp.eye(D), jnp.zeros(D))


def is_sumerian(texts=TEXTS) -> np.ndarray:
    return np.arange(texts) % 4 < 2  # as many with even numbers as with odd ones


def samples_of(texts: int) -> Samples:
    return joined(
        [sample(f"xxxxx xxxxx xxxxx umi{'s' if s else 'a'}", {0: "#", 1: "#"}, LENGTH) for s in is_sumerian(texts)]
    )


def planted(texts=TEXTS) -> np.ndarray:
    """A stream [text, position, latent] that an identity SAE reads as the latents of the table.

    Latents that do not fire are far below 0, so that random directions find little.
    """
    x = -10 * np.abs(np.random.default_rng(0).standard_normal((texts, LENGTH, D))).astype(np.float32)
    x[:, :, :9] = 0
    x[:, 0, 0] = x[:, 2, 1] = x[:, 6:11, 2] = x[:10, 0, 3] = x[:, 1:5, 4] = x[:, 18:20, 8] = 1
    x[:, :2, 1] = 2
    x[is_sumerian(texts), 6:18, 6] = x[~is_sumerian(texts), 12, 7] = 1
    return x


def planted_in_layer_3() -> np.ndarray:
    """As in layer 1, but for latents 0, 1, 2, 7, which fire on less, 4 and 6, which never do, 9 and 20.

    1 fires on the two damaged characters alone, 2 on two characters of five, 0 and 7 in half of the texts alone; 9 in
    place of 8, and 20 on `i`.
    """
    x = planted()
    x[:, 2, 1] = x[:, 8:11, 2] = x[:, :, [4, 6]] = x[120:, :, [0, 7]] = 0
    x[:, 20, 20] = 1
    x[:, :, [8, 9]] = x[:, :, [9, 8]]
    return x


def inspections(layers: dict[int, np.ndarray], concepts=CONCEPTS, saes=None, others=None) -> list[Inspection]:
    """What `inspect_all` makes of the planted streams."""
    texts = len(next(iter(layers.values())))
    sample, position = np.indices((texts, LENGTH))
    values = {layer: jnp.asarray(x) for layer, x in layers.items()}
    batch = StreamBatch(sample, position, np.ones((texts, LENGTH), bool), values)
    saes = [LayerSAE(layer, sae) for layer, sae in zip(layers, saes or [IDENTITY] * len(layers), strict=True)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inspection, "stream", lambda *_: [batch])
        return inspect_all(MODEL, samples_of(texts), saes, concepts=concepts, other_seeds=others)


# ---- the second implementation


def words_of(text: str) -> list[int]:
    out, number = [], 0
    for i, letter in enumerate(text):
        number += i > 0 and " " in (letter, text[i - 1])
        out.append(number)
    return out


WORDS = words_of("xxxxx xxxxx xxxxx umi?")


def stretches(has: np.ndarray) -> list[list[int]]:
    """Of one text: neighbours in one word that have a property."""
    out: list[list[int]] = []
    for i in np.flatnonzero(has):
        if out and out[-1][-1] == i - 1 and WORDS[i] == WORDS[i - 1]:
            out[-1].append(i)
        else:
            out.append([i])
    return out


def counts(fires: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Of each text: firings, those that are right, stretches, those that are found."""
    rows = []
    for on, mine in zip(fires, has, strict=True):
        every = stretches(mine)
        rows.append([on.sum(), (on & mine).sum(), len(every), sum(on[one].any() for one in every)])
    return np.array(rows, float)


def run_of(four: np.ndarray) -> tuple[float, float, float]:
    said, right, every, found = four
    precision, recall = right / said if said else 0.0, found / every if every else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0, precision, recall


class Scored:
    """One latent, one property: the threshold of the even texts on the odd ones, with the bootstrap's interval."""

    def __init__(self, values: np.ndarray, has: np.ndarray) -> None:
        even, odd = values[::2], values[1::2]
        cuts = sorted(set(even[even > 0])) if (even > 0).sum() >= 5 else [np.inf]
        of_cut = [run_of(counts(even >= cut, has[::2]).sum(axis=0))[0] for cut in cuts]
        self.chosen = max(of_cut)
        held_out = counts(odd >= cuts[of_cut.index(self.chosen)], has[1::2])
        self.run, self.precision, self.recall = run_of(held_out.sum(axis=0))
        self.n = int(held_out[:, 2].sum())
        draws = np.random.default_rng(0).multinomial(len(odd), np.full(len(odd), 1 / len(odd)), 1000)
        self.low, self.high = np.quantile([run_of(draw @ held_out)[0] for draw in draws], [0.025, 0.975])

    def beside(self, scores: ConceptScores) -> str:
        return (
            f"run score {self.run:.2f}, {self.low:.2f} to {self.high:.2f}; the best random direction "
            f"{scores.random:.2f}, window of text ({scores.window!r}) {scores.windows:.2f}, neuron {scores.neurons:.2f}"
        )


def has_of(name: str, texts=TEXTS) -> np.ndarray:
    has = np.zeros((texts, LENGTH), bool)
    places = {"damaged": slice(0, 2), "-um": slice(18, 20), "-i": 20}
    if name in places:
        has[:, places[name]] = True
    else:
        has[is_sumerian(texts) == (name == "sumerian")] = True
    return has


def best(x: np.ndarray, has: np.ndarray) -> tuple[int, Scored]:
    """The latent with the best score on even texts; the first of equals."""
    every = [Scored(np.maximum(x[:, :, i], 0), has) for i in range(D)]
    at = max(range(D), key=lambda i: every[i].chosen)
    return at, every[at]
