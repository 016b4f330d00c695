"""One input of known meaning, and how sure that is."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

CLEAR, OPEN, UNCLEAR = 0, 1, 2
TOLERANCE = 1e-5
"""Of the largest figure."""
MARGIN = 1e-4
"""Of the largest pre-activation: nearer to its threshold than that, whether a latent fires is left to rounding."""
Figures = tuple[np.ndarray, np.ndarray, float]
"""(what must come out, where it is sure, the largest)."""


@dataclass
class Input:
    """One file or folder, and what it means."""

    rng: random.Random
    folder: Path
    path: Path = Path()
    given: Any = None
    """What is told to the reader besides: a layer, a split with a number of samples, the name of a column."""
    sure: int = CLEAR
    done: list[str] = field(default_factory=list)
    meant: Any = None
    layer: int | None = None
    many: bool = False
    """Whether there is much that is seldom; else it is seldom indeed, for each input to have a few changes."""

    def did(self, what: str, sure: int = CLEAR) -> None:
        """Note a change, and what it does to the certainty."""
        self.done.append(what if sure == CLEAR else f"{what} ({('', 'open', 'unclear')[sure]})")
        self.sure = max(self.sure, sure)

    def maybe(self, chance: float) -> bool:
        return self.rng.random() < (chance if chance > 0.1 or self.many else chance / 3)

    def pick(self, *of: Any) -> Any:
        return self.rng.choice(of)


class WrongError(Exception):
    """Read as something else."""
