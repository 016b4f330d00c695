#!/usr/bin/env python3
"""Let things happen to a run of three processes at random moments, and go on with --resume.

    python tests/fault_anywhere.py --times 40

A process is killed, stopped or asked to end, the first one is killed, or a process finds no more room on the disk.
Every time: all processes end within the stated time, with a line each of those that can still say one, and nothing half
is written. With --resume the run then goes on, with three processes to the same bytes as if nothing had been, with
another number of them to the same figures up to rounding.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from jaxsae.processes import GONE_WITHIN  # noqa: E402

RUN = ["--layer", "1", "--epochs", "12", "--expansion", "3", "--l1-coef", "1e-2", "--max-samples", "30", "--quiet"]
RUN += ["--verify", "0", "--save-every", "0", "--resume", "--patience", "12"]
FAULTS = ("killed", "asked to end", "stopped", "first killed", "no room")
SLACK = 15
"""Seconds in which a parent that is to see to it does."""
AGAIN = (3, 3, 1, 2, 4)
"""Processes of the run that goes on."""


def start(output: Path, processes: int) -> subprocess.Popen:
    """The command in a process of its own, which starts the others."""
    line = [sys.executable, str(ROOT / "scripts" / "train.py"), *RUN, "--output", str(output)]
    line += ["--processes", str(processes)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def children(parent: int) -> dict[int, int]:
    """Number of the process -> its pid."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                environment = dict(one.partition("=")[::2] for one in (path / "environ").read_text().split("\0"))
                found[int(environment["JAXSAE_PROCESS"].split()[1])] = int(path.name)
    return found


def happen(fault: str, pids: dict[int, int], rng: random.Random) -> None:
    """Do it to one of the processes."""
    one = pids[0] if fault == "first killed" else pids[rng.choice(sorted(pids)[1:])]
    if fault == "asked to end":
        one = pids[rng.choice(sorted(pids))]
    if fault == "no room":
        resource.prlimit(one, resource.RLIMIT_FSIZE, (1000, 1000))
        return
    kinds = {"asked to end": signal.SIGTERM, "stopped": signal.SIGSTOP}
    os.kill(one, kinds.get(fault, signal.SIGKILL))


def result(output: Path) -> tuple[bytes, list[float]]:
    """The SAE, and its losses."""
    report = json.loads((output / "sae_layer1_optimized.json").read_text())
    return (output / "sae_layer1_optimized.pt").read_bytes(), report["losses"]


def trial(base: Path, fault: str, after: float, again: int, whole: tuple, rng: random.Random) -> tuple[str, str] | None:
    """(what was seen, what was wrong with it, if anything); None: the run had ended before anything could happen."""
    out = base / "out"
    running = start(out, 3)
    began = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.wait(timeout=after)
    if running.poll() is not None:
        return None
    pids = children(running.pid)
    happened = time.monotonic()
    if len(pids) == 3:
        happen(fault, pids, rng)
    limit = GONE_WITHIN + SLACK + (60 if fault == "no room" else 0)  # which is noticed when something is written
    try:
        _, err = running.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        for pid in [*children(running.pid).values(), running.pid]:
            os.kill(pid, signal.SIGKILL)
        return f"{fault} after {after:.1f} s", f"hung for {limit} s"
    took = time.monotonic() - happened
    seen = f"{fault:12} after {happened - began:5.1f} s: ended in {took:5.1f} s, status {running.returncode}"
    lines = [line for line in err.splitlines() if not line.startswith("train  ")]
    if running.returncode and any("Traceback" in line for line in lines):
        return seen, "a traceback: " + "\n".join(lines[-12:])
    if running.returncode and not lines:
        return seen, "not a word"
    if (out / "sae_layer1_optimized.pt").exists() and result(out)[0] != whole[0]:
        return seen, "half a file, or another"
    resumed = start(out, again)
    _, err = resumed.communicate(timeout=600)
    seen += f"; resumed by {again}"
    if resumed.returncode:
        return seen, f"then status {resumed.returncode}: {err.strip()[-300:]}"
    left = [path.name for path in base.rglob("*") if ".part-" in path.name or path.name.endswith(".state")]
    content, losses = result(out)
    if again == 3 and content != whole[0]:
        return seen, "then other bytes"
    apart = max(abs(a / b - 1) for a, b in zip(losses, whole[1], strict=True))
    if apart > 1e-5:
        return seen, f"then losses that differ by {apart:.1e}"
    return f"{seen}: losses differ by {apart:.0e}", f"left {left}" if left else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, problems = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("compiles", "whole"):  # the first one fills the cache of compiled programs
            began, run = time.monotonic(), start(Path(folder) / name, 3)
            if run.wait():
                sys.exit(run.stderr.read())
        seconds, whole = time.monotonic() - began, result(Path(folder) / "whole")
        print(f"unharmed: {seconds:.1f} s", flush=True)
        plan = zip(itertools.cycle(FAULTS), itertools.cycle(AGAIN[n % 5] for n in (0, 2, 1, 3, 4, 1, 0)), strict=False)
        for number, (fault, again) in zip(range(args.times), plan, strict=False):
            base = Path(folder) / str(number)
            base.mkdir()
            found = None
            while found is None:
                shutil.rmtree(base / "out", ignore_errors=True)
                found = trial(base, fault, rng.uniform(0.05, 0.95) * seconds, again, whole, rng)
            seen, wrong = found
            print(f"{number:3} {seen}{' WRONG: ' if wrong else ''}{wrong}", flush=True)
            problems += [wrong] if wrong else []
            shutil.rmtree(base, ignore_errors=True)
    print(f"{args.times - len(problems)} of {args.times} ended in time, were whole, and went on")
    sys.exit(bool(problems))
