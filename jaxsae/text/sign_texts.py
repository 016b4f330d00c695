"""Texts of signs in Parquet -> samples: words joined to fragments, framed, cut, and a seventh of the signs damaged.

Which signs are damaged is the masked language model's rule (Devlin et al. 2019): each with probability 0.15; of these
0.8 become `[MASK]`, 0.1 a random sign, 0.1 stay. Training draws anew at each reading; here they are drawn once, so that
figures can be compared.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from jaxsae.errors import InputError, listed, note, require
from jaxsae.files import absent, sha256, sha256_of
from jaxsae.text.preparation import NO_LABEL
from jaxsae.text.samples import Samples
from jaxsae.text.signs import MASK, SPECIAL, UNK, SignTokenizer

SEED = 42
DAMAGED, MASKED, REPLACED = 0.15, 0.8, 0.1
"""Shares: of the signs that are damaged; of those, that become `[MASK]`, and that become a random sign."""
MANY_UNKNOWN = 0.05
"""A share of signs outside the vocabulary that is worth saying."""

PLACES = ("fragment_id", "line_num", "word_idx")
SIGNS = "value_signs"
"""A row for each word: its fragment and its place there, and its signs."""
TEXT = "text"
"""Or a row for each fragment."""
SPELLINGS = ("value_raw", "value_clean")
"""The text again, in other words: not kept beside it."""
NAMES = {"validation": ("val", "validation"), "val": ("val", "validation")}
"""The split that is asked for -> the names that its file may have."""
SUFFIXES = (".parquet", "_fragments.parquet")
"""Of the files in a folder; a row for each word, which says more, comes first."""


class Fragments(NamedTuple):
    """The fragments of a file, in order, as they are before they are damaged and cut."""

    ids: list[Int[np.ndarray, " n"]]
    """Of the signs, for each fragment."""
    columns: dict[str, list[str]]
    """What is known of each fragment."""
    word_columns: dict[str, list[np.ndarray]]
    """What is known of each sign of each fragment, by its word."""


class SignTexts:
    """Reads datasets for a model of signs: Parquet files, or folders of one for each split.

    Args:
      max_position: the model's, in tokens, the two of the frame included.
    """

    def __init__(self, tokenizer: SignTokenizer, max_position: int) -> None:
        self.tokenizer, self.max_position = tokenizer, max_position

    def load_several(
        self, paths: Sequence[str | Path], split: str = "validation", max_samples: int | None = None
    ) -> Samples:
        """The first `max_samples` fragments of each dataset, one after another, as samples as wide as the longest.

        Args:
          split: which file of a folder; a dataset that is one file is taken whole.

        Raises:
          InputError: no such file, not such a table, or a vocabulary that is not known.
        """
        read = [read_fragments(_file_of(Path(path), split), self.tokenizer, max_samples) for path in paths]
        for path, of_file in zip(paths, read, strict=True):
            require(bool(of_file.ids), f"a split must have samples, got none in {split!r} of {path}")
        return self._samples(read)

    def has_samples(self, path: str | Path, split: str) -> bool:
        """Whether a dataset has that split; a file has none, as it is taken whole for any."""
        return any((Path(path) / name).is_file() for name in _names(split))

    def fingerprint(self, path: str | Path) -> str:
        """SHA-256 of a dataset's content: of a file, or of the files of a folder's splits."""
        path = Path(path)
        if path.is_file():
            return sha256(path)
        names = [name for split in ("train", "validation", "test") for name in _names(split)]
        return sha256_of((name, path / name) for name in names if (path / name).is_file())

    def _samples(self, several: Sequence[Fragments]) -> Samples:
        before, after = self.tokenizer.frame
        most = self.max_position - len(before) - len(after)
        require(most >= 1, f"max_seq_len must leave room for a sign, got {self.max_position}")
        kept = [(number, one[:most]) for of_file in several for number, one in enumerate(of_file.ids)]
        n, width = len(kept), max(len(one) for _, one in kept) + len(before) + len(after)
        ids = np.full((n, width), self.tokenizer.padding_id, np.int32)
        labels, mask = np.full((n, width), NO_LABEL, np.int32), np.zeros((n, width), np.int8)
        special = np.zeros((n, width), bool)
        for row, (number, true) in enumerate(kept):
            seen, its_labels = damage(true, self.tokenizer.vocab_size, number)
            framed = [*before, *seen, *after]
            ids[row, : len(framed)], mask[row, : len(framed)] = framed, 1
            inside = slice(len(before), len(before) + len(true))
            labels[row, inside] = its_labels
            special[row, : len(framed)] = True
            special[row, inside] = False
        columns = _joined_columns(several, [len(one) for _, one in kept], width, len(before))
        return Samples(ids, labels, mask, special=special, tokenizer=self.tokenizer, columns=columns)


def damage(true: np.ndarray, vocab_size: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids that the model is given instead, and the labels: the true id where one is to be restored, else -100.

    A function of the seed, the number of the fragment among those of its file that have signs, and the place in it,
    whatever comes behind.
    """
    draws = np.random.default_rng((SEED, number)).random((len(true), 3))
    chosen = draws[:, 0] < DAMAGED
    masked, replaced = draws[:, 1] < MASKED, draws[:, 1] >= 1 - REPLACED
    anything = (len(SPECIAL) + draws[:, 2] * (vocab_size - len(SPECIAL))).astype(np.int32)
    seen = np.where(chosen & masked, MASK, np.where(chosen & replaced, anything, true))
    return seen, np.where(chosen, true, NO_LABEL)


def read_fragments(path: Path, tokenizer: SignTokenizer, most: int | None = None) -> Fragments:
    """The first fragments of a Parquet file that have signs.

    Others are left out, which the model's own `data_utils` keeps, as a frame with nothing in it.

    A row for each word: fragments in the order of their ids, the words of each by line and then by place in it, equal
    ones as they stand in the file; words without signs are left out, and so are rows without an id. A row for each
    fragment: as they stand.

    Raises:
      InputError: not such a table, or a vocabulary that is not known.
    """
    names = _column_names(path)
    by_word = SIGNS in names
    needed = [*PLACES, SIGNS] if by_word else [TEXT]
    missing = [name for name in needed if name not in names]
    rows = f"{', '.join((*PLACES, SIGNS))} (a row for each word) or {TEXT} (a row for each fragment)"
    require(not missing, f"{path}: must have the columns {rows}, got {listed(names, 12)}")
    kinds = [name for name in names if name not in (*PLACES, SIGNS, TEXT, *SPELLINGS)]
    table = _read(path, [*needed, *kinds])
    signs = _coded(table, needed[-1], path)
    ok = all(isinstance(text, str) for text in signs.values)
    require(ok, f"{path}: {needed[-1]} must be text, got {table[needed[-1]].type!s:.60}")
    encoded = [tokenizer.encode(text) for text in signs.values]
    order, starts = _order(table, path) if by_word else (np.arange(len(table)), np.arange(len(table) + 1))
    known = {name: _coded(table, name, path) for name in kinds if _is_text(table[name].type)}
    spread = [name for name, column in known.items() if not _is_of_fragment(column.codes[order], starts)]
    texts = {name: column.texts() for name, column in known.items()}

    found = Fragments([], {name: [] for name in known if name not in spread}, {name: [] for name in spread})
    nothing = np.zeros(0, np.int32)
    for start, end in itertools.pairwise(starts):
        if len(found.ids) == most:
            break
        its = order[start:end]
        words = [encoded[code] if code >= 0 else nothing for code in signs.codes[its]]
        if not any(map(len, words)):
            continue
        found.ids.append(np.concatenate([nothing, *words]))
        for name, column in found.columns.items():
            column.append(texts[name][its[0]])
        for name, of_signs in found.word_columns.items():
            of_signs.append(np.repeat(texts[name][its], [len(word) for word in words]))
    _note_unknown(path, found.ids)
    return found


class _Coded(NamedTuple):
    """A column as numbers: `values[codes[row]]`, or nothing where the code is -1."""

    values: list[Any]
    codes: np.ndarray

    def texts(self) -> np.ndarray:
        """The values as text, an array of `str`; empty where there is none."""
        return np.array([*map(str, self.values), ""], object)[self.codes]


def _coded(table: pa.Table, name: str, path: Path) -> _Coded:
    column = table[name]
    try:
        one = column.combine_chunks() if column.num_chunks else pa.array([], column.type)
        coded = one if pa.types.is_dictionary(one.type) else one.dictionary_encode()
    except pa.ArrowException:
        raise InputError(f"{path}: {name} must hold numbers or text, got {column.type!s:.60}") from None
    return _Coded(coded.dictionary.to_pylist(), coded.indices.fill_null(-1).to_numpy(zero_copy_only=False))


def _order(table: pa.Table, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The rows in the order in which they are read, and where in it each fragment starts; at last, where all end."""
    fragment, line, word = (_ranks(_coded(table, name, path), name) for name in PLACES)
    order = np.lexsort((word, line, fragment))  # stable
    order = order[fragment[order] >= 0]
    firsts = np.flatnonzero(np.diff(fragment[order], prepend=-1))
    return order, np.append(firsts, len(order))


def _ranks(column: _Coded, name: str) -> np.ndarray:
    """The place of each value among all, from 0; -1 for no fragment, and after all others for no place in one."""
    known = sorted({value for value in column.values if value == value})  # NaN is no place
    rank = {value: number for number, value in enumerate(known)}
    nothing = -1 if name == PLACES[0] else len(known)
    return np.array([*(rank.get(value, nothing) for value in column.values), nothing])[column.codes]


def _is_of_fragment(codes: np.ndarray, starts: np.ndarray) -> bool:
    """Whether a column, in the order of the fragments, has one value in each."""
    return bool((codes == np.repeat(codes[starts[:-1]], np.diff(starts))).all())


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _joined_columns(
    several: Sequence[Fragments], lengths: Sequence[int], width: int, offset: int
) -> dict[str, np.ndarray]:
    """Name -> what is known of each sample [n], or where that differs within fragments of each position [n, width].

    Empty where it is not known, and in the frame and the padding.
    """
    spread = {name for one in several for name in one.word_columns}
    names = list(dict.fromkeys(name for one in several for name in (*one.columns, *one.word_columns)))
    out: dict[str, np.ndarray] = {}
    for name in names:
        shape = (len(lengths), width) if name in spread else (len(lengths),)
        out[name] = np.full(shape, "", object)
        row = 0
        for one in several:
            values: Sequence[Any] = one.word_columns.get(name, one.columns.get(name, [""] * len(one.ids)))
            for value in values:
                if name in spread:
                    value = value if isinstance(value, str) else value[: lengths[row]]
                    out[name][row, offset : offset + lengths[row]] = value
                else:
                    out[name][row] = value
                row += 1
    return out


def _note_unknown(path: Path, ids: Sequence[np.ndarray]) -> None:
    every = np.concatenate([np.zeros(0, np.int32), *ids])
    unknown = int((every == UNK).sum())
    if unknown > MANY_UNKNOWN * len(every):
        note(f"{path}: {unknown:,} of {len(every):,} signs are not in the vocabulary, and read as {SPECIAL[UNK]}")


def _names(split: str) -> list[str]:
    """The names that the file of a split may have."""
    return [f"{name}{suffix}" for suffix in SUFFIXES for name in NAMES.get(split, (split,))]


def _file_of(path: Path, split: str) -> Path:
    """A file, or that of a split in a folder."""
    if not path.is_dir():
        require(path.is_file(), f"dataset must be a Parquet file, or a folder of some, got {path}: {absent(path)}")
        return path
    found = [path / name for name in _names(split) if (path / name).is_file()]
    there = listed(sorted(file.name for file in path.glob("*.parquet"))) or "none"
    require(
        bool(found), f"{path}: must have a Parquet file of the split {split}, such as {_names(split)[0]}, got {there}"
    )
    return found[0]


def _column_names(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path).names
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise _not_parquet(path, error) from None


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(columns))
        table.validate(full=True)
        return table
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise _not_parquet(path, error) from None


def _not_parquet(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: must be a whole Parquet file, got: {' '.join(str(error).split())}")
