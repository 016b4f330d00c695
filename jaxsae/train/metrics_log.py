"""The metrics of a run while it goes on: `metrics.jsonl`, and on request TensorBoard or Weights & Biases."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxsae import processes
from jaxsae.files import to_json
from jaxsae.train.events import EpochEnd, Event


@runtime_checkable
class Logger(Protocol):
    """Takes the figures of one SAE."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Numbers by name."""

    def close(self) -> None:
        """Nothing more comes."""


class MetricsLog:
    """Listens to training and appends a line of JSON for each epoch of each SAE to `metrics.jsonl`, at once.

    A run that was resumed may log an epoch twice, with the same figures.

    Args:
      folder: of the SAEs.
      kind: of the logger that gets the same figures, if any.
      settings: file name of an SAE -> what makes it, for the logger.
      steps: of an epoch.
    """

    def __init__(self, folder: Path, kind: str | None, settings: Mapping[str, Mapping[str, Any]], steps: int) -> None:
        self.folder, self.kind, self.settings, self.steps = folder, kind, settings, steps
        self.loggers: dict[str, Logger] = {}

    def listen(self, event: Event) -> None:
        """Log the means over an epoch's batches."""
        if isinstance(event, EpochEnd) and processes.is_first():
            number, loss, l0 = event.epoch
            self._log(event.member, {"epoch": number, "loss": loss, "l0": l0}, number * self.steps)

    def scored(self, name: str, report: Mapping[str, Any]) -> None:
        """Log what the trained SAE was found to be; it has no more epochs."""
        figures = {f"scored_{figure}": report[figure] for figure in ("l0", "fvu", "dead")}
        self._log(name, figures, report["epochs"] * self.steps)
        if name in self.loggers:
            self.loggers.pop(name).close()

    def close(self) -> None:
        """Nothing more comes."""
        for logger in self.loggers.values():
            logger.close()

    def _log(self, name: str, figures: Mapping[str, float], step: int) -> None:
        line: dict[str, Any] = {"sae": name, "time": round(time.time(), 3), "step": step, **figures}
        number = processes.place().number  # of several that train apart each has its own
        file_name = f"metrics.{number}.jsonl" if number else "metrics.jsonl"
        with (self.folder / file_name).open("a", encoding="utf-8") as file:
            file.write(to_json(line) + "\n")
        if self.kind:
            if name not in self.loggers:
                make = _TensorBoard if self.kind == "tensorboard" else _WandB
                self.loggers[name] = make(self.folder / name, self.settings[name])
            self.loggers[name].log(figures, step)


class _TensorBoard:
    """Event files in `tensorboard/<name of the SAE>`."""

    def __init__(self, target: Path, settings: Mapping[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(target.parent / "tensorboard" / target.stem))
        self.writer.add_text("settings", json.dumps(dict(settings), indent=2))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """A scalar for each."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


class _WandB:
    """A run of the project jaxsae, named as the SAE; where and whether it goes online its own settings say."""

    def __init__(self, target: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project="jaxsae",
            name=target.stem,
            dir=target.parent,
            config=dict(settings),
            reinit="create_new",  # of several SAEs each is a run, and they train at the same time
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """As one entry of its history."""
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        """End the run."""
        self.run.finish()
