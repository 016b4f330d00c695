"""The machine that JAX runs on: device, compile cache, memory; and libraries that are kept quiet."""

import contextlib
import os
import resource
import sys
from pathlib import Path

from jaxsae.errors import InputError, require


def select_device(name: str) -> None:
    """Have JAX run on `name`; call it before JAX does anything else."""
    require(name != "mps", "device must be one that JAX supports, got mps, which it does not; use device=cpu")
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


_together = 0


def note_children() -> None:
    """Have `peak_memory` count the largest child process that has ended as if it had been there at the peak so far."""
    global _together
    _together = max(_together, _peak_of(resource.RUSAGE_SELF) + _peak_of(resource.RUSAGE_CHILDREN))


def peak_memory() -> int:
    """The most memory that this process has held so far, with a child process that was noted, in bytes."""
    return max(_together, _peak_of(resource.RUSAGE_SELF))


def _peak_of(who: int) -> int:
    peak = resource.getrusage(who).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
