"""What training tells while it goes on: events, which checkpoints, logs and progress bars are made from."""

from collections.abc import Callable
from typing import NamedTuple

from jaxsae.config import SAEConfig
from jaxsae.sae.autoencoder import SAE
from jaxsae.train.plan import Part
from jaxsae.train.step import TrainState


class Epoch(NamedTuple):
    """What an epoch was like: means over its batches."""

    number: int
    """1 for the first."""
    loss: float
    l0: float


class Trained(NamedTuple):
    """A trained SAE: the weights after the last epoch, and every epoch's figures."""

    sae: SAE
    config: SAEConfig
    epochs: list[Epoch]


class Position(NamedTuple):
    """Where in its training a part is: with its state, all there is to go on from."""

    epoch: int
    """The one under way, 1 for the first."""
    done: int
    """Steps of it that are done."""
    alive: tuple[str, ...]
    """Members that have not stopped."""
    epochs: dict[str, list[Epoch]]
    """Of each of these, the epochs that have ended."""


class Begin(NamedTuple):
    """Training begins."""

    parts: list[Part]
    """All there are, those trained before included."""
    epoch_steps: int
    """Steps of an epoch."""


class Resumed(NamedTuple):
    """A part goes on from a saved state."""

    part: Part
    position: Position


class StepEnd(NamedTuple):
    """A step was handed to the device."""

    part: Part
    epoch: int
    done: int
    """Steps of the epoch handed over so far."""


class EpochEnd(NamedTuple):
    """An epoch of a member has ended."""

    member: str
    epoch: Epoch


class Finished(NamedTuple):
    """A member is trained."""

    member: str
    trained: Trained


class Resumable(NamedTuple):
    """The run can go on from here. The state is good until the next event is asked for: its buffers are then reused."""

    part: Part
    position: Position
    step: int
    """Steps since the start of training."""
    state: Callable[[], TrainState]
    """Makes the state in the layout that is saved, on the host; waits for the device. Raises `InputError` unless loss
    and gradient were finite so far: what is saved is good."""


class PartEnd(NamedTuple):
    """All members of a part are trained, now or before."""

    part: Part


Event = Begin | Resumed | StepEnd | EpochEnd | Finished | Resumable | PartEnd
