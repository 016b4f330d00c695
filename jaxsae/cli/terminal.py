"""What the scripts show: tables, bars and progress, on a terminal, in a pipe or in a log.

The stream decides, not the environment: what is no terminal gets no colours and no cut lines. Imports neither JAX nor
torch, and rich only where something is shown, so that `--help` is free.
"""

import contextlib
import io
import os
import re
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TextIO

NEVER_RAISES = ("backslashreplace", "replace", "ignore", "xmlcharrefreplace", "namereplace")
"""What Python does with a character that a stream's encoding has not, where that is not an error."""
FEW_ROWS = 4
"""So many rows, at most, a table may have to be turned."""
ENDLESS = 2**20
"""Columns of what is no terminal."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
FIGURE = re.compile(r"([*]?[+-]?(\d([\d,.e+-]*\d)?|nan|inf)%?( \S+){0,2})?|-")
"""A cell of one figure, with a few words at most; `-` and nothing stand for one that is not there."""


def prepare_streams() -> None:
    """Make standard output and error such that writing there never fails for what they are.

    Descriptors 0, 1 and 2 that are closed become the null device: a file that is opened later would take their number,
    and what is meant for the terminal would go into it. A character that a stream's encoding has not is shown as its
    escape.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # so Python tells that it was closed
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors not in NEVER_RAISES:
            stream.reconfigure(errors="backslashreplace")


def printable(text: object, file: TextIO | None = None) -> str:
    """The text as one line that the stream can show: a control character, or one it has not, as its escape."""
    escaped = CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))
    encoding = _encoding(file)
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def shown(wanted: str, instead: str, file: TextIO | None = None) -> str:
    """`wanted`, or `instead` where the stream's encoding has not all of its characters."""
    return wanted if printable(wanted, file) == wanted else instead


def visible(text: str) -> str:
    """A text with its spaces shown."""
    return text.replace(" ", shown("␣", "_"))


def ramp(file: TextIO | None = None) -> str:
    """Nine characters from nothing to full, to draw bars with on the stream."""
    return shown(" ▁▂▃▄▅▆▇█", " .:-=+*#@", file)


def _encoding(file: TextIO | None) -> str:
    return getattr(file or sys.stdout, "encoding", None) or "utf-8"


def _width(file: TextIO) -> int | None:
    """Columns of the terminal that the stream is; 80 where it does not say; None: it is none."""
    if not file.isatty():
        return None
    try:
        return os.get_terminal_size(file.fileno()).columns or 80
    except OSError:
        return 80


def _console(file: TextIO, **options: Any) -> Any:
    """A rich console that takes from the stream alone whether it is a terminal, and text as it is."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise  # as it came: the scripts end there in their own way

    terminal = file.isatty()
    return Plain(
        file=file,
        force_terminal=terminal,
        force_interactive=terminal,
        color_system="auto" if terminal else None,
        # both, else rich asks the environment
        width=_width(file) or ENDLESS,
        height=25,
        markup=False,
        emoji=False,
        highlight=False,
        **options,
    )


def print_wrapped(text: str, *, indent: int = 0, file: TextIO | None = None) -> None:
    """Print a line; on a terminal wrapped at words.

    Args:
      text: shown as it is.
      indent: where the lines after the first begin.
      file: standard output, if not given.
    """
    file = file or sys.stdout
    line, width = printable(text, file), _width(file)
    if width and width > 2 * indent:
        line = textwrap.fill(line, width, subsequent_indent=" " * indent, break_on_hyphens=False)
    file.write(line + "\n")


class _Column(NamedTuple):
    """One column of a table; widths are in columns of the terminal."""

    title: str
    cells: list[str]
    figures: bool
    least: int
    """So narrow it may be made: its text wraps at words, its figures not at all."""
    natural: int


def _column(title: str, cells: list[str], room: int | None) -> _Column:
    from rich.cells import cell_len

    figures = all(FIGURE.fullmatch(cell) for cell in cells)
    natural = max(map(cell_len, [title, *cells]))
    # a long name stays whole up to half of the room; sentences get a quarter
    words = max(map(cell_len, [*title.split(), *([] if figures else " ".join(cells).split())]), default=0)
    least = max(map(cell_len, cells), default=0) if figures else min(natural, (room or natural) // 4)
    return _Column(title, cells, figures, max(least, min(words, (room or words) // 2)), natural)


def _taken(widths: Sequence[int]) -> int:
    """Width of a table whose columns are so wide: a space on both sides of each, and lines between and around them."""
    return sum(widths) + 3 * len(widths) + 1


def _parts(columns: Sequence[_Column], key: int, room: int | None) -> list[list[_Column]] | None:
    """Tables that fit, with the key's columns in each; None where not even one column beside them does."""
    if room is None:
        return [list(columns)]
    names, parts = list(columns[:key]), [list(columns[:key])]
    for column in columns[key:]:
        if _taken([c.least for c in [*parts[-1], column]]) > room and len(parts[-1]) > key:
            parts.append(list(names))
        parts[-1].append(column)
    return parts if all(_taken([c.least for c in part]) <= room for part in parts) else None


def _widths(part: Sequence[_Column], room: int | None) -> list[int]:
    """Of a part's columns: the widest gives way first."""
    widths = [column.natural for column in part]
    while room is not None and _taken(widths) > room:
        at = max(range(len(part)), key=lambda i: (widths[i] > part[i].least, widths[i]))
        widths[at] -= 1
    return widths


def print_table(
    title: str | None,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    key: int = 1,
    file: TextIO | None = None,
) -> None:
    """Print a table in which nothing is cut and nothing is read as markup.

    Where the stream is no terminal, it is as wide as it needs. On a terminal it fits: long cells wrap, then the columns
    are parted into tables one below the other. If these would be more than two and rows are few, the table is turned: a
    row for each column. Where one column beside the key is too wide still, each row is a block of lines `name: value`.

    Args:
      title: stands above it.
      columns: their names; different, for a part shows only some.
      rows: a cell for each column; columns of figures stand to the right.
      key: so many of the first columns name the row: they stand in each part.
      file: standard output, if not given.

    Raises:
      ValueError: a row has more or fewer cells than there are columns.
    """
    from rich.table import Table
    from rich.text import Text

    file = file or sys.stdout
    room, console = _width(file), _console(file)
    lines = [[printable(cell, file) for cell in row] for row in (columns, *rows)]
    table = [_column(name, cells, room) for name, *cells in zip(*lines, strict=True)]
    parts = _parts(table, key, room)
    if parts is not None and len(parts) > 2 and key == 1 and len(rows) <= FEW_ROWS:
        turned = _parts([_column(name, cells, room) for name, *cells in lines], key, room)
        parts = turned if turned is not None and len(turned) == 1 else parts
    if title:
        console.print(Text(printable(title, file), "italic", overflow="fold"))
    for part in parts or []:
        grid = Table()
        for column, width in zip(part, _widths(part, room), strict=True):
            grid.add_column(
                Text(column.title), width=width, justify="right" if column.figures else "left", overflow="fold"
            )
        for cells in zip(*(column.cells for column in part), strict=True):
            grid.add_row(*map(Text, cells))
        console.print(grid)
    for line in [] if parts else lines[1:]:
        for name, cell in zip(lines[0], line, strict=True):
            console.print(Text.assemble((f"{name}: " if name else "", "bold"), cell, overflow="fold"))
        console.print()


class Progress:
    """A bar on a terminal; elsewhere a line every ten seconds, so that a log stays readable. Goes to standard error.

    Args:
      title: what is done.
      total: of how many units; None: it is not known, and how long it takes is said in place of how far it is.
      unit: what they are called.
      every: seconds of silence after which a line is written where there is no terminal.
    """

    def __init__(self, title: str, total: int | None, unit: str, quiet: bool, every: float = 10.0) -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.title, self.total, self.unit, self.quiet, self.every = title, total, unit, quiet, every
        self.console = _console(sys.stderr, quiet=quiet, soft_wrap=True)
        known = (TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False))
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *(known if total is not None else (TimeElapsedColumn(),)),
        )
        self.bar = Bar(*columns, console=self.console, transient=True, disable=quiet or not self.console.is_terminal)
        self.done, self.skipped, self.note = 0, 0, ""
        self.began = self.said = time.monotonic()
        self.lock = threading.Lock()

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return (self.done - self.skipped) / max(time.monotonic() - self.began, 1e-9)

    def skip(self, units: int) -> None:
        """So many were done before, or need not be done: they do not count in the rate."""
        self.skipped += units
        self.advance(units)

    def advance(self, by: int = 1, note: str | None = None) -> None:
        """Say that `by` more units are done; `note` stands behind the bar until the next one."""
        self.done += by
        self.note = self.note if note is None else note
        done = min(self.done, self.total or 0)  # the total may be an estimate
        self.bar.update(self.task, completed=done, note=f"{self.rate:,.0f} {self.unit}/s  {self.note}")
        self._say_if_due()

    def _say_if_due(self) -> None:
        """Write a line, if it is time and there is no bar."""
        with self.lock:
            now = time.monotonic()
            if not self.bar.disable or self.quiet or now - self.said < self.every:
                return
            self.said = now
            if self.total is None:
                how_far = f"{now - self.began:.0f} s"
            else:
                share = 100 * min(self.done, self.total) // max(self.total, 1)
                how_far = f"{share} %  {self.rate:,.0f} {self.unit}/s  {self.note}".rstrip()
            self.console.print(f"{self.title}  {how_far}")

    @contextlib.contextmanager
    def shown(self) -> Iterator["Progress"]:
        """Show it while the block runs."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(max(self.every / 10, 0.05)):
                self._say_if_due()  # also where nothing advances for long

        with self.bar:
            self.task = self.bar.add_task(self.title, total=self.total, note="")
            if self.bar.disable and not self.quiet:
                threading.Thread(target=watch, daemon=True).start()
            try:
                yield self
            finally:
                ended.set()


def working(title: str, quiet: bool = False) -> contextlib.AbstractContextManager[Progress]:
    """Show that something goes on of which it is not known how long it takes."""
    return Progress(title, None, "", quiet).shown()
