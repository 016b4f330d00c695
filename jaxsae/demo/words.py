"""Words as rows of labelled morphemes, the notation they are written in, and Akkadian inflection.

Notation of one word: ``form/class``, where `|` divides morphemes and `:code` labels one, unlabelled ones being stems:
``lugal|-ra:dat/n``, ``mu-:conj|na-:dim|dù/v``. Affixes carry their hyphen as grammars write it (`mu-`, `-ra`), so a
hyphen between two morphemes belongs to the affix; a hyphen within a morpheme belongs to it.

A syllabic sign often spans a boundary (`šar-ru-um` is šarr + um): the cut then falls inside the sign, between its
letters, `šar-r|u-um`, because every character has one label.
"""

from functools import cache
from typing import NamedTuple

from jaxsae.demo import vocabulary

WORD_CLASSES = {
    "sep": "separator",
    "n": "noun",
    "p": "personal name",
    "d": "deity",
    "l": "place name",
    "m": "month name",
    "v": "verb",
    "a": "adjective",
    "pn": "pronoun",
    "pr": "preposition",
    "pt": "particle",
    "av": "adverb",
    "nu": "numeral",
    "me": "measure",
}

MORPHEMES = {
    "sep": "separator",
    "": "stem",
    # Akkadian nouns and adjectives
    "nom": "nominative",
    "acc": "accusative",
    "gen": "genitive",
    "pnom": "plural nominative",
    "pobl": "plural oblique",
    "meš": "plural sign",
    "my": "possessive my",
    "your": "possessive your (m.)",
    "yourf": "possessive your (f.)",
    "his": "possessive his",
    "her": "possessive her",
    # Akkadian verbs
    "subj": "subject prefix",
    "prec": "precative prefix",
    "vpl": "verb plural",
    "vfem": "verb feminine",
    "stat": "stative ending",
    "vent": "ventive",
    "sub": "subordinate -u",
    "obj": "object suffix",
    "dsuf": "dative suffix",
    "ma": "enclitic -ma",
    # Sumerian nouns
    "sgen": "Sumerian genitive -ak",
    "erg": "ergative -e",
    "dat": "dative -ra",
    "abl": "ablative -ta",
    "term": "terminative -šè",
    "loc": "locative -a",
    "com": "comitative -da",
    "equ": "equative -gin",
    "smy": "possessive -mu",
    "szu": "possessive -zu",
    "sani": "possessive -a-ni",
    "sbi": "possessive -bi",
    "spl": "Sumerian plural",
    "ord": "ordinal -kam",
    "cop": "copula -àm",
    # Sumerian verbs
    "mod": "modal prefix",
    "conj": "conjugation prefix",
    "dim": "dimensional prefix",
    "agt": "agent prefix",
    "per": "person suffix",
    "nmz": "nominaliser -a",
}


class Morpheme(NamedTuple):
    """A stretch of characters with one label, a key of `MORPHEMES`."""

    text: str
    label: str = ""

    @property
    def logogram(self) -> bool:
        """Whether it is a word sign: transliteration writes those, and only those, in capitals."""
        return self.text.isupper()


class Word(NamedTuple):
    """What stands between two spaces; `word_class` is a key of `WORD_CLASSES`."""

    word_class: str
    morphemes: tuple[Morpheme, ...]

    @property
    def text(self) -> str:
        """The word as it is spelled."""
        return "".join(morpheme.text for morpheme in self.morphemes)

    def add(self, *suffixes: Morpheme) -> "Word":
        """The word with more morphemes at its end."""
        return Word(self.word_class, self.morphemes + suffixes)


@cache
def parse(notation: str) -> Word:
    """One word from its notation."""
    form, word_class = notation.rsplit("/", 1)
    if word_class not in WORD_CLASSES:
        raise ValueError(f"unknown word class in {notation!r}: {word_class!r}")
    return Word(word_class, parse_morphemes(form))


def parse_morphemes(form: str) -> tuple[Morpheme, ...]:
    """The morphemes of a form: `a|-b:dat` is a stem and a dative."""
    pieces = tuple(Morpheme(*piece.split(":")) for piece in form.split("|"))
    for piece in pieces:
        if piece.label not in MORPHEMES or not piece.text:
            raise ValueError(f"bad morpheme in {form!r}: {piece!r}")
    return pieces


class Habits(NamedTuple):
    """How one scribe spells; fixed for a tablet, so that one word tells how to restore the others."""

    plene: bool  # šar-ru-um rather than šar-rum
    mimation: bool  # šar-ru-um rather than šar-ru
    complements: bool  # LUGAL-im rather than LUGAL


_CASES = {"nom": "u", "acc": "a", "gen": "i"}
_POSSESSIVES = {
    "ia": ("-ia", "my"),
    "ka": ("-ka", "your"),
    "ki": ("-ki", "yourf"),
    "šu": ("-šu", "his"),
    "ša": ("-ša", "her"),
}


def _join(stem: str, vowel: str) -> tuple[str, str]:
    """Where stem and ending meet: emphatic consonants take the conventional sign (ṭú, qú), and a hyphen the ending."""
    if stem.endswith("-"):
        return stem[:-1], "-" + vowel
    if vowel[0] == "u" and stem[-1] in "ṭq":
        return stem, "ú" + vowel[1:]
    return stem, vowel


def _case_ending(stem: str, case: str, habits: Habits) -> tuple[str, str]:
    vowel = _CASES[case]
    if not habits.mimation:
        return _join(stem, vowel)
    # signs of the type lum, tam, rim exist for these consonants in everyday use; the others need two signs
    one_sign = stem[-1] in "-ltrnkš" and (not habits.plene or stem[-1] == "-")
    return _join(stem, vowel + "m" if one_sign else f"{vowel}-{vowel}m")


def noun(key: str, case: str, possessive: str, habits: Habits, logographic: bool) -> Word:
    """An Akkadian noun; `case` is nom, acc, gen, pnom, pobl or cs (the construct state, without an ending)."""
    entry = vocabulary.NOUNS[key]
    suffix = () if not possessive else (Morpheme(*_POSSESSIVES[possessive]),)
    if logographic:
        plural = (Morpheme(".MEŠ", "meš"),) if case in ("pnom", "pobl") else ()
        if case in _CASES and habits.complements and not suffix:
            suffix = (Morpheme(f"-{_CASES[case]}{'m' if habits.mimation else ''}", case),)
        return Word("n", (Morpheme(entry.logogram), *plural, *suffix))
    if case == "cs":
        return Word("n", (Morpheme(entry.bound),))
    if case in ("pnom", "pobl"):
        stem, ending = _join(entry.stem, {"pnom": "u-ú", "pobl": "i"}[case])
        return Word("n", (Morpheme(stem), Morpheme(ending, case), *suffix))
    if not suffix:
        stem, ending = _case_ending(entry.stem, case, habits)
        return Word("n", (Morpheme(stem), Morpheme(ending, case)))
    if possessive == "ia" and case != "gen":
        stem, ending = _join(entry.stem, "i")
        return Word("n", (Morpheme(stem), Morpheme(ending, "my")))
    if case == "gen":
        stem, ending = _join(entry.stem, "i")
        return Word("n", (Morpheme(stem), Morpheme(ending, "gen"), *suffix))
    if entry.bound[-1] in "tdṭsṣzš" and suffix[0].text.startswith("-š"):
        # *bīt-šu is spoken bīssu and written bi-it-sú
        written = {"-šu": "-sú", "-ša": "-sà"}[suffix[0].text]
        suffix = (Morpheme(written, suffix[0].label),)
    return Word("n", (Morpheme(entry.bound), *suffix))


def adjective(key: str, case: str, feminine: bool, habits: Habits, logographic: bool) -> Word:
    """An Akkadian adjective agreeing with its noun."""
    masculine_stem, feminine_stem, logogram = vocabulary.ADJECTIVES[key]
    if logographic and logogram:
        return Word("a", (Morpheme(logogram),))
    stem, ending = _case_ending(feminine_stem if feminine else masculine_stem, case, habits)
    return Word("a", (Morpheme(stem), Morpheme(ending, case)))


_PREFIXES = {  # by class of the verb, then person
    "a": {"3": "i", "1": "a", "2": "ta"},
    "e": {"3": "i", "1": "e", "2": "te"},
    "u": {"3": "ú", "1": "ú", "2": "tu"},
}


def _prefix(stem: str, verb_class: str, tense: str, person: str) -> tuple[str, str]:
    """Prefix and label. A stem that starts with a closing consonant (`š-pu-ur`) shares the prefix's last sign."""
    if tense == "prec":
        prefix, label = ("lu" if person == "1s" else "li"), "prec"
    else:
        prefix, label = _PREFIXES[verb_class][person[0]], "subj"
    if stem[1] != "-":
        return f"{prefix}-", label
    if len(prefix) == 1:
        return prefix.replace("ú", "u"), label
    return f"{prefix}-{prefix[-1]}", label


_VENTIVE_BEFORE = {"kum": "k", "kim": "k", "ni": "n"}
_VERB_SUFFIXES = {
    "kum": ("-kum", "dsuf"),
    "kim": ("-ki-im", "dsuf"),
    "ni": ("-ni", "obj"),
    "ka": ("-ka", "obj"),
    "ki": ("-ki", "obj"),
    "šu": ("-šu", "obj"),
    "ma": ("-ma", "ma"),
}


def verb(key: str, tense: str, person: str, *suffixes: str) -> Word:
    """An Akkadian verb: tense pret, dur, perf, prec (wish) or imp, person 1s, 2m, 2f, 3s or 3p.

    Suffixes in order: `vent`, `sub`, a dative `kum` / `kim`, an object `ni` / `ka` / `ki` / `šu`, and `ma`.
    """
    entry = vocabulary.VERBS[key]
    closed, opened = getattr(entry, "pret" if tense == "prec" else tense).split()
    prefix = () if tense == "imp" else (Morpheme(*_prefix(closed, entry.vowels, tense, person)),)
    weak = closed[-1] in "aeiéu"
    endings: list[Morpheme] = []
    if person == "3p":
        endings.append(Morpheme("u-ú" if weak else "u", "vpl"))
    if person == "2f":
        endings.append(Morpheme("i-i" if weak else "i", "vfem"))
    if "vent" in suffixes:
        # -am, or after -i and -u -m and -nim; its m takes on the sound of what follows
        closing = next((c for suffix, c in _VENTIVE_BEFORE.items() if suffix in suffixes), "m")
        if person == "3p":
            endings.append(Morpheme("-nim" if closing == "m" else f"-ni-i{closing}", "vent"))
        elif person == "2f":
            endings.append(Morpheme(f"-i{closing}", "vent"))
        else:
            endings.append(Morpheme(f"-a-a{closing}" if weak else f"a-a{closing}", "vent"))
    elif "sub" in suffixes and person not in ("3p", "2f"):
        endings.append(Morpheme("u-ú" if weak else "u", "sub"))
    if endings and not (weak and endings[0].text.startswith("-")):
        stem, first = _join(opened, endings[0].text)
        endings[0] = Morpheme(first, endings[0].label)
    else:
        stem = closed
    endings += [Morpheme(*_VERB_SUFFIXES[suffix]) for suffix in suffixes if suffix in _VERB_SUFFIXES]
    return Word("v", (*prefix, Morpheme(stem), *endings))


def stative(key: str, person: str) -> Word:
    """An Akkadian stative (`pa-aṭ-ra-at`, it is split), person 3m, 3f, 1s, 2m or 2f."""
    bare, before_vowel = vocabulary.STATIVES[key]
    if person == "3m":
        return Word("v", (Morpheme(bare),))
    ending = {"3f": "a-at", "1s": "a-ku", "2m": "a-a-ta", "2f": "a-a-ti"}[person]
    stem, ending = _join(before_vowel, ending)
    return Word("v", (Morpheme(stem), Morpheme(ending, "stat")))
