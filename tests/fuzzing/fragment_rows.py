"""Rows of lines and words that are to be joined to fragments, and how rows are written."""

import codecs
import itertools
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuzzing.inputs import CLEAR, OPEN, UNCLEAR, Input

WORDS = [
    "a-na",
    "šar-ru-um",
    "{d}UTU",
    "be-lí-ia",
    "[qí-bí]-ma",
    "um-ma",
    "ša₃",
    "é-gal(KID)",
    "lugal",
    "kalam-ma-ke₄",
    "⸢ṭup⸣-pu-um",
    "1.",
    "2'.",
    "[...",
    "x",
    "x]",
    "(x)",
    "{m}",
    "…",
    "3×5",
    "i-na",
    "na-du-ú",
    "₉",
    "x₁₀",
    "&P1",
    "$",
    "[a",
    "[b]",
    "c]",
    "un(closed",
    "]",
    ")",
]


def some_text(one: Input) -> str:
    return one.pick(" ", "\n", "  ", "\r\n", "\u2028").join(one.pick(*WORDS) for _ in range(one.rng.randint(1, 9)))


def lines(one: Input, column: str, n: int, in_json: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each line or word; ids repeat."""
    key, levels = one.pick("_id", "id", "fragment_id"), one.pick("none", "line", "word", "both", "both")
    line = one.pick("line_num", "line_number", "line")
    word = one.pick("word_idx", "word_index", "word")
    with_source = one.maybe(0.25)
    order: list[tuple[Any, ...]] = []
    fragments: dict[Any, list[dict[str, Any]]] = {}
    numbers = one.pick("int", "int", "int", "text", "float", "label", "some labels")
    for i in range(n):
        name = f"K.{i // 2 if with_source else i}"
        names = {"source": one.pick("eBL", "eBL") if i % 2 else "ORACC"} if with_source else {}
        mine = []
        first = one.pick(0, 1, 8)
        for a in range(first, first + one.rng.randint(1, 4)):
            for b in range(one.rng.randint(1, 3) if levels == "both" else 1):
                row = {**names, key: name, column: some_text(one) if one.maybe(0.95) else None}
                if levels in ("line", "both"):
                    row[line] = {"int": a, "text": str(a), "float": float(a), "label": f"{a}'"}.get(
                        numbers, f"{a}{'' if a % 2 else chr(39)}"
                    )
                if levels == "word":
                    row[word] = a
                if levels == "both":
                    row[word] = b
                mine.append(row)
        fragments[*names.values(), name] = mine
        order.append((*names.values(), name))
    rows = [row for one_ in order for row in fragments[one_]]
    texts = [" ".join(row[column] for row in fragments[one_] if row[column]) for one_ in order]
    one.did(f"rows by {levels}{', with sources' * with_source}")
    if numbers == "text" and levels in ("line", "both"):
        one.did("numbers of lines as text", OPEN)
    if len(rows) == len(order):
        one.did("of one row each")
    bare = in_json and key == "_id" and levels == "none"
    if bare:  # in the original's JSON every object is a fragment, whatever its `_id`
        texts = [row[column] or "" for row in rows]
        one.did("rows that are fragments")
    if one.maybe(0.4) and len(rows) > 1 and not bare:
        # shuffled rows are those of the numbers' order, fragments in the order of their first row
        shuffled = rows.copy()
        one.rng.shuffle(shuffled)
        repeated = len(rows) > len(order)
        labels = any("'" in str(row.get(line)) for row in rows)
        ordered = levels != "none" and not labels
        by_first = list(dict.fromkeys((*((row["source"],) if with_source else ()), row[key]) for row in shuffled))
        texts = [texts[order.index(one_)] for one_ in by_first]
        rows = shuffled
        one.did("in another order")
        if not ordered and repeated:
            # where no number says it, the order is that of the file; of rows that are scattered it cannot be known
            of = [(*((row["source"],) if with_source else ()), row[key]) for row in rows]
            runs = 1 + sum(a != b for a, b in itertools.pairwise(of))
            one.did("that no number says", OPEN if runs == len(by_first) else UNCLEAR)
            texts = [
                " ".join(r[column] for r, o in zip(rows, of, strict=True) if o == f and r[column]) for f in by_first
            ]
    if one.maybe(0.15):
        other = one.pick(
            "language", "lemma", "certainty", "word" if word != "word" and levels in ("word", "both") else "x"
        )
        for row in rows:
            row[other] = one.pick("a", "b")
        one.did(f"a column {other}")
    if one.maybe(0.04):
        ids = one.pick("_id", "id")
        if ids != key:
            for i, row in enumerate(rows):
                row[ids] = f"row {i}"
            one.did(f"rows with {ids} of their own", OPEN)
            if levels == "none" and ids == "_id":  # then each is a fragment of its own
                texts = [row[column] or "" for row in rows]
                one.sure = min(one.sure, OPEN)
    return rows, texts


def write_text(one: Input, rows: list[dict[str, Any]], form: str) -> None:
    """JSON or JSON lines, under some name, in some encoding."""
    ascii_ = one.maybe(0.3)
    if form == "json":
        name = one.pick("fragments.json", "fragments.json", "fragments", "a.txt", "a.jsonl")
        content = json.dumps(rows, ensure_ascii=ascii_, indent=one.pick(None, 2))
        if one.maybe(0.04):
            content = json.dumps({"fragments": rows}, indent=2)
            one.did("a list within an object", OPEN)
        elif one.maybe(0.02):
            content = content[:-1] + ",]"
            one.did("a comma too many", UNCLEAR)
        if name == "a.jsonl":
            one.did("a list called .jsonl", OPEN)
    else:
        name = one.pick("a.jsonl", "a.jsonl", "a.ndjson", "a.JSONL", "fragments.json", "fragments")
        each = [json.dumps(row, ensure_ascii=ascii_) for row in rows]
        if one.maybe(0.1):
            each.insert(one.rng.randrange(len(each) + 1), "")
            one.did("an empty line")
        content = "\n".join(each) + "\n" * one.maybe(0.7)
        if len(rows) == 1 and not name.lower().endswith(("jsonl", "ndjson")):
            one.did("one line", OPEN)
        if one.maybe(0.02):
            content += '\n["a-na"]'
            one.did("a line of another kind", UNCLEAR)
    ending, encoding = "\n", "utf-8"
    if one.maybe(0.15):
        ending = "\r\n"
        one.did("CRLF")
    elif one.maybe(0.02):
        ending = "\r"
        one.did("CR", OPEN)
    if one.maybe(0.15):
        encoding = "utf-8-sig"
        one.did("a byte order mark")
    elif one.maybe(0.06):
        encoding = one.pick("utf-16", "utf-16-le", "utf-16-be", "utf-32")
        one.did(encoding, OPEN)
    if one.maybe(0.02) and '{"' in content:
        content = content.replace('{"', '{"meta": 1, "meta": 2, "', 1)
        one.did("a key twice", UNCLEAR)
    one.path = one.folder / name
    raw = content.replace("\n", ending).encode(encoding, "surrogatepass")
    if encoding == "utf-16-be" and one.maybe(0.5):
        raw = codecs.BOM_UTF16_BE + raw
    one.path.write_bytes(raw)
    one.did(f"{form} called {name}")


def write_parquet(one: Input, rows: list[dict[str, Any]], column: str) -> None:
    """The same as a table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    kinds: dict[str, pa.Array] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            kinds[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            # a column is of one kind: of numbers where a text was to be one
            texts = [None if v is None else str(v) for v in values]
            kinds[name] = pa.array(range(len(rows)) if name == column else texts)
    if column in kinds and pa.types.is_string(kinds[column].type):
        form = one.pick("string", "string", "large", "dictionary", "binary", "view")
        if form == "large":
            kinds[column] = kinds[column].cast(pa.large_string())
        elif form == "dictionary":
            kinds[column] = kinds[column].dictionary_encode()
        elif form == "binary":
            kinds[column] = kinds[column].cast(pa.binary())
        elif form == "view":
            kinds[column] = kinds[column].cast(pa.string_view())
        one.did(f"texts as {form}", OPEN if form == "binary" else CLEAR)
    one.path = one.folder / one.pick("a.parquet", "train-00000.parquet", "table")
    table = pa.table(kinds)
    pq.write_table(table, one.path, row_group_size=one.pick(1, 3, 1000), compression=one.pick("snappy", "zstd", "none"))
    one.did("Parquet")
