"""Raw fragments in JSON, JSON lines or Parquet -> cleaned texts."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from jaxsae.errors import InputError, listed, note, require
from jaxsae.files import parse_json, read_text
from jaxsae.text.cleaning import clean

ORDER_COLUMNS = (("line_num", "line_number", "line"), ("word_idx", "word_index", "word"))
"""Where a table has a row for each line or word: the columns that give a row's place in its fragment, first the line,
then the word in the line. Of each group the first column that holds numbers is used; `line` and `word` may also hold
text."""
ORDER = tuple(name for names in ORDER_COLUMNS for name in names)
IDS = ("_id", "fragment_id", "id")


class Fragment(NamedTuple):
    """A text, and what it is called where the file says that."""

    text: str
    name: str
    """Of its `_id` or the like; empty where it has none."""


def read_fragments(path: str | Path, text_column: str = "atf") -> list[Fragment]:
    """The fragments of `read_raw_fragments` with their texts cleaned; those that are empty then are left out.

    Raises:
      InputError: not such a file, no text in it, or rows of one fragment that cannot be put in order.
    """
    raw = read_raw_fragments(path, text_column)
    cleaned = [Fragment(clean(one.text), one.name) for one in raw]
    kept = [one for one in cleaned if one.text]
    require(
        bool(kept),
        f"{path}: must have at least one fragment with text, got none of {len(raw)} in column {text_column}",
    )
    return kept


def read_raw_fragments(path: str | Path, text_column: str = "atf") -> list[Fragment]:
    """The fragments of a file as they are written, in file order; their texts are empty where they have none.

    Rows with the same id, as in a table with a row for each word, are one fragment: in the order of the columns of
    `PLACES`, or of the file. In JSON, `_id` alone joins no rows: in the original format every object is a fragment.

    Args:
      path: a JSON list of objects, such a list as JSON lines, or a Parquet table; recognised by its content.
      text_column: the column, or key, of the texts.

    Raises:
      InputError: not such a file, or rows of one fragment that cannot be put in order.
    """
    path = Path(path)
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    is_parquet = is_parquet or path.suffix == ".parquet"
    rows = _parquet_rows(path, text_column) if is_parquet else _json_rows(path, text_column)
    raw = rows[text_column]
    wrong = next((i for i, one in enumerate(raw) if not isinstance(one, str | None)), None)
    require(wrong is None, f"{path}: {text_column} must be a string or null, got another type in fragment {wrong}")
    id_joins = "_id" not in rows or is_parquet
    return _as_fragments(path, rows, text_column, id_joins)


def _as_fragments(path: Path, rows: Mapping[str, list[Any]], text_column: str, id_joins: bool) -> list[Fragment]:
    """The fragments, the rows of one id joined.

    Args:
      id_joins: whether the same id is enough to join rows; if not, they must also have a place in their fragment.
    """
    texts = rows[text_column]
    keys = [name for name in IDS if name in rows]
    has_places = any(name in rows for name in ORDER)
    if has_places:  # ids that all differ are of the rows: another column may have the ids of the fragments
        keys.sort(key=lambda name: len(set(map(str, rows[name]))) == len(rows[name]))
    key = next(iter(keys), None)
    if key is None or None in rows[key]:
        return [Fragment(text or "", "") for text in texts]
    alone = [Fragment(text or "", str(name)) for text, name in zip(texts, rows[key], strict=True)]
    try:
        ids = list(zip(*(rows[name] for name in ("source", key) if name in rows), strict=True))
        rows_of_id: dict[Any, list[int]] = {}
        for row, one_id in enumerate(ids):
            rows_of_id.setdefault(one_id, []).append(row)
    except TypeError:  # lists and the like, which cannot be ids
        return [Fragment(text or "", "") for text in texts]
    if len(rows_of_id) == len(ids) or (not has_places and not id_joins):
        return alone
    places = _places(path, rows)
    fragments: list[Fragment] = []
    is_ordered = bool(places)
    for one_id, its_rows in rows_of_id.items():
        ordered = _ordered(its_rows, list(places.values()))
        if ordered is None:
            together = its_rows[-1] - its_rows[0] == len(its_rows) - 1
            require(together, f"{path}: rows of one fragment must stand together, got those of {one_id[-1]!r} apart")
            is_ordered = False
        text = " ".join(part for row in ordered or its_rows if (part := texts[row]))
        fragments.append(Fragment(text, str(one_id[-1])))
    by = f"by {listed(places)}" if is_ordered else "as they stand"
    note(f"{path}: {len(ids):,} rows have {len(rows_of_id):,} different {key}; rows of one are joined, {by}")
    return fragments


def _places(path: Path, rows: Mapping[str, list[Any]]) -> dict[str, list[float]]:
    """Column -> its numbers (from 2, 2.0 or "2"), of the columns that put the rows of a fragment in order.

    Empty where the line is given in words alone (`obv. 3'`): the words of each line are counted from the start again.

    Raises:
      InputError: a column has numbers in some rows, and neither numbers nor text in others.
    """
    out: dict[str, list[float]] = {}
    for names in ORDER_COLUMNS:
        given = {name: rows[name] for name in names if name in rows and any(v is not None for v in rows[name])}
        for name, values in given.items():
            numbers = [float(v) for v in values if _is_number(v)]
            has_words = len(numbers) < len(values)
            ok = not has_words or not numbers or all(isinstance(v, str) for v in values)
            require(ok, f"{path}: rows of one fragment must have places that can be ordered, got others in {name}")
            if not has_words:
                out[name] = numbers
                break
        else:
            if given and names is ORDER_COLUMNS[0]:
                return {}
    return out


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) < 16 and value.isdecimal()
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53


def _ordered(rows: Sequence[int], columns: Sequence[Sequence[float]]) -> list[int] | None:
    """The rows of one fragment in the order of their places.

    None where they have no places, or where rows that do not follow each other have the same one: a tablet has two
    sides, and lines may be counted on each.
    """
    if not columns:
        return None
    place_of = {row: tuple(column[row] for column in columns) for row in rows}
    in_order = sorted(rows, key=place_of.__getitem__)
    next_row = dict(itertools.pairwise(rows))
    repeats = any(place_of[a] == place_of[b] and next_row.get(a) != b for a, b in itertools.pairwise(in_order))
    return None if repeats else in_order


def _json_rows(path: Path, column: str) -> dict[str, list[Any]]:
    """Column -> values, for the columns that are needed."""
    content = read_text(path, "JSON")
    fragments: Any = _json_lines(path, content) if content.lstrip()[:1] in ("{", "") else None
    if fragments is None:
        try:
            fragments = parse_json(content)
        except InputError as error:
            raise InputError(f"{path}: {error}; fragments are a JSON list, JSON lines or Parquet") from None
    ok = isinstance(fragments, list) and all(isinstance(f, dict) for f in fragments)
    require(ok, f'{path}: must be a JSON list of fragments, {{"_id": ..., "{column}": ...}} each')
    _check_column(path, column, dict.fromkeys(name for fragment in fragments for name in fragment))
    names = [name for name in (*IDS, "source", *ORDER) if fragments and all(name in f for f in fragments)]
    return {name: [f.get(name) for f in fragments] for name in {column: None} | dict.fromkeys(names)}


def _check_column(path: Path, column: str, names: Collection[str]) -> None:
    """Raise `InputError` unless there is such a column, or nothing at all."""
    there = listed(names, 12)
    require(
        column in names or not names,
        f"{path}: must have a column {column}, got {there}; prepare_dataset.py takes another, as text_column",
    )


def _json_lines(path: Path, content: str) -> list[Any] | None:
    """The objects of JSON lines; None where the first line is no object, so that the file is something else."""
    out, by_name = [], path.suffix.lower() in (".jsonl", ".ndjson")
    for number, line in enumerate(content.split("\n"), start=1):
        try:
            out += [parse_json(line)] if line.strip() else []
        except InputError as error:
            if not out and not by_name:
                return None
            raise InputError(f"{path}: line {number} must be JSON in UTF-8: {error}") from None
    return out if len(out) > 1 or by_name else None


def _parquet_rows(path: Path, column: str) -> dict[str, list[Any]]:
    """Column -> values, for the columns that are needed."""
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        _check_column(path, column, names)
        wanted = [column, *(name for name in (*IDS, "source", *ORDER) if name in names and name != column)]
        table = pq.read_table(path, columns=wanted)
        table.validate(full=True)
        return {name: table[name].to_pylist() for name in wanted}
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{path}: must be a whole Parquet file, got: {' '.join(str(error).split())}") from None
