"""How far probabilities can be believed: their calibration error, and the temperature that mends it.

A temperature divides the logits (Guo et al. 2017, On Calibration of Modern Neural Networks). It is fitted by likelihood
on gaps that are made in whole texts: in a dataset, a fifth of every text is damaged; what a user asks is mostly whole.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar

from jaxsae.errors import require
from jaxsae.models.protocol import ResidualModel
from jaxsae.restore.fillings import CONTEXT
from jaxsae.restore.places import Asked, around, logits_of
from jaxsae.restore.search import Hole
from jaxsae.text.damaged_text import DAMAGED
from jaxsae.text.samples import Samples, check_samples

BINS = 15
"""Of the calibration error; each of them has the same number of places."""
GAPS = 300
"""So many gaps the temperature is fitted on."""
GAP_LENGTHS = range(1, 11)
"""Characters in them, as many of each: training damaged spans of 2 to 10, and single ones."""
AROUND = 20
"""Characters that a text must have around such a gap."""


class Made(NamedTuple):
    """A gap that was made in a whole text."""

    hole: Hole
    true: Int[np.ndarray, " length"]


class Calibration(NamedTuple):
    """A temperature and what it was fitted on."""

    temperature: float
    places: int
    loss: float
    """Cross-entropy of the true characters, in nats, with the temperature."""
    loss_before: float
    """Without it."""


def make_gaps(model: ResidualModel, samples: Samples, lengths: range, n: int, seed: int = 0) -> list[Made]:
    """Gaps in whole texts, of one length after another, each in a text and at a place that are drawn.

    Fewer, or none, where texts are too short for a length.
    """
    check_samples(samples, model.tokenizer, model.max_position)
    rng = np.random.default_rng(seed)
    damaged = int(model.tokenizer.encode(DAMAGED)[0])
    texts = {length: np.flatnonzero(samples.lengths >= length + AROUND) for length in lengths}
    out = []
    for i in range(n):
        length = lengths[i % len(lengths)]
        if not len(texts[length]):
            continue
        sample = rng.choice(texts[length])
        whole = samples.true_ids[sample, : samples.lengths[sample]]
        start = int(rng.integers(0, len(whole) - length + 1))
        ids = whole.copy()
        ids[start : start + length] = damaged
        seen = around(len(ids), start, start + length, CONTEXT)
        hole = Hole(ids[seen], start - seen.start, start - seen.start + length)
        out.append(Made(hole, whole[start : start + length]))
    return out


def calibrate(model: ResidualModel, samples: Samples, n: int = GAPS) -> Calibration | None:
    """The temperature that makes the true characters of gaps in these texts most likely; None where no text has room."""
    made = make_gaps(model, samples, GAP_LENGTHS, n)
    if not made:
        return None
    logits = logits_of(model, [Asked(m.hole.ids, np.arange(m.hole.start, m.hole.end)) for m in made])
    return fit_temperature(logits, np.concatenate([m.true for m in made]))


def fit_temperature(logits: Float[np.ndarray, "n vocab"], true: Int[np.ndarray, " n"]) -> Calibration:
    """The temperature, from 1/8 to 8, with which the true tokens are most likely."""
    require(len(true) > 0, "a temperature must be fitted on at least one place, got none")

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.float32(np.exp(log_temperature)))[np.arange(len(true)), true].mean())

    found = minimize_scalar(loss, bounds=(-np.log(8), np.log(8)), method="bounded", options={"xatol": 1e-3})
    return Calibration(float(np.exp(found.x)), len(true), float(found.fun), loss(0.0))


def log_softmax(logits: Float[np.ndarray, "n vocab"]) -> Float[np.ndarray, "n vocab"]:
    """Log-probabilities, on the host."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def calibration_error(
    probability: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], *, bins: int = BINS, equal_width: bool = False
) -> float:
    """Expected calibration error: mean over bins of |share that is right - mean probability|, weighted by their size.

    Args:
      equal_width: bins of equal width, as in the paper; most of them are then nearly empty for a model that is sure.
        Else each has as many values as the others.
    """
    order = np.argsort(probability, kind="stable")
    if equal_width:
        of = np.minimum((probability[order] * bins).astype(int), bins - 1)
        parts = [order[of == b] for b in range(bins)]
    else:
        parts = np.array_split(order, bins)
    gaps = [abs(float(right[part].mean() - probability[part].mean())) * len(part) for part in parts if len(part)]
    return sum(gaps) / max(1, len(order))
