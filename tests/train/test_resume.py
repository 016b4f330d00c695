"""A run that was stopped goes on to the very same bits; what is of another run is refused."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import kill_anywhere
import numpy as np
import pytest
from conftest import ROOT, assert_one_line_error

from jaxsae.activations import rows as rows_lib
from jaxsae.activations.rows import RowsOnDisk
from jaxsae.config import TrainConfig
from jaxsae.errors import InputError
from jaxsae.files import atomic_path, exclusive
from jaxsae.train import loop
from jaxsae.train.checkpointer import FolderCheckpointer, state_folder
from jaxsae.train.loop import Member, training
from jaxsae.train.step import TrainState

GUIDE = TrainConfig(epochs=6, batch_size=32, lr=1e-3, patience=2)
MODERN = TrainConfig.modern(epochs=4, batch_size=32)


def rows_of(layer):
    rng = np.random.default_rng(layer)
    directions = rng.standard_normal((30, 16))
    return jnp.asarray((rng.exponential(1, (200, 30)) * (rng.random((200, 30)) < 0.2)) @ directions, jnp.float32)


def with_(config, **changes):
    return dataclasses.replace(config, **changes)


RUNS = {
    "guide": [Member(0, GUIDE)],
    "topk": [Member(0, with_(GUIDE, architecture="topk", k_sparse=4))],
    "bfloat16": [Member(0, with_(GUIDE, precision="bfloat16"))],
    "modern": [Member(0, with_(MODERN, target_l0=5))],
    "jumprelu": [Member(0, with_(MODERN, architecture="jumprelu", target_l0=5))],
    # some stop early, and leave the batch; seeds and layers differ; another group follows
    "several": [Member(n, with_(GUIDE, epochs=20, patience=1, lr=0.3, seed=n)) for n in range(3)]
    + [Member(0, with_(MODERN, architecture="batchtopk", target_l0=n)) for n in (3, 9)],
}


class StoppedError(Exception):
    """By the test."""


def run(rows, members, folder, done=(), stop_after=None):
    """Train with states in `folder`, save every epoch, and stop after so many steps; {number: arrays} of what came."""
    settings = {folder / f"{i}.pt": {"layer": m.layer, **dataclasses.asdict(m.config)} for i, m in enumerate(members)}
    steps, taken_up = [], []
    keeper = FolderCheckpointer(
        settings,
        {folder / f"{i}.pt" for i in done},
        every=0,
        stopping=lambda: stop_after is not None and len(steps) >= stop_after,
        on_taken_up=taken_up.append,
    )
    found = {}
    for number, trained in training(rows, members, keeper=keeper, on_step=steps.append):
        found[number] = trained
    keeper.close()
    return found, len(steps), taken_up


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for number, one in found.items():
        assert one.epochs == expected[number].epochs
        assert one.config == expected[number].config
        for a, b in zip(one.sae, expected[number].sae, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("stream", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_stopped_ends_as_one_that_is_not(name, stream, tmp_path, monkeypatch):
    members = RUNS[name]
    rows = {m.layer: rows_of(m.layer) for m in members}
    if stream:
        monkeypatch.setattr(rows_lib, "PIECE", 16 * 16 * 4)
        monkeypatch.setattr(rows_lib, "BUFFER", 4 * rows_lib.PIECE)
        rows = {layer: RowsOnDisk([np.asarray(of[:90]), np.asarray(of[90:])]) for layer, of in rows.items()}
    expected, total, _ = run(rows, members, tmp_path / "unstopped")
    assert not list((tmp_path / "unstopped").glob("*.state"))
    found = {}
    for after in (4, 6, 7, total):  # in the first epoch, at the end of one, ...
        got, _, taken_up = run(rows, members, tmp_path / "stopped", done=found, stop_after=after)
        found |= got
        assert bool(taken_up) == (after != 4)
    got, _, _ = run(rows, members, tmp_path / "stopped", done=found)
    assert_same(found | got, expected)
    assert not list((tmp_path / "stopped").glob("*.state"))


def test_states_of_another_run_are_refused(tmp_path):
    rows, members = {0: rows_of(0)}, RUNS["guide"]
    run(rows, members, tmp_path, stop_after=9)
    with pytest.raises(InputError, match=r"0.state holds a run with another lr, seed; resume with the same, or"):
        run(rows, [Member(0, with_(GUIDE, lr=2e-3, seed=1))], tmp_path)
    with pytest.raises(InputError, match=r"0.state holds a run with another lr; resume"):
        run(rows, [Member(0, with_(GUIDE, lr=2e-3))], tmp_path, done=[0])
    more = [Member(0, with_(GUIDE, seed=n)) for n in (0, 1)]
    with pytest.raises(InputError, match="holds a run with another files, "):
        run(rows, more, tmp_path)
    assert state_folder(tmp_path / "0.pt").is_dir()


def test_what_had_stopped_must_be_there(tmp_path):
    members = RUNS["several"][:3]
    rows = {m.layer: rows_of(m.layer) for m in members}
    stop = 1
    while not (found := run(rows, members, tmp_path, stop_after=stop)[0]):
        stop = 6
    with pytest.raises(InputError, match=rf"{min(found)}.pt was written before the run was stopped, and must be there"):
        run(rows, members, tmp_path)


def test_the_newest_whole_state_is_taken(tmp_path):
    rows, members = {0: rows_of(0)}, RUNS["guide"]
    expected, _, _ = run(rows, members, tmp_path / "unstopped")
    run(rows, members, tmp_path, stop_after=15)
    steps = sorted(int(path.name) for path in state_folder(tmp_path / "0.pt").iterdir())
    assert len(steps) == 2
    (newest,) = (state_folder(tmp_path / "0.pt") / str(steps[-1])).glob("state")
    for path in newest.rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:50])
    found, _, taken_up = run(rows, members, tmp_path)
    assert (taken_up[0].epoch - 1) * 6 + taken_up[0].done == steps[0]
    assert_same(found, expected)


def test_a_save_that_fails_is_told(tmp_path):
    keeper = FolderCheckpointer({tmp_path / "0.pt": {"lr": 1}}, done=(), every=0)
    state_folder(tmp_path / "0.pt").write_text("in the way")
    state = TrainState(*(np.zeros(3) for _ in TrainState._fields))
    with pytest.raises(OSError, match=r"the state could not be saved in .*0.state"):
        keeper.save([0], 1, loop.Position(1, 1, (0,), {0: []}), state)


def test_a_state_is_of_the_moment_that_it_is_saved(tmp_path):
    """The buffers are given to the next step while it is being written."""
    from jaxsae.train.states import States

    states, add = States(tmp_path / "s", {}), jax.jit(lambda a: a + 1, donate_argnums=0)
    a = jnp.zeros(2**20)
    for step in range(5):
        states.save(step, {"a": a}, {"step": step})
        for _ in range(20):
            a = add(a)
    position, state = states.load(lambda position: {"a": np.zeros(2**20, np.float32)}) or ({}, {})
    assert position == {"step": 4}
    assert (np.asarray(state["a"]) == 80).all()
    states.discard()
    assert not (tmp_path / "s").exists()


def test_one_claim_at_a_time(tmp_path):
    folder = tmp_path / "a" / "b"
    with exclusive(folder):
        with pytest.raises(InputError, match=r"one run at a time may write to .*b, another does"), exclusive(folder):
            pass
        assert folder.is_dir()
    assert not folder.parent.exists()
    with exclusive(folder):
        (folder / "file").touch()
    with exclusive(folder):
        pass
    assert folder.exists()


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    left, other = tmp_path / ".a.pt.part-1234", tmp_path / ".b.pt.part-1234"
    for folder in (left, other):
        folder.mkdir()
        (folder / "half").touch()
    with atomic_path(tmp_path / "a.pt") as first:
        first.write_text("1")
        assert not left.exists()
        with atomic_path(tmp_path / "a.pt") as second:  # one that is alive is let be
            second.write_text("2")
        assert first.exists()
    assert (tmp_path / "a.pt").read_text() == "1"
    assert other.exists()


# ----------------------------------------------------------------------------------------------------------- train.py


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


def test_resumed_by_the_command(small, script, tmp_path, monkeypatch):
    """Stopped in process, several SAEs; the same files in the end, and nothing is left to do after that."""
    flags = [*small, "--epochs", 6, "--l1-coef", "1e-3,1e-1", "--quiet"]
    flags[flags.index("--layer") + 1] = "0,1"
    assert script("train", *flags, "--output", tmp_path / "unstopped").status == 0
    whole_run = {path.name: path.read_bytes() for path in (tmp_path / "unstopped").glob("*.pt")}
    assert len(whole_run) == 4

    save = FolderCheckpointer.save

    def save_and_die(self, members, step, position, state):
        save(self, members, step, position, state)
        if position.epoch == 3:
            self.close()
            raise StoppedError

    monkeypatch.setattr(FolderCheckpointer, "save", save_and_die)
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


def test_a_full_disk_loses_nothing(small, tmp_path):
    """Files may grow to 20 kB in that process: neither a state nor the SAE fits."""
    flags = [*small, "--epochs", 2]
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


def test_a_state_that_is_not_finite_is_not_saved(tmp_path, monkeypatch):
    """States are due at every step; the last one saved is that before the step that the error names."""
    rows = {0: rows_of(0).at[77, 3].set(jnp.nan)}
    saved, save = [], FolderCheckpointer.save

    def noted(self, members, step, position, state):
        saved.append(position.done)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.sae))
        save(self, members, step, position, state)

    monkeypatch.setattr(FolderCheckpointer, "save", noted)
    keeper = FolderCheckpointer({tmp_path / "0.pt": {}}, set(), every=-100)
    with pytest.raises(InputError, match=r"did not in step (\d) of epoch 1") as refused:
        list(training(rows, RUNS["guide"], keeper=keeper))
    keeper.close()
    step = int(str(refused.value).split("step ")[1][0])
    assert saved == list(range(1, step))
    assert step > 1
