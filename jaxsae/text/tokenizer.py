"""Text <-> token ids."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from jaxsae.errors import listed, require

TokenIds = Int[np.ndarray, " n"] | Sequence[int]


@runtime_checkable  # for the tests, which check the types of arguments
class Tokenizer(Protocol):
    """What a model's ids stand for."""

    @property
    def vocab_size(self) -> int:
        """Ids are in 0..vocab_size-1."""

    def encode(self, text: str) -> Int[np.ndarray, " n"]:
        """Ids of a text, int32.

        Raises:
          InputError: something in it has no id; it is named with its position.
        """

    def decode(self, ids: TokenIds) -> str:
        """The text that ids stand for; what `encode` has made becomes the same text again."""

    def pieces(self, ids: TokenIds) -> list[str]:
        """What each id is shown as; an empty string for a number that stands for nothing."""


@dataclass(frozen=True)
class CharacterTokenizer:
    """A token is a character, its id is the Unicode code point."""

    vocab_size: int

    def encode(self, text: str) -> Int[np.ndarray, " n"]:
        """The code points of a text, int32.

        Raises:
          InputError: characters are outside the vocabulary; the first are named with their positions.
        """
        ids = np.array([ord(character) for character in text], np.int32)
        outside = [f"{text[at]!r} at {at}" for at in np.flatnonzero(ids >= self.vocab_size)]
        highest = f"U+{self.vocab_size - 1:04X}"
        require(
            not outside,
            f"text must have characters of the model's vocabulary (up to {highest}), got {listed(outside)}",
        )
        return ids

    def decode(self, ids: TokenIds) -> str:
        """The characters with these code points, as one text."""
        return "".join(map(chr, ids))

    def pieces(self, ids: TokenIds) -> list[str]:
        """The character of each code point; an empty string for a number that is none."""
        return [chr(number) if 0 <= number <= sys.maxunicode else "" for number in ids]


UNICODE = CharacterTokenizer(sys.maxunicode + 1)
"""Of every character: texts in datasets are not of one model."""
