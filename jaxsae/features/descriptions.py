"""Ways to say of a character what it is and where it stands: the words from which captions of latents are made.

A family gives each character at most one value: the character itself, its class, the sign that it is part of, the word
before, ... What a text has in common with others of its language or genre comes in as a concept.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxsae.features.judged_text import JudgedText
from jaxsae.text.pieces import Pieces, damaged_word, part, shown

MOST_VALUES = 2048
"""The commonest values of a family; characters with a rarer one have none."""
FEWEST_CHARACTERS = 5
"""A value that fewer characters have where captions are chosen is not used."""
MOST_JOINED = 4
"""Values of one family that a caption joins, at most: "a, u, i"."""
COMPLEXITY = 0.02
"""F1 by which a description must be better for each step that it says more."""
SEPARATORS = "-.:+×|"
"""Between the signs of a word."""
DAMAGED = "damaged"


class Label(NamedTuple):
    """Completes "fires on ..."; kept in parts, so that labels that are joined say once what they share."""

    form: str
    """With a `{}` for each part."""
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return self.form.format(*self.parts)


class Family(NamedTuple):
    """Descriptions of which at most one is true of a character."""

    name: str
    value: Int[np.ndarray, " n"]
    """Of each judged character, an index into `labels`; -1: none is true."""
    labels: list[Label]
    cost: int
    """How much is said at once: of two descriptions that fit nearly as well, the simpler is taken."""

    def words(self, members: Sequence[int]) -> str:
        """Some of the descriptions as one."""
        return joined([self.labels[i] for i in members])

    def holds(self, members: Sequence[int]) -> Bool[np.ndarray, " n"]:
        """The characters that one of them is true of."""
        return np.isin(self.value, members)


def joined(labels: Sequence[Label]) -> str:
    """Labels as one description: what they have in common is said once, single characters by their class."""
    forms = {label.form for label in labels}
    if len(labels) > 1 and len(forms) == 1:
        form, count = labels[0].form, len(labels[0].parts)
        for at in reversed(range(count)):  # "u after d, g" before "a, u after d"
            rest = {label.parts[:at] + label.parts[at + 1 :] for label in labels}
            if len(rest) == 1:
                parts = list(labels[0].parts)
                every = [label.parts[at] for label in labels]
                parts[at] = _of_one_class(every) if form == "{}" else ", ".join(every)
                return form.format(*parts)
    return ", ".join(str(label) for label in labels)


def _of_one_class(parts: Sequence[str]) -> str:
    """A list; single characters of one class with its name: "vowels a, u, i"."""
    listed = ", ".join(parts)
    classes = {character_class(part) if len(part) == 1 else "" for part in parts}
    (name, *others) = classes
    return listed if others or not name else f"{name} {listed}"


def character_class(character: str) -> str:
    """The class of a character, or of a token of several, in the plural."""
    if len(character) > 1:
        return token_class(character)
    if character == " ":
        return "spaces"
    if character == "-":
        return "hyphens"
    if character.isnumeric():
        return "numerals"
    if character.isupper():
        return "capitals"
    if character.isalpha():
        return "vowels" if unicodedata.normalize("NFD", character)[0] in "aeiou" else "consonants"
    return "other marks"


def token_class(piece: str) -> str:
    """The class of a token of several characters, in the plural: by its letters, and whether it begins a word."""
    bare = piece.removeprefix("##").strip()
    if not bare:
        return "spaces"
    if any(map(str.isnumeric, bare)):
        return "numerals"
    if not any(map(str.isalpha, bare)):
        return "other marks"
    if bare.isupper():
        return "capitals"
    if bare[0].isupper():
        return "tokens with a capital"
    return "tokens within a word" if piece.startswith("##") else "tokens of small letters"


def family_of(name: str, keys: Sequence, label: Callable[..., Label], cost: int, half: Int[np.ndarray, " n"]) -> Family:
    """A family from one key for each character: None stands for no value; `label` makes the words of a key."""
    numbers: dict = {}
    value = np.fromiter(
        (-1 if key is None else numbers.setdefault(key, len(numbers)) for key in keys), np.int64, len(keys)
    )
    counts = np.bincount(value[(value >= 0) & (half == 0)], minlength=len(numbers))
    kept = np.argsort(-counts, kind="stable")[:MOST_VALUES]
    kept = kept[counts[kept] >= FEWEST_CHARACTERS]
    new = np.full(len(numbers) + 1, -1, np.int64)  # the last one is for -1
    new[kept] = np.arange(len(kept))
    names = list(numbers)
    labels = [label(*names[i]) if isinstance(names[i], tuple) else label(names[i]) for i in kept]
    return Family(name, new[value], labels, cost)


class _Units(NamedTuple):
    """Signs or words: for each character the one it is in."""

    number: Int[np.ndarray, " n"]
    start: Int[np.ndarray, " units"]
    text: list[str]

    @classmethod
    def of(cls, pieces: Pieces, new: Bool[np.ndarray, " n"]) -> "_Units":
        start = np.flatnonzero(new)
        ends = [*start[1:].tolist(), len(pieces)]
        spans = zip(start.tolist(), ends, strict=True)
        return cls(np.cumsum(new) - 1, start, ["".join(part(pieces, a, b)) for a, b in spans])


def letters_of(text: JudgedText) -> tuple[list[str], list[str]]:
    """(what each character is shown as, the same as the model sees it: damaged ones are `DAMAGED`)."""
    letters = [shown(piece, text.samples.tokenizer) for piece in text.pieces]
    return letters, [DAMAGED if hidden else s for hidden, s in zip(text.damaged.tolist(), letters, strict=True)]


def classes_of(seen: Sequence[str]) -> list[str]:
    """The class of each character, as the model sees it: `DAMAGED` is one."""
    classes = {s: s if s == DAMAGED else character_class(s) for s in set(seen)}
    return [classes[s] for s in seen]


def hidden_families(text: JudgedText) -> Iterator[Family]:
    """What stands where the model sees damage, by its class and by itself."""
    letters, _ = letters_of(text)
    hidden = [letter if d else None for d, letter in zip(text.damaged.tolist(), letters, strict=True)]
    label = Words(text.samples.tokenizer.unit).hidden
    yield family_of("damaged class", [h and character_class(h) for h in hidden], label, 1, text.half)
    yield family_of("damaged character", hidden, label, 1, text.half)


def families(text: JudgedText) -> Iterator[Family]:
    """All families of a text, one after another."""
    tokenizer = text.samples.tokenizer
    n, half = len(text), text.half
    letters, seen = letters_of(text)
    first_of_sample = np.diff(text.sample, prepend=-1) != 0
    last_of_sample = np.append(first_of_sample[1:], True)
    words = Words(tokenizer.unit)
    one, two = words.one, words.two

    yield family_of("class", classes_of(seen), one("{}"), 0, half)
    yield family_of("character", seen, one("{}"), 0, half)
    yield from hidden_families(text)

    units = _Units.of(text.pieces, text.begins_word)
    if len(units.start) < n:  # else each token is a word
        yield from _in_words(text, letters, units, words, first_of_sample, last_of_sample)

    before = [None if first_of_sample[i] else seen[i - 1] for i in range(n)]
    after = [None if last_of_sample[i] else seen[i + 1] for i in range(n)]
    yield family_of("before", before, one("what follows {}"), 1, half)
    yield family_of("after", after, one("what stands before {}"), 1, half)
    yield family_of(
        "pair before", [b and (s, b) for b, s in zip(before, seen, strict=True)], two("{} after {}"), 1, half
    )
    yield family_of(
        "pair after", [a and (s, a) for a, s in zip(after, seen, strict=True)], two("{} before {}"), 1, half
    )
    triples = [b and a and (s, b, a) for b, s, a in zip(before, seen, after, strict=True)]
    yield family_of("window", triples, words.between, 3, half)


class Words(NamedTuple):
    """Labels of tokens."""

    unit: str

    def quoted(self, key: str) -> str:
        """A token, or what it is called."""
        return {DAMAGED: f"{damaged_word(self.unit)} {self.unit}s", " ": "spaces", "-": "hyphens"}.get(key, key)

    def one(self, form: str) -> Callable[[str], Label]:
        """Labels of one token."""
        return lambda key: Label(form, (self.quoted(key),))

    def two(self, form: str) -> Callable[[str, str], Label]:
        """Labels of two."""
        return lambda first, second: Label(form, (self.quoted(first), self.quoted(second)))

    def hidden(self, key: str) -> Label:
        """Of a token, or of a class, that the model does not see."""
        return Label(f"{damaged_word(self.unit)} {{}}", (self.quoted(key),))

    def one_of_class(self, form: str) -> Callable[[str], Label]:
        """Labels of one token of a class: "a vowel"."""

        def label(key: str) -> Label:
            if key == DAMAGED:
                return Label(form, (f"a {damaged_word(self.unit)} {self.unit}",))
            name, *rest = key.split(" ")
            return Label(form, ("another mark" if name == "other" else " ".join(["a", name.removesuffix("s"), *rest]),))

        return label

    def between(self, token: str, before: str, after: str) -> Label:
        """Of a token between two others."""
        return Label("{} between {}", (self.quoted(token), f"{self.quoted(before)} and {self.quoted(after)}"))


def _in_words(
    text: JudgedText,
    letters: Sequence[str],
    words: _Units,
    said: Words,
    first_of_sample: Bool[np.ndarray, " n"],
    last_of_sample: Bool[np.ndarray, " n"],
) -> Iterator[Family]:
    """Families of words, and of what stands where in them."""
    n, half, space = len(text), text.half, text.is_space.tolist()
    in_word = (np.arange(n) - words.start[words.number]).tolist()
    word = [None if s else words.text[i] for s, i in zip(space, words.number.tolist(), strict=True)]
    ends_word = (last_of_sample | np.append(text.begins_word[1:], True)).tolist()

    def of_word(letter: str, begins: bool, ends: bool) -> Label:
        return Label("{}" + PLACES[begins, ends], (said.quoted(letter),))

    places = [None if space[i] else (letters[i], in_word[i] == 0, ends_word[i]) for i in range(n)]
    yield family_of("character in the word", places, of_word, 1, half)
    yield family_of("word", word, said.one("the word {}"), 1, half)
    if text.of_characters:
        in_words = [(w, i) if w and len(w) > 1 else None for w, i in zip(word, in_word, strict=True)]
        yield family_of("character of a word", in_words, lambda w, i: Label("{}", (_bracketed(w, i),)), 2, half)
        yield from _in_signs(text, letters, in_word, ends_word, first_of_sample)
    yield family_of("word before", _previous(words, word, first_of_sample), said.one("the word after {}"), 2, half)


def _in_signs(
    text: JudgedText,
    letters: Sequence[str],
    in_word: Sequence[int],
    ends_word: Sequence[bool],
    first_of_sample: Bool[np.ndarray, " n"],
) -> Iterator[Family]:
    """Families of signs, which are what separators part, and of the characters in them."""
    n, half, one = len(text), text.half, Words(text.samples.tokenizer.unit).one
    separates = np.fromiter((letter in SEPARATORS or letter == " " for letter in letters), bool, n)
    signs = _Units.of(text.pieces, first_of_sample | separates | np.append(False, separates[:-1]))
    in_sign = (np.arange(n) - signs.start[signs.number]).tolist()
    sign = [None if s else signs.text[i] for s, i in zip(separates.tolist(), signs.number.tolist(), strict=True)]
    begins = [in_word[i] == 0 for i in signs.start.tolist()]
    ends = [ends_word[i] for i in (np.append(signs.start[1:], n) - 1).tolist()]
    place = [(begins[i], ends[i]) for i in signs.number.tolist()]
    long = [s if s and len(s) > 1 else None for s in sign]
    yield family_of("sign", long, one("the sign {}"), 1, half)
    placed = [s and (s, *where) for s, where in zip(sign, place, strict=True)]
    yield family_of("sign in the word", placed, lambda s, *at: Label("{}" + PLACES[at], (_joined(s, *at),)), 2, half)
    in_signs = [s and (s, i) for s, i in zip(long, in_sign, strict=True)]
    yield family_of("character of a sign", in_signs, lambda s, i: Label("{} of {}", (s[i], _pointed(s, i))), 1, half)
    both = [s and (s, i, *where) for s, i, where in zip(long, in_sign, place, strict=True)]
    yield family_of(
        "character of a sign in the word",
        both,
        lambda s, i, *at: Label("{} of {}" + PLACES[at], (s[i], _joined(_pointed(s, i), *at))),
        2,
        half,
    )
    yield family_of("sign before", _previous(signs, sign, first_of_sample), one("the sign after {}"), 2, half)


PLACES = {
    (True, True): " as a word",
    (True, False): " at a word's beginning",
    (False, True): " at a word's end",
    (False, False): " within a word",
}
"""(Whether it begins a word, whether it ends one) -> in words."""


def _joined(sign: str, begins: bool, ends: bool) -> str:
    """A sign with the hyphens that join it to its word."""
    return ("" if begins else "-") + sign + ("" if ends else "-")


def _bracketed(text: str, at: int) -> str:
    """The text with the character at a place in brackets."""
    return f"{text[:at]}[{text[at]}]{text[at + 1 :]}"


def _pointed(sign: str, at: int) -> str:
    """A sign, with the character at a place in brackets if it stands in it more than once."""
    return sign if sign.count(sign[at]) == 1 else _bracketed(sign, at)


def _previous(units: _Units, value: Sequence[str | None], first_of_sample: Bool[np.ndarray, " n"]) -> list[str | None]:
    """For each character of a sign or word, the one before it in the same sample; what separates them has none."""
    before: list[str | None] = []
    last: str | None = None
    for start, first in zip(units.start.tolist(), first_of_sample[units.start].tolist(), strict=True):
        last = None if first else last
        before.append(last if value[start] is not None else None)
        last = value[start] if value[start] is not None else last
    return [before[i] for i in units.number.tolist()]
