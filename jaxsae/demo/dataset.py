"""The embedded demo's text on disk: the generated corpus as a dataset, and beside it the truth about every character.

DIR/dataset/            as `jaxsae prepare` writes it: damaged text, labels, attention mask
DIR/truth/              the same splits and rows; a column per field of `jaxsae.demo.corpus.LABELS`, and `position`
                        (0-based in the word): int8 [n, 768], -1 where there is no text
DIR/truth/labels.json   field -> names of its codes; genre and language of each sample, by split
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxsae.config import DEMO_TEXT
from jaxsae.demo import corpus
from jaxsae.errors import InputError
from jaxsae.files import atomic_path, one_at_a_time
from jaxsae.text import arrow, loading, preparation

N_SAMPLES, SEED = 4000, 0
ABOUT = {"language Sumerian": "language", "logogram": "writing", "numeral": "writing"} | dict.fromkeys(
    ("formula", "verb", "personal name", "deity", "place name"), "formula"
)
"""Name of a property of `Truth.properties` -> what it is about; those that are not named here are morphology."""


def write_demo(folder: Path, n_samples: int = N_SAMPLES, seed: int = SEED) -> None:
    """Write `dataset` and `truth` into `folder`; the same seed gives the same bytes."""
    texts = corpus.generate(n_samples, seed)
    rows_of = preparation.split_indices(n_samples, loading.DEFAULT_SEED)
    fields = list(texts[0].truth)
    truth = {field: np.full((n_samples, preparation.MAX_LENGTH), -1, np.int8) for field in fields}
    for row, one in enumerate(texts):
        for field in fields:
            truth[field][row, : len(one.text)] = one.truth[field]
    labels = {
        "fields": {field: list(names) for field, names in corpus.LABELS.items()},
        "genre": {split: [texts[i].genre for i in rows] for split, rows in rows_of.items()},
        "language": {split: [texts[i].language for i in rows] for split, rows in rows_of.items()},
    }
    shutil.rmtree(folder / "truth", ignore_errors=True)  # left by a run that was killed before it wrote the dataset
    with atomic_path(folder / "truth") as temporary:
        temporary.mkdir()
        arrow.save_splits(temporary, {split: {f: c[rows] for f, c in truth.items()} for split, rows in rows_of.items()})
        (temporary / "labels.json").write_text(json.dumps(labels))
    with atomic_path(folder / "dataset") as temporary:
        temporary.mkdir()
        arrow.save_splits(temporary, loading.prepare_splits([one.text for one in texts], loading.DEFAULT_SEED))


def ensure_demo(dataset: str | Path) -> None:
    """Write the demo's text if `dataset` is the demo's and is not there yet (three seconds)."""
    if Path(dataset).resolve() != (DEMO_TEXT / "dataset").resolve() or Path(dataset).exists():
        return
    try:
        DEMO_TEXT.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(DEMO_TEXT):
            if not Path(dataset).exists():  # another process may have written it meanwhile
                write_demo(DEMO_TEXT)
    except OSError as error:
        raise InputError(
            f"the demo's text must be written to {DEMO_TEXT}, got {error}; set XDG_CACHE_HOME to a folder that may be written"
        ) from error


class Truth(NamedTuple):
    """What is known of the characters of a split, in the order of the text: sample after sample, no padding."""

    fields: dict[str, np.ndarray]
    """Field of `jaxsae.demo.corpus.LABELS` -> name of each character's label."""
    genre: np.ndarray
    """Of the text that each character stands in."""
    position: np.ndarray
    """In the word, from 0; -1 between words."""

    @property
    def in_word(self) -> Bool[np.ndarray, " n"]:
        """Not a space between words."""
        return self.position >= 0

    def properties(self) -> dict[str, Bool[np.ndarray, " n"]]:
        """Yes-or-no properties: what a probe or a latent may tell."""
        morpheme, word_class = self.fields["morpheme"], self.fields["word_class"]
        rest = ("stem", "separator", "plural sign")
        suffixes = [name for name in corpus.LABELS["morpheme"] if name not in rest and not name.endswith("prefix")]
        out = {
            "language Sumerian": self.fields["language"] == "sumerian",
            "logogram": self.fields["logogram"] == "yes",
            "numeral": self.fields["numeral"] == "yes",
            "suffix": np.isin(morpheme, suffixes),
            "formula": self.fields["formula"] != "none",
        }
        out |= {name: word_class == name for name in ("verb", "personal name", "deity", "place name")}
        return out | {name: morpheme == name for name in suffixes}


def properties_about(names: Iterable[str]) -> dict[str, str]:
    """Name of each property -> what it is about, as the concepts of the inspector have it."""
    return {name: ABOUT.get(name, "morphology") for name in names}


def load_truth(folder: Path, split: str) -> Truth:
    """The truth of a split as `write_demo` wrote it beside the dataset."""
    columns = arrow.load_columns(folder / "truth", split)
    labels = json.loads((folder / "truth" / "labels.json").read_text())
    real = columns["language"] >= 0
    fields = {field: np.array(names)[columns[field][real]] for field, names in labels["fields"].items()}
    genre = np.repeat(np.array(labels["genre"][split]), real.sum(axis=1))
    return Truth(fields, genre, columns["position"][real])
