"""What the scripts share: flags made from the config dataclasses, one-line errors, quiet libraries.

Imports neither JAX nor torch, so that `--help` is free.
"""

import argparse
import contextlib
import dataclasses
import errno
import logging
import os
import resource
import signal
import sys
import tempfile
import threading
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jaxsae.config import DEMO, InputError, InputNote, require
from jaxsae.terminal import prepare_streams

T = TypeVar("T")
SUPPRESS: Any = argparse.SUPPRESS
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line, with `--debug` for tracebacks."""

    def __init__(self, description: str) -> None:
        super().__init__(
            description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
        )
        self._texts: set[str] = set()
        self.outputs: list[str] = []
        """Names of the flags of `add_output`."""
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        """Status 2 and one line."""
        self.exit(2, one_line(f"error: {message}; see {self.prog} --help"))

    def add_output(self, flag: str, what: str) -> None:
        """Add a flag for a file to write; before the work begins it is seen that it can be, see `run`.

        Args:
          what: for the help.
        """
        self.outputs.append(flag.removeprefix("--").replace("-", "_"))
        self.add_argument(flag, metavar="OUT", help=what)

    def add_text(self, flag: str, **options: Any) -> None:
        """Add a flag whose value may begin with a hyphen, such as `--pattern -ak`."""
        self._texts.add(flag)
        self.add_argument(flag, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As usual, but that a flag of `add_text` takes what follows as it is."""
        words, joined = list(sys.argv[1:] if args is None else args), []
        while words:
            word = words.pop(0)
            joined.append(f"{word}={words.pop(0)}" if word in self._texts and words else word)
        return super().parse_known_args(joined, namespace)

    def add_config(
        self,
        config: type,
        *,
        only: tuple[str, ...] = (),
        names: dict[str, tuple[str, ...]] | None = None,
        lists: tuple[str, ...] = (),
        **defaults: Any,
    ) -> None:
        """Add a flag for each field of a config dataclass, or for those in `only`; `defaults` differ from the field's.

        `names` gives a field other flags than its own name; the fields in `lists` take several values, parted by
        commas, and become lists of (as typed, value).

        A flag that is not given leaves no attribute: the dataclass knows its default.
        """
        hints = typing.get_type_hints(config)
        for field in dataclasses.fields(config):
            if only and field.name not in only:
                continue
            kind, options = hints[field.name], dict(field.metadata)
            if isinstance(kind, types.UnionType):
                kind = next(part for part in typing.get_args(kind) if part is not type(None))
            if typing.get_origin(kind) is typing.Literal:
                options.setdefault("choices", typing.get_args(kind))
                kind = str
            default = defaults.get(field.name, field.default)
            if default is None or default is False:
                default = "off"
            elif str(default).startswith(str(DEMO)):
                default = "the demo's"
            options["help"] = f"{options['help']} (default: {default})"
            how = {"action": "store_true"} if kind is bool else {"type": kind}
            if field.name in lists:
                how, options["metavar"] = {"type": _several(kind)}, "N[,N...]"
            flags = (names or {}).get(field.name, (f"--{field.name.replace('_', '-')}",))
            self.add_argument(*flags, **{**how, "dest": field.name, "default": SUPPRESS, **options})


def _several(kind: Callable[[str], Any]) -> Callable[[str], list[tuple[str, Any]]]:
    """A parser of values parted by commas: [(as typed, value), ...]."""

    def parse(text: str) -> list[tuple[str, Any]]:
        values = [(part.strip(), kind(part)) for part in text.split(",")]
        if len({value for _, value in values}) < len(values):
            raise argparse.ArgumentTypeError(f"values must differ, got {text}")
        return values

    parse.__name__ = kind.__name__  # what argparse calls it in its error
    return parse


def config_from(args: argparse.Namespace, config: Callable[..., T], **defaults: Any) -> T:
    """The config dataclass from the flags that were given; `defaults` where they differ from the fields' own."""
    names = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    return config(**defaults | {name: value for name, value in vars(args).items() if name in names})


def layers_of(text: str, every: Sequence[int]) -> list[int]:
    """`8`, `2,8,14`, or `all`, which is `every`."""
    if text == "all":
        return list(every)
    parts = text.split(",")
    ok = all(part.strip().removeprefix("-").isdigit() for part in parts)
    require(ok, f"layer must be a number, several parted by commas, or all, got {text}")
    layers = [int(part) for part in parts]
    require(min(layers) >= 0, f"layer must be at least 0, got {min(layers)}")
    require(len(set(layers)) == len(layers), f"layers must differ, got {text}")
    return layers


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Ctrl-C is told: what is half done is cleaned up."""


def _raise(number: int, frame: Any) -> NoReturn:
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextlib.contextmanager
def _signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to `handler` within the block, where this is a thread that can have that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, how in before.items():
            signal.signal(number, how)


@contextlib.contextmanager
def stop_later() -> Iterator[Callable[[], bool]]:
    """Within the block, what it gives tells whether Ctrl-C or SIGTERM came; at its end that is raised.

    A second one is raised at once.
    """
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        if came:
            _raise(number, frame)
        came.append(number)
        # not through sys.stderr: what the signal interrupts may be writing there
        os.write(2, b"stopping: saving first; once more stops at once\n")

    with _signals(note):
        yield lambda: bool(came)
    if came:
        _raise(came[0], None)


def run(main: Callable[[argparse.Namespace], int | None], parser: Parser) -> NoReturn:
    """Parse the command line, run `main` and exit with its status; what the user can mend is one line, status 2."""
    prepare_streams()
    args = parser.parse_args()
    quiet_libraries()
    try:
        with _signals(_raise), _outputs(args, parser.outputs):
            status = main(args) or 0
            sys.stdout.flush()
    except (InputError, OSError, MemoryError) as error:
        if args.debug:
            raise
        if isinstance(error, BrokenPipeError):  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        message = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        if getattr(cause, "errno", None) in NO_ROOM:
            message = f"what is written must find room on the disk, got {error}; make room and run it again"
        parser.exit(2, one_line(f"error: {message}"))
    except KeyboardInterrupt as error:
        if args.debug:
            raise
        terminated = isinstance(error, Terminated)
        parser.exit(143 if terminated else 130, "terminated\n" if terminated else "interrupted\n")
    sys.exit(status)


def one_line(message: str, most: int = 300) -> str:
    """A message as one line of at most so many characters; of a longer one the middle, which names things, is cut."""
    message = " ".join(message.split())
    if len(message) >= most:
        half = (most - 5) // 2
        message = f"{message[:half]} ... {message[-half:]}"
    return f"{message}\n"


@contextlib.contextmanager
def _outputs(args: argparse.Namespace, names: Sequence[str]) -> Iterator[None]:
    """See that the files which flags name can be written; `-` is standard output, which then gets nothing else.

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
    warnings.showwarning = _show_note


def _show_note(message: Warning | str, *about: Any, **more: Any) -> None:
    sys.stderr.write(one_line(f"note: {message}"))


def add_device(parser: Parser) -> None:
    """Add `--device`."""
    choices = ("cpu", "gpu", "cuda", "tpu", "auto", "mps")
    parser.add_argument("--device", choices=choices, default="cpu", help="what JAX runs on; cuda means gpu")


def add_other_model(parser: Parser) -> None:
    """Add `--other-model`."""
    what = "take an SAE that was trained on another model than the one given, and only say so"
    parser.add_argument("--other-model", action="store_true", help=what)


def select_device(name: str) -> None:
    """Have JAX run on `name`; call it before JAX does anything else."""
    require(name != "mps", "device must be one that JAX supports, got mps, which it does not; use --device cpu")
    import jax

    keep_compiled()
    # what an environment asks of JAX is for other programs: these compute in float32, and optax mixes types
    for setting, usual in (("jax_enable_x64", False), ("jax_numpy_dtype_promotion", "standard")):
        jax.config.update(setting, usual)
    if name != "auto":
        jax.config.update("jax_platforms", "cuda" if name == "gpu" else name)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # an assertion where the platform's plugin is not installed
        reason = str(error).split("\n")[0] or "no such device"
        raise InputError(f"device {name} must be one that this JAX can use, got: {reason}; use --device cpu") from None
    check_compiler(jax.__version__)


KNOWN_BAD = ("0.10.2",)
"""Versions of JAX that compile wrongly on CPU: https://github.com/jax-ml/jax/issues/39103."""


def check_compiler(version: str) -> None:
    """Where this is a version known to compile wrongly, see whether it does here.

    Raises:
      InputError: it does.
    """
    if version not in KNOWN_BAD:
        return
    import jax
    import jax.numpy as jnp
    import numpy as np

    rows = np.random.default_rng(0).standard_normal((40_000, 3)).astype(np.float32)
    matrix = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)
    got = np.asarray(jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))(rows))
    expected = ((rows.astype(np.float64) @ matrix.T.astype(np.float64)) ** 2).sum(axis=1)
    right = bool(np.allclose(got, expected, rtol=1e-3, atol=1e-4))
    require(
        right, f"JAX must compute what it is asked to, and {version} does not here; install 0.10.1 or another version"
    )


def keep_compiled() -> None:
    """Have JAX keep what it compiles, where JAXSAE_CACHE asks for it: `on`, or a folder.

    `on` is the user's cache folder. What lies there is run: it must be the user's own and closed to others, else
    nothing is kept or taken. Not the default: on some processors XLA then warns at each start.
    """
    wanted = os.environ.get("JAXSAE_CACHE", "off")
    if wanted == "off":
        return
    import hashlib
    import platform
    from pathlib import Path

    import jax
    from platformdirs import user_cache_dir

    wanted = user_cache_dir("jaxsae") if wanted == "on" else wanted
    # code for another processor would not run: a home may be shared by machines
    cpu = Path("/proc/cpuinfo")
    flags = (
        next((line for line in cpu.read_text().splitlines() if line.startswith("flags")), "") if cpu.exists() else ""
    )
    machine = hashlib.sha256(f"{platform.machine()} {platform.processor()} {flags}".encode()).hexdigest()[:12]
    folder = Path(wanted) / f"compiled-{jax.__version__}-{machine}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or folder.is_symlink():
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_compilation_cache_max_size", 2**28)


def lean_memory() -> None:
    """Have the C library keep one arena, and large pieces in it: an eighth less at the peak of a pass over the text.

    Does nothing where the C library is not glibc. Call it before threads are started.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # of malloc.h
    for option, value in ((arena_max, 1), (mmap_threshold, 2**25), (trim_threshold, 2**28)):
        mallopt(option, value)


def give_back_memory() -> None:
    """Have the C library return to the system what is free in its arena; does nothing where it is not glibc."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def memory_of_machine(root: Path = Path("/")) -> int:
    """What this process may use, in bytes: the machine's memory, or less where its container or its user limits it.

    Args:
      root: where the system's files are.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), resource.getrlimit(resource.RLIMIT_AS)[0]]
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, own = [*line.split(":", 2), "", ""][:3]
        # of version 2 there is one hierarchy, without controllers' names; of version 1 one for memory
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (groups / "memory", "memory.limit_in_bytes") if controllers else (groups, "memory.max")
        place = base / own.strip("/")
        for folder in (place, *place.parents):  # a group has no more than those it is in; from inside, its own is `/`
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
            if folder == base:
                break
    return min(limit for limit in limits if limit > 0)


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
