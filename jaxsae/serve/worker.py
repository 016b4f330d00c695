"""One thread that computes, and a short queue before it: what a page asks anew makes its older question void."""

import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, NamedTuple

from jaxsae.errors import InputError


class QueueFullError(Exception):
    """As many wait as may."""


class SupersededError(Exception):
    """A later request has taken this one's place."""


class FailedError(Exception):
    """What was to be computed raised something else than an `InputError`: its cause, of whatever kind."""


class Job(NamedTuple):
    """What waits to be computed."""

    work: Callable[[], Any]
    key: Hashable | None
    done: Future[Any]


class Worker:
    """Computes one thing after another in a thread of its own: JAX is not asked from two sides at once.

    Args:
      waiting: how many may wait for the one that is being computed.
    """

    def __init__(self, waiting: int) -> None:
        self._waiting = waiting
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        # a daemon: a computation that takes long must not keep a process that was told to end
        self._thread = threading.Thread(target=self._work, name="jaxsae-serve", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Any], key: Hashable | None = None) -> Future[Any]:
        """Have something computed.

        Args:
          key: whatever waits under the same key is void from now on: its future gets `SupersededError`. None: nothing.

        Raises:
          QueueFullError: as many wait as may.
        """
        job = Job(work, key, Future())
        with self._changed:
            old = [one for one in self._jobs if key is not None and one.key == key]
            # who gave up waiting has cancelled the future
            kept = [one for one in self._jobs if one not in old and not one.done.cancelled()]
            if self._stopped or len(kept) >= self._waiting:
                raise QueueFullError
            self._jobs = deque([*kept, job])
            self._changed.notify()
        for one in old:
            if one.done.set_running_or_notify_cancel():
                one.done.set_exception(SupersededError())
        return job.done

    def stop(self, seconds: float) -> None:
        """Take nothing more, forget what waits, and wait a while for what is being computed."""
        with self._changed:
            self._stopped = True
            waiting, self._jobs = self._jobs, deque()
            self._changed.notify()
        for one in waiting:
            one.done.cancel()
        self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._stopped)
                if self._stopped:
                    return
                job = self._jobs.popleft()
            if not job.done.set_running_or_notify_cancel():
                continue
            try:
                job.done.set_result(job.work())
            except InputError as error:
                job.done.set_exception(error)
            except BaseException as error:  # also one that would end the thread, or the loop that waits for it
                failed = FailedError()
                failed.__cause__ = error
                job.done.set_exception(failed)
