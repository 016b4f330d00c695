"""Files of damaged texts: a text a line, ATF, or fragments as `jaxsae.text.fragments` reads them."""

import re
from pathlib import Path
from typing import NamedTuple

from jaxsae.errors import require
from jaxsae.files import read_text
from jaxsae.text.damaged_text import DamagedText, read_damaged
from jaxsae.text.fragments import read_raw_fragments

FRAGMENTS = (".json", ".jsonl", ".ndjson", ".parquet")
"""Names of files of fragments end so."""
_HEADER = re.compile(r"^&\s*(\S*)", re.MULTILINE)


class Named(NamedTuple):
    """A text of a file."""

    name: str
    """What it is called there: its line, its number in an ATF file's header, or its place among the fragments."""
    text: DamagedText


def read_damaged_file(path: str | Path, text_column: str = "atf") -> list[Named]:
    """The texts of a file, in its order; empty ones are left out.

    Args:
      path: by its name, a file of fragments (.json, .jsonl, .ndjson, .parquet), ATF (.atf: a text from each line that
        begins with `&` to the next; without such lines, one text), or anything else: a text a line.
      text_column: of a file of fragments.

    Raises:
      InputError: not such a file, or no text in it.
      OSError: no such file.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind in FRAGMENTS:
        raw = read_raw_fragments(path, text_column)
        texts = [
            Named(one.name or f"fragment {n}", read_damaged(one.text)) for n, one in enumerate(raw) if one.text.strip()
        ]
    elif kind == ".atf":
        texts = _atf_texts(read_text(path))
    else:
        lines = read_text(path).split("\n")
        texts = [Named(f"line {n}", read_damaged(line)) for n, line in enumerate(lines, start=1) if line.strip()]
    require(bool(texts), f"{path}: must have at least one text, got none")
    return texts


def _atf_texts(content: str) -> list[Named]:
    headers = list(_HEADER.finditer(content))
    starts = [found.start() for found in headers]
    names = [found[1] for found in headers]
    if not starts or content[: starts[0]].strip():  # before the first header there is a text without one
        starts, names = [0, *starts], ["", *names]
    out: list[Named] = []
    for name, start, end in zip(names, starts, [*starts[1:], len(content)], strict=True):
        text = read_damaged(content[start:end], atf=True)
        out += [Named(name or f"text {len(out) + 1}", text)] if text.cleaned else []
    return out
