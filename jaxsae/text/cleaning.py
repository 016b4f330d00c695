"""ATF transliteration -> the plain text that models are trained on, and where each of its characters comes from.

Reproduces the original preprocessing exactly: a text that the model was trained on must be the same text here.
"""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

BRACKETED = re.compile(r"\[[^\]]*\]")
"""What stands in square brackets; from the first opener to the first closer, over line ends too."""
AFTER_BRACKETS = (  # in this order
    (re.compile(r"\([^\)]*\)"), " "),
    (re.compile(r"\{[^\}]*\}"), " "),
    (re.compile(r"[0-9₀-₉]"), ""),
    (re.compile(r"[…×]"), " "),
    (re.compile(r"\s+"), " "),
)
"""What is replaced by what, once square brackets are gone."""
RULES = ((BRACKETED, " "), *AFTER_BRACKETS)


class Traced(NamedTuple):
    """A text made from another one."""

    text: str
    origin: Int[np.ndarray, " n"]
    """For each of its characters the one in the other text that it is, or the first of those that it stands for."""

    def replaced(self, pattern: re.Pattern[str], replacement: str) -> "Traced":
        """As `pattern.sub`, for a replacement that is one character or none."""
        pieces, at = [], 0
        for found in pattern.finditer(self.text):
            pieces += [self.origin[at : found.start()], self.origin[found.start() :][: len(replacement)]]
            at = found.end()
        return Traced(pattern.sub(replacement, self.text), np.concatenate([*pieces, self.origin[at:]]))

    def stripped(self) -> "Traced":
        """As `str.strip`."""
        start = len(self.text) - len(self.text.lstrip())
        text = self.text.strip()
        return Traced(text, self.origin[start : start + len(text)])


def clean(atf: str) -> str:
    """ATF transliteration -> plain text: no editorial brackets, no digits, single spaces."""
    for pattern, replacement in RULES:
        atf = pattern.sub(replacement, atf)
    return atf.strip()


def clean_traced(atf: str) -> Traced:
    """As `clean`, with each character's place in `atf`."""
    return traced_through(Traced(atf, np.arange(len(atf))), RULES)


def traced_through(text: Traced, rules: tuple[tuple[re.Pattern[str], str], ...]) -> Traced:
    """The text after the rules, one after another, without spaces at its ends."""
    for pattern, replacement in rules:
        text = text.replaced(pattern, replacement)
    return text.stripped()
