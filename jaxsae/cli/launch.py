"""A command as several processes: each is started by a parent, which knows no JAX and so outlives what ends the child.

The runtime ends a process from within where another has gone: without a word that a user could read, and without a
chance to say one. The parent says it, passes signals on, and sees to it that nothing hangs.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, TextIO

from jaxsae.cli.arguments import Parser
from jaxsae.errors import one_line, require

CHILD = "JAXSAE_PROCESS"
"""Set in a child's environment: `TELLS INDEX COUNT COORDINATOR`, or `TELLS scheduler`; TELLS is the descriptor of a
pipe to the parent, in which it says that it has left the others."""
TICK = 0.1


def add_flags(parser: Parser) -> None:
    """Add `--processes`, `--process-id` and `--coordinator`."""
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="run as N processes; alone, all are started on this machine. What a cluster's scheduler starts (Slurm, Open "
        "MPI, Kubernetes, TPU) needs no flag",
    )
    parser.add_argument("--process-id", type=int, metavar="I", help="which of them this is, from 0, if you start each")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 is to be reached by all of them")


def check_flags(args: argparse.Namespace) -> None:
    """Raise `InputError` where the flags contradict each other."""
    n, index, where = args.processes, args.process_id, args.coordinator
    require(n is None or n >= 1, f"--processes must be at least 1, got {n}")
    both = index is not None and where is not None
    either = index is not None or where is not None
    require(
        not either or (both and n is not None),
        "--process-id and --coordinator must be given together, with --processes; leave them out to start all here",
    )
    require(index is None or 0 <= index < n, f"--process-id must be in 0..{(n or 1) - 1}, got {index}")
    require(
        not _all_here(args) or args.device in ("cpu", "auto"),
        f"--processes on one machine must be with --device cpu, got {args.device}; one has all its GPUs",
    )
    host, _, port = (where or "localhost:1").rpartition(":")
    ok = bool(host) and port.isdecimal() and 0 < int(port) < 2**16
    require(ok, f"--coordinator must be HOST:PORT, got {where}")


def is_parent(args: argparse.Namespace) -> bool:
    """Whether this command is to be run by children.

    Raises:
      InputError: the flags contradict each other.
    """
    if CHILD in os.environ or not hasattr(args, "processes"):
        return False
    check_flags(args)
    from jaxsae.processes import of_scheduler

    return (args.processes or 1) > 1 or (args.processes is None and of_scheduler())


class _Child:
    """One process that was started, as its parent sees it."""

    def __init__(self, index: int, place: str) -> None:
        self.index, self.status, self.stopped = index, None, None
        self.told, tells = os.pipe()
        os.set_blocking(self.told, False)
        command = [sys.executable, *sys.orig_argv[1:]]
        # in a group of its own, so that a terminal's Ctrl-C reaches it once, through its parent; and what it reads from
        # ends when the parent does, however it ends
        self.process = subprocess.Popen(
            command,
            env={**os.environ, CHILD: f"{tells} {place}"},
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[tells],
        )
        os.close(tells)
        self.alone = False
        """Whether it has left the others: what becomes of them is nothing to it."""

    status: int | None
    """What it has ended with; below 0: the signal that ended it."""
    stopped: float | None
    """Since when it has been stopped, by `time.monotonic`."""

    def look(self) -> None:
        """See what has become of it."""
        with contextlib.suppress(BlockingIOError):
            self.alone |= bool(os.read(self.told, 1))
        pid, status = os.waitpid(self.process.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        if pid and os.WIFSTOPPED(status):
            self.stopped = time.monotonic()
        elif pid and os.WIFCONTINUED(status):
            self.stopped = None
        elif pid:
            self.status = os.waitstatus_to_exitcode(status)
            self.process.returncode = self.status

    def send(self, number: int) -> None:
        """Give it a signal, if it still runs."""
        if self.status is None:
            self.process.send_signal(number)


def run_children(args: argparse.Namespace) -> int:
    """Start this command again as one process, or as all of them, and wait; gives the exit status."""
    from jaxsae.processes import GONE_WITHIN

    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    children = [_Child(index, place) for index, place in _places(args).items()]
    first_gone = math.inf
    try:
        while running := [child for child in children if child.status is None]:
            for number in came:
                for child in running:
                    child.send(number)
            came.clear()
            for child in running:
                child.look()
                if child.status:  # of one that is alone, too: there is no telling whether it was then
                    first_gone = min(first_gone, time.monotonic())
                    _tell(child)
                since = min(math.inf if child.alone else first_gone, child.stopped or math.inf)
                if time.monotonic() > since + GONE_WITHIN:
                    child.send(signal.SIGKILL)
            time.sleep(TICK)
    finally:
        for child in children:
            child.send(signal.SIGKILL)
        for number, how in before.items():
            signal.signal(number, how)
    return max(2 if child.status < 0 else child.status for child in children if child.status is not None)


def _places(args: argparse.Namespace) -> dict[int, str]:
    """Process -> what its environment says of it."""
    if args.processes is None:
        return {0: "scheduler"}
    if args.process_id is not None:
        return {args.process_id: f"{args.process_id} {args.processes} {args.coordinator}"}
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    return {i: f"{i} {args.processes} 127.0.0.1:{port}" for i in range(args.processes)}


def _tell(child: _Child) -> None:
    """One line for a child that could not say one."""
    if child.status == -signal.SIGABRT:
        what = "ended, as another process or the coordinator has gone, or did not come"
    elif child.status is not None and child.status < 0:
        what = f"was ended by {signal.Signals(-child.status).name}"
    else:
        return
    said = f"error: process {child.index} {what}; what was saved is whole, --resume goes on with all"
    sys.stderr.write(one_line(said))


def enter(args: argparse.Namespace) -> None:
    """Make this process what its parent has started it as, if one has.

    Raises:
      InputError: the others cannot be met.
    """
    said = os.environ.pop(CHILD, None)
    if said is None:
        return
    from jaxsae import processes, runtime

    tells, *place = said.split(" ")
    threading.Thread(target=_end_with_parent, args=(os.dup(0),), daemon=True).start()
    _keep_to_itself(args.debug)
    runtime.compile_portably()
    by_scheduler = place == ["scheduler"]
    wanted = None if by_scheduler else processes.Place(int(place[0]), int(place[1]), place[2])
    if _all_here(args) and args.device == "auto":
        args.device = "cpu"  # one process has all GPUs; several would each take all of them
    processes.join(wanted, lambda: runtime.select_device(args.device), lambda: os.write(int(tells), b"."))
    sys.stdout = OfTheFirst(sys.stdout)
    processes.agree({**_versions(), **_comparable(args)})


def _all_here(args: argparse.Namespace) -> bool:
    """Whether one command starts all processes, on this machine."""
    return (args.processes or 1) > 1 and args.process_id is None


class OfTheFirst:
    """A stream that takes what the first process says, and of others what they say once they have left it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """As the stream."""
        return self.stream.write(text) if sys.modules["jaxsae.processes"].is_first() else len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _end_with_parent(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _keep_to_itself(debug: bool) -> None:
    """What the runtime says from C++, and libraries' threads when others have gone, goes nowhere; ours goes past it."""
    if not debug:
        logging.disable(logging.ERROR)
        threading.excepthook = lambda about: None
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = os.fdopen(os.dup(number), "w", encoding="utf-8", errors="backslashreplace", buffering=1)
        setattr(sys, name, stream)
        if not debug:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)


def _comparable(args: argparse.Namespace) -> dict[str, Any]:
    """The flags, but for those in which processes and machines differ."""
    own = ("process_id", "coordinator", "memory_limit")
    return {f"--{name.replace('_', '-')}": value for name, value in vars(args).items() if name not in own}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {f"version of {package}": version(package) for package in ("jaxsae", "jax", "jaxlib", "numpy", "optax")}


def who() -> str:
    """What an error begins with: which process it is of, where that is not the first."""
    processes = sys.modules.get("jaxsae.processes")  # only where this process has met others
    index = processes.place().number if processes else 0
    return f"process {index}: " if index else ""


def has_others() -> bool:
    """Whether this process is one of several that wait for each other."""
    processes = sys.modules.get("jaxsae.processes")
    return processes is not None and processes.together()


def is_of_others(error: Exception) -> bool:
    """Whether an error of the runtime may say that another process has gone: what else it may mean, its words tell."""
    words = ("gloo", "closed by peer", "connection", "heartbeat", "coordination", "nccl", "unavailable", "deadline")
    return has_others() and any(word in str(error).lower() for word in words)


def said_of_others(error: Exception) -> str:
    """What is said of such an error, with the first line of its own words: these may be of this very process."""
    cause = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
    cause = cause if len(cause) <= 150 else f"{cause[:147]}..."
    return f"another process has ended, it seems, and with it the run; --resume goes on; the runtime says {cause}"


def descriptor_of(stream: Any, usual: int) -> int:
    """The descriptor that a stream writes to."""
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return usual


def leave(status: int) -> None:
    """End this process with `status` where it is one of several: one that fails must not wait for the others."""
    if not has_others():
        return
    if status == 0:
        sys.modules["jaxsae.processes"].leave()
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
