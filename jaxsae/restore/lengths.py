"""How long a gap of unknown length was."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxsae.models.protocol import ResidualModel
from jaxsae.restore.places import Asked, Change, best_tokens
from jaxsae.restore.search import Hole


def length_log_p(
    model: ResidualModel, holes: Sequence[Hole], *, change: Change | None = None, temperature: float = 1.0
) -> Float[np.ndarray, " lengths"]:
    """Log-probability of each length."""
    asked = [Asked(hole.ids, np.arange(hole.start, hole.end)) for hole in holes]
    best = best_tokens(model, asked, 1, change=change, temperature=temperature)
    score = np.array([row.log_p[:, 0].mean() for row in best])
    return score - np.log(np.exp(score).sum())
