"""The questions that the page answers, read from `questions.toml`: what is asked of which concepts, in which words."""

import tomllib
from pathlib import Path
from typing import NamedTuple

BUILT_IN = Path(__file__).with_name("questions.toml")


class Characters(NamedTuple):
    """A question about a property of single characters."""

    title: str
    concepts: list[str]
    """Names, in the order of preference."""
    characters: str
    """What the characters with the property are called."""
    share: str
    """Follows the share of these characters in a sentence."""
    missing: str
    """The answer where no concept is scored."""


class More(NamedTuple):
    """What the answer about texts adds where a certain concept is taken."""

    note: str
    other_concept: str
    """The contrast as a concept of its own."""
    other_texts: str
    """What the texts with that concept are called."""


class Texts(NamedTuple):
    """A question about a property of whole texts, in contrast to all other texts."""

    title: str
    concepts: list[str]
    texts: str
    """What the texts with the property are called."""
    missing: str
    more: dict[str, More]
    """By the name of the concept that is taken."""


class Family(NamedTuple):
    """A question about all concepts that belong together."""

    title: str
    about: str
    """They have this `about`."""
    members: str
    """What the concepts are called, and `member`, what one of them is called."""
    member: str
    missing: str


class Discoveries(NamedTuple):
    """The question what was found at all, whatever it is."""

    title: str
    missing: str
    """The answer where no named feature is clear."""


class Layers(NamedTuple):
    """The question how features change over the layers."""

    title: str
    several: str
    """What to do where there is one layer alone."""


Question = Discoveries | Characters | Texts | Family | Layers


class Questions(NamedTuple):
    """The questions of the page, and what it says of all of them."""

    questions: list[Question]
    notes: str
    """How concepts and contexts are to be read."""
    notes_of_others: str
    """The same of texts whose tokens are not characters."""
    language_tag: str
    """Language of the texts (BCP 47)."""


_ANSWERS: dict[str, type] = {
    "discoveries": Discoveries,
    "characters": Characters,
    "texts": Texts,
    "family": Family,
    "layers": Layers,
}


def load_questions(path: Path = BUILT_IN) -> Questions:
    """Read the questions; the top of the file explains its form."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    questions = []
    for table in content["question"]:
        fields = {name: value for name, value in table.items() if name not in ("answer", "with")}
        if table["answer"] == "texts":
            fields["more"] = {name: More(**more) for name, more in table.get("with", {}).items()}
        questions.append(_ANSWERS[table["answer"]](**fields))
    notes = content["notes"], content["notes_of_others"]
    return Questions(questions, *notes, content["language_tag"])
