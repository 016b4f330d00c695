"""Texts in plain files -> samples of a model with a tokenizer: framed, cut, padded, and some of the tokens hidden.

Which are hidden is drawn once, so that figures can be compared: of each text 0.15 of its tokens, and at least one,
become the token that hides others (Devlin et al. 2019, all of them). A model that predicts the next token has nothing
hidden.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jaxsae.errors import InputError, listed, note, require
from jaxsae.files import absent, parse_json, read_text, sha256, sha256_of
from jaxsae.text.preparation import NO_LABEL
from jaxsae.text.samples import Samples
from jaxsae.text.tokenizer import Tokenizer

SEED = 42
HIDDEN = 0.15
"""Share of a text's tokens."""
HELD_OUT = 10
"""Of a file without splits, every so many-th text is its `test` split, and the others are every other split; an empty
one does not count."""
SUFFIXES = (".txt", ".json", ".jsonl", ".parquet")
NAMES = {"validation": ("validation", "val", "valid", "dev")}
"""The split that is asked for -> the names that its file may have."""
TEXT_COLUMNS = ("text", "atf", "transliteration", "content", "sentence")
"""Where an object or a table has several texts, the first of these; else the first column of text."""

FEW = 8
"""Texts from which on an id that all begin with is no chance."""
COMPARED = 32
"""Texts that are compared with their pieces."""


class Table(dict[str, list[str]]):
    """Column -> a text for each row, all of one length."""

    numbers: tuple[str, ...] = ()
    """Columns of numbers: these are no texts, though they are shown as such."""


class PlainTexts:
    """Reads texts for a model: a file of one a line, of JSON, JSON lines or Parquet; or a folder of one for each split.

    Args:
      max_position: the model's, in tokens, those of the frame included.
      causal: whether the model predicts the next token.
      predicts: whether it predicts anything; else nothing is hidden.
    """

    def __init__(self, tokenizer: Tokenizer, max_position: int, *, causal: bool = False, predicts: bool = True) -> None:
        self.tokenizer, self.max_position, self.causal, self.predicts = tokenizer, max_position, causal, predicts

    def load_several(
        self, paths: Sequence[str | Path], split: str = "validation", max_samples: int | None = None
    ) -> Samples:
        """The first `max_samples` texts of each dataset, one after another, as samples as wide as the longest.

        Raises:
          InputError: no such file, no texts in it, or text that the tokenizer does not take.
        """
        read = [self._read(Path(path), split, max_samples) for path in paths]
        tables = [table for table, _ in read]
        shared = [name for name in tables[0] if all(name in table for table in tables)]
        columns = {name: np.array([v for table in tables for v in table[name]], object) for name in shared}
        return self._samples([ids for _, several in read for ids in several], columns)

    def has_samples(self, path: str | Path, split: str) -> bool:
        """Whether a dataset has that split, with a text in it."""
        path = Path(path)
        if path.is_dir():
            return _file_of_split(path, split) is not None
        if split != "test":
            return True
        table = read_table(path)
        return sum(bool(text.strip()) for text in table[text_column(table, path)]) >= HELD_OUT

    def fingerprint(self, path: str | Path) -> str:
        """SHA-256 of a dataset's content: of a file, or of the texts of a folder."""
        path = Path(path)
        if path.is_file():
            return sha256(path)
        return sha256_of((file.name, file) for file in _files(path))

    def _read(self, path: Path, split: str, most: int | None) -> tuple[Table, list[np.ndarray]]:
        """(what else is known of the texts, their ids) of a split."""
        require(path.exists(), f"texts must be a file or a folder of files, got {path}: {absent(path)}")
        if path.is_dir():
            file = _file_of_split(path, split)
            there = listed(file.name for file in _files(path)) or "none"
            require(
                file is not None, f"{path}: must have a file of the split {split}, such as {split}.txt, got {there}"
            )
            assert file is not None
            table = read_table(file)
        else:
            file, table = path, read_table(path)
            if split != "test":
                note(f"{path} has no splits: every {HELD_OUT}th text is the test split, {split} is all others")
        name = text_column(table, file)
        kept = [i for i, text in enumerate(table[name]) if text.strip()]
        if path.is_file():
            held_out = set(kept[HELD_OUT - 1 :: HELD_OUT])
            kept = [i for i in kept if (i in held_out) == (split == "test")]
        kept = kept[:most]
        before, behind = self.tokenizer.frame
        room = self.max_position - len(before) - len(behind)
        require(room >= 1, f"max_position must leave room for a token, got {self.max_position}")
        ids = {i: self.tokenizer.encode(table[name][i]) for i in kept}
        kept = [i for i in kept if len(ids[i])]
        self._note_oddities(path, [table[name][i] for i in kept], [ids[i] for i in kept])
        require(bool(kept), f"a split must have texts, got none in {split!r} of {path}")
        more = Table({column: [values[i] for i in kept] for column, values in table.items() if column != name})
        return more, [ids[i][:room] for i in kept]

    def _note_oddities(self, path: Path, texts: Sequence[str], ids: Sequence[np.ndarray]) -> None:
        """Say where the tokenizer does something else than it is meant to."""
        for text, its in zip(texts[:COMPARED], ids, strict=False):
            joined = self.tokenizer.decode(its)
            if "".join(joined.split()) != "".join(text.split()):
                said = f"{joined.strip()[:60]!r} for {text.strip()[:60]!r}"
                note(f"{path}: the joined pieces of a text should be the text, and are {said}")
                break
        ends = {(int(its[0]), int(its[-1])) for its in ids}
        if len(ids) < FEW or len(ends) > 1:
            return
        ((first, last),) = ends
        framed = {first, last} & {n for part in self.tokenizer.frame for n in part}
        begin, end = (piece.strip() for piece in self.tokenizer.pieces([first, last]))
        is_text = (begin and texts[0].strip().startswith(begin)) or (end and texts[0].strip().endswith(end))
        if not framed and not is_text:
            frame = f"frame=([{first}], [{last}])"
            note(
                f"{path}: all {len(ids)} texts begin with the id {first} and end with {last}: encode seems to add special "
                f"tokens; leave them out there, and give {frame}"
            )

    def _samples(self, texts: Sequence[np.ndarray], columns: Mapping[str, np.ndarray]) -> Samples:
        before, behind = self.tokenizer.frame
        shape = len(texts), max(map(len, texts)) + len(before) + len(behind)
        ids, labels = np.full(shape, self.tokenizer.padding_id, np.int32), np.full(shape, NO_LABEL, np.int32)
        mask, special = np.zeros(shape, np.int8), np.zeros(shape, bool)
        for row, true in enumerate(texts):
            inside, n = slice(len(before), len(before) + len(true)), len(before) + len(true) + len(behind)
            ids[row, :n], mask[row, :n], special[row, :n] = [*before, *true, *behind], 1, True
            special[row, inside] = False
            if self.predicts:
                ids[row, inside], labels[row, inside] = self._task(true, row)
        framed = special if before or behind else None
        return Samples(
            ids, labels, mask, special=framed, tokenizer=self.tokenizer, causal=self.causal, columns=dict(columns)
        )

    def _task(self, true: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(what the model sees of a text, what it is to predict)."""
        if self.causal:
            return true, np.append(true[1:], NO_LABEL)
        hiding = self.tokenizer.damaged_id
        if hiding is None:
            return true, np.full(len(true), NO_LABEL)
        draws = np.random.default_rng((SEED, number)).random(len(true))
        hidden = np.zeros(len(true), bool)
        hidden[np.argsort(draws, kind="stable")[: max(1, round(HIDDEN * len(true)))]] = True
        return np.where(hidden, hiding, true), np.where(hidden, true, NO_LABEL)


def text_column(table: Table, path: Path) -> str:
    """The column of the texts.

    Raises:
      InputError: there is none.
    """
    there = [name for name in table if name not in table.numbers]
    found = next((name for name in TEXT_COLUMNS if name in there), next(iter(there), None))
    got = f"numbers alone in {listed(table.numbers)}" if table.numbers else "none"
    require(found is not None, f"{path}: must have a column of texts, such as {TEXT_COLUMNS[0]}, got {got}")
    assert found is not None
    return found


def read_table(path: Path) -> Table:
    """The columns of a file, as text; of plain text, each line is a text.

    Raises:
      InputError: not such a file.
    """
    if path.suffix == ".parquet":
        return _parquet(path)
    content = read_text(path, "plain text")
    if path.suffix in (".json", ".jsonl"):
        by_line = path.suffix == ".jsonl"
        given = [_json(line, path) for line in content.split("\n") if line.strip()] if by_line else _json(content, path)
        return _as_table(given, path)
    return Table({TEXT_COLUMNS[0]: [line.rstrip("\r") for line in content.split("\n")]})


def _json(content: str, path: Path) -> Any:
    try:
        return parse_json(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _as_table(rows: Any, path: Path) -> Table:
    texts = isinstance(rows, list) and all(isinstance(row, str) for row in rows)
    if texts:
        return Table({TEXT_COLUMNS[0]: rows})
    ok = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    require(ok, f'{path}: must be a list of texts, or of objects such as {{"{TEXT_COLUMNS[0]}": ...}}')
    names = dict.fromkeys(name for row in rows for name in row)
    strings = [name for name in names if any(isinstance(row.get(name), str) for row in rows)]
    numbers = [name for name in names if name not in strings and all(_is_plain(row.get(name)) for row in rows)]
    every = (*strings, *numbers)
    table = Table({name: ["" if row.get(name) is None else str(row[name]) for row in rows] for name in every})
    table.numbers = tuple(numbers)
    return table


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _parquet(path: Path) -> Table:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        table.validate(full=True)
        return _as_table(table.to_pylist(), path)
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{path}: must be a whole Parquet file, got: {' '.join(str(error).split())}") from None


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())


def _file_of_split(folder: Path, split: str) -> Path | None:
    names = NAMES.get(split, (split,))
    return next((file for name in names for file in _files(folder) if file.stem == name), None)
