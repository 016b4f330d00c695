"""Cleaned text -> token ids with damage, and the split into train, validation and test.

Everything here reproduces the original preprocessing exactly, draw for draw: a text that the model was trained on must
not turn up as held-out.
"""

import math
import random
from collections.abc import Iterable

import numpy as np

from jaxsae.text.tokenizer import UNICODE

MAX_LENGTH = 768
"""Only the first so many characters of a fragment are used."""
PADDING_ID = ord(" ")
"""A space, which is an ordinary character too: only the attention mask says what is padding."""
NO_LABEL = -100
"""The label of a position that is not damaged."""
SPAN, SINGLE = ord("#"), ord("-")
"""What damaged characters become. `-` also joins signs in the text: only the labels say what is damaged."""


def mask_text(n: int, rng: random.Random) -> dict[int, int]:
    """Damage a text of `n` characters: position -> the id that stands there then, for 15-25 % of the positions.

    The order and number of draws are the original's, so that a seed gives the same damage.
    """
    target = max(1, int(n * rng.uniform(0.15, 0.25)))
    damaged: dict[int, int] = {}
    for _ in range(3 * n):
        if len(damaged) >= target:
            break
        if rng.random() < 0.3:
            length = rng.randint(2, 10)
            start = rng.randint(0, max(0, n - length))
            for position in range(start, min(n, start + length)):
                damaged.setdefault(position, SPAN)  # the last span may overshoot the target
        else:
            damaged.setdefault(rng.randint(0, n - 1), SINGLE)
    return damaged


def prepare(texts: Iterable[str], seed: int) -> dict[str, np.ndarray]:
    """Cleaned texts -> model input: `input_ids` and `labels` int32, `attention_mask` int8, each [n, 768].

    One generator damages all texts in their order. Empty texts must be left out beforehand.
    """
    rng = random.Random(seed)
    ids_of = [UNICODE.encode(text[:MAX_LENGTH]) for text in texts]
    shape = (len(ids_of), MAX_LENGTH)
    input_ids = np.full(shape, PADDING_ID, np.int32)
    labels = np.full(shape, NO_LABEL, np.int32)
    attention_mask = np.zeros(shape, np.int8)
    for row, ids in enumerate(ids_of):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
        for position, becomes in mask_text(len(ids), rng).items():
            labels[row, position] = ids[position]
            input_ids[row, position] = becomes
    return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


def _split_off(n: int, seed: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(ceil(share * n) of the numbers 0..n-1, the others), in an order drawn with the seed."""
    order, size = np.random.default_rng(seed).permutation(n), math.ceil(share * n)
    return order[:size], order[size:]


def split_indices(n: int, seed: int = 42) -> dict[str, np.ndarray]:
    """Which of `n` samples are in train (80 %), validation and test (10 % each), in the split's order.

    The rows that Hugging Face `datasets` gives for shuffle, then train_test_split twice, all with `seed`.
    """
    shuffled = np.random.default_rng(seed).permutation(n)
    held_out, train = _split_off(n, seed, 0.2)
    test, validation = _split_off(len(held_out), seed, 0.5)
    return {"train": shuffled[train], "validation": shuffled[held_out[validation]], "test": shuffled[held_out[test]]}
