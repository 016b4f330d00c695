"""Several processes that run one command together: how they start, what they tell each other, how they end.

`jax.distributed` joins them. A process that is alone, which is the usual case, agrees with itself, and nothing here
costs it anything. All of these functions must be called by all processes in the same order.
"""

import contextlib
import itertools
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxsae.errors import InputError, require
from jaxsae.files import shared

STARTED_WITHIN = 120
"""Seconds in which all processes must have started."""
HEARTBEAT = 30
"""Seconds without a sign of life after which a process counts as gone, and all others end."""
GONE_WITHIN = 2 * HEARTBEAT + 30
"""Seconds after which all have ended, once one has."""


class Place(NamedTuple):
    """Which of how many processes this one is."""

    number: int
    of: int
    coordinator: str | None
    """HOST:PORT of the first process; None: the cluster's scheduler says it."""


ALONE = Place(0, 1, None)
_place = ALONE
_here = 1
_when_alone: list[Callable[[], Any]] = []


def place() -> Place:
    """Which process this is."""
    return _place


def is_first() -> bool:
    """Whether this is the process that writes and talks; one that is alone, or has left the others, does."""
    return _place.number == 0 or not together()


def together() -> bool:
    """Whether there are others."""
    return _place.of > 1


def share() -> tuple[int, int]:
    """(which, of how many) share of common work is this process's."""
    return (_place.number, _place.of) if together() else (0, 1)


def here() -> int:
    """How many of the processes, this one included, are on this machine and share its memory."""
    return _here


def of_scheduler() -> bool:
    """Whether a cluster's scheduler has started this process as one of several."""
    several = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "JAX_NUM_PROCESSES")
    here = {"SLURM_NTASKS": "SLURM_STEP_NODELIST", "JAX_NUM_PROCESSES": "JAX_COORDINATOR_ADDRESS"}
    counted = any(
        os.environ.get(name, "1").isdecimal()
        and int(os.environ.get(name, "1")) > 1
        and here.get(name, name) in os.environ
        for name in several
    )
    on_kubernetes = "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" in os.environ
    on_tpus = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return counted or on_kubernetes or on_tpus


def join(
    wanted: Place | None,
    select: Callable[[], Any] = lambda: None,
    when_alone: Callable[[], Any] = lambda: None,
) -> None:
    """Meet the other processes; before anything asks for a device.

    Args:
      wanted: which process this is; None: what the scheduler says.
      select: has JAX take the devices that are wanted; called once the others are met, for from then on they are
        those of all processes, and before the first is asked for.
      when_alone: called once it has left the others.

    Raises:
      InputError: the coordinator's port cannot be used, or it is not said who is who. Where another process does not
        come in time, the runtime ends this one.
    """
    import jax

    # its service would swallow SIGTERM: a run saves its state by itself
    jax.config.update("jax_enable_preemption_service", False)
    global _place
    # from here on there are others to leave in the lurch, whatever happens
    _place = wanted or Place(0, 2, None)
    limits: dict[str, Any] = {"initialization_timeout": STARTED_WITHIN, "heartbeat_timeout_seconds": HEARTBEAT}
    limits["local_device_ids"] = _bound_devices()
    if wanted is not None:
        assert wanted.coordinator is not None
        limits |= {"coordinator_address": wanted.coordinator, "num_processes": wanted.of, "process_id": wanted.number}
        if wanted.number == 0:
            _require_free(wanted.coordinator)
        if wanted.coordinator.startswith("127."):  # else it listens to everybody, and nothing there asks for a password
            limits["coordinator_bind_address"] = wanted.coordinator
    try:
        jax.distributed.initialize(**limits)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"the scheduler, or --processes, --process-id and --coordinator, must say who is who, got: {reason[:120]}; "
            "give all three flags"
        ) from None
    select()
    _when_alone.append(when_alone)
    _place = Place(jax.process_index(), jax.process_count(), None if wanted is None else wanted.coordinator)
    global _here
    _here = each(socket.gethostname()).count(socket.gethostname())


def _bound_devices() -> list[int] | None:
    """The devices of this process among those that it sees, where JAX would be wrong; None: as JAX finds.

    JAX takes the GPU of a process's number on its machine. Where Slurm has bound one to each task, that one is the only
    one which the task sees, and its number is 0.
    """
    names = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    sees_one = any(os.environ.get(name, "") not in ("", "-1") and "," not in os.environ[name] for name in names)
    return [0] if sees_one and "SLURM_PROCID" in os.environ else None


def _require_free(coordinator: str) -> None:
    """A port that is taken crashes the runtime."""
    host, _, port = coordinator.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("", int(port)))
        except OSError as error:
            raise InputError(
                f"the port of --coordinator must be free on the first process, got {coordinator}: {error.strerror}; "
                "give another port"
            ) from None


def leave() -> None:
    """Part from the others, once all is done."""
    global _place
    if together():
        import jax

        jax.distributed.shutdown()
        _place = _place._replace(of=1)
        for call in _when_alone:
            call()


def part() -> None:
    """Part from the others and go on alone, as if there had been none; arrays on devices are gone.

    What becomes of one is then nothing to the others.
    """
    leave()
    import jax
    from jax._src.distributed import global_state  # nothing public says it
    from jax.extend.backend import clear_backends

    # what `shutdown` leaves: devices would still be those of process 1 of two, and Orbax would look for the other one
    global_state.process_id, global_state.num_processes = 0, 1
    jax.clear_caches()
    clear_backends()


def wait(what: str) -> None:
    """Until all are here.

    Args:
      what: a name for the place, the same in all.
    """
    if together():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


@contextlib.contextmanager
def claimed_by_all(folder: str | Path) -> Iterator[None]:
    """A folder that the first process has claimed alone: within the block each holds a claim of its own."""
    with contextlib.ExitStack() as held:
        for first in (True, False):
            if is_first() == first:
                held.enter_context(shared(folder))
            wait("the folder is claimed")
        yield


def told(value: Any) -> Any:
    """What the first process says, of the same call in all; anything that JSON can say."""
    if not together():
        return value
    from jax.experimental import multihost_utils

    said = json.dumps(value).encode() if is_first() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(said))))
    padded = np.frombuffer(said.ljust(size, b" "), np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).astype(np.uint8).tobytes())


def from_first(ask: Callable[[], Any]) -> Any:
    """What `ask` gives the first process, which alone calls it; anything that JSON can say.

    Raises:
      InputError: it did there; in all processes alike.
    """
    if not together():
        return ask()
    said: dict[str, Any] = {}
    if is_first():
        try:
            said = {"value": ask()}
        except InputError as error:
            said = {"error": str(error)}
    said = told(said)
    require("error" not in said, said.get("error", ""))
    return said["value"]


def highest(number: int) -> int:
    """The highest number that a process gives."""
    if not together():
        return number
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def each(value: Any) -> list[Any]:
    """What each process gives, in their order; anything that JSON can say."""
    if not together():
        return [value]
    from jax.experimental import multihost_utils

    said = json.dumps(value).encode()
    padded = np.frombuffer(said.ljust(highest(len(said)), b" "), np.uint8)
    return [json.loads(one.astype(np.uint8).tobytes()) for one in multihost_utils.process_allgather(padded)]


def of_process(number: int, array: np.ndarray) -> np.ndarray:
    """The array that one process gives, of the same shape and type in all: the same bits in each."""
    if not together():
        return array
    from jax.experimental import multihost_utils

    # as bytes, for numbers of 64 bits would be rounded on their way
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    found = np.asarray(multihost_utils.broadcast_one_to_all(flat, is_source=_place.number == number))
    return found.astype(np.uint8, copy=False).view(array.dtype).reshape(array.shape)


def summed(array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The sum of what each process gives, added in their order; of these arrays one at a time is held."""
    if not together():
        return array
    total = np.zeros_like(array)
    for number in range(_place.of):
        total += of_process(number, array)
    return total


def agree(settings: Mapping[str, Any], what: str = "all processes must be given the same") -> None:
    """Check that all processes have the same settings: else they would compute nonsense together, and not be told.

    Raises:
      InputError: they differ; in which setting, and in which processes, is said. In all processes alike.
    """
    found = each(json.loads(json.dumps(dict(settings), default=str)))
    for number, other in enumerate(found):
        for name in {**found[0], **other}:
            ours, theirs = (str(of.get(name, "nothing")) for of in (found[0], other))
            said = _around_the_difference(ours, theirs)
            require(
                ours == theirs,
                f"{what} {name}, got {said[0]} in process 0 and {said[1]} in process {number}; start all alike",
            )


SAID = 60
"""Characters of a value that an error repeats, at most."""


def _around_the_difference(*values: str) -> list[str]:
    """What is to be said of values that may be long: of each so much that the first difference is in it."""
    if max(map(len, values)) <= SAID:
        return list(values)
    same = itertools.takewhile(lambda characters: len({*characters}) == 1, zip(*values, strict=False))
    start = max(0, sum(1 for _ in same) - SAID // 3)
    return [
        f"{'...' if start else ''}{value[start : start + SAID]}{'...' if len(value) > start + SAID else ''}"
        for value in values
    ]
