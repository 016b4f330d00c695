"""Passages by their letters alone: n-grams of characters, weighted by how rare they are (TF-IDF)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int, UInt64

from jaxsae.text.tokenizer import UNICODE

SIZES = (2, 3, 4)
"""Characters of an n-gram."""
FEWEST = 2
"""Passages that an n-gram must stand in to be counted."""
BITS = 16
"""Of a character's number in an n-gram's: four make 64."""


@dataclass(frozen=True)
class Letters:
    """The n-grams of a corpus, and the weight of each: ln((1 + n) / (1 + passages with it)) + 1."""

    alphabet: Int[np.ndarray, " characters"]
    """The characters of the corpus, ascending."""
    grams: UInt64[np.ndarray, " grams"]
    """Number of each n-gram, ascending: its characters' places in the alphabet, counted from 1, 16 bits for each."""
    weights: Float[np.ndarray, " grams"]

    @classmethod
    def of(cls, passages: Sequence[str]) -> "Letters":
        """Those of a corpus that stand in at least `FEWEST` of its passages."""
        alphabet = np.unique(np.concatenate([UNICODE.encode(passage) for passage in [*passages, ""]]))
        alphabet = alphabet[: (1 << BITS) - 1]
        found = [np.zeros(0, np.uint64)]
        frequency = np.zeros(0, np.int64)
        for start in range(0, len(passages), 4096):
            numbers = [np.unique(_grams(passage, alphabet)) for passage in passages[start : start + 4096]]
            keys, count = np.unique(np.concatenate(numbers), return_counts=True)
            every, back = np.unique(np.concatenate([found[-1], keys]), return_inverse=True)
            frequency = np.bincount(back, np.concatenate([frequency, count]), len(every)).astype(np.int64)
            found = [every]
        kept = frequency >= FEWEST
        weights = np.log((1 + len(passages)) / (1 + frequency[kept])) + 1
        return cls(alphabet, found[-1][kept], weights.astype(np.float32))

    def vectors(self, passages: Sequence[str]) -> scipy.sparse.csr_matrix:
        """A row of length 1 for each passage: (1 + ln(count)) * weight of each n-gram; 0 where it has none of them."""
        columns, values, starts = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)], [0]
        for passage in passages:
            keys, count = np.unique(_grams(passage, self.alphabet), return_counts=True)
            at = np.searchsorted(self.grams, keys)
            known = at < len(self.grams)
            known[known] = self.grams[at[known]] == keys[known]
            row = (1 + np.log(count[known])) * self.weights[at[known]]
            columns.append(at[known].astype(np.int32))
            values.append((row / max(float(np.linalg.norm(row)), 1e-12)).astype(np.float32))
            starts.append(starts[-1] + int(known.sum()))
        shape = (len(passages), len(self.grams))
        return scipy.sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), starts), shape)


def _grams(passage: str, alphabet: Int[np.ndarray, " characters"]) -> UInt64[np.ndarray, " n"]:
    """The number of each n-gram of a passage whose characters are all in the alphabet."""
    ids = UNICODE.encode(passage)
    place = np.searchsorted(alphabet, ids)
    known = place < len(alphabet)
    known[known] = alphabet[place[known]] == ids[known]
    place, out = (place + 1).astype(np.uint64), [np.zeros(0, np.uint64)]
    for size in SIZES:
        n = len(ids) - size + 1
        if n < 1:
            break
        keys, whole = np.zeros(n, np.uint64), np.ones(n, bool)
        for i in range(size):
            keys |= place[i : i + n] << np.uint64(BITS * i)
            whole &= known[i : i + n]
        out.append(keys[whole])
    return np.concatenate(out)
