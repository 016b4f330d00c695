"""A command as a process: exit status, one-line errors, signals, outputs that can be written."""

import argparse
import atexit
import contextlib
import errno
import gc
import logging
import math
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from jaxsae import runtime
from jaxsae.cli import launch
from jaxsae.cli.arguments import Parser
from jaxsae.cli.inputs import GET_TORCH
from jaxsae.cli.terminal import prepare_streams
from jaxsae.errors import InputError, InputNote, ParityError, one_line, require

DAMAGED_CACHE = "Error reading persistent compilation cache"
"""How JAX begins to tell of an entry that it cannot read."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Ctrl-C is told: what is half done is cleaned up."""


def _raise(number: int, frame: Any) -> NoReturn:
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


SAME = 2.0
"""Seconds within which another signal is taken to be the same wish: a scheduler that ends a whole group tells a
process, and its parent, which tells it again."""


@contextlib.contextmanager
def _signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to `handler` within the block, where this is a thread that can have that.

    Those that come within `SAME` of one that went there do not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = -math.inf

    def once(number: int, frame: Any) -> None:
        nonlocal last
        if time.monotonic() >= last + SAME:
            last = time.monotonic()
            handler(number, frame)

    before = {number: signal.signal(number, once) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, how in before.items():
            signal.signal(number, how)


class Stop:
    """A wish to stop."""

    signal = 0
    """The number of the signal that says so; 0: none has come."""


@contextlib.contextmanager
def stop_later(stop: Stop | None = None) -> Iterator[Callable[[], int]]:
    """Within the block, what it gives tells whether Ctrl-C or SIGTERM came; at its end that is raised.

    A second one is raised at once, if it comes later than `SAME`.

    Args:
      stop: where it is noted.
    """
    stop = Stop() if stop is None else stop

    def note(number: int, frame: Any) -> None:
        if stop.signal:
            _raise(number, frame)
        stop.signal = number
        # not through sys.stderr: what the signal interrupts may be writing there
        os.write(
            launch.descriptor_of(sys.stderr, 2),
            b"stopping: saving first; once more, in 2 seconds or later, stops at once\n",
        )

    with _signals(note):
        yield lambda: stop.signal
    if stop.signal:
        _raise(stop.signal, None)


def run(main: Callable[[argparse.Namespace], int | None], parser: Parser) -> NoReturn:
    """Parse the command line, run `main` and exit with its status; what the user can mend is one line, status 2."""
    prepare_streams()
    atexit.register(gc.freeze)  # else Python looks three times through all that JAX has made, for half a second
    args = parser.parse_args()
    quiet_libraries()
    try:
        status, said = _status_of(main, args, parser)
    except Exception:
        if not launch.has_others():
            raise
        status, said = 1, traceback.format_exc()
    with contextlib.suppress(OSError):  # whoever reads it may be gone, and others wait for this one's end
        sys.stdout.flush()
        sys.stderr.write(said)
    launch.leave(status)
    sys.exit(status)


def _status_of(
    main: Callable[[argparse.Namespace], int | None], args: argparse.Namespace, parser: Parser
) -> tuple[int, str]:
    """(the exit status of `main`, what is to be said on standard error)."""
    try:
        if launch.is_parent(args):
            return launch.run_children(args), ""
        with _signals(_raise), _outputs(args, parser.outputs):
            launch.enter(args)
            status = main(args) or 0
            sys.stdout.flush()
            return status, ""
    except ParityError as error:
        return 1, one_line(f"failed: {error}")
    except (InputError, OSError, MemoryError) as error:
        if args.debug:
            raise
        if isinstance(error, BrokenPipeError):  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141, ""
        message = parser.with_flags(str(error)) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        if getattr(cause, "errno", None) in NO_ROOM:
            message = f"what is written must find room on the disk, got {error}; make room and run it again"
        return 2, one_line(f"error: {launch.who()}{message}")
    except ModuleNotFoundError as error:
        if args.debug or error.name != "torch":
            raise
        return 2, one_line(f"error: {launch.who()}this needs PyTorch, which is not installed; {GET_TORCH}")
    except KeyboardInterrupt as error:
        if args.debug:
            raise
        return (143, "terminated\n") if isinstance(error, Terminated) else (130, "interrupted\n")
    except Exception as error:
        if args.debug or not launch.is_of_others(error):
            raise
        return 2, one_line(f"error: {launch.who()}{launch.said_of_others(error)}")


@contextlib.contextmanager
def _outputs(args: argparse.Namespace, names: Sequence[str]) -> Iterator[None]:
    """Check that the files which flags name can be written; `-` is standard output, which then gets nothing else.

    Raises:
      InputError: one cannot be written, or two are the same.
    """
    from jaxsae.files import check_output

    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    require(len(set(given.values())) == len(given), f"--{' and --'.join(given)} must be different files")
    read = [value for name, value in vars(args).items() if name not in names]
    inputs = [one for value in read for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    with contextlib.ExitStack() as stack:
        for name, path in given.items():
            if path != "-":
                check_output(path, f"--{name.replace('_', '-')}", inputs)
                continue
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            out, made = sys.stdout, os.path.join(folder, name)
            setattr(args, name, made)
            stack.callback(_copy_text, made, out)
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def _copy_text(path: str, stream: Any) -> None:
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            stream.write(file.read())
        stream.write("\n")
        stream.flush()


def quiet_libraries() -> None:
    """Keep the chatter of JAX, Orbax, torch and matplotlib off the terminal: only what the user can act on is shown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("absl", "jax", "orbax", "matplotlib", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", InputNote)
    warnings.filterwarnings("always", message=DAMAGED_CACHE)
    warnings.showwarning = _show_note


def _show_note(message: Warning | str, *about: Any, **more: Any) -> None:
    if str(message).startswith(DAMAGED_CACHE):
        runtime.drop_compiled()
    else:
        sys.stderr.write(one_line(f"note: {message}"))
