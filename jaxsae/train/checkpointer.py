"""Saves the states of a run while it goes on, in a folder each beside the files that are to come of it."""

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from jaxsae import processes
from jaxsae.errors import require
from jaxsae.train.events import Epoch, Event, PartEnd, Position, Resumable
from jaxsae.train.plan import Part
from jaxsae.train.step import TrainState

LONG = 60.0
"""Seconds: so much later than at the end of an epoch, a save is due within one as well."""


def state_folder(target: Path) -> Path:
    """The folder of the saved states of one part, named after its first SAE file."""
    return target.with_suffix(".state")


class Checkpointer:
    """Listens to the events of `jaxsae.train.loop.train`, saves states, and loads one to go on from.

    Args:
      targets: member -> the file that it is to become.
      settings: member -> what makes it; a state is resumed by the same settings alone.
      done: the members whose files are there as these settings make them.
      every: seconds between saves; 0: at the end of every epoch.
      began: when the run did, by `time.monotonic`, in seconds; now, if not given.
    """

    def __init__(
        self,
        targets: Mapping[str, Path],
        settings: Mapping[str, Mapping[str, Any]],
        done: Collection[str],
        every: float,
        began: float | None = None,
    ) -> None:
        self.targets, self.settings, self.done, self.every = targets, settings, done, every
        self.saved = time.monotonic()
        self.began = self.saved if began is None else began
        self.before = 0.0
        """Seconds that were spent before the run was resumed."""
        self._open: dict[Part, Any] = {}

    @property
    def seconds(self) -> float:
        """Spent on the run, what came before it was resumed included."""
        return self.before + time.monotonic() - self.began

    def _folder(self, part: Part) -> Path:
        return state_folder(self.targets[part.members[0]])

    def _states(self, part: Part) -> Any:
        from jaxsae.train.states import States  # imports Orbax, which a short run does not need

        if part not in self._open:
            each = [self.settings[member] for member in part.members]
            # by setting, each member's: so a difference is named by its setting
            run: dict[str, Any] = {"files": [self.targets[member].name for member in part.members]}
            run |= {name: [of[name] for of in each] for name in each[0]}
            self._open[part] = States(self._folder(part), run)
        return self._open[part]

    def saved_together(self) -> list[list[str]]:
        """The members whose states were saved together: keys of each part, those that were through by then as well."""
        from jaxsae.train.states import files_of

        names = {target.name: member for member, target in self.targets.items()}
        found = [
            [names[name] for name in files_of(state_folder(target)) if name in names]
            for target in self.targets.values()
            if state_folder(target).exists()  # named after the first of them, who may be through
        ]
        return [some for some in found if some]

    def load(self, part: Part, like: Callable[[Position], TrainState]) -> tuple[Position, TrainState] | None:
        """What was saved last.

        Raises:
          InputError: it is of another run, or the file of a member that had finished by then is gone.
        """
        self.saved = time.monotonic()
        if not processes.told(self._folder(part).exists()):
            return None
        found = self._states(part).load(lambda stored: like(_position(stored)))
        if found is None:
            return None
        stored, state = found
        at, self.before = _position(stored), max(self.before, float(stored["seconds"]))
        for member in set(part.members) - set(at.alive):
            file = self.targets[member]
            require(member in self.done, f"{file} was written before the run was stopped, and must be there; it is not")
        return at, state

    def listen(self, event: Event, save: bool | None = None) -> None:
        """Save where the run can go on from, if it is to be; remove the states of trained parts.

        Args:
          save: whether it is to be; None: where that is due.

        Raises:
          InputError: training has gone wrong, so that there is nothing good to save.
          OSError: the state could not be saved.
        """
        if isinstance(event, Resumable) and (self.is_due(event.position) if save is None else save):
            stored = event.position._asdict() | {"seconds": self.seconds}
            stored["epochs"] = {member: [list(one) for one in of] for member, of in event.position.epochs.items()}
            self._states(event.part).save(event.step, event.state(), stored)  # in the background
            self.saved = time.monotonic()
        elif isinstance(event, PartEnd) and processes.told(self._folder(event.part).exists()):
            if event.part not in self._open:  # left by an earlier command: must be of the same run
                self._states(event.part).check()
            self._open.pop(event.part).discard()

    def is_due(self, position: Position) -> bool:
        """Whether `every` seconds have passed at the end of an epoch, or many more within one."""
        passed = time.monotonic() - self.saved
        return passed >= self.every + (LONG if position.done else 0)

    def close(self) -> None:
        """Wait for what is being saved."""
        for states in self._open.values():
            states.close()


def _position(stored: Mapping[str, Any]) -> Position:
    epochs = {member: [Epoch(int(n), loss, l0) for n, loss, l0 in of] for member, of in stored["epochs"].items()}
    return Position(int(stored["epoch"]), int(stored["done"]), tuple(stored["alive"]), epochs)
