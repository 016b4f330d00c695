"""One command as several processes, on this machine: the same results, the same end, and what differs is refused."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

import fault_anywhere
import numpy as np
import pytest
from conftest import ROOT, tiny_splits

from convert import load_sae
from jaxsae.activations.store import open_stores
from jaxsae.processes import GONE_WITHIN

TRAIN = ["--layer", 1, "--batch-size", 32, "--epochs", 3, "--verify", 0, "--quiet"]
JOINED = [*TRAIN, "--recipe", "modern", "--lr", "1e-3", "--k-sparse", 4, "--expansion", 4]
"""On every mesh: 120 latents, batches of 32."""


def command(script, *flags, **more):
    line = [sys.executable, ROOT / "scripts" / f"{script}.py", *flags]
    return subprocess.Popen(
        [str(word) for word in line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def ran(script, *flags, status=0, **more):
    running = command(script, *flags, **more)
    out, err = running.communicate(timeout=GONE_WITHIN + 60)
    assert running.returncode == status, (out, err)
    return out, err


@pytest.fixture(scope="module")
def files(tiny_pt, tiny_dataset):
    return ["--checkpoint", tiny_pt, "--dataset", tiny_dataset]


def sae_of(folder, name="sae_layer1_optimized.pt"):
    return load_sae(folder / name).sae, json.loads((folder / name).with_suffix(".json").read_text())["losses"]


def assert_close(found, expected):
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        a, b = (np.asarray(getattr(of[0], name)) for of in (found, expected))
        assert np.abs(a - b).max() < 1e-4 * np.abs(b).max()


@pytest.mark.parametrize(("processes", "devices", "mesh"), [(2, 1, None), (2, 2, "data=2,latents=2"), (4, 1, "data=4")])
def test_processes_train_what_one_does(files, script, tmp_path, processes, devices, mesh):
    """Rows held on the devices; only the first process writes and talks."""
    assert script("train", *files, *JOINED, "--output", tmp_path / "one").status == 0
    flags = [*files, *JOINED[:-1], 4, "--output", tmp_path / "out", "--processes", processes]
    flags.remove("--quiet")
    more = ["--mesh", mesh] if mesh else []
    out, err = ran("train", *flags, *more, env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)})
    assert f"devices  {mesh or f'latents={processes}'}, {processes} processes" in out
    assert out.count("wrote ") == 1
    assert "Traceback" not in err
    assert_close(sae_of(tmp_path / "out"), sae_of(tmp_path / "one"))
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".pt", ".json", ".png", ".jsonl"}


def test_thresholds_are_those_of_one_process(files, script, tmp_path):
    """A BatchTopK's, which is chosen at the end on rows of all processes."""
    flags = [*files, *TRAIN, "--recipe", "modern", "--lr", "1e-3", "--architecture", "batchtopk", "--target-l0", 4]
    flags += ["--expansion", 4, "--output"]
    assert script("train", *flags, tmp_path / "one").status == 0
    ran("train", *flags, tmp_path / "out", "--processes", 2)
    found, one = (sae_of(tmp_path / name) for name in ("out", "one"))
    assert_close(found, one)
    np.testing.assert_allclose(found[0].threshold, one[0].threshold, rtol=1e-4)
    reports = [json.loads((tmp_path / of / "sae_layer1_optimized.json").read_text()) for of in ("out", "one")]
    np.testing.assert_allclose(reports[0]["l0"], reports[1]["l0"], rtol=1e-2)


def test_processes_write_one_store_and_stream_it(files, script, tmp_path):
    """Each extracts its share and reads its share of every batch: the rows of one process, and its SAE."""
    one, two = tmp_path / "one", tmp_path / "two"
    flags = [*files, "--layer", "0,1", "--quiet"]
    assert script("extract_activations", *flags, "--output", one).status == 0
    ran("extract_activations", *flags, "--output", two, "--processes", 2)
    a, b = (open_stores([str(path)], 1) for path in (one, two))
    assert len(b.layers[1].parts) == 2
    for layer in (0, 1):
        assert (a.layers[layer][:] == b.layers[layer][:]).all()
    assert (a.samples().ids == b.samples().ids).all()
    streamed = ["--memory-limit", "0.001MB", "--mesh", "data=2"]
    assert script("train", *JOINED, *streamed[:2], "--dataset", one, "--output", tmp_path / "1").status == 0
    ran("train", *JOINED, *streamed, "--dataset", two, "--output", tmp_path / "2", "--processes", 2)
    assert_close(sae_of(tmp_path / "2"), sae_of(tmp_path / "1"))


def test_several_saes_are_trained_apart(files, script, tmp_path):
    """Each process writes its own, to the bits of a run alone; the death of one costs its own alone."""
    flags = [*files, *JOINED, "--seed", "0,1,2,3"]
    out, _ = ran("train", *flags, "--output", tmp_path / "out", "--processes", 2)
    for seed in range(2):
        both = (2 * seed, 2 * seed + 1)
        alone = [*files, *JOINED, "--seed", f"{both[0]},{both[1]}", "--output", tmp_path / str(seed)]
        assert script("train", *alone).status == 0
        for number in both:
            name = f"sae_layer1_optimized_seed{number}.pt"
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / str(seed) / name).read_bytes()
    assert out.count("wrote    2 x .pt") == 2
    streamed = [*files, *JOINED, "--memory-limit", "0.001MB", "--output"]
    ran("train", *streamed, tmp_path / "disk", "--seed", "0,1", "--processes", 2)
    for seed in range(2):
        assert script("train", *streamed, tmp_path / f"disk {seed}", "--seed", seed).status == 0
        found = (tmp_path / "disk" / f"sae_layer1_optimized_seed{seed}.pt").read_bytes()
        assert found == (tmp_path / f"disk {seed}" / "sae_layer1_optimized.pt").read_bytes()
    assert not list((tmp_path / "disk").glob(".rows*"))
    long = [*flags, "--epochs", 3000, "--save-every", 0, "--output", tmp_path / "long"]
    running = command("train", *long, "--processes", 2)
    wait_for(lambda: (tmp_path / "long" / "metrics.1.jsonl").exists(), running)
    wait_for(lambda: (tmp_path / "long" / "metrics.jsonl").exists(), running)
    pids = fault_anywhere.children(running.pid)
    os.kill(pids[0], signal.SIGKILL)
    time.sleep(3)
    assert list(fault_anywhere.children(running.pid)) == [1]
    again = script("train", *long, "--resume")
    assert again.status == 2
    assert "one run at a time may write to" in again.err
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 143, err
    assert "process 0 was ended by SIGKILL" in err


def claim(folder, how=fcntl.LOCK_SH):
    """What another process would do; gives the descriptor."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    return descriptor


def test_rows_are_there_until_all_have_read_them(tmp_path):
    """The last process that ends removes them, be it the one that made them or another; none waits."""
    from jaxsae.files import remove_left, shared, temporary_beside

    with temporary_beside(tmp_path / "rows") as folder:
        with pytest.raises(BlockingIOError):
            claim(folder)
        with shared(folder):
            other = claim(folder)
    remove_left(tmp_path / "rows")
    assert folder.exists()
    os.close(other)
    remove_left(tmp_path / "rows")
    assert not folder.exists()
    with temporary_beside(tmp_path / "rows") as folder, shared(folder):
        os.close(claim(folder))
    assert not folder.exists()


@pytest.mark.parametrize("locks_folders", [True, False])
def test_a_folder_is_claimed_until_the_last_process_ends(tmp_path, monkeypatch, locks_folders):
    """Where the first has ended and others go on apart, no other run begins. Network file systems lock files alone."""
    from jaxsae import files
    from jaxsae.errors import InputError

    lock, out = fcntl.flock, tmp_path / "out"

    def only_files(descriptor, how):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        lock(descriptor, how)

    if not locks_folders:
        monkeypatch.setattr(files.fcntl, "flock", only_files)
    with contextlib.ExitStack() as other:
        with files.exclusive(out):
            what = out if locks_folders else out / files.LOCK
            with pytest.raises(BlockingIOError):
                os.close(claim(what))
            with pytest.raises(InputError, match="one run at a time"), files.exclusive(out):
                pass
            with files.shared(out):
                other.callback(os.close, claim(what))
        with pytest.raises(InputError, match="one run at a time may write to"), files.exclusive(out):
            pass
        with files.shared(out):
            pass
    with files.exclusive(out), pytest.raises(BlockingIOError):
        claim(what)


def wait_for(condition, running, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_one_that_goes_takes_the_others_with_it(files, script, tmp_path, number):
    """Asked to end, all save after the same step; killed, all end soon. What was saved goes on, on another mesh."""
    flags = [*files, *TRAIN, "--expansion", 4, "--epochs", 60, "--patience", 60, "--save-every", 0, "--resume"]
    out = tmp_path / "out"
    running = command("train", *flags, "--output", out, "--processes", 2)
    state = out / "sae_layer1_optimized.state"
    wait_for(lambda: any(path.name.isdigit() for path in state.glob("*")), running)
    os.kill(fault_anywhere.children(running.pid)[1], number)
    began = time.monotonic()
    _, err = running.communicate(timeout=GONE_WITHIN + 30)
    assert time.monotonic() - began < GONE_WITHIN
    assert running.returncode == (143 if number == signal.SIGTERM else 2), err
    lines = err.splitlines()
    assert "Traceback" not in err
    assert len(lines) <= 6, lines
    if number == signal.SIGTERM:
        assert "the state is saved; the same command with --resume goes on" in err
    else:
        assert any("process 1 was ended by SIGKILL" in line for line in lines)
    assert not list(out.glob("*.pt"))
    if number == signal.SIGKILL:
        return
    again = script("train", *flags, "--output", out)
    assert again.status == 0, again
    assert script("train", *flags, "--output", tmp_path / "one").status == 0
    assert_close(sae_of(out), sae_of(tmp_path / "one"))
    assert not state.exists()


DIFFER = {
    "--lr": (["--lr", "1e-3"], ["--lr", "1e-4"]),
    "--seed": (["--seed", "1"], ["--seed", "2"]),
    "--epochs": (["--epochs", "3"], ["--epochs", "4"]),
    "--layer": (["--layer", "1"], ["--layer", "2"]),
    "--precision": ([], ["--precision", "bfloat16"]),
    "--max-samples": ([], ["--max-samples", "5"]),
    "--mesh": (["--mesh", "data=2"], ["--mesh", "latents=2"]),
    "--processes": ([], ["--processes", "3"]),
    "model_sha256": ([], []),
    "dataset_sha256": ([], []),
}


@pytest.mark.parametrize("what", DIFFER)
def test_processes_that_differ_are_refused(what, tmp_path, tiny_pt, tiny_dataset):
    """A flag, the model or the text: at the start, in each of them, by one line that names it."""
    from jaxsae.text.arrow import save_splits

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{one.getsockname()[1]}"
    running = []
    for index, flags in enumerate(DIFFER[what]):
        folder = tmp_path / str(index)
        folder.mkdir()
        shutil.copy(tiny_pt, folder / "best_model.pt")
        shutil.copytree(tiny_dataset, folder / "text")
        if index == 1 and what == "model_sha256":
            import torch
            from conftest import checkpoint_content

            torch.save(checkpoint_content(seed=1), folder / "best_model.pt")
        if index == 1 and what == "dataset_sha256":
            shutil.rmtree(folder / "text")
            (folder / "text").mkdir()
            save_splits(folder / "text", tiny_splits(seed=1))
        line = ["--checkpoint", "best_model.pt", "--dataset", "text", *TRAIN, "--output", tmp_path / "out"]
        line += ["--processes", 2, "--process-id", index, "--coordinator", where]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        running.append(command("train", *line, *flags, cwd=folder, env=environment))
    for one in running:
        _, err = one.communicate(timeout=GONE_WITHIN)
        assert one.returncode == 2, err
        said = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(said) == 1, err
        assert f"the same {what}, got" in said[0] or f"read the same {what}" in said[0], err
    assert not list(tmp_path.glob("out/*"))


def test_what_differs_far_behind_is_refused(monkeypatch):
    """The second data set, the last of many seeds: all of a value is compared, and its difference is what is said."""
    from jaxsae import processes
    from jaxsae.errors import InputError

    same = "a" * 64
    for values, said in (
        (
            (f"{same},{'b' * 64}", f"{same},{'c' * 64}"),
            (r"\.\.\.a+,b+\.\.\. in process 0", r"\.\.\.a+,c+\.\.\. in process 2"),
        ),
        ((list(range(40)), [*range(39), 40]), (r"\.\.\..* 39\] in process 0", r"\.\.\..* 40\] in process 2")),
        (("text", f"text{same}"), ("got text in process 0", r"texta+\.\.\. in process 2")),
    ):
        given = [{"--seed": values[0]}, {"--seed": values[0]}, {"--seed": values[1]}]
        monkeypatch.setattr(processes, "each", lambda mine, given=given: given)
        for part in said:
            with pytest.raises(InputError, match=part) as error:
                processes.agree(given[0])
        assert len(str(error.value)) < 250
    monkeypatch.setattr(processes, "each", lambda mine: [mine, mine])
    processes.agree({"--dataset": same * 9})


def test_a_scheduler_says_who_is_who(files, tmp_path):
    """Slurm's variables, as `srun` sets them, and no flag."""
    usual = {
        "SLURM_JOB_ID": str(50_000 + os.getpid() % 10_000),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
    }
    running = []
    for index in range(2):
        environment = os.environ | usual | {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}
        flags = [*files, *JOINED[:-2], "--expansion", 2, "--output", tmp_path / "out"]
        flags.remove("--quiet")
        running.append(command("train", *flags, env=environment))
    said = [one.communicate(timeout=GONE_WITHIN) for one in running]
    assert [one.returncode for one in running] == [0, 0], said
    assert "devices  latents=2, 2 processes" in said[0][0]
    assert "wrote" not in said[1][0]


TELL = """
import os, sys
import jax, numpy as np
from jaxsae import processes
from jaxsae.train.loop import basis_of
number = int(sys.argv[1])
def select():
    jax.config.update("jax_platforms", "cpu")
    jax.devices()
processes.join(processes.Place(number, 2, sys.argv[2]), select)
assert (processes.place().number, processes.place().of, processes.here()) == (number, 2, 2)
mine = np.random.default_rng(number).standard_normal((3, 5)) / 3
both = [np.random.default_rng(i).standard_normal((3, 5)) / 3 for i in range(2)]
assert (processes.summed(mine) == both[0] + both[1]).all()
assert all((processes.of_process(i, mine) == both[i]).all() for i in range(2))
if number:  # another machine's library
    eigh = np.linalg.eigh
    np.linalg.eigh = lambda a: (eigh(a)[0], -eigh(a)[1])
rows = np.random.default_rng(0).standard_normal((100, 6)).astype(np.float32)
found = processes.each(basis_of(rows, rows.shape[1], 0.0).rotation.tolist())
assert found[0] == found[1]
processes.leave()
"""


def test_what_processes_tell_each_other():
    """Sums and arrays in float64 to the last bit; the basis is that of the first, whatever another machine finds."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{one.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", TELL]
    running = [
        subprocess.Popen([*line, str(i), where], env=environment, stderr=subprocess.PIPE, text=True) for i in range(2)
    ]
    said = [one.communicate(timeout=GONE_WITHIN) for one in running]
    assert [one.returncode for one in running] == [0, 0], said


def test_the_device_is_chosen_before_processes_compute(files, tmp_path):
    """One that is not there is refused, and not taken for the CPU."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{one.getsockname()[1]}"
    flags = [*files, *TRAIN, "--device", "tpu", "--output", tmp_path / "out", "--processes", 2, "--coordinator", where]
    running = [command("train", *flags, "--process-id", index) for index in range(2)]
    said = [one.communicate(timeout=GONE_WITHIN)[1] for one in running]
    assert [one.returncode for one in running] == [2, 2], said
    assert any("device tpu must be one that this JAX can use" in err for err in said), said
    assert not list(tmp_path.glob("out/*.pt"))


def test_what_does_not_say_who_is_who_is_refused(files, tmp_path):
    told = {"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"}
    _, err = ran("train", *files, *TRAIN, "--output", tmp_path / "out", status=2, env=os.environ | told)
    assert err.count("\n") == 1, err
    assert "--processes, --process-id and --coordinator, must say who is who, got: Number of processes must" in err


def test_an_error_of_this_process_is_not_taken_for_the_end_of_another(monkeypatch):
    """Some of the runtime's words are of both: then they are said."""
    import argparse

    from jaxsae.cli import launch, process
    from jaxsae.cli.arguments import Parser

    def main(args):
        raise RuntimeError("UNAVAILABLE: connection to the device has been lost " + "x" * 500 + "\nand more")

    monkeypatch.setattr(launch, "has_others", lambda: True)
    status, said = process._status_of(main, argparse.Namespace(debug=False), Parser("."))
    assert status == 2
    assert "RuntimeError: UNAVAILABLE: connection to the device has been lost x" in said
    assert "--resume goes on" in said
    assert (said.count("\n"), len(said) <= 280) == (1, True)


def test_a_signal_that_comes_twice_is_one_wish(monkeypatch):
    """Sent to a whole group, it reaches a process and its parent, which passes it on."""
    from jaxsae.cli import process

    now = [100.0]
    monkeypatch.setattr(process.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(process.os, "write", lambda *about: 0)
    with pytest.raises(process.Terminated), process.stop_later() as wanted:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        now[0] += 1.9
        os.kill(os.getpid(), signal.SIGINT)
        assert wanted() == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt, match=r"^$"), process.stop_later():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        now[0] += 2
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second one stops at once")


def test_processes_ask_each_other_about_every_second(monkeypatch):
    """However long a step takes; after how many steps, the first one says, and after the first step all ask."""
    from jaxsae.train import run
    from jaxsae.train.events import Position, Resumable
    from jaxsae.train.plan import Part

    now, asked = [0.0], []
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run.processes, "together", lambda: True)
    monkeypatch.setattr(run.processes, "is_first", lambda: False)
    monkeypatch.setattr(run.processes, "each", lambda mine: asked.append(now[0]) or [(0, first[0]), mine])
    signals, first = [0], [1]
    agreement = run._Agreement(lambda: signals[0], run.Checkpointer({}, {}, (), 0))
    event = Resumable(Part(("a",), 9), Position(1, 1, ("a",), {}), 1, lambda: None)
    now[0] += 60  # what is compiled first
    assert agreement.after(event) == 0
    assert agreement.ask_after == 1
    first[0] = 20
    for _ in range(61):
        now[0] += 0.05
        assert agreement.after(event) == 0
    assert np.allclose(np.diff(asked[1:]), 1)
    count = len(asked)
    assert agreement.after(event._replace(position=Position(2, 0, ("a",), {}))) == 0
    assert len(asked) == count + 1, "at the end of an epoch a save may be due"
    signals[0], first[0] = signal.SIGTERM, 1
    while (found := agreement.after(event)) == 0:
        now[0] += 0.05
    assert found == signal.SIGTERM


def test_flags_of_processes_are_checked(script, files):
    for flags, part in (
        (["--process-id", 0], "must be given together"),
        (["--processes", 0], "at least 1"),
        (["--processes", 2, "--device", "gpu"], "one has all its GPUs"),
        (["--processes", 2, "--process-id", 2, "--coordinator", "localhost:1234"], "--process-id must be in 0..1"),
        (["--processes", 2, "--process-id", 0, "--coordinator", "localhost"], "HOST:PORT"),
    ):
        found = script("train", *files, *TRAIN, *flags)
        assert (found.status, found.err.count("\n")) == (2, 1), found
        assert part in found.err
