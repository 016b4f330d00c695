"""A command that is stopped, killed or out of room loses nothing, and goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time

import kill_anywhere
import pytest
from conftest import ROOT, assert_one_line_error

from jaxsae.train.checkpointer import Checkpointer
from jaxsae.train.events import Resumable


class StoppedError(Exception):
    """By the test."""


@pytest.fixture
def small(tiny_pt, tiny_dataset, tmp_path):
    """A run that takes a while: many epochs, and a state of each."""
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--layer", 1, "--batch-size", 32, "--expansion", 2]
    return [*flags, "--epochs", 4000, "--patience", 4000, "--save-every", 0, "--output", tmp_path / "out"]


def process(script, *args):
    """As a user starts it."""
    line = [sys.executable, ROOT / "scripts" / f"{script}.py", *args]
    return subprocess.Popen([str(word) for word in line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, running, seconds=90):
    until = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.usefixtures("quick_compiles")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_command_that_is_stopped(small, script, tmp_path, number, status):
    saved = tmp_path / "out" / "sae_layer1_optimized.state"
    running = process("train", *small)
    wait_for(lambda: any(path.name.isdigit() for path in saved.glob("*")), running)
    second = script("train", *small)
    assert_one_line_error(second, "one run at a time may write to")
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == status, err
    if number != signal.SIGKILL:
        assert "the state is saved; the same command with --resume goes on" in err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sae_layer1_optimized.state", "metrics.jsonl"}
    if number != signal.SIGTERM:
        return

    assert_one_line_error(script("train", *small), "an unfinished run left its state", "--resume", "--overwrite")
    ran = script("train", *small, "--resume", "--lr", 1)
    assert_one_line_error(ran, "holds a run with another lr; resume with the same")
    # too long to wait for its end: a state of fewer epochs is one of another run
    assert_one_line_error(script("train", *small, "--resume", "--epochs", 3), "another epochs")
    ran = script("train", *small, "--overwrite", "--epochs", 1)
    assert ran.status == 0, ran
    assert not saved.exists()
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".pt", ".json", ".png", ".jsonl"}


@pytest.mark.usefixtures("quick_compiles")
def test_resumed_by_the_command(small, script, tmp_path, monkeypatch):
    """Stopped in process, several SAEs; the same files in the end, and nothing is left to do after that."""
    flags = [*small, "--epochs", 6, "--l1-coef", "1e-3,1e-1", "--quiet"]
    flags[flags.index("--layer") + 1] = "0,1"
    assert script("train", *flags, "--output", tmp_path / "unstopped").status == 0
    whole_run = {path.name: path.read_bytes() for path in (tmp_path / "unstopped").glob("*.pt")}
    assert len(whole_run) == 4

    listen = Checkpointer.listen

    def save_and_die(self, event, save=None):
        listen(self, event, save)
        if isinstance(event, Resumable) and event.position.epoch == 3:
            self.close()
            raise StoppedError

    monkeypatch.setattr(Checkpointer, "listen", save_and_die)
    with pytest.raises(StoppedError):
        script("train", *flags)
    monkeypatch.undo()
    ran = script("train", *flags[:-1], "--resume", "--output", tmp_path / "out")
    assert ran.status == 0, ran
    assert "resumed  epoch 3, step 1" in ran.out
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.pt")} == whole_run
    report = json.loads((tmp_path / "out" / "sae_layer0_optimized_l1-1e-3.json").read_text())
    assert report["epochs"] == 6
    ran = script("train", *flags, "--resume", "--output", tmp_path / "out")
    assert (ran.status, "nothing is left to do" in ran.out) == (0, True)
    # one of the files is not what it was: its batch is trained again
    (tmp_path / "out" / "sae_layer1_optimized_l1-1e-1.pt").write_bytes(b"")
    assert_one_line_error(script("train", *flags, "--resume"), "exists and what made it is not known")
    assert script("train", *flags, "--resume", "--overwrite").status == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.pt")} == whole_run


@pytest.mark.usefixtures("quick_compiles")
def test_a_full_disk_loses_nothing(small, tmp_path):
    """Files may grow to 20 kB in that process: neither a state nor the SAE fits."""
    flags = [*small, "--epochs", 2, "--verify", 0]
    limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    limited += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    for extra in ([], ["--save-every", 1000]):
        line = [sys.executable, "-c", limited, ROOT / "scripts" / "train.py", *flags, *extra]
        ran = subprocess.run([str(word) for word in line], capture_output=True, text=True, check=False)
        assert ran.returncode == 2, ran
        assert ran.stderr.count("\n") == 1, ran.stderr
        assert ran.stderr.startswith("error: ")
        assert "what is written must find room on the disk, got" in ran.stderr, ran.stderr
        left = {path.name for path in (tmp_path / "out").iterdir()} if (tmp_path / "out").exists() else set()
        assert not {name for name in left if name.endswith((".pt", ".json"))}


def test_a_folder_that_may_not_be_written(small, script, tmp_path):
    (tmp_path / "file").touch()
    assert_one_line_error(script("train", *small, "--output", tmp_path / "file" / "out"), "Error")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        assert_one_line_error(script("train", *small, "--output", tmp_path / "closed" / "out"), "PermissionError")


def test_killed_anywhere(tmp_path):
    """One moment; `python tests/kill_anywhere.py --times 60` for many, in every script that goes on."""
    assert kill_anywhere.trials(tmp_path, ["extract"], times=1, seed=0) == []
