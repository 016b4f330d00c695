"""What a run says of itself while it goes on: `metrics.jsonl`, and on request TensorBoard or Weights & Biases."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from jaxsae.files import to_json
from jaxsae.train.loop import Epoch


class Logger(Protocol):
    """Takes the figures of one SAE."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Numbers by name."""

    def close(self) -> None:
        """Nothing more comes."""


class MetricsLog:
    """Appends a line of JSON for each epoch of each SAE to `metrics.jsonl`; a line is written at once.

    A run that was taken up may say an epoch twice, with the same figures.

    Args:
      folder: of the SAEs.
      kind: of the logger that is told the same, if any.
      settings: SAE -> what makes it, for the logger.
    """

    def __init__(self, folder: Path, kind: str | None, settings: Mapping[Path, Mapping[str, Any]]) -> None:
        self.folder, self.kind, self.settings = folder, kind, settings
        self.loggers: dict[Path, Logger] = {}

    def epoch(self, target: Path, epoch: Epoch, step: int) -> None:
        """The means over an epoch's batches; `step` counts from the start of training."""
        self._say(target, {"epoch": epoch.number, "loss": epoch.loss, "l0": epoch.l0}, step)

    def scored(self, target: Path, figures: Mapping[str, float], step: int) -> None:
        """What the trained SAE was found to be."""
        self._say(target, figures, step)
        if target in self.loggers:
            self.loggers.pop(target).close()

    def close(self) -> None:
        """All is told."""
        for logger in self.loggers.values():
            logger.close()

    def _say(self, target: Path, figures: Mapping[str, float], step: int) -> None:
        line: dict[str, Any] = {"sae": target.name, "time": round(time.time(), 3), "step": step, **figures}
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(to_json(line) + "\n")
        if self.kind:
            if target not in self.loggers:
                make = _TensorBoard if self.kind == "tensorboard" else _WandB
                self.loggers[target] = make(target, self.settings[target])
            self.loggers[target].log(figures, step)


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
