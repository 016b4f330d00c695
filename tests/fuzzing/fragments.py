"""Files of fragments: JSON, JSON lines, Parquet."""

import re
from typing import Any

from fuzzing.fragment_rows import lines, some_text, write_parquet, write_text
from fuzzing.inputs import UNCLEAR, Input


def cleaned(text: str) -> str:
    """The original's cleaning."""
    for pattern, by in ((r"\[[^\]]*\]", " "), (r"\([^\)]*\)", " "), (r"\{[^\}]*\}", " ")):
        text = re.sub(pattern, by, text)
    text = "".join(c for c in text if c not in "0123456789₀₁₂₃₄₅₆₇₈₉")
    return re.sub(r"\s+", " ", text.replace("…", " ").replace("×", " ")).strip()


def fragments(one: Input) -> None:
    """A file of fragments: of one row each, or of a row for each line or word."""
    column = one.pick("atf", "atf", "atf", "text", "value_clean")
    joined = one.maybe(0.5)
    n = one.pick(1, 2, 5, 8)
    form = one.pick("json", "json", "lines", "lines", "parquet")
    rows, texts = lines(one, column, n, form != "parquet") if joined else singles(one, column, n)
    if form == "parquet":
        write_parquet(one, rows, column)
    else:
        write_text(one, rows, form)
    one.given = column
    if one.maybe(0.02):
        one.given = "nothing"
        one.did("another column", UNCLEAR)
    meant = [t for t in map(cleaned, texts) if t]
    if not meant:
        one.did("no text", UNCLEAR)
    one.meant = meant


def singles(one: Input, column: str, n: int) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each fragment."""
    rows: list[dict[str, Any]] = []
    texts: list[str] = []
    key = one.pick("_id", "id", "fragment_id", None)
    more = dict.fromkeys(one.rng.sample(("genre", "line_num", "meta", "collection", "word"), 2), objects_json)
    for i in range(n):
        row: dict[str, Any] = {} if key is None else {key: one.pick(f"K.{i}", i) if one.maybe(0.5) else f"K.{i}"}
        text: Any = some_text(one)
        match one.rng.random():
            case x if x < 0.05:
                text = None
            case x if x < 0.1:
                text = one.pick("", " ", "[x]", "12")
        if text is not None or one.maybe(0.5):
            row[column] = text
        rows.append(row | {name: make(one) for name, make in more.items()})
        texts.append(text or "")
    if one.maybe(0.04):
        one.pick(*rows)[column] = one.pick(5, 1.5, ["a-na"], {"a": "b"}, True)
        one.did("a text that is none", UNCLEAR)
    return rows, texts


def objects_json(one: Input) -> Any:
    return one.pick(None, 1, "x")


def read_texts(one: Input) -> list[str]:
    from jaxsae.text import fragments

    return [found.text for found in fragments.read_fragments(one.path, one.given)]
