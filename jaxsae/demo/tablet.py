"""A tablet being written: templates in, words with their language and formula out."""

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from jaxsae.demo import names, vocabulary, words
from jaxsae.demo.words import Morpheme, Word

T = TypeVar("T")

FORMULAS = (
    "none",
    # letters
    "address",
    "greeting",
    "quoted speech",
    "request",
    "closing",
    # omens
    "protasis",
    "apodosis",
    # royal and dedicatory inscriptions
    "invocation",
    "titulary",
    "building",
    "dedication",
    "curse",
    # administration and law
    "transfer",
    "total",
    "date",
    "debt",
    "sale",
    "hire",
    "oath",
    "witnesses",
    # literature
    "praise",
    "proverb",
)


_UNITS = ("diš", "min", "eš", "limmu", "iá", "àš", "imin", "ussu", "ilimmu")
_TENS = ("u", "niš", "ùšu", "nimin", "ninnu")


class Written(NamedTuple):
    """A word where it stands."""

    word: Word
    language: str
    formula: str


class Tablet:
    """One text in the making, and the habits of its scribe.

    Templates are words separated by spaces, each in one of these notations:

    - `form/class`: as it stands (`words.parse`); with `*` before it, a Sumerian word that some scribes put in capitals
    - `@noun.case`, `@noun.case.possessive`, each with `+adjective` after it: Akkadian, inflected
    - `!verb.tense.person` and suffixes: Akkadian, inflected; `~verb.person`: a stative
    - `$name`: another template, given as an argument; `$name|-ra:dat` adds morphemes to its last word
    """

    def __init__(self, rng: random.Random, language: str, size: int, assyrian: bool = False):
        self.rng = rng
        self.language = language
        self.size = size
        self.written: list[Written] = []
        self.length = 0
        self.habits = words.Habits(rng.random() < 0.6, not assyrian, rng.random() < 0.4)
        self.logograms = rng.choice((1, 3, 3, 9))  # of ten nouns that have a word sign, written with it
        self.capitals = rng.random() < 0.35  # Sumerian goods and measures as signs rather than read
        self._spelling: dict[str, bool] = {}
        self._picked: set[str] = set()

    def room(self, characters: int) -> bool:
        """Whether so many more characters fit the intended size."""
        return self.length + characters <= self.size

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices, the first ones the likelier: frequencies as unequal as those of real vocabulary."""
        n = len(choices)
        return choices[min(self.rng.randrange(n), self.rng.randrange(n))]

    def pick_fresh(self, choices: Sequence[str]) -> str:
        """One of the choices not picked before on this tablet, while there is one."""
        choice = self.pick([c for c in choices if c not in self._picked] or choices)
        self._picked.add(choice)
        return choice

    def pick_several(self, choices: Sequence[T], n: int) -> list[T]:
        """`n` different choices (all of them where there are fewer), the first ones the likelier."""
        picked: list[T] = []
        while len(picked) < min(n, len(choices)):
            choice = self.pick(choices)
            if choice not in picked:
                picked.append(choice)
        return picked

    def write(self, template: str, formula: str = "none", language: str = "", **slots: str) -> None:
        """Append the words of a template."""
        for word in self.expand(template, slots):
            self.written.append(Written(word, language or self.language, formula))
            self.length += len(word.text) + 1

    def expand(self, template: str, slots: dict[str, str]) -> list[Word]:
        """The words of a template."""
        expanded: list[Word] = []
        for token in template.split():
            match token[0]:
                case "$":
                    name, _, suffixes = token[1:].partition("|")
                    expanded += self.expand(slots[name], slots)
                    if suffixes:
                        expanded[-1] = expanded[-1].add(*words.parse_morphemes(suffixes))
                case "@":
                    expanded += self._noun_phrase(token[1:])
                case "!":
                    key, tense, person, *endings = token[1:].split(".")
                    expanded.append(words.verb(key, tense, person, *endings))
                case "~":
                    expanded.append(words.stative(*token[1:].split(".")))
                case "*":
                    expanded.append(self._in_capitals(words.parse(token[1:])))
                case _:
                    expanded.append(words.parse(token))
        return expanded

    def spells_logogram(self, key: str) -> bool:
        """Whether this scribe writes the word with its word sign: the same on the whole tablet."""
        if key not in self._spelling:
            self._spelling[key] = self.rng.randrange(10) < self.logograms
        return self._spelling[key]

    def god(self, key: str) -> str:
        """A deity's name in Akkadian context, as this scribe spells it."""
        god = names.GODS[key]
        return f"{god.logogram if god.logogram and self.spells_logogram(key) else god.akkadian}/d"

    def city(self, key: str) -> str:
        """A city's name in Akkadian context, as this scribe spells it."""
        akkadian, logogram, _ = names.CITIES[key]
        return f"{logogram if self.spells_logogram(key) else akkadian}/l"

    def man(self) -> str:
        """An Akkadian man's name; most are a sentence about a god."""
        kind = self.rng.randrange(10)
        if kind < 3:
            return f"{self.pick(names.MEN)}/p"
        god = self.god(self.pick(names.NAME_GODS)).removesuffix("/d")
        if kind < 7:
            return f"{self.pick(names.NAME_STARTS)}|-{god}/p"
        return f"{god}|-{self.pick(names.NAME_ENDS)}/p"

    def men(self, n: int) -> list[str]:
        """`n` different men."""
        men: dict[str, None] = {}
        while len(men) < n:
            men[self.man()] = None
        return list(men)

    def number(self, n: int) -> str:
        """A number below 1,200 in the sexagesimal number signs, as a template."""
        sixties, tens, units = n % 600 // 60, n % 60 // 10, n % 10
        parts = ["géš-u"] if n >= 600 else []
        if sixties:
            parts.append("géš" if sixties == 1 else f"géš-{_UNITS[sixties - 1]}")
        if tens:
            parts.append(_TENS[tens - 1])
        if units:
            parts.append(_UNITS[units - 1])
        if self.language == "akkadian":
            return " ".join(f"{part.upper().replace('-', '.')}/nu" for part in parts)
        return " ".join(f"*{part}/nu" for part in parts)

    def _noun_phrase(self, notation: str) -> list[Word]:
        head, *adjectives = notation.split("+")
        key, case, *possessive = head.split(".")
        entry = vocabulary.NOUNS[key]
        logographic = bool(entry.logogram) and self.spells_logogram(key)
        phrase = [words.noun(key, case, possessive[0] if possessive else "", self.habits, logographic)]
        for adjective in adjectives:
            phrase.append(words.adjective(adjective, case, entry.feminine, self.habits, logographic))
        return phrase

    def _in_capitals(self, word: Word) -> Word:
        if not self.capitals:
            return word
        stem, *affixes = word.morphemes
        sign = Morpheme(stem.text.upper().replace("-", "."), stem.label)
        return Word(word.word_class, (sign, *affixes))
