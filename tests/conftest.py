"""Strict settings for every test, a tiny random model in the original format, and the way to the real files."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import gc
import io
import os
import re
import runpy
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import beartype
import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Shapes and types are checked while the tests run, in every room that computes; a whole number is a float, as for mypy.
ROOMS = ("text", "models", "activations", "sae", "train", "features", "restore", "explain")
MODULES = [path for room in ROOMS for path in (ROOT / "jaxsae" / room).glob("*.py") if path.stem != "__init__"]
UNCHECKED = {
    f"jaxsae.models.{name}" for name in ("config_fields", "restoration_config", "signs_config")
}  # what a file declares may be of any type: it checks that itself
checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
jaxtyping.install_import_hook(
    sorted({".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES} - UNCHECKED), "conftest.checked"
)

import jax  # noqa: E402
import numpy as np  # noqa: E402


def importers(folder: Path, module: str) -> list[str]:
    """The files of a folder that import a module at their top, or a file beside the tests that does."""
    found, wanted = [], [module]
    for _ in range(2):
        for path in sorted(set(folder.rglob("*.py")) - {Path(__file__)}):
            top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
            names = {getattr(node, "module", None) or node.names[0].name for node in top}
            if names & set(wanted) and str(path) not in found:
                found.append(str(path))
        wanted += [Path(path).stem for path in found]
    return found


try:
    import torch
except ImportError:  # `make test-newest`: what compares with torch is left out, what needs it is skipped
    torch = None  # type: ignore[assignment]
    collect_ignore = [*importers(Path(__file__).parent, "torch"), "convert/test_verify.py", "test_fuzz.py"]

from jaxsae.cli import process, terminal  # noqa: E402
from jaxsae.cli.main import run_command  # noqa: E402
from jaxsae.errors import InputNote  # noqa: E402
from jaxsae.models.restoration_config import ModelConfig  # noqa: E402
from jaxsae.runtime import compile_portably, give_back_memory, keep_compiled  # noqa: E402

needs_torch = pytest.mark.skipif(torch is None, reason="needs torch")

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
if torch:
    torch.set_num_threads(1)  # its threads and JAX's would spin against each other


def pytest_configure(config):
    """What JAX compiles is kept while the tests run: most of the time would be spent on the same programs again.

    Each command that runs in the tests' process makes its functions anew. The folder is each worker's own, as JAX
    writes to it without a lock; processes that tests start use it too, and the user's cache is left alone.
    """
    folder = tempfile.mkdtemp(prefix="jaxsae-tests-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ["JAXSAE_CACHE"] = folder
    compile_portably()
    keep_compiled()


FIRST = ("test_docs", "test_guide", "test_pretrain", "test_inspect", "test_scripts", "test_stopped_commands")
FIRST += (
    "test_processes",
    "test_mesh",
    "test_demo",
    "test_evaluate",
    "test_train",
    "test_wheel",
    "test_outputs",
    "test_verify",
    "test_fuzz",
)
"""The files that take longest."""


def pytest_collection_modifyitems(items):
    """The longest files come first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


@pytest.fixture
def quick_compiles(monkeypatch):
    """XLA compiles in half the time, here and in processes that are started, what then runs at half the speed.

    For tests of small models whose subject is not what users' processes compute to the last bit.
    """
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """What a file compiled does not stay for those after it."""
    yield
    forget_compiled()


def forget_compiled():
    """Give back the memory of what was compiled; it is read from the cache's folder when it is needed again."""
    jax.clear_caches()
    gc.collect()
    give_back_memory()


# A real checkpoint and real texts that may not be redistributed; the README says where to put them.
SHARED = Path(os.environ.get("JAXSAE_REAL_DATA", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def real():
    """The folder of real files; the test is skipped where it is absent."""
    if not (SHARED / "checkpoints" / "restoration_16x384" / "best_model.pt").is_file():
        pytest.skip(f"the real checkpoint and texts are not in {SHARED} (set JAXSAE_REAL_DATA)")
    return SHARED


# Odd sizes, so that no two dimensions can be mixed up unseen; d_head 10 is even, as rotary pairs need.
TINY = ModelConfig(vocab_size=8000, max_position=45, d_model=30, n_heads=3, d_ff=37, n_layers=4)


def tiny_tensors(seed: int = 0, config: ModelConfig = TINY) -> dict[str, torch.Tensor]:
    """Random weights with norms and biases that matter, and a residual stream with an offset."""
    from convert.restoration_reference import Model

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in Model(config).state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name == "embed.weight":
            tensors[name] = 0.3 * noise + 3.0
        elif tensor.ndim == 2:
            tensors[name] = 0.2 * noise
        else:
            is_scale = (".ln" in f".{name}" and name.endswith("weight")) or name == "final_ln.weight"
            tensors[name] = 0.3 * noise + (1.0 if is_scale else 0.0)
    return tensors


def checkpoint_content(config: ModelConfig = TINY, seed: int = 0) -> dict:
    """The dict of a `best_model.pt`."""
    return {
        "model_state_dict": tiny_tensors(seed, config),
        "config": dataclasses.asdict(config),
        "vocab_size": config.vocab_size,
    }


@pytest.fixture(scope="session")
def tiny_pt(tmp_path_factory):
    """A tiny random model in the original format."""
    if not torch:
        pytest.skip("needs torch")
    path = tmp_path_factory.mktemp("tiny") / "best_model.pt"
    torch.save(checkpoint_content(), path)
    return path


def tiny_splits(seed: int = 0, n: int = 12, width: int = TINY.max_position) -> dict[str, dict[str, np.ndarray]]:
    """Small random samples of lengths 1..width in the columns of a dataset."""
    rng = np.random.default_rng(seed)
    out = {}
    for split in ("train", "validation", "test"):
        lengths = rng.integers(1, width + 1, n)
        lengths[:2] = 1, width
        mask = (np.arange(width) < lengths[:, None]).astype(np.int8)
        ids = np.where(mask, rng.integers(33, 7800, (n, width)), 32).astype(np.int32)
        damaged = (rng.random((n, width)) < 0.2) & (mask != 0)
        labels = np.where(damaged, ids, -100).astype(np.int32)
        out[split] = {
            "input_ids": np.where(damaged, 35, ids).astype(np.int32),
            "labels": labels,
            "attention_mask": mask,
        }
    return out


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    """A dataset folder that fits the tiny model."""
    from jaxsae.text.arrow import save_splits

    folder = tmp_path_factory.mktemp("dataset")
    save_splits(folder, tiny_splits())
    return folder


@pytest.fixture
def folder(tmp_path):
    """A dataset of the tiny model's to be changed."""
    from jaxsae.text.arrow import save_splits

    path = tmp_path / "ds"
    path.mkdir()
    save_splits(path, tiny_splits())
    return path


class _Of80Columns(io.StringIO):
    """A stream that says it is a terminal, and not how wide."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError


@pytest.fixture(autouse=True)
def every_table_fits_80_columns(monkeypatch):
    """Whatever table a test prints is printed on a terminal of 80 columns as well, where it stays a table.

    That no cell is cut there, `tests/cli/test_terminal.py` shows for tables of all kinds.
    """
    from rich.cells import cell_len

    print_table = terminal.print_table

    def checked(title, columns, rows, **more):
        print_table(title, columns, rows, **more)
        narrow = _Of80Columns()
        print_table(None, columns, rows, **more | {"file": narrow})
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", narrow.getvalue()).splitlines()
        assert max(map(cell_len, lines)) <= 80, lines
        assert lines[0].startswith("┏"), f"not a table at 80 columns: {columns}"
        assert sum(line.startswith("┏") for line in lines) <= 3, f"too many columns: {columns}"

    monkeypatch.setattr(terminal, "print_table", checked)


@dataclasses.dataclass
class Ran:
    """What a script did."""

    status: int
    out: str
    err: str


@pytest.fixture
def script(monkeypatch):
    """Run a script in this process: `script("train", "--layer", 1)` -> status, standard output, standard error.

    Or a command that has no script, by its name.

    What a user does not see is an error here: a command keeps all warnings but notes off the terminal, and with them
    those of our own mistakes.
    """
    quiet_libraries = process.quiet_libraries

    def quiet_but_strict() -> None:
        quiet_libraries()
        warnings.filters.remove(("ignore", None, Warning, None, 0))
        warnings.simplefilter("always", InputNote)  # the first filter already; said again, Python notices the change

    monkeypatch.setattr(process, "quiet_libraries", quiet_but_strict)

    def run(name: str, *args: object) -> Ran:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, args)])
        out, err, status = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            try:
                if (ROOT / "scripts" / f"{name}.py").exists():
                    runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
                else:
                    run_command(name, prog=f"jaxsae {name}")
            except SystemExit as exit_:
                status = exit_.code or 0
        return Ran(status, out.getvalue(), err.getvalue())

    return run


def without_progress(said: str) -> str:
    """What is said on standard error, but for what work that takes more than ten seconds says: machines may be slow."""
    return re.sub(r"^\w+ +(\d+ s|\d+ %  .*)\n", "", said, flags=re.MULTILINE)


def assert_one_line_error(ran: Ran, *parts: str) -> None:
    """Status 2, one line of at most 300 characters, which has all `parts`.

    What a slow machine says besides, of work that takes more than ten seconds, does not count.
    """
    assert ran.status == 2, ran
    said = without_progress(ran.err)
    assert said.startswith("error: "), ran.err
    assert said.count("\n") == 1, ran.err
    assert len(said) <= 301, ran.err
    for part in parts:
        assert part in said, (part, ran.err)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium with its console and its requests logged; the test is skipped where there is none."""
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver on the PATH (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument("--disable-background-networking")
    options.add_argument("--window-size=1200,1400")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    one = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield one
    one.quit()
