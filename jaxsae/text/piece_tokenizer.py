"""A tokenizer of two functions, as a user's own model or another library has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxsae.errors import InputError, listed, require
from jaxsae.text.tokenizer import Frame, TokenIds

MOST_LOOKED_AT = 2**17
"""A larger vocabulary is not one of characters."""


@dataclass(frozen=True)
class PieceTokenizer:
    """Text -> ids, and ids -> pieces, by functions that are given.

    Args:
      to_ids: text -> token ids, without the frame.
      to_pieces: ids -> what each is shown as; joined, the text.
    """

    to_ids: Callable[[str], Sequence[int]]
    to_pieces: Callable[[Sequence[int]], Sequence[str]]
    vocab_size: int
    unit: str = "token"
    padding_id: int = 0
    damaged_id: int | None = None
    frame: Frame = ((), ())

    @classmethod
    def named(cls, unit: str, to_ids: Any, to_pieces: Any, vocab_size: int, *about: Any) -> "PieceTokenizer":
        """With tokens called characters exactly where each is one, whatever `unit` says.

        Args:
          unit: what they are called else.
          about: the fields after `unit`.
        """
        others = {n for part in about if isinstance(part, tuple) for side in part for n in side} | set(about[:2])
        found = cls(to_ids, to_pieces, vocab_size, unit, *about)
        pieces = found.pieces([n for n in range(min(vocab_size, MOST_LOOKED_AT)) if n not in others])
        single = vocab_size <= MOST_LOOKED_AT and all(len(piece) == 1 for piece in pieces)
        return replace(found, unit="character" if single else "token" if unit == "character" else unit)

    def encode(self, text: str) -> Int[np.ndarray, " n"]:
        """Ids of a text, int32, without the frame.

        Raises:
          InputError: the function fails, or gives something else than ids of the vocabulary.
        """
        ids = _called(self.to_ids, "encode", text)
        try:
            found = np.asarray(list(ids))
        except (TypeError, ValueError):
            found = np.zeros((1, 1))
        ok = found.ndim == 1 and (not found.size or found.dtype.kind in "iu")
        require(ok, f"encode must give a list of token ids, got {type(ids).__name__} for {text[:40]!r}")
        outside = [int(n) for n in found if not 0 <= n < self.vocab_size]
        require(not outside, f"encode must give ids in 0..{self.vocab_size - 1}, got {listed(outside)}")
        return found.astype(np.int32)

    def decode(self, ids: TokenIds) -> str:
        """The text that ids stand for."""
        return "".join(self.pieces(ids))

    def pieces(self, ids: TokenIds) -> list[str]:
        """What each id is shown as; an empty string for a number that stands for nothing.

        Raises:
          InputError: the function fails, or gives something else than a text for each id.
        """
        numbers = [int(n) for n in ids]
        known = [n for n in numbers if 0 <= n < self.vocab_size]
        found = _called(self.to_pieces, "pieces", known)
        ok = isinstance(found, list | tuple) and len(found) == len(known) and all(isinstance(p, str) for p in found)
        require(ok, f"pieces must give a list of one text for each of {len(known)} ids, got {_described(found)}")
        left = iter(found)
        return [next(left) if 0 <= n < self.vocab_size else "" for n in numbers]


def _called(function: Callable[[Any], Any], name: str, given: Any) -> Any:
    try:
        return function(given)
    except InputError:
        raise
    except Exception as error:  # it is the user's own
        raise InputError(f"{name}({given!r:.60}) must work, got {type(error).__name__}: {error}") from error


def _described(found: Any) -> str:
    return f"{len(found)} of {type(found).__name__}" if isinstance(found, list | tuple) else type(found).__name__
