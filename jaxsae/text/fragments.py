"""Raw fragments in JSON, JSON lines or Parquet -> cleaned texts."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from jaxsae.errors import InputError, listed, note, require
from jaxsae.files import parse_json, read_text
from jaxsae.text import preparation

PLACES = (("line_num", "line_number", "line"), ("word_idx", "word_index", "word"))
"""Columns that say where in its fragment a row stands, where a table has a row for each line or word: the line, and the
word in the line. Of each, the first that holds numbers counts; `line` and `word` may as well hold text."""
ORDER = tuple(name for names in PLACES for name in names)
IDS = ("_id", "fragment_id", "id")


def read_fragments(path: str | Path, column: str = "atf") -> list[str]:
    """The cleaned texts of a file of fragments, in file order; those without text are left out.

    Where several rows have one id, as in a table with a row for each word, they are one fragment: in the order of
    `ORDER`, or of the file. In JSON an `_id` alone joins nothing: in the original's format every object is a fragment.

    Args:
      path: a JSON list of objects, such a list as JSON lines, or a Parquet table; known by content, not by name.
      column: where their texts are.

    Raises:
      InputError: not such a file, no text in it, or rows of one fragment that cannot be put in order.
    """
    path = Path(path)
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    rows = _parquet_rows(path, column) if is_parquet or path.suffix == ".parquet" else _json_rows(path, column)
    raw = rows[column]
    wrong = next((i for i, one in enumerate(raw) if not isinstance(one, str | None)), None)
    require(wrong is None, f"{path}: {column} must be a string or null, got another type in fragment {wrong}")
    joins = "_id" not in rows or is_parquet
    texts = [t for t in (preparation.clean(one) for one in _as_fragments(path, rows, column, joins) if one) if t]
    require(
        bool(texts), f"{path}: must have at least one fragment with text, got none of {len(raw)} in column {column}"
    )
    return texts


def _as_fragments(path: Path, rows: Mapping[str, list[Any]], column: str, joins: bool) -> list[str | None]:
    """The texts, rows of one id joined; unless `joins`, only those that say their place in it."""
    found = [name for name in IDS if name in rows]
    has_places = any(name in rows for name in ORDER)
    if has_places:  # beside a number of its own, a row of a line may have its fragment's
        found.sort(key=lambda name: len(set(map(str, rows[name]))) == len(rows[name]))
    key = next(iter(found), None)
    if key is None or None in rows[key]:
        return rows[column]
    try:
        ids = list(zip(*(rows[name] for name in ("source", key) if name in rows), strict=True))
        numbers: dict[Any, list[int]] = {}
        for number, one in enumerate(ids):
            numbers.setdefault(one, []).append(number)
    except TypeError:  # of lists and the like, which name nothing
        return rows[column]
    if len(numbers) == len(ids):
        return rows[column]
    if not has_places and not joins:
        return rows[column]
    order = _places(path, rows)
    out: list[str | None] = []
    told = bool(order)
    for one, of_one in numbers.items():
        ordered = _ordered(of_one, list(order.values()))
        if ordered is None:
            together = of_one[-1] - of_one[0] == len(of_one) - 1
            require(together, f"{path}: rows of one fragment must stand together, got those of {one[-1]!r} apart")
            told = False
        out.append(" ".join(part for n in ordered or of_one if (part := rows[column][n])))
    by = f"by {listed(order)}" if told else "as they stand"
    note(f"{path}: {len(ids):,} rows have {len(numbers):,} different {key}; rows of one are joined, {by}")
    return out


def _places(path: Path, rows: Mapping[str, list[Any]]) -> dict[str, list[float]]:
    """The columns that rows of one fragment can be put in order by -> their numbers, of 2, 2.0 or "2".

    None where the line is said in words alone (`obv. 3'`): numbers of words begin anew with each line.

    Raises:
      InputError: a column has numbers in some rows, and neither numbers nor text in others.
    """
    out: dict[str, list[float]] = {}
    for names in PLACES:
        given = {name: rows[name] for name in names if name in rows and any(v is not None for v in rows[name])}
        for name, values in given.items():
            numbers = [float(v) for v in values if _is_number(v)]
            words = len(numbers) < len(values)
            ok = not words or not numbers or all(isinstance(v, str) for v in values)
            require(ok, f"{path}: rows of one fragment must have places that can be ordered, got others in {name}")
            if not words:
                out[name] = numbers
                break
        else:
            if given and names is PLACES[0]:
                return {}
    return out


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) < 16 and value.isdecimal()
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53


def _ordered(rows: Sequence[int], order: Sequence[Sequence[float]]) -> list[int] | None:
    """Rows of one fragment by their places; None where there are none, or they return: it may have two sides."""
    if not order:
        return None
    places = {n: tuple(column[n] for column in order) for n in rows}
    out = sorted(rows, key=places.__getitem__)
    after = dict(itertools.pairwise(rows))
    returns = any(places[a] == places[b] and after.get(a) != b for a, b in itertools.pairwise(out))
    return None if returns else out


def _json_rows(path: Path, column: str) -> dict[str, list[Any]]:
    """Column -> values, of those that are needed."""
    content = read_text(path, "JSON")
    fragments: Any = _json_lines(path, content) if content.lstrip()[:1] in ("{", "") else None
    if fragments is None:
        try:
            fragments = parse_json(content)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    ok = isinstance(fragments, list) and all(isinstance(f, dict) for f in fragments)
    require(ok, f'{path}: must be a JSON list of fragments, {{"_id": ..., "{column}": ...}} each')
    names = [name for name in (*IDS, "source", *ORDER) if fragments and all(name in f for f in fragments)]
    return {name: [f.get(name) for f in fragments] for name in {column: None} | dict.fromkeys(names)}


def _json_lines(path: Path, content: str) -> list[Any] | None:
    """Their objects; None where the first line is none, so that this is something else."""
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
    """Column -> values, of those that are needed."""
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        require(
            column in names, f"{path}: must have a column {column}, got {listed(names, 12)}; name it by --text-column"
        )
        wanted = [column, *(name for name in (*IDS, "source", *ORDER) if name in names and name != column)]
        table = pq.read_table(path, columns=wanted)
        table.validate(full=True)
        return {name: table[name].to_pylist() for name in wanted}
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{path}: must be a whole Parquet file, got: {' '.join(str(error).split())}") from None
