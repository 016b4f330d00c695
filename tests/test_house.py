"""The layering, and what a command costs before it does anything."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import ROOT

from jaxsae.cli.main import COMMANDS

SCRIPTS = sorted(p.stem for p in (ROOT / "scripts").glob("*.py"))
MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for p in (ROOT / "jaxsae").rglob("*.py")
)


def fresh(code: str, *args: str) -> str:
    """Standard output of a fresh process."""
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_library_imports_no_torch():
    imports = "; ".join(f"import {module}" for module in MODULES)
    assert "False" in fresh(f"import sys, jaxsae; {imports}; print('torch' in sys.modules)")


def test_the_facades_load_nothing_heavy_and_name_everything():
    heavy = "{'jax', 'flax', 'torch', 'numpy', 'pyarrow', 'matplotlib'}"
    code = f"import sys, jaxsae, convert; print({heavy} & set(sys.modules)); [getattr(m, n) for m in (jaxsae, convert) for n in m.__all__]"
    assert fresh(code).strip() == "set()"


FILES = """
import sys
from pathlib import Path
from jax import random
from convert import FORMATS, convert_sae, load_restoration_model, load_sae, save_sae
from convert.checkpoints import to_folder, to_pt
from jaxsae.config import SAEConfig
from jaxsae.sae.architectures import init
given, out = map(Path, sys.argv[1:])
load_restoration_model(given)
to_folder(given, out / "folder")
to_pt(out / "folder", out / "model.pt")
load_restoration_model(out / "model.pt")
save_sae(out / "sae.pt", init(random.key(0), SAEConfig(6, 10)), SAEConfig(6, 10))
for name in FORMATS:
    convert_sae(out / "sae.pt", out / name, name)
    load_sae(out / name)
print('torch' in sys.modules)
"""


def test_reading_and_writing_files_takes_no_torch(tiny_pt, tmp_path):
    assert fresh(FILES, str(tiny_pt), str(tmp_path)).strip() == "False"


@pytest.mark.parametrize("facade", ["jaxsae", "convert"])
def test_a_facade_says_the_same_to_type_checkers_as_at_run_time(facade):
    module = importlib.import_module(facade)
    nodes = ast.walk(ast.parse((ROOT / facade / "__init__.py").read_text()))
    typed = {a.asname: n.module for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names if a.asname}
    assert typed == module._HOME
    assert set(module.__all__) <= set(dir(module))
    for name, home in module._HOME.items():
        assert getattr(module, name) is getattr(importlib.import_module(home), name)


def test_type_checkers_see_a_wrong_use_of_the_facades(tmp_path):
    uses = {
        'jaxsae.load_samples("folder", "validation", 20).mask': None,
        "jaxsae.load_samples(3)": "arg-type",
        "jaxsae.load_sample": "attr-defined",
        'convert.load_sae("file").config.d_sae': None,
        'convert.load_sae("file").config.dsae': "attr-defined",
    }
    (tmp_path / "use.py").write_text("\n".join(["import convert, jaxsae", *uses]))
    mypy = [sys.executable, "-m", "mypy", "--no-pretty", str(tmp_path / "use.py")]
    done = subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if "use.py:" in line and "error:" in line]
    expected = [f"use.py:{i}: error: [{code}]" for i, code in enumerate(uses.values(), 2) if code]
    assert [f"{line.split(' error:')[0].split('/')[-1]} error: {line[line.rindex('[') :]}" for line in said] == expected


LIGHT = """
loaded = {'jax', 'flax', 'torch', 'numpy', 'pyarrow', 'rich'} & set(sys.modules)
assert not loaded, loaded
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_neither_jax_nor_torch(script):
    code = (
        "import runpy, sys\n"
        "sys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as e: assert not e.code"
    )
    of_pip_alone = script == "what_would_change"  # run before anything is installed, it has no flag of ours
    assert ("usage: " if of_pip_alone else "--debug") in fresh(code + LIGHT, str(ROOT / "scripts" / f"{script}.py"))


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_the_command_says_what_it_can_without_jax_or_torch(words):
    code = (
        "import sys\n"
        "from jaxsae.cli.main import main\n"
        "sys.argv[0] = 'jaxsae'\n"
        "try: main()\n"
        "except SystemExit as e: assert not e.code"
    )
    said = fresh(code + LIGHT, *words)
    assert said.startswith("jaxsae " if words == ["--version"] else f"usage: jaxsae {words[0] if words[1:] else ''}")


def test_scripts_shadow_nothing():
    """A script's folder comes first on sys.path."""
    assert not set(SCRIPTS) & (set(sys.stdlib_module_names) | {"convert", "jaxsae", "inspect", "profile"})


def test_dependencies_are_pinned_for_all_that_is_declared():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = dict(project["optional-dependencies"])
    # in an environment of their own, pinned where they are declared
    assert all("==" in rival for rival in extras.pop("rivals") if rival not in extras["dev"])
    declared = [*project["dependencies"], *(d for extra in extras.values() for d in extra)]
    declared.remove("jaxsae[torch]")
    names = {d.split(";")[0].split("[")[0].split(">")[0].split("=")[0].strip().lower() for d in declared}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert names <= pinned, names - pinned


def nodes(folders: list[str]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of the code in some folders, with the place that it stands at; docstrings left out."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if id(node) not in texts:
                    yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def test_the_library_knows_settings_and_no_flags():
    """The command line puts the flags into its messages."""
    names = ("text", "models", "activations", "sae", "train", "features", "restore", "explain", "serve")
    rooms = [f"jaxsae/{room}" for room in names]
    found = [
        where
        for where, node in nodes([*rooms, "convert"])
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"(?<!\w)--[a-z]", node.value)
    ]
    assert not found


def test_ids_become_characters_in_the_tokenizer_alone():
    rooms = [
        f"jaxsae/{room}" for room in ("models", "activations", "sae", "train", "features", "restore", "explain", "cli")
    ]
    found = [
        where
        for where, node in nodes([*rooms, "convert", "scripts"])
        if isinstance(node, ast.Name) and node.id in ("chr", "ord")
    ]
    assert not found


def test_no_module_takes_a_private_name_of_another():
    found = [
        (where, alias.name)
        for where, node in nodes(["jaxsae", "convert", "scripts"])
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("jaxsae", "convert")
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert not found
