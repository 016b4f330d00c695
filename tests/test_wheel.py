"""What `pip install` of the source archive gives: one command, and the demo with it, from any folder.

Nothing is written among the installed files: they stand where the user may not write.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT, assert_one_line_error, needs_torch
from conftest import Ran as Done

# root may write anywhere, unless it gives that up
SETPRIV = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")
IS_ROOT = os.geteuid() == 0
BOUND = SETPRIV if IS_ROOT and shutil.which("setpriv") and not subprocess.call([*SETPRIV, "true"]) else ()
"""In front of a command that shall keep to the permissions of files."""

USE = """
import jaxsae, convert
from convert import dictionary_learning, formats, pt, checkpoints, saelens, sparsify
from jaxsae.features.concepts import load_concepts
from jaxsae.features.report import PAGE
assert load_concepts() and (PAGE / "LICENSE").is_file(), PAGE
print(jaxsae.__file__, convert.__file__)
"""


def run(*words: object, cwd: Path, **environment: str) -> Done:
    """A command in a fresh process."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XDG_", "JAXSAE_"))}
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, env=env | environment)
    return Done(done.returncode, done.stdout, done.stderr)


def set_writable(folder: Path, writable: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o200 if writable else mode & ~0o222)


def content_of(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of installed packages, which cannot be written; made from the source archive, so that this is whole."""
    made = tmp_path_factory.mktemp("made")
    built = run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", made, cwd=ROOT)
    assert built.status == 0, built
    [archive] = made.glob("*.tar.gz")
    install = ("install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation")
    installed = run(sys.executable, "-m", "pip", *install, "--target", made / "site", archive, cwd=made)
    assert installed.status == 0, installed
    set_writable(made / "site", False)
    yield made / "site"
    set_writable(made / "site", True)


def test_it_holds_the_two_packages_and_nothing_else(site, tmp_path):
    tops = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"jaxsae", "convert", "bin"}
    assert all((site / name / "py.typed").is_file() for name in ("jaxsae", "convert"))
    done = run(sys.executable, "-c", USE, cwd=tmp_path, PYTHONPATH=str(site))
    assert done.status == 0, done
    assert done.out.count(str(site)) == 2


@needs_torch  # whose version a run writes down
def test_the_command_works_on_the_demo_from_any_folder(site, tmp_path):
    before = content_of(site)
    here, home = tmp_path / "here", tmp_path / "home"
    for folder in (here, home):
        folder.mkdir()
    surroundings = {"PYTHONPATH": str(site), "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}

    def jaxsae(*words: object, **more: str) -> Done:
        return run(*BOUND, site / "bin" / "jaxsae", *words, cwd=here, **surroundings | more)

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert jaxsae("--version").out == f"jaxsae {version}\n"
    by_module = run(sys.executable, "-m", "jaxsae", "--help", cwd=here, **surroundings)
    assert by_module == jaxsae() == jaxsae("--help")
    assert "the demo's" in jaxsae("train", "--help").out

    quick = [] if importlib.util.find_spec("torch") else ["--verify", 0]
    train = ["train", "--layer", 8, "--max-samples", 8, "--epochs", 1, *quick]
    (tmp_path / "file").write_text("")
    refused = jaxsae(*train, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert_one_line_error(refused, "the demo's text must be written to", "XDG_CACHE_HOME")

    trained = jaxsae(*train)
    assert trained.status == 0, trained
    assert "this is the embedded demo" in trained.out
    sae = "checkpoints/sae_results/sae_layer8_optimized.pt"
    rated = jaxsae("evaluate", "--sae", sae, "--max-samples", 4)
    assert rated.status == 0, rated
    inspected = jaxsae("inspect", "--sae", sae, "--html", "page.html", "--num-samples", 8)
    assert inspected.status == 0, inspected
    assert "known of the demo" in (here / "page.html").read_text()

    [text] = home.rglob("dataset")
    assert text.parent.name == f"demo-{version}"
    assert (text.parent / "truth").is_dir()
    assert content_of(site) == before


@pytest.mark.skipif(IS_ROOT and not BOUND, reason="root can write anywhere here; run the tests as another user")
def test_the_text_of_a_clone_that_cannot_be_written_goes_to_the_cache(site, tmp_path):
    clone = tmp_path / "clone"
    demo = clone / "checkpoints" / "demo"
    demo.mkdir(parents=True)
    shutil.copytree(ROOT / "jaxsae", clone / "jaxsae", ignore=shutil.ignore_patterns("__pycache__", "features"))
    code = "from jaxsae.config import DEMO, DEMO_TEXT; print(DEMO, DEMO_TEXT, sep='\\n')"

    def places() -> list[str]:
        path = os.pathsep.join(map(str, (clone, site)))  # the version is that of what is installed
        done = run(*BOUND, sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=path, HOME=str(tmp_path))
        assert done.status == 0, done
        return done.out.split()

    assert places() == [str(demo)] * 2
    demo.chmod(0o555)
    model, text = places()
    assert model == str(demo)
    assert text.startswith(str(tmp_path)) and not text.startswith(str(clone))  # noqa: PT018
    demo.chmod(0o755)
    (demo / "dataset").mkdir()  # made when it could be
    demo.chmod(0o555)
    assert places() == [str(demo)] * 2
