"""The counting baseline, against the same formula written out for one character at a time."""

from collections import Counter

import numpy as np
import pytest

from jaxsae.models import ngram
from jaxsae.text import preparation
from jaxsae.text.samples import Samples

TEXTS = ["a-na be-li-ia", "a-na a-bi-ia qi", "lugal kala-ga", "lugal uri-ma na"]


def samples(texts, seed):
    columns = preparation.prepare(texts, seed)
    return Samples(*(columns[name][:, :20] for name in ("input_ids", "labels", "attention_mask")))


def slow(train, test, order):
    """Witten-Bell by dictionaries of strings; None stands for the edge of the text."""
    vocab = sorted({int(c) for s in train for row, n in zip(s.true_ids, s.lengths, strict=True) for c in row[:n]})

    def neighbours(ids, n, at, count, step):
        spots = [at + step * d for d in range(1, count + 1)]
        return tuple(int(ids[i]) if 0 <= i < n else None for i in spots)

    counts = {(step, length): {} for step in (-1, 1) for length in range(1, order)}
    first = Counter()
    for s in train:
        for ids, true, n in zip(s.ids, s.true_ids, s.lengths, strict=True):
            for at in range(n):
                first[int(true[at])] += 1
                for (step, length), table in counts.items():
                    table.setdefault(neighbours(ids, n, at, length, step), Counter())[int(true[at])] += 1
    start = np.array([first[c] + 1 for c in vocab]) / (sum(first.values()) + len(vocab))
    rows = []
    for ids, labels, n in zip(test.ids, test.labels, test.lengths, strict=True):
        for at in np.flatnonzero(labels != preparation.NO_LABEL):
            sides = []
            for step in (-1, 1):
                p = start
                for length in range(1, order):
                    table = counts[step, length].get(neighbours(ids, n, at, length, step))
                    if table:
                        seen = np.array([table[c] for c in vocab])
                        p = (seen + len(table) * p) / (seen.sum() + len(table))
                sides.append(p)
            both = sides[0] * sides[1] / start
            rows.append(both / both.sum())
    return np.array(rows), np.array(vocab)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_it_is_the_interpolated_ngram_of_both_sides(order):
    train, test = [samples(TEXTS, 0), samples(TEXTS, 1)], samples(["a-na lugal-ia", "be-li uri"], 2)
    ours, vocab = ngram.predict(train, test, order)
    expected, its_vocab = slow(train, test, order)
    np.testing.assert_array_equal(vocab, its_vocab)
    np.testing.assert_allclose(ours, expected, rtol=1e-9)
    assert (test.labels != preparation.NO_LABEL).sum() == len(ours)


def test_longer_contexts_restore_more():
    """A text seen in training: with four neighbours on each side nearly all, with none the most frequent character."""
    train = [samples(TEXTS, seed) for seed in range(30)]
    test = samples(TEXTS, 99)
    true = test.labels[test.labels != preparation.NO_LABEL]
    right = [
        (vocab[p.argmax(axis=1)] == true).mean() for p, vocab in (ngram.predict(train, test, n) for n in (1, 2, 5))
    ]
    assert right[0] < right[1] < right[2]
    assert right[2] > 0.8
