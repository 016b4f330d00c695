"""What token ids stand for, as it was written down: a tokenizer without the model's own."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from jaxsae.errors import InputError
from jaxsae.text.tokenizer import Frame, TokenIds


@dataclass(frozen=True)
class StoredTokenizer:
    """Pieces by their ids; of the whole vocabulary or, as in stored rows, of the ids that occur.

    Args:
      known: id -> what it is shown as.
    """

    known: Mapping[int, str]
    vocab_size: int
    unit: str = "token"
    padding_id: int = 0
    damaged_id: int | None = None
    frame: Frame = ((), ())

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        """Piece -> id, of pieces that can stand in a text; of equal ones the first."""
        special = {self.damaged_id, self.padding_id, *self.frame[0], *self.frame[1]}
        return {
            piece: number for number, piece in reversed(list(self.known.items())) if piece and number not in special
        }

    def encode(self, text: str) -> Int[np.ndarray, " n"]:
        """Ids of a text, int32: from its beginning on, always the longest piece that is known.

        The tokenizer that the pieces are of may divide a text otherwise.

        Raises:
          InputError: no piece begins where one ends.
        """
        ids, longest = self._ids, max(map(len, self._ids), default=0)
        rest = text if not any(piece.startswith(" ") for piece in ids) or text.startswith(" ") else f" {text}"
        found, at = [], 0
        while at < len(rest):
            piece = next((rest[at : at + n] for n in range(longest, 0, -1) if rest[at : at + n] in ids), None)
            if piece is None:
                raise InputError(
                    f"text must be made of the {len(ids):,} pieces that are known here, got {rest[at : at + 20]!r}; give the "
                    "model, whose tokenizer knows all"
                )
            found.append(ids[piece])
            at += len(piece)
        return np.array(found, np.int32)

    def decode(self, ids: TokenIds) -> str:
        """The pieces of ids, as one text."""
        return "".join(self.pieces(ids))

    def pieces(self, ids: TokenIds) -> list[str]:
        """The piece of each id; an empty string for a number of which none is known."""
        return [self.known.get(int(number), "") for number in ids]

    def with_known(self, other: "StoredTokenizer") -> "StoredTokenizer":
        """With the pieces of another of the same model."""
        return replace(self, known={**self.known, **other.known})
