"""What counting alone restores: the n-gram baseline that a trained model has to beat.

A character's probability is taken from the characters before it and from those behind it. Each side is an n-gram
interpolated with its shorter ones (Witten and Bell 1991); the two are combined as if independent given the character.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxsae.text.samples import Samples


def predict(
    train: Sequence[Samples], test: Samples, order: int = 5
) -> tuple[Float[np.ndarray, "damaged vocab"], Int[np.ndarray, " vocab"]]:
    """(probability of each character at each damaged position of `test`, the characters' token ids).

    Positions are in the order of the text. Neighbours are taken as the model sees them, damaged ones included, so that
    `train` should be damaged as `test` is; the same texts with other damage may be given several times.

    Args:
      order: of the n-grams: `order - 1` neighbours on either side.
    """
    vocab = np.unique(np.concatenate([s.true_ids[s.real] for s in train]))
    seen = np.unique(np.concatenate([s.ids[s.real] for s in (*train, test)]))
    truth = np.concatenate([s.true_ids[s.real] for s in train])
    targets = np.searchsorted(vocab, truth)
    start = (np.bincount(targets, minlength=len(vocab)) + 1) / (len(targets) + len(vocab))
    damaged = test.damaged[test.real]

    log_p = np.zeros((int(damaged.sum()), len(vocab)))
    for step in (-1, 1):
        contexts = [
            np.concatenate(parts) for parts in zip(*(_contexts(s, seen, order, step) for s in train), strict=True)
        ]
        asked = [context[damaged] for context in _contexts(test, seen, order, step)]
        p = np.broadcast_to(start, log_p.shape)
        for context, wanted in zip(contexts, asked, strict=True):
            p = _longer(p, context * len(vocab) + targets, wanted, len(vocab))
        log_p += np.log(p)
    log_p -= np.log(start)
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True), vocab


def _contexts(samples: Samples, seen: np.ndarray, order: int, step: int) -> list[np.ndarray]:
    """A number for the 1, 2, ... order - 1 neighbours of each real character, before it (step -1) or behind (1)."""
    symbols = np.where(samples.real, np.searchsorted(seen, samples.ids) + 1, 0).astype(np.int64)  # 0: the edge
    padded = np.pad(symbols, ((0, 0), (order, order)))
    code, out = np.zeros_like(symbols), []
    for distance in range(1, order):
        first = order + step * distance
        code = code * (len(seen) + 1) + padded[:, first : first + symbols.shape[1]]
        out.append(code[samples.real])
    return out


def _longer(shorter: np.ndarray, counted: np.ndarray, wanted: np.ndarray, n_vocab: int) -> np.ndarray:
    """Witten-Bell: (count + types * shorter) / (total + types) for the contexts `wanted`; `shorter` for unseen ones."""
    keys, counts = np.unique(counted, return_counts=True)
    contexts, first = np.unique(keys // n_vocab, return_index=True)
    totals, types = np.add.reduceat(counts, first), np.diff(np.append(first, len(keys)))

    def look_up(table: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        at = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
        return np.where(table[at] == wanted, values[at], 0)

    total, kinds = look_up(contexts, totals, wanted)[:, None], look_up(contexts, types, wanted)[:, None]
    count = look_up(keys, counts, wanted[:, None] * n_vocab + np.arange(n_vocab))
    return np.where(total > 0, (count + kinds * shorter) / np.maximum(total + kinds, 1), shorter)
