"""Concepts: yes-or-no properties of characters, with which latents are compared."""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from jaxsae.errors import InputError, require
from jaxsae.files import absent, read_text
from jaxsae.text.pieces import Pieces, token_of
from jaxsae.text.samples import NAMES, Samples

BUILT_IN = Path(__file__).with_name("concepts.toml")
ABOUT = ("damage", "language", "letter", "sign", "morphology", "writing", "formula", "dataset")
LABELS = ("damage", "damage alone", "damage span", "after damage")
MAX_PATTERN = 40
"""Characters of a spelling, at most: each of them is one more concept to count."""
_KEYS = {"about", "title", "pattern", "unless", "labels"}


@dataclass(frozen=True)
class Concept:
    """A property of characters; exactly one of `pattern`, `labels` and `truth` decides which characters have it."""

    name: str
    about: str
    """One of `ABOUT`; `spelling` for those of `spelling_concepts`."""
    title: str
    pattern: re.Pattern[str] | None = None
    """Every character of a match has the property."""
    unless: re.Pattern[str] | None = None
    """If given, the property is of whole texts: those in which `pattern` is found more often than this."""
    labels: str | None = None
    """One of `LABELS`: the property is read from the labels of the data."""
    truth: Bool[np.ndarray, " characters"] | None = None
    """Whether each character of a split has it, sample after sample, without padding."""
    column: str | None = None
    """The column of the dataset that `truth` comes from; None: it is known of the demo."""

    @property
    def is_known(self) -> bool:
        """Whether it is known of each character, rather than found by its spelling or label."""
        return self.truth is not None

    @property
    def source(self) -> str:
        """Where the property comes from: a scholar's label, or only the spelling."""
        if self.pattern is None:
            return f"column {self.column}" if self.column else "known of the demo" if self.is_known else "label"
        return "text pattern" if self.unless is None else "text pattern, of whole texts"

    def holds_at(self, pieces: Pieces, damaged: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Which tokens of one text have the property; `truth` is not asked.

        A token has the property of a pattern if one of its characters has.
        """
        if self.labels is not None:
            before, behind = (np.concatenate(part) for part in (([False], damaged[:-1]), (damaged[1:], [False])))
            return {
                "damage": damaged,
                "damage alone": damaged & ~before & ~behind,
                "damage span": damaged & (before | behind),
                "after damage": ~damaged & before,
            }[self.labels]
        has, true_text = np.zeros(len(pieces), bool), "".join(pieces)
        if self.pattern is None:
            return has
        if self.unless is not None:
            has[:] = len(self.pattern.findall(true_text)) > len(self.unless.findall(true_text))
            return has
        token = None if isinstance(pieces, str) else token_of(pieces)
        for match in self.pattern.finditer(true_text):
            where = slice(*match.span())
            if token is None:
                has[where] = True
            else:
                has[token[where][token[where] >= 0]] = True
        return has


def load_concepts(path: str | Path = BUILT_IN) -> list[Concept]:
    """Read a TOML file of concepts; the top of the built-in file explains its form.

    Raises:
      InputError: not TOML, an unknown key, or a pattern that is no regular expression; the concept is named.
    """
    path = Path(path)
    require(path.is_file(), f"{path}: must be a TOML file of concepts, got {absent(path)}")
    try:
        tables = tomllib.loads(read_text(path, "TOML"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: must be TOML in UTF-8, got: {error}") from None
    require(bool(tables), f"{path}: must have at least one concept, got none")
    return [_concept(path, name, table) for name, table in tables.items()]


def _concept(path: Path, name: str, table: Any) -> Concept:
    where = f"{path}: concept {name!r}"
    require(isinstance(table, dict), f"{where} must be a table ([name] and lines below it), got {table!r}")
    require(all(isinstance(v, str) for v in table.values()), f"{where} must have strings only")
    unknown = sorted(set(table) - _KEYS)
    require(not unknown, f"{where} may have {', '.join(sorted(_KEYS))}, got {', '.join(unknown)}")
    require(table.get("about") in ABOUT, f"{where}: about must be one of {', '.join(ABOUT)}, got {table.get('about')}")
    require(("pattern" in table) != ("labels" in table), f"{where} must have either pattern or labels")
    require("unless" not in table or "pattern" in table, f"{where}: unless goes with a pattern, got none")
    labels = table.get("labels")
    require(labels is None or labels in LABELS, f"{where}: labels must be one of {', '.join(LABELS)}, got {labels!r}")
    compiled: dict[str, Any] = {}
    for key in ("pattern", "unless"):
        try:
            compiled[key] = re.compile(table[key]) if key in table else None
        except re.error as error:
            raise InputError(f"{where}: {key} must be a regular expression, got {table[key]!r}: {error}") from None
    return Concept(name, table["about"], table.get("title", name), labels=labels, **compiled)


def spelling_concepts(spelling: str, of_characters: bool = True) -> list[Concept]:
    """Concepts of the characters of a spelling wherever it occurs: all of them, and each by itself.

    Args:
      of_characters: whether tokens are characters; if not, there is only that of all.

    Raises:
      InputError: the spelling is longer than `MAX_PATTERN`.
    """
    n = len(spelling)
    require(n <= MAX_PATTERN, f"pattern must have at most {MAX_PATTERN} characters, got {n}; give a shorter one")
    out = [Concept(spelling, "spelling", "every character", re.compile(re.escape(spelling)))]
    for i, character in enumerate(spelling if of_characters and len(spelling) > 1 else ""):
        before, after = re.escape(spelling[:i]), re.escape(spelling[i + 1 :])
        pattern = re.compile(f"(?<={before}){re.escape(character)}(?={after})")
        out.append(Concept(f"{spelling} {i}", "spelling", f"{spelling[:i]}[{character}]{spelling[i + 1 :]}", pattern))
    return out


def sign_concepts(samples: Samples, count: int = 20) -> list[Concept]:
    """Concepts of the commonest signs of a text: each wherever it stands between hyphens, stops and spaces."""
    signs: Counter[str] = Counter()
    for sample in range(len(samples)):
        signs.update(_SIGN.findall(samples.text_of(sample)))
    return [
        Concept(f"sign {sign}", "sign", f"the sign {sign}", re.compile(rf"(?<![^\s.-]){re.escape(sign)}(?![^\s.-])"))
        for sign, _ in signs.most_common(count)
    ]


_SIGN = re.compile(r"[^\W\d_]{2,}")
"""Two letters or more: what a single letter tells is in the captions."""


def concepts_from_truth(
    properties: Mapping[str, Bool[np.ndarray, " characters"]], about: Mapping[str, str], characters: int
) -> list[Concept]:
    """Concepts of what is known of each character of a split.

    Args:
      properties: name -> which characters of the split have it.
      about: name -> the question it belongs to.
      characters: so many of them are in the samples, which are the first of the split.
    """
    return [Concept(f"={name}", about[name], name, truth=has[:characters]) for name, has in properties.items()]


MOST_VALUES = 12
"""Values of a column that concepts are made of, the commonest first."""
NONE = ("", "nan", "None", "null", "[]", "{}")
MOST_OF_TEXT = 0.9
"""Share of the tokens that may have a value."""


def column_concepts(samples: Samples) -> list[Concept]:
    """Concepts of the dataset's own columns: the commonest values of each, if it has several.

    A value of texts is a property of all their tokens. What tells nothing is left out: a column in which nearly every
    text has a value of its own, such as a number or a title; a value that stands for none, or that nearly all of the
    text has; and one that is just where another one is.
    """
    out, seen = [], set()
    sample, position = np.nonzero(samples.real)
    for name, column in samples.columns.items():
        if name == NAMES:
            continue
        of_token = column[sample, position] if column.ndim == 2 else column[sample]
        values, counts = np.unique(of_token, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        telling = [
            str(values[i]) for i in order if str(values[i]) not in NONE and counts[i] <= MOST_OF_TEXT * len(of_token)
        ]
        if len(telling) > max(2, len(samples) // 2):
            continue
        for value in telling[:MOST_VALUES]:
            where = np.packbits(of_token == value).tobytes()
            if where in seen:
                continue
            seen.add(where)
            title = f"{'text' if column.ndim == 1 else samples.tokenizer.unit} with {name} {value}"
            out.append(Concept(f"{name}={value}", "dataset", title, truth=of_token == value, column=name))
    return out


ConceptMasks = Callable[[int], Bool[np.ndarray, "concepts n"]]
"""Number of a sample -> which concepts each of its real characters has."""


def true_text(samples: Samples, sample: int) -> tuple[Pieces, Bool[np.ndarray, " n"]]:
    """A sample's text, token by token, as it was before the damage, and which of its tokens are damaged."""
    one = samples[sample : sample + 1]
    return one.pieces_of(0), one.damaged[one.real]


def concept_masks(concepts: Sequence[Concept], samples: Samples) -> ConceptMasks:
    """A function that gives, for the number of a sample, which of its characters have which concept."""
    ends = samples.real.sum(axis=1).cumsum()

    def of_sample(sample: int) -> Bool[np.ndarray, "concepts n"]:
        letters, damaged = true_text(samples, sample)
        start = int(ends[sample]) - len(letters)
        rows = [
            c.holds_at(letters, damaged) if c.truth is None else c.truth[start : start + len(letters)] for c in concepts
        ]
        return np.stack(rows) if rows else np.zeros((0, len(letters)), bool)

    return of_sample
