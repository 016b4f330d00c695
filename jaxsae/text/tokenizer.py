"""Text <-> token ids."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from jaxsae.errors import listed, require

TokenIds = Int[np.ndarray, " n"] | Sequence[int]
Frame = tuple[tuple[int, ...], tuple[int, ...]]


@runtime_checkable  # for the tests, which check the types of arguments
class Tokenizer(Protocol):
    """What a model's ids stand for."""

    @property
    def vocab_size(self) -> int:
        """Ids are in 0..vocab_size-1."""

    @property
    def unit(self) -> str:
        """What a token is called: `character`, `sign`, `token`."""

    @property
    def padding_id(self) -> int:
        """The id that stands at padding."""

    @property
    def damaged_id(self) -> int | None:
        """The id that stands where a token is hidden; None: the model has none, it predicts what comes next."""

    @property
    def frame(self) -> Frame:
        """The ids that are put before and behind every text, which are not part of it."""

    def encode(self, text: str) -> Int[np.ndarray, " n"]:
        """Ids of a text, int32, without the frame.

        Raises:
          InputError: something in it has no id; it is named with its position.
        """

    def decode(self, ids: TokenIds) -> str:
        """The text that ids stand for; what `encode` has made becomes the same text again."""

    def pieces(self, ids: TokenIds) -> list[str]:
        """What each id is shown as, so that pieces one behind the other are the text: the first piece of a word begins
        with a space where a token is more than a character. An empty string for a number that stands for nothing.
        """


@dataclass(frozen=True)
class CharacterTokenizer:
    """A token is a character, its id is the Unicode code point."""

    vocab_size: int
    unit: ClassVar[str] = "character"
    padding_id: ClassVar[int] = ord(" ")
    damaged_id: ClassVar[int] = ord("#")
    frame: ClassVar[Frame] = (), ()

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
