"""How latents relate to each other and to the model's output: similar decoder rows, firing together, direct logits."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxsae.features.statistics import LatentStatistics
from jaxsae.models.protocol import ModelWithHead, ResidualModel
from jaxsae.sae.autoencoder import SAE


class Relations(NamedTuple):
    """What `direct_logits` and `nearest` give of an SAE."""

    direct_logits: Float[np.ndarray, "d_sae ids"]
    nearest: Int[np.ndarray, "d_sae count"]
    cosines: Float[np.ndarray, "d_sae count"]


def direct_logits(
    model: ResidualModel | None, sae: SAE, ids: Int[np.ndarray, " ids"]
) -> Float[np.ndarray, "d_sae said"]:
    """What each latent's decoder row adds to the logits of the tokens `ids` by the direct way, next to their mean.

    That is past the later blocks, and up to the factor that the model's last norm divides by. Of no tokens where the
    model does not say it.
    """
    if not isinstance(model, ModelWithHead):
        return np.zeros((sae.d_sae, 0), np.float32)
    effect = model.direct_logits(np.asarray(sae.W_dec, np.float32), ids)
    return effect - effect.mean(axis=1, keepdims=True)


def nearest(
    sae: SAE, other: SAE | None = None, count: int = 5
) -> tuple[Int[np.ndarray, "d_sae count"], Float[np.ndarray, "d_sae count"]]:
    """(latents, cosines): of the same SAE, or of another, those whose decoder rows are most alike, best first.

    As many as `count`, or as there are.
    """
    rows, others = (np.asarray(s.W_dec, np.float32) for s in (sae, other or sae))
    rows, others = (r / np.maximum(np.linalg.norm(r, axis=1, keepdims=True), 1e-12) for r in (rows, others))
    cosines = rows @ others.T
    count = min(count, len(others) - (other is None))  # a latent is not its own neighbour
    if other is None:
        np.fill_diagonal(cosines, -np.inf)
    top = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return top, np.take_along_axis(cosines, top, axis=1)


def fires_with(statistics: LatentStatistics, latent: int, count: int = 5) -> list[tuple[int, float, float]]:
    """The latents whose firing correlates most with that of `latent`, best first.

    Returns:
      (latent, the share of this latent's firings on which the other fires too, that share over the other's own rate).
    """
    both, fired, n = (
        statistics.cofiring[latent].astype(np.float64),
        statistics.fired.astype(np.float64),
        statistics.rows,
    )
    expected = fired[latent] * fired / n
    spread = np.sqrt(expected * (1 - fired[latent] / n) * (n - fired))
    correlation = np.where(spread > 0, (both - expected) / np.maximum(spread, 1e-12), -1)
    correlation[latent] = -np.inf
    best = [int(i) for i in np.argsort(-correlation, kind="stable")[:count] if both[i] > 0 and i != latent]
    return [(i, both[i] / fired[latent], both[i] * n / (fired[latent] * fired[i])) for i in best]
