"""The temperature that probabilities are made with, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jaxsae.cli import terminal
from jaxsae.errors import require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from convert.stored import AnyCheckpoint
    from jaxsae.models.protocol import ResidualModel
    from jaxsae.restore.calibration import Calibration


def calibration_of(model: ResidualModel, checkpoint: AnyCheckpoint, dataset: str | None) -> Calibration | None:
    """The model's calibration on its own text: kept from before, or fitted now; None where there is no such text.

    Gaps are of characters: a model of other tokens has none.
    """
    from jaxsae.demo.dataset import ensure_demo
    from jaxsae.restore.calibration import calibrate
    from jaxsae.restore.kept import kept_calibration
    from jaxsae.text.pieces import of_tablets

    if dataset is None or not of_tablets(model.tokenizer):
        return None
    ensure_demo(dataset)
    require(Path(dataset).exists(), f"--dataset must be a dataset of the model's text, got {dataset}, which is none")
    datasets = checkpoint.config.datasets
    if not datasets.has_samples(dataset, "validation"):
        return None

    def fit() -> Calibration | None:
        terminal.print_wrapped("note     first use of this model and dataset: fitting the temperature", indent=9)
        with terminal.working("fit     "):
            return calibrate(model, datasets.load_several([dataset], "validation"))

    return kept_calibration(checkpoint.identity, datasets.fingerprint(dataset), fit)


def describe(calibration: Calibration | None, dataset: str | None) -> str:
    """Which temperature, and where it is from."""
    if calibration is None:
        why = (
            "no dataset of this model's own was given"
            if dataset is None
            else f"{dataset} has no validation split of the model's kind of text"
        )
        return f"temperature 1, not calibrated: {why}"
    return (
        f"temperature {calibration.temperature:.3f}, fitted on {calibration.places:,} characters of the validation "
        f"split of {dataset}"
    )
