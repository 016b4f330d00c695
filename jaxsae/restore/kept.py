"""Calibrations that were fitted before, in the user's cache: one for each model and dataset."""

import contextlib
import hashlib
import math
from collections.abc import Callable
from pathlib import Path

from jaxsae.errors import InputError
from jaxsae.files import read_json, write_json
from jaxsae.restore.calibration import BINS, GAP_LENGTHS, GAPS, Calibration
from jaxsae.runtime import cache_folder

HOW = f"1 {GAPS} {GAP_LENGTHS} {BINS}"
"""How they are fitted; to be changed with it, so that others are not taken for them."""


def kept_calibration(model: str, dataset: str, fit: Callable[[], Calibration | None]) -> Calibration | None:
    """The calibration of a model on a dataset: the one that is kept, else what `fit` finds, which is then kept.

    Args:
      model: its identity.
      dataset: its fingerprint.
    """
    key = hashlib.sha256(f"{HOW} {model} {dataset}".encode()).hexdigest()[:32]
    folder = cache_folder()
    if folder is None:
        return fit()
    path = folder / "calibration" / f"{key}.json"
    if (kept := _read(path)) is not None:
        return kept
    found = fit()
    if found is not None:
        with contextlib.suppress(OSError):  # a cache that cannot be written to is none
            write_json(path, found._asdict())
    return found


def _read(path: Path) -> Calibration | None:
    """None where there is none, or a file that says something else."""
    try:
        content = read_json(path)
        found = Calibration(**content)
        numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in found)
    except (OSError, InputError, TypeError):
        return None
    return found if numbers and found.temperature > 0 else None
