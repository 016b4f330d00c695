"""Where torch is not installed all runs but the comparison with it, which says so."""

import subprocess
import sys

import pytest
from conftest import ROOT, assert_one_line_error

from jaxsae.train import run

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture
def no_torch(monkeypatch):
    """As if it were not there; what has imported it before has it."""
    for name in [name for name in sys.modules if name == "torch" or name.startswith("torch.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("convert.hooked", "convert.reference", "convert.torch_run"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_training_says_that_nothing_was_checked(script, tiny_pt, tiny_dataset, tmp_path, no_torch):
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--layer", 1, "--output", tmp_path / "out"]
    ran = script("train", *flags, "--epochs", 1, "--batch-size", 32, "--expansion", 2)
    assert ran.status == 0, ran
    (line,) = [line for line in ran.out.splitlines() if line.startswith("check ")]
    assert "not checked: torch is not here" in line
    assert "jaxsae[torch]" in line
    ran = script("evaluate", *flags[:4], "--split", "validation", "--sae", tmp_path / "out/sae_layer1_optimized.pt")
    assert ran.status == 0, ran


def test_what_is_of_torch_alone_says_so_in_a_line(script, tiny_pt, tiny_dataset, tmp_path, no_torch):
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset]
    assert_one_line_error(script("verify_activations", *flags), "compares with PyTorch, which is not installed")
    (tmp_path / "mine.py").write_text("import torch\n\ndef load():\n    return torch.nn.Linear(1, 1)\n")
    (tmp_path / "texts.txt").write_text("a\nb\n" * 20)
    ran = script("train", "--torch", f"{tmp_path}/mine.py:load", "--hook", "x", "--texts", tmp_path / "texts.txt")
    assert_one_line_error(ran, "torch")


def test_a_package_that_is_not_installed_has_no_version():
    assert run._version("jax")
    assert run._version("no-such-package") is None


def replaced(here: dict, report: dict) -> str:
    code = (ROOT / "scripts" / "what_would_change.py").read_text()
    names: dict = {"__name__": "what_would_change"}
    exec(compile(code, "what_would_change.py", "exec"), names)
    return names["in_words"](names["changes"](report, here))


def test_what_installing_would_replace_is_said():
    def package(name, version):
        return {"metadata": {"name": name, "version": version}}

    report = {"install": [package("Torch", "2.13.0"), package("jaxsae", "0.1.0"), package("flax_x", "0.12.9")]}
    said = replaced({"torch": "2.14.1", "jax": "0.11.0"}, report)
    assert "torch 2.14.1 -> 2.13.0" in said
    assert "2 new" in said
    assert "flax-x 0.12.9" in said
    assert "jax 0.11.0" not in said
    assert "nothing that is here" in replaced({"jax": "0.11.0"}, {"install": [package("flax", "1")]})


def test_installing_it_where_it_is_would_replace_nothing():
    command = [sys.executable, str(ROOT / "scripts" / "what_would_change.py"), "--no-deps", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot make a report here: {done.stderr.strip()[-200:]}")
    assert done.stdout.startswith("would replace nothing that is here\n")
