"""Tables, bars and progress: nothing is cut or read as markup, whatever the stream is."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import re
import subprocess
import sys
import time

import pytest
from conftest import ROOT, TINY, without_progress

from jaxsae.cli import terminal

pytestmark = pytest.mark.usefixtures("quick_compiles")

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal(io.StringIO):
    """A stream that says it is a terminal of some width."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return -1


@pytest.fixture(autouse=True)
def every_table_fits_80_columns():
    """Those of the commands do; here there are tables of any kind."""


@pytest.fixture
def table(monkeypatch):
    """Lines of a table on a terminal so wide; None: on what is no terminal."""

    def lines(width: int | None, title: str | None, columns, rows, **more) -> list[str]:
        size = os.terminal_size((width or 80, 24))
        monkeypatch.setattr(terminal.os, "get_terminal_size", lambda descriptor: size)
        stream = io.StringIO() if width is None else Terminal()
        terminal.print_table(title, columns, rows, file=stream, **more)
        shown = stream.getvalue()
        assert width is not None or "\x1b" not in shown
        return ESCAPES.sub("", shown).splitlines()

    return lines


def squeezed(text: str) -> str:
    """Without the spaces, which a wrapped cell has at other places."""
    return re.sub(r"\s", "", text)


def cells_of(lines: list[str], rows: int) -> list[list[list[str]]]:
    """Table by table, row by row, the header first: each cell, its lines joined.

    The names of rows, `r0.` and so on, stand on their first line.
    """
    tables: list[list[list[str]]] = []
    for line in lines:
        if line.startswith("┏"):
            tables.append([])
        elif line.startswith(("┃", "│")):
            cells = [squeezed(cell) for cell in re.split("[┃│]", line[1:-1])]
            if not tables[-1] or re.fullmatch(r"r\d\.", cells[0]):
                tables[-1].append(cells)
            else:
                tables[-1][-1] = [a + b for a, b in zip(tables[-1][-1], cells, strict=True)]
    assert all(len(found) == 1 + rows for found in tables)
    return tables


WORDS = ["šar-ru-um", "0.0123", "[old]", "[/]", "[bold", "red]x[/]", "12.5%", ":smile:", "{d}UTU", "楔形文字", "3"]
WORDS += ["a_very_long_name_of_a_file.pt"]


def random_table(seed: int) -> tuple[int, list[str], list[list[str]]]:
    draw = random.Random(seed)
    n = draw.randint(1, 12)
    kinds = [draw.random() < 0.7 for _ in range(n)]

    def cell(figures: bool) -> str:
        if figures:
            return f"{draw.random() * 10 ** draw.randint(-3, 6):.4g}"
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 5)))

    columns = [f"{draw.choice(['L0', 'cosine', 'of the text'])} {i}" for i in range(n)]
    rows = [[f"r{i}.", *(cell(kind) for kind in kinds[1:])] for i in range(draw.randint(1, 6))]
    return draw.randint(1, min(2, n)), columns, rows


@pytest.mark.parametrize("width", [2, 3, 7, 12, 20, 33, 50, 80, 100, 137, 200, 400, None])
def test_every_cell_is_whole_on_every_width(table, width):
    from rich.cells import cell_len

    for seed in range(20):
        key, columns, rows = random_table(seed)
        lines = table(width, "Of [old] things", columns, rows, key=key)
        if width is not None:
            assert all(cell_len(line) <= width for line in lines), (seed, lines)
        shown = squeezed("".join(lines))
        assert "…" not in shown
        assert squeezed("Of [old] things") in shown
        names = [squeezed(row[0]) for row in rows]
        header = next((line for line in lines if line.startswith("┃")), "")
        turned = [squeezed(cell) for cell in re.split("[┃│]", header[1:-1])][1:] == names and key == 1
        assert not turned or len(rows) <= terminal.FEW_ROWS
        if turned:
            body = [re.split("[┃│]", line[1:-1]) for line in lines if line.startswith("│")]
            for at, row in enumerate([columns, *rows]):
                assert "".join(squeezed(cells[at]) for cells in body) == "".join(map(squeezed, row[1:]))
            continue
        tables = cells_of(lines, len(rows))
        if not tables:
            assert all(squeezed(f"{n}: {c}") in shown for row in rows for n, c in zip(columns, row, strict=True))
            continue
        names = []
        for header, *body in tables:
            at = [columns_at(columns, name) for name in header]
            assert at[:key] == list(range(key))
            names += at[key:]
            assert [row[: len(at)] for row in body] == [[squeezed(row[i]) for i in at] for row in rows]
        assert names == list(range(key, len(columns)))


def columns_at(columns: list[str], name: str) -> int:
    return [squeezed(column) for column in columns].index(name)


def test_what_is_no_terminal_gets_one_table_without_colours(table, monkeypatch):
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("COLUMNS", "20")
    columns, row = [f"column {i}" for i in range(40)], ["x" * 300, *(f"0.{i}" for i in range(39))]
    lines = table(None, "t" * 500, columns, [row])
    assert lines[0] == "t" * 500
    assert len(lines) == 6
    assert all(cell in lines[4] for cell in row)


def test_a_dumb_terminal_is_as_wide_as_it_says(table, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert len(table(200, None, [f"column {i}" for i in range(12)], [["0.0123"] * 12])) == 5


def test_columns_are_parted_before_names_are_broken(table):
    columns = ["SAE", "layer", "L0", "FVU", "cosine", "norm", "dead", "dense", "CE"]
    name = "sae_layer8_optimized_l0-16.pt"
    lines = table(80, None, columns, [[name, *["12.3456"] * 8]])
    assert sum(name in line for line in lines) == 2
    assert len(lines) == 10


def test_a_table_of_few_rows_is_turned_before_it_is_parted_often(table):
    """What `evaluate` prints of one SAE, on a terminal of 80 columns."""
    columns = ["SAE", "layer", *(f"figure {i}" for i in range(12))]
    row = ["out/sae_layer8_optimized_a_long_name.pt", "8", *(f"0.12{i}" for i in range(12))]
    lines = table(80, None, columns, [row])
    assert [line.split("┃")[1:3] for line in lines if line.startswith("┃")] == [[f" {'SAE':<9} ", f" {row[0]} "]]
    found = [[cell.strip() for cell in line.split("│")[1:3]] for line in lines if line.startswith("│")]
    assert found == [[name, cell] for name, cell in zip(columns[1:], row[1:], strict=True)]
    many = table(80, None, columns, [row] * 5)
    assert sum(line.startswith("┏") for line in many) > 2


def test_figures_stand_to_the_right_and_texts_to_the_left(table):
    lines = table(None, None, ["name", "figure", "list"], [["a", "1.5", "12, 3"], ["bcd", "*12.5%", "5, 6, 7"]])
    assert lines[3] == "│ a    │    1.5 │ 12, 3   │"


def test_rows_must_fit_the_columns():
    with pytest.raises(ValueError, match="zip"):
        terminal.print_table(None, ["a", "b"], [["1"]], file=io.StringIO())


def test_control_characters_do_nothing(table):
    lines = table(None, None, ["name"], [["\x1b[31mred\n\t\x07"], ["a\u2028b"], ["\udcff"]])
    assert "\\x1b[31mred\\n\\t\\x07" in lines[3]
    assert "a\\u2028b" in lines[4]
    assert "\\udcff" in lines[5]


def narrow(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "gb18030", "utf-8"])
def test_streams_of_other_encodings(encoding):
    with narrow(encoding) as stream:
        terminal.print_table("Title → š", ["näme", "figure"], [["šar 𒀭", "1"], ["x", "22"]], file=stream)
        bars = terminal.ramp(stream)
        terminal.print_wrapped(f"a š {bars}", file=stream)
        stream.flush()
        shown = stream.buffer.getvalue().decode(encoding)
    assert len(bars) == 9
    assert bars in shown
    known = "šar 𒀭".encode(encoding, "backslashreplace").decode(encoding)
    assert known in shown
    if encoding != "gb18030":  # its letters are of another width than the characters counted
        assert len({len(line) for line in shown.splitlines()[1:-1]}) == 1
    assert ("▂" in bars) == (encoding in ("utf-8", "gb18030"))


def test_lists_wrap_on_a_terminal_and_nowhere_else(monkeypatch):
    monkeypatch.setattr(terminal.os, "get_terminal_size", lambda descriptor: os.terminal_size((30, 24)))
    text = "  fires on  " + ", ".join(["'a' 20% (on 3%)"] * 5)
    wide, slim = io.StringIO(), Terminal()
    terminal.print_wrapped(text, indent=12, file=wide)
    terminal.print_wrapped(text, indent=12, file=slim)
    assert wide.getvalue() == text + "\n"
    lines = slim.getvalue().splitlines()
    assert max(map(len, lines)) <= 30
    assert all(line.startswith(" " * 12) for line in lines[1:])
    assert squeezed("".join(lines)) == squeezed(text)


def test_a_closed_pipe_is_told_as_one():
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "closed")

    with pytest.raises(BrokenPipeError):
        terminal.print_table(None, ["a"], [["b"]], file=Closed())


CODE = """
import os, sys
sys.path.insert(0, {root!r})
from jaxsae.cli import terminal
terminal.prepare_streams()
with open({target!r}, "w") as file:
    number = file.fileno()
    print("out š")
    print("err š", file=sys.stderr, flush=True)
    os.write(1, b"raw"), os.write(2, b"raw")
    sys.stdout.flush()
    file.write(f"{{number > 2}} {{sys.stdout.errors}}")
"""


@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", "<&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_take_no_file(tmp_path, closed):
    target = tmp_path / "file"
    (tmp_path / "code.py").write_text(CODE.format(root=str(ROOT), target=str(target)))
    line = f"{sys.executable} {tmp_path / 'code.py'} {closed}"
    env = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert target.read_text() == "True backslashreplace"
    if ">&-" not in closed:
        assert b"raw" in done.stdout
        assert b"out \\u0161\n" in done.stdout


def test_a_chosen_way_with_unknown_characters_stays(monkeypatch):
    with narrow("ascii") as strict, io.TextIOWrapper(io.BytesIO(), "ascii", "replace") as chosen:
        monkeypatch.setattr(sys, "stdout", strict)
        monkeypatch.setattr(sys, "stderr", chosen)
        terminal.prepare_streams()
        assert strict.errors == "backslashreplace"
        assert chosen.errors == "replace"
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    terminal.prepare_streams()


def test_evaluate_with_standard_output_closed(tiny_pt, tiny_dataset, tmp_path):
    import jax

    from convert import save_sae
    from jaxsae.config import SAEConfig
    from jaxsae.sae.architectures import init

    config = SAEConfig(TINY.d_model, 60, k=5, architecture="topk")
    save_sae(tmp_path / "a.pt", init(jax.random.key(0), config), config, extra={"layer": 1})
    flags = f"--sae {tmp_path}/a.pt --checkpoint {tiny_pt} --dataset {tiny_dataset} --json {tmp_path}/e.json"
    line = f"{sys.executable} {ROOT}/scripts/evaluate.py {flags} >&-"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, without_progress(done.stderr)) == (0, "")
    assert json.loads((tmp_path / "e.json").read_text())[0]["layer"] == 1


def test_progress_stays_within_its_total(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with terminal.Progress("work", 4, "steps", quiet=False, every=0).shown() as progress:
        progress.skip(2)
        for _ in range(4):
            progress.advance(note="[note]")
    lines = stream.getvalue().splitlines()
    assert [int(line.split()[1]) for line in lines] == [50, 75, 100, 100, 100]
    assert lines[-1].endswith("steps/s  [note]")
    assert "\x1b" not in stream.getvalue()
    with terminal.Progress("nothing", 0, "steps", quiet=False, every=0).shown() as progress:
        progress.advance(0)


def test_work_that_says_nothing_is_said_to_go_on(monkeypatch):
    """16 minutes without a word were seen while a page was made."""
    for total, expected in ((None, r"answer  \d s"), (4, r"answer  25 %  \d+ steps/s")):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        with terminal.Progress("answer", total, "steps", quiet=False, every=0.1).shown() as progress:
            if total:
                progress.advance()
            time.sleep(0.5)
        lines = stream.getvalue().splitlines()
        time.sleep(0.3)
        assert stream.getvalue().splitlines() == lines  # nothing after its end
        assert 2 <= len(lines) <= 6
        assert all(re.fullmatch(expected, line) for line in lines), lines


def test_quiet_work_says_nothing(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with terminal.Progress("work", None, "", quiet=True, every=0.05).shown():
        time.sleep(0.3)
    assert not stream.getvalue()


@pytest.fixture
def shares(monkeypatch):
    """Of a run's progress in training, in percent, one step at a time."""
    from jaxsae.train import plan

    found: list[float] = []

    class Watched(terminal.Progress):
        def advance(self, by: int = 1, note: str | None = None) -> None:
            super().advance(by, note)
            if self.title.startswith("train"):
                found.append(100 * self.done / self.total)

    monkeypatch.setattr(terminal, "Progress", Watched)
    monkeypatch.setattr(plan, "members_at_once", lambda config: 2)
    return found


def test_several_saes_are_done_at_100_percent(script, tiny_pt, tiny_dataset, tmp_path, shares):
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--output", tmp_path, "--layer", 1, "--verify", 0]
    flags += ["--batch-size", 32, "--epochs", 2, "--expansion", 2]
    new = ["--architecture", "batchtopk", "--target-l0", "4,8", "--seed", "0,1,2"]
    ran = script("train", *flags, *new)
    assert ran.status == 0, ran
    assert shares == sorted(shares)
    assert shares[-1] == 100
    # those of 4 are there: those of 8 alone are trained
    shares.clear()
    for path in tmp_path.glob("*l0-8*"):
        path.unlink()
    ran = script("train", *flags, *new, "--resume")
    assert ran.status == 0, ran
    assert shares == sorted(shares)
    assert 0 < shares[0] < 100 == shares[-1]


def test_saes_that_stop_early_are_done_at_100_percent(script, tiny_pt, tiny_dataset, tmp_path, shares):
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--output", tmp_path, "--layer", 1, "--verify", 0]
    flags += ["--batch-size", 32, "--epochs", 6, "--patience", 1, "--lr", 3, "--l1-coef", "1e-3,1e-2,1e-1"]
    ran = script("train", *flags)
    assert ran.status == 0, ran
    epochs = [len(json.loads(path.read_text())["losses"]) for path in tmp_path.glob("sae_layer*.json")]
    assert min(epochs) < 6
    assert shares == sorted(shares)
    assert shares[-1] == 100


def test_a_context_has_its_damage_in_brackets_and_its_marks_below(capsys):
    from jaxsae.cli.inspect_tables import show_context
    from jaxsae.features.feature_summary import Context

    def shown(damaged: list[int]) -> tuple[str, str]:
        values = [0.0, 1, 0, 4, 2, 0]
        show_context(Context(7, 3, "a-na b", 3, damaged, values, [False, True], "strongest"))
        return tuple(capsys.readouterr().out.splitlines())

    plain, _ = shown([])
    for damaged, text in (([], "a-na b"), ([0], "[a]-na b"), ([1, 2, 3], "a[-na] b"), ([3, 5], "a-n[a] [b]")):
        line, marks = shown(damaged)
        assert text in line
        below = {i: marks[i] for i in range(len(marks)) if marks[i] != " "}
        assert [line[i] for i in below] == ["-", "a", " "]  # the characters on which it fires
        strongest = max(below, key=lambda i: below[i])
        assert line[strongest] == "a"
        assert strongest == plain.rindex("a")  # places stand below each other, whatever is damaged
