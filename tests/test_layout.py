"""The tests follow the rooms, and each file stands by itself."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
ROOMS = {path.parent.name for path in (ROOT / "jaxsae").glob("*/__init__.py")} | {"convert"}


def imported(path: Path) -> set[str]:
    """The last part of every module that a file imports, and the names that it takes."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(alias.name for alias in node.names)}
    return {name.split(".")[-1] for name in names}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_no_test_imports_another(path):
    """What several need stands in conftest.py or helpers.py."""
    assert not imported(path) & {other.stem for other in TESTS}


def test_every_folder_is_a_room_and_every_name_is_used_once():
    """Without packages, pytest knows a test file by its base name."""
    assert {path.parent.name for path in TESTS} - {"tests"} <= ROOMS
    assert len({path.name for path in TESTS}) == len(TESTS)
