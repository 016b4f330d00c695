"""PyTorch in a process of its own says what hooks say in this one, and ends with the command that asks."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import USER_FILE

from convert import read_checkpoint, reference
from convert.reference_process import ReferenceProcess
from jaxsae import load_samples
from jaxsae.errors import InputError

LAYERS = [0, 2]


@pytest.fixture(scope="module")
def checkpoint(tiny_pt):
    return read_checkpoint(tiny_pt)


@pytest.fixture(scope="module")
def samples(tiny_dataset):
    return load_samples(tiny_dataset, "validation", 4)


def hooks(checkpoint, samples, padding):
    mask = samples.mask if padding == "drop" else None
    module = reference.build(checkpoint)
    return [
        reference.hook_outputs(module, samples.ids, mask, LAYERS, dtype) for dtype in (torch.float32, torch.float64)
    ]


def same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours) == list(theirs) == LAYERS
        for layer in LAYERS:
            assert ours[layer].dtype == theirs[layer].dtype
            # the same sums, but where an array lies in memory decides in which order some of them are taken
            atol = 8 * np.finfo(ours[layer].dtype).eps * np.abs(theirs[layer]).max()
            np.testing.assert_allclose(ours[layer], theirs[layer], rtol=0, atol=atol)


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_block_by_block_is_what_hooks_see(checkpoint, samples, padding):
    expected = hooks(checkpoint, samples, padding)
    mask = samples.mask if padding == "drop" else None
    same(reference.activations(checkpoint, samples.ids, mask, LAYERS), expected)
    with ReferenceProcess() as process:
        same(process.ask(checkpoint, samples, LAYERS, padding).result(60), expected)


def test_the_real_model_block_by_block_is_what_hooks_see(real):
    checkpoint = read_checkpoint(real / "checkpoints" / "restoration_16x384" / "best_model.pt")
    samples = load_samples(real / "data" / "restoration_dataset", "validation", 1)
    same(reference.activations(checkpoint, samples.ids, samples.mask, LAYERS), hooks(checkpoint, samples, "drop"))


def test_torch_stays_in_the_process(tiny_pt, tiny_dataset):
    code = f"""
import sys
from convert import read_checkpoint
from convert.reference_process import ReferenceProcess
from convert.verify import cross_check, require_parity
from jaxsae import load_samples, runtime
checkpoint, samples = read_checkpoint({str(tiny_pt)!r}), load_samples({str(tiny_dataset)!r}, "validation", 2)
with ReferenceProcess() as process:
    asked = process.ask(checkpoint, samples, [1], "drop")
    require_parity(cross_check(checkpoint.model(), checkpoint, samples, [1], "drop", asked=asked))
assert "torch" not in sys.modules
assert runtime.peak_memory() > runtime.peak_of("self") + 50 * 2**20, "the process's memory counts"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_the_process_ends_with_the_block_and_with_its_parent(checkpoint):
    with ReferenceProcess() as process:
        pid = process._process.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    code = "import os, time; from convert.reference_process import ReferenceProcess as P; p = P(); print(p._process.pid, flush=True); os.kill(os.getpid(), 9)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    pid, until = int(told.stdout), time.monotonic() + 30
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split()[2]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} goes on")


def test_a_process_that_fails_says_why_in_one_line(checkpoint, samples, tmp_path, monkeypatch):
    with ReferenceProcess() as process:
        process._process.kill()
        with pytest.raises(InputError, match=r"^the PyTorch reference must run, got status -9: it says nothing; see "):
            process.ask(checkpoint, samples, LAYERS, "drop").result(60)
    (tmp_path / "torch.py").write_text("raise ImportError('a broken torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        ReferenceProcess() as process,
        pytest.raises(
            InputError, match=r"^the PyTorch reference must run, got status 1: ImportError: a broken torch; see "
        ),
    ):
        process.ask(checkpoint, samples, LAYERS, "drop").result(60)


def test_the_users_file_runs_there(checkpoint, samples, tmp_path):
    file = tmp_path / "mine.py"
    with ReferenceProcess() as process, pytest.raises(InputError, match=r"must be a Python file, got .*mine\.py"):
        process.ask(checkpoint, samples, LAYERS, "drop", file).result(60)
    file.write_text("1 / 0")
    with ReferenceProcess() as process, pytest.raises(InputError, match=r"mine\.py: must define .*ZeroDivisionError"):
        process.ask(checkpoint, samples, LAYERS, "drop", file).result(60)
    file.write_text(USER_FILE.replace("SCALE", "1.0"))
    with ReferenceProcess() as process:
        found = process.ask(checkpoint, samples, LAYERS, "drop", file).result(60)
    for ours, theirs in zip(found, hooks(checkpoint, samples, "drop"), strict=True):
        for layer in LAYERS:
            real = ours[layer][samples.real], theirs[layer][samples.real]
            np.testing.assert_allclose(*real, atol=3e-5)
