"""How tokens that are parts of words are written in a vocabulary -> the pieces that joined are the text."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Literal

Spelling = Literal["wordpiece", "sentencepiece", "bytes", "words", "plain"]
"""`##` goes on with a word; `▁` stands for a space; each character for a byte, `Ġ` for a space; each a word; as is."""


def spelling_of(vocabulary: Iterable[str]) -> Spelling:
    """How the tokens of a vocabulary are written, as its tokens show."""
    words = list(vocabulary)
    if any(word.startswith("Ġ") for word in words):
        return "bytes"
    if any(word.startswith("▁") for word in words):
        return "sentencepiece"
    return "wordpiece" if any(word.startswith("##") for word in words) else "plain"


def pieces(spelling: Spelling, words: Sequence[str], special: Sequence[bool]) -> list[str]:
    """What each token is shown as; the first piece of a word begins with a space.

    Args:
      words: tokens as the vocabulary has them.
      special: which of them are no text; these are shown as they are.
    """
    if spelling == "bytes":
        return _of_bytes(words, special)
    return [word if no_text else _shown(spelling, word) for word, no_text in zip(words, special, strict=True)]


def _shown(spelling: Spelling, word: str) -> str:
    if spelling == "words" and word:
        return f" {word}"
    if spelling == "wordpiece" and word:
        return word[2:] if word.startswith("##") else f" {word}"
    return word.replace("▁", " ") if spelling == "sentencepiece" else word


def _letters() -> dict[str, int]:
    """The character that byte-level BPE writes for each byte -> the byte.

    Printable ones of Latin-1 are themselves, the others are U+0100 and those behind it, in their order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTES = _letters()


def _of_bytes(words: Sequence[str], special: Sequence[bool]) -> list[str]:
    """Pieces of byte-level tokens: a character of several tokens stands at the last of them."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    out = []
    for at, (word, no_text) in enumerate(zip(words, special, strict=True)):
        if no_text or any(letter not in BYTES for letter in word):
            out.append(decoder.decode(b"", True) + word)
        else:
            out.append(decoder.decode(bytes(BYTES[letter] for letter in word), at == len(words) - 1))
    return out
