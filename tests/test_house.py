"""The layering, and what a command costs before it does anything."""

import subprocess
import sys

import pytest
from conftest import ROOT

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


def test_reading_pt_files_takes_no_torch(tiny_pt):
    code = "import sys; from convert import load_restoration_model as load; load(sys.argv[1]); print('torch' in sys.modules)"
    assert fresh(code, str(tiny_pt)).strip() == "False"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_neither_jax_nor_torch(script):
    code = (
        "import runpy, sys\n"
        "sys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as e: assert not e.code\n"
        "loaded = {'jax', 'flax', 'torch', 'numpy', 'pyarrow', 'rich'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    assert "--debug" in fresh(code, str(ROOT / "scripts" / f"{script}.py"))


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
    names = {d.split(";")[0].split("[")[0].split(">")[0].split("=")[0].strip().lower() for d in declared}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert names <= pinned, names - pinned
