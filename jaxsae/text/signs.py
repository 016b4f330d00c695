"""Cuneiform signs <-> token ids: five special tokens, then the signs of a vocabulary."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int

from jaxsae.errors import InputError, listed, require
from jaxsae.files import read_json
from jaxsae.text.tokenizer import TokenIds

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The tokens that are no signs, by their ids."""
PAD, UNK, CLS, SEP, MASK = range(5)


@dataclass(frozen=True)
class SignTokenizer:
    """A token is a sign, as it stands between white space; signs outside the vocabulary are all one, `[UNK]`.

    Args:
      signs: what each id stands for, the special tokens first; empty where that is not known.
      vocab_size: how many ids there are; by default, as many as `signs`.
    """

    signs: tuple[str, ...]
    vocab_size: int = 0
    unit: ClassVar[str] = "sign"
    padding_id: ClassVar[int] = PAD
    damaged_id: ClassVar[int] = MASK
    frame: ClassVar[tuple[tuple[int, ...], tuple[int, ...]]] = ((CLS,), (SEP,))
    """Ids that are put before and after a text."""

    def __post_init__(self) -> None:
        if not self.vocab_size:
            object.__setattr__(self, "vocab_size", len(self.signs))

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        known = bool(self.signs)
        require(known, "signs must be known by a vocabulary, got none; give the model's vocab.json (vocab=FILE)")
        return {sign: number for number, sign in enumerate(self.signs)}

    def encode(self, text: str) -> Int[np.ndarray, " n"]:
        """Ids of the signs of a text, int32, without a frame.

        Raises:
          InputError: the vocabulary is not known.
        """
        ids = self._ids
        return np.array([ids.get(sign, UNK) for sign in text.split()], np.int32)

    def decode(self, ids: TokenIds) -> str:
        """The signs that ids stand for, with a blank between them."""
        return " ".join(self._name(int(number)) for number in ids)

    def pieces(self, ids: TokenIds) -> list[str]:
        """Each sign with the blank before it, so that joined they are the text; what frames and fills it, by its name.

        Where the vocabulary is not known, the number stands for the sign.
        """
        return [
            self._name(n) if n in (PAD, CLS, SEP) or not self._has(n) else f" {self._name(n)}" for n in map(int, ids)
        ]

    def _has(self, number: int) -> bool:
        return 0 <= number < self.vocab_size

    def _name(self, number: int) -> str:
        if not self._has(number):
            return ""
        if number < len(SPECIAL):
            return SPECIAL[number]
        return self.signs[number] if self.signs else str(number)


def read_vocabulary(path: str | Path, vocab_size: int) -> tuple[str, ...]:
    """The signs of a `vocab.json` by their ids.

    Args:
      path: `{"sign_to_id": {sign: id}, "id_to_sign": {"id": sign}, "vocab_size": n}`; counts beside are ignored.
      vocab_size: of the model.

    Raises:
      InputError: no such file, ids that are not 0..vocab_size-1, or two maps that do not agree.
    """
    path = Path(path)
    require(path.is_file(), f"vocab must be a vocab.json, got {path}, which is no file")
    content = read_json(path)
    keys = ("sign_to_id", "id_to_sign")
    ok = isinstance(content, dict) and all(isinstance(content.get(key), dict) for key in keys)
    require(ok, f"{path}: must be a vocab.json with the objects {' and '.join(keys)}, got {type(content).__name__}")
    id_of, sign_of = _numbered(content, path)
    n = len(id_of)
    differ = [f"{number} is {sign!r}" for number, sign in sign_of.items() if id_of.get(sign) != number]
    require(not differ, f"{path}: sign_to_id must say the same as id_to_sign, got others: {listed(differ)}")
    missing = sorted(set(range(n)) - set(sign_of))
    ok = not missing and len(sign_of) == n
    require(ok, f"{path}: ids must be 0..{n - 1}, each once, got none for {listed(missing) or 'some signs'}")
    said = content.get("vocab_size", n)
    require(said == n, f"{path}: vocab_size must be the number of its signs, {n}, got {said!r}")
    require(
        n == vocab_size, f"{path}: must have the model's {vocab_size} ids, got {n}; give the model's own vocab.json"
    )
    signs = tuple(sign_of[number] for number in range(n))
    ok = signs[: len(SPECIAL)] == SPECIAL
    require(ok, f"{path}: the first ids must be {', '.join(SPECIAL)}, got {listed(signs[: len(SPECIAL)], 5)}")
    return signs


def _numbered(content: Mapping[str, Any], path: Path) -> tuple[dict[str, int], dict[int, str]]:
    """sign -> id, and id -> sign with ids that are numbers."""
    id_of, sign_of = content["sign_to_id"], content["id_to_sign"]
    wrong = [repr(sign) for sign, number in id_of.items() if not isinstance(number, int) or isinstance(number, bool)]
    require(not wrong, f"{path}: sign_to_id must give each sign a whole number, got others for {listed(wrong)}")
    wrong = [key for key, sign in sign_of.items() if not (key.isascii() and key.isdecimal() and isinstance(sign, str))]
    require(not wrong, f"{path}: id_to_sign must give each number a sign, got {listed(wrong)}")
    by_number = {int(key): sign for key, sign in sign_of.items()}
    if len(by_number) < len(sign_of):
        raise InputError(f"{path}: id_to_sign must name each id once, got one written in two ways")
    return id_of, by_number
