"""A text token by token: what each token is shown as, and where words begin.

The pieces of a text, one behind the other, are the text. Where a token is a character, they are simply a string. Else
the first piece of a word begins with a space, which is no part of what the token means.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from jaxsae.text.tokenizer import CharacterTokenizer, TokenIds, Tokenizer

UNKNOWN = "\ufffd"
"""Stands for a token that should be a character, and is none."""
Pieces = Sequence[str]
"""Of one text; a string where each token is a character."""


def of_characters(tokenizer: Tokenizer) -> bool:
    """Whether each token is a character."""
    return tokenizer.unit == "character"


def of_tablets(tokenizer: Tokenizer) -> bool:
    """Whether texts are transliterations as the restoration model reads them: of these concepts are known."""
    return isinstance(tokenizer, CharacterTokenizer)


def pieces_of(tokenizer: Tokenizer, ids: TokenIds) -> Pieces:
    """The pieces that ids stand for."""
    pieces = tokenizer.pieces(ids)
    if not of_characters(tokenizer):
        return pieces
    return "".join(piece if len(piece) == 1 else UNKNOWN for piece in pieces)


def part(pieces: Pieces, start: int, end: int) -> Pieces:
    """Some of them, as they would begin a text: without a space before the first."""
    some = pieces[start:end]
    return some if isinstance(some, str) or not some else [some[0].removeprefix(" ") or some[0], *some[1:]]


def shown(piece: str, tokenizer: Tokenizer) -> str:
    """A token by itself: a piece with letters that goes on with a word is marked by `##`, as BERT does."""
    if of_characters(tokenizer) or not any(map(str.isalnum, piece)):
        return piece if of_characters(tokenizer) else piece.strip() or piece
    return piece[1:] if piece[0] == " " else f"##{piece}"


def framed(tokenizer: Tokenizer, ids: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " framed"], slice]:
    """(the ids that the model takes for a text, where the text stands in them)."""
    before, behind = (np.asarray(part, np.int32) for part in tokenizer.frame)
    return np.concatenate([before, ids, behind]).astype(np.int32), slice(len(before), len(before) + len(ids))


def is_space(pieces: Pieces) -> Bool[np.ndarray, " n"]:
    """Which tokens are nothing but space."""
    return np.fromiter((piece.isspace() for piece in pieces), bool, len(pieces))


def begins_word(pieces: Pieces) -> Bool[np.ndarray, " n"]:
    """Which tokens begin a word, or are a space; the first one does."""
    space = is_space(pieces)
    first = np.fromiter((len(piece) > 1 and piece[0] == " " for piece in pieces), bool, len(pieces))
    return space | first | np.concatenate([[True], space[:-1]])[: len(space)]


def token_of(pieces: Pieces) -> Int[np.ndarray, " characters"]:
    """Of each character of the text the token that it is in; -1 for a space that only says that a word begins."""
    out = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    starts = np.cumsum([0, *(len(piece) for piece in pieces)])[:-1]
    only_says = [start for start, piece in zip(starts, pieces, strict=True) if piece[:1] == " " and piece.strip()]
    out[only_says] = -1
    return out


def in_units(text: str, unit: str) -> str:
    """A text that speaks of characters, speaking of the tokens that a model has instead."""
    if unit == "character":
        return text
    text = text.replace("character", unit).replace("Character", unit.capitalize())
    return text if unit == "sign" else text.replace("damaged", HIDDEN).replace("restored", "predicted")


HIDDEN = "hidden"
"""What damaged tokens are called where nothing is damaged: in texts of other models than those of tablets."""


def damaged_word(unit: str) -> str:
    """What a token is called that the model does not see."""
    return "damaged" if unit in ("character", "sign") else HIDDEN
