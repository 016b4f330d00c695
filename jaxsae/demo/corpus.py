"""Generated Akkadian and Sumerian texts of which the truth of every character is known.

A seeded grammar composes receipts, letters, omens, inscriptions, contracts, hymns and word lists, in transliteration as
it looks after cleaning. It emits words as labelled morphemes (`words`), so the truth comes with the text instead of
being guessed from it. The texts are invented; their words, formulas and inflection are those of the real genres.

What the labels mean, where it is not plain:

- `language`: of the passage. A name or a word sign counts as the language it is used in (LUGAL is Akkadian in a letter
  and Sumerian in a receipt), the Sumerian name of a year in an Akkadian contract as Sumerian.
- `morpheme`: a hyphen between stem and affix belongs to the affix (`-ta`, `mu-`), within a morpheme to it. Where a sign
  spans a boundary the cut falls inside it: in `šar-ru-um`, `šar-r` is stem, `u-um` nominative.
- `logogram`: written with a word sign, that is in capitals, dots included; its syllabic complement is not. Frozen
  Sumerian spellings of Akkadian words (ŠU.BA.AN.TI, MÁŠ.BI) are not analysed: all stem, but for the plural sign MEŠ.
- `numeral`: the number signs of a numeral word, not an ordinal's ending.
- `formula`: the stereotyped part of the text a character stands in, over the spaces inside it too.

A space between words is a `separator` in `word_class` and `morpheme`; it has the language of the word before it, and
the formula of its neighbours if they agree.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxsae.demo import akkadian, archives, contracts, letters, sumerian
from jaxsae.demo.tablet import FORMULAS, Tablet, Written
from jaxsae.demo.words import MORPHEMES, WORD_CLASSES

MAX_LENGTH = 768
"""Longer texts are cut, as fragments are for the restoration model."""

LABELS: dict[str, tuple[str, ...]] = {
    "language": ("akkadian", "sumerian"),
    "word_class": tuple(WORD_CLASSES.values()),
    "morpheme": tuple(dict.fromkeys(MORPHEMES.values())),
    "logogram": ("no", "yes"),
    "numeral": ("no", "yes"),
    "formula": FORMULAS,
}
"""Names of the codes of each truth field; the field `position` is a number, not a code."""
_CODES = {field: {name: code for code, name in enumerate(names)} for field, names in LABELS.items()}

# genre: how often of 100, language it is mostly in, who writes it
_GENRES: dict[str, tuple[int, str, Callable[[Tablet], None]]] = {
    "receipt": (16, "sumerian", archives.receipt),
    "letter": (18, "akkadian", letters.letter),
    "omens": (12, "akkadian", akkadian.omens),
    "dedication": (10, "sumerian", sumerian.dedication),
    "contract": (9, "akkadian", contracts.contract),
    "account": (7, "akkadian", contracts.account),
    "royal inscription": (6, "akkadian", akkadian.royal_inscription),
    "assyrian inscription": (4, "akkadian", akkadian.assyrian_inscription),
    "letter-order": (5, "sumerian", archives.letter_order),
    "hymn": (4, "sumerian", sumerian.praise),
    "prayer": (4, "akkadian", letters.prayer),
    "proverbs": (2, "sumerian", sumerian.proverbs),
    "word list": (3, "bilingual", sumerian.word_list),
}
GENRES = tuple(_GENRES)

# intended characters, as unequal as those of excavated tablets: half are short, a few fill the model's context
_SIZES = (25, 40, 60, 80, 100, 120, 150, 190, 240, 320, 450, 760)


@dataclass(frozen=True)
class Text:
    """A generated text of at most 768 characters and its truth.

    `truth` maps each field of `LABELS` to int8 codes, one per character, and `position` to the character's place in its
    word, counted from 0, or -1 for a space between words. `language` is the one most of its genre is in.
    """

    text: str
    genre: str
    language: str
    truth: dict[str, np.ndarray]


def generate(n_samples: int = 4000, seed: int = 0) -> list[Text]:
    """`n_samples` different texts; the same seed gives the same texts, and more samples the same ones first."""
    rng = random.Random(seed)
    texts: dict[str, Text] = {}
    while len(texts) < n_samples:
        text = _compose(rng)
        texts.setdefault(text.text, text)
    return list(texts.values())


def _compose(rng: random.Random) -> Text:
    genre = rng.choices(GENRES, [share for share, _, _ in _GENRES.values()])[0]
    _, language, write = _GENRES[genre]
    tablet = Tablet(rng, language, rng.choice(_SIZES), assyrian=genre.startswith("assyrian"))
    write(tablet)
    written = tablet.written
    if len(written) > 6 and rng.random() < 0.12:  # a broken piece, without its beginning or end
        start = rng.randrange(len(written) - 4)
        written = written[start : start + rng.randint(4, len(written))]
    text, truth = lay_out(written)
    return Text(text[:MAX_LENGTH], genre, language, {field: codes[:MAX_LENGTH] for field, codes in truth.items()})


def lay_out(written: Sequence[Written]) -> tuple[str, dict[str, np.ndarray]]:
    """Words in their order -> the text, and the truth of each of its characters."""
    text: list[str] = []
    rows: list[tuple[str, ...]] = []  # labels in the order of LABELS, a row per character
    positions: list[int] = []
    before: Written | None = None
    for now in written:
        word, language, formula = now
        if before:
            text.append(" ")
            within = formula if formula == before.formula else "none"
            rows.append((before.language, "separator", "separator", "no", "no", within))
            positions.append(-1)
        for morpheme in word.morphemes:
            logogram = "yes" if morpheme.logogram else "no"
            numeral = "yes" if word.word_class == "nu" and not morpheme.label else "no"
            row = (language, WORD_CLASSES[word.word_class], MORPHEMES[morpheme.label], logogram, numeral, formula)
            text.append(morpheme.text)
            rows += [row] * len(morpheme.text)
        positions += range(len(word.text))
        before = now
    truth = {
        field: np.array([_CODES[field][label] for label in column], np.int8)
        for field, column in zip(LABELS, zip(*rows, strict=True), strict=True)
    }
    return "".join(text), truth | {"position": np.array(positions, np.int8)}
