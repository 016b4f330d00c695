"""The machine that JAX runs on: device, compile cache, memory; and libraries that are kept quiet."""

import contextlib
import mmap
import os
import resource
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxsae.errors import InputError, require


def select_device(name: str) -> None:
    """Have JAX run on `name`, as this process needs it; call it before JAX does anything else, or a thread begins."""
    lean_memory()
    require(name != "mps", "device must be one that JAX supports, got mps, which it does not; use device=cpu")
    compile_portably()
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
        raise InputError(f"device {name} must be one that this JAX can use, got: {reason}; use device=cpu") from None
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


def compile_portably() -> None:
    """Have XLA compile for AVX2 at most, unless XLA_FLAGS says for what.

    For AVX-512 it adds two preferences that it takes for features of the machine when it loads what it has compiled,
    and says of each, in pages, that the machine lacks them (https://github.com/openxla/xla/issues/44565). Products are
    as fast: they are a library's, which looks for AVX-512 itself; the rest is not slower (docs/speed.md).
    """
    given = os.environ.get("XLA_FLAGS", "").strip()
    is_file = given[:1] not in ("", "-")  # which has flags in it
    if not is_file and "xla_cpu_max_isa" not in given and "avx512f" in _processor():
        os.environ["XLA_FLAGS"] = f"{given} --xla_cpu_max_isa=AVX2".strip()


def _processor() -> str:
    """What the processor can, in the system's words; empty where the system does not say."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")  # the latter on ARM


def cache_folder() -> Path | None:
    """Where to keep what can be made again: the user's cache folder, or JAXSAE_CACHE; None where that is `off`."""
    wanted = os.environ.get("JAXSAE_CACHE") or "on"
    if wanted == "off":
        return None
    if wanted != "on":
        return Path(wanted).absolute()
    from platformdirs import user_cache_dir

    folder = Path(user_cache_dir("jaxsae"))
    return folder if folder.is_absolute() else None  # of a user without a home it is not


def keep_compiled() -> None:
    """Have JAX keep what it compiles in `cache_folder`, unless that is off, and take it from there the next time.

    What lies there is run: the folder must be the user's own and closed to others, else nothing is kept or taken.
    """
    import hashlib
    import platform

    import jax

    root = cache_folder()
    if root is None:
        return
    # code for another processor would not run: a home may be shared by machines
    machine = hashlib.sha256(f"{platform.machine()} {platform.processor()} {_processor()}".encode()).hexdigest()[:12]
    folder = root / f"compiled-{jax.__version__}-{machine}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
            return
        _prune(root)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


CACHE_BYTES = 2**28
"""Of compiled code that is kept. JAX's own limit has it read the whole folder for each new entry."""


def _prune(root: Path) -> None:
    """Where entries take more than `CACHE_BYTES`, those of other versions too, remove the oldest, half of them all."""
    entries = []
    for path in root.glob("compiled-*/*-cache"):
        with contextlib.suppress(OSError):  # another process prunes as well
            entries.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries) if total > CACHE_BYTES else []:
        if total <= CACHE_BYTES // 2:
            break
        total -= size
        with contextlib.suppress(OSError):
            path.unlink()


def drop_compiled() -> None:
    """Remove what is kept for this processor: an entry of it is damaged, and JAX would never write that one anew."""
    import jax

    folder = getattr(jax.config, "jax_compilation_cache_dir", None)
    for path in Path(folder).glob("*-cache") if folder else []:
        with contextlib.suppress(OSError):
            path.unlink()


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


def forget(arrays: Iterable[Any]) -> None:
    """Give back the memory of arrays that are mapped from files; reading them again reads the files again."""
    maps: set[mmap.mmap] = set()
    for array in arrays:
        base: Any = array
        while base is not None and not isinstance(base, mmap.mmap):
            base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
        if base is not None:
            maps.add(base)
    for one in maps:
        one.madvise(mmap.MADV_DONTNEED)


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


def in_words(size: float) -> str:
    """Bytes as people say them."""
    return f"{size / 2**30:.1f} GB" if size >= 2**29 else f"{size / 2**20:.0f} MB"


_together = 0


def note_together(child: int) -> None:
    """Have `peak_memory` count what this process and one that it has started hold now.

    Where the system does not say that of a process, nothing is counted.
    """
    global _together
    _together = max(_together, _status("self", "VmRSS") + _status(child, "VmRSS"))


def peak_memory() -> int:
    """The most memory that this process has held so far, alone or with a child that was noted, in bytes."""
    peak = peak_of("self")
    if not peak:  # not Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return max(_together, peak)


def peak_of(process: int | str) -> int:
    """The most memory that a process has held so far, in bytes; 0 where the system does not say it, or it has ended.

    Linux's `ru_maxrss`, unlike this, begins with what the process held that started it.
    """
    return _status(process, "VmHWM")


def _status(process: int | str, what: str) -> int:
    """A size in /proc/PID/status, in bytes; 0 where there is none."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:")), 0)
