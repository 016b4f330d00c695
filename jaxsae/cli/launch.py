"""A command as several processes: each is started by a parent, which knows no JAX and so outlives what ends the child.

The runtime ends a process from within where another has gone: without a word that a user could read, and without a
chance to say one. The parent says it, passes signals on, and sees to it that nothing hangs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

from jaxsae.cli.arguments import Parser
from jaxsae.errors import one_line, require

CHILD = "JAXSAE_PROCESS"
"""Set in a child's environment: `INDEX COUNT COORDINATOR`, or `scheduler`."""
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


def run_children(args: argparse.Namespace) -> int:
    """Start this command again as one process, or as all of them, and wait; gives the exit status."""
    from jaxsae.processes import GONE_WITHIN

    places = _places(args)
    with contextlib.ExitStack() as stack:
        children = {i: stack.enter_context(_started(place)) for i, place in places.items()}
        signals: list[int] = []
        before = {
            number: signal.signal(number, lambda number, frame: signals.append(number))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        stack.callback(lambda: [signal.signal(number, how) for number, how in before.items()])
        ended: dict[int, int] = {}
        limit: float | None = None
        stopped: dict[int, float] = {}
        while len(ended) < len(children):
            for child in children.values() if signals else ():
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(signals[0])
            del signals[:1]
            for index, child in children.items():
                if index in ended:
                    continue
                status = _status(child)
                if status == "stopped":
                    stopped.setdefault(index, time.monotonic())
                else:
                    stopped.pop(index, None)
                if isinstance(status, int):
                    ended[index] = status
                    if status != 0 and limit is None:
                        limit = time.monotonic() + GONE_WITHIN
                    if status < 0:
                        _tell(index, status)
                elif time.monotonic() > min(limit or float("inf"), stopped.get(index, float("inf")) + GONE_WITHIN):
                    child.kill()
            time.sleep(TICK)
    return max(2 if status < 0 else status for status in ended.values())


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


@contextlib.contextmanager
def _started(place: str) -> Iterator[subprocess.Popen]:
    """A child, in a group of its own so that a terminal's Ctrl-C reaches it once: through its parent."""
    command = [sys.executable, *sys.orig_argv[1:]]
    # what the child reads from ends when the parent does, however it ends
    child = subprocess.Popen(command, env={**os.environ, CHILD: place}, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        child.wait()


def _status(child: subprocess.Popen) -> int | str:
    """`running`, `stopped`, or the status that the child has ended with; below 0: the signal that ended it."""
    if child.returncode is not None:
        return child.returncode
    pid, status = os.waitpid(child.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
    if pid and os.WIFEXITED(status):
        child.returncode = os.WEXITSTATUS(status)
    elif pid and os.WIFSIGNALED(status):
        child.returncode = -os.WTERMSIG(status)
    elif pid:
        child.is_stopped = os.WIFSTOPPED(status)  # type: ignore[attr-defined]
    if child.returncode is not None:
        return child.returncode
    return "stopped" if getattr(child, "is_stopped", False) else "running"


def _tell(index: int, status: int) -> None:
    """One line for a child that could not say one."""
    if -status == signal.SIGABRT:
        what = "ended, as another process or the coordinator has gone, or did not come"
    else:
        what = f"was ended by {signal.Signals(-status).name}"
    sys.stderr.write(one_line(f"error: process {index} {what}; what was saved is whole, --resume goes on with all"))


def enter(args: argparse.Namespace) -> None:
    """Make this process what its parent has started it as, if one has.

    Raises:
      InputError: the others cannot be met.
    """
    said = os.environ.pop(CHILD, None)
    if said is None:
        return
    from jaxsae import processes, runtime

    threading.Thread(target=_end_with_parent, args=(os.dup(0),), daemon=True).start()
    _keep_to_itself(args.debug)
    runtime.compile_portably()
    if said == "scheduler":
        processes.join(None)
    else:
        index, count, coordinator = said.split(" ")
        processes.join(processes.Place(int(index), int(count), coordinator))
    sys.stdout = OfTheFirst(sys.stdout)  # type: ignore[assignment]
    processes.agree({**_versions(), **_comparable(args)})


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
    """What the runtime says from C++ goes nowhere: what is ours to say goes past it."""
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
    index = processes.place().index if processes else 0
    return f"process {index}: " if index else ""


def has_others() -> bool:
    """Whether this process is one of several that wait for each other."""
    processes = sys.modules.get("jaxsae.processes")
    return bool(processes) and processes.together()


def is_of_others(error: Exception) -> bool:
    """Whether an error of the runtime says that another process has gone."""
    words = ("gloo", "closed by peer", "connection", "heartbeat", "coordination", "nccl", "unavailable", "deadline")
    return has_others() and any(word in str(error).lower() for word in words)


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
