"""Keeps the states of a run in a folder each beside the files that are to come of it, until these are there."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsae.errors import require
from jaxsae.train.loop import Epoch, Position
from jaxsae.train.step import TrainState

LONG = 60.0
"""Seconds: so much later than at the end of an epoch, a save is due within one as well."""


def state_folder(target: Path) -> Path:
    """Of a batch of members, the first of which is to become `target`."""
    return target.with_suffix(".state")


class FolderCheckpointer:
    """A `train.Keeper` of members that are to become files.

    Args:
      settings: file -> what makes it, for each member in order; a state is taken up by the same alone.
      done: those of the files that are there as these settings make them.
      every: seconds between saves; 0: at the end of every epoch.
      stopping: whether the run is to save and end.
      on_taken_up: called with where a run goes on.
      began: when the command did, by `time.monotonic`, in seconds; now, if not given.
    """

    def __init__(
        self,
        settings: Mapping[Path, Mapping[str, Any]],
        done: Collection[Path],
        every: float,
        stopping: Callable[[], bool] = lambda: False,
        on_taken_up: Callable[[Position], None] = lambda position: None,
        began: float | None = None,
    ) -> None:
        self.settings, self.done, self.every, self.stopping = settings, done, every, stopping
        self.on_taken_up = on_taken_up
        self.targets = list(settings)
        self.saved = time.monotonic()
        self.began = self.saved if began is None else began
        self.before = 0.0
        """Seconds that were spent before the run was taken up."""
        self._states: tuple[tuple[int, ...], Any] | None = None

    @property
    def seconds(self) -> float:
        """Spent on the run, what came before it was taken up included."""
        return self.before + time.monotonic() - self.began

    def _of(self, members: Sequence[int]) -> Any:
        from jaxsae.train.states import States

        members = tuple(members)
        if self._states is None or self._states[0] != members:
            if self._states is not None:
                self._states[1].close()
            each = [self.settings[self.targets[i]] for i in members]
            # by setting, each member's: so a difference is told by its name
            run: dict[str, Any] = {"files": [self.targets[i].name for i in members]}
            run |= {name: [of[name] for of in each] for name in each[0]}
            self._states = members, States(state_folder(self.targets[members[0]]), run)
        return self._states[1]

    def is_through(self, members: Sequence[int]) -> bool:
        """Whether all their files are there; their state, if it was left beside them, is removed."""
        through = all(self.targets[i] in self.done for i in members)
        if through and state_folder(self.targets[members[0]]).exists():
            self._of(members).check()
            self._of(members).discard()
        return through

    def load(
        self, members: Sequence[int], like: Callable[[Position], TrainState]
    ) -> tuple[Position, TrainState] | None:
        """What was saved last.

        Raises:
          InputError: it is of another run, or what had stopped by then is gone.
        """
        self.saved = time.monotonic()
        if not state_folder(self.targets[members[0]]).exists():
            return None
        found = self._of(members).load(lambda told: like(_position(told)))
        if found is None:
            return None
        told, state = found
        at, self.before = _position(told), max(self.before, float(told["seconds"]))
        for i in set(members) - set(at.alive):
            target = self.targets[i]
            require(
                target in self.done, f"{target} was written before the run was stopped, and must be there; it is not"
            )
        self.on_taken_up(at)
        return at, state

    def due(self, epoch_ended: bool) -> bool:
        """Once `every` seconds have passed an epoch ends, or many more have."""
        passed = time.monotonic() - self.saved
        return passed >= self.every + (0 if epoch_ended else LONG)

    def save(self, members: Sequence[int], step: int, position: Position, state: TrainState) -> None:
        """In the background; `close` waits for it."""
        told = position._asdict() | {"seconds": self.seconds}
        told["epochs"] = {str(i): [list(epoch) for epoch in of] for i, of in position.epochs.items()}
        self._of(members).save(step, state, told)
        self.saved = time.monotonic()

    def through(self, members: Sequence[int]) -> None:
        """Their files are there: the state goes."""
        if state_folder(self.targets[members[0]]).exists():
            self._of(members).discard()

    def close(self) -> None:
        """Wait for what is being saved."""
        if self._states is not None:
            self._states[1].close()


def _position(told: Mapping[str, Any]) -> Position:
    epochs = {int(i): [Epoch(int(n), loss, l0) for n, loss, l0 in of] for i, of in told["epochs"].items()}
    return Position(int(told["epoch"]), int(told["done"]), tuple(told["alive"]), epochs)
