"""How latents relate to each other and to the model's output: similar decoder rows, firing together, direct logits."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxsae.features.statistics import LatentStatistics
from jaxsae.models.protocol import ModelWithHead, ResidualModel
from jaxsae.sae.active import rows_at_once
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.consistency import directions_of

Latents = Int[np.ndarray, " some"]


class Relations(NamedTuple):
    """What `direct_logits` and `nearest` give of latents of an SAE."""

    direct_logits: Float[np.ndarray, "some ids"]
    nearest: Int[np.ndarray, "some count"]
    cosines: Float[np.ndarray, "some count"]


def direct_logits(
    model: ResidualModel | None, sae: SAE, ids: Int[np.ndarray, " ids"], latents: Latents | None = None
) -> Float[np.ndarray, "some said"]:
    """What each latent's decoder row adds to the logits of the tokens `ids` by the direct way, next to their mean.

    That is past the later blocks, and up to the factor that the model's last norm divides by. Of no tokens where the
    model does not say it.

    Args:
      latents: of these alone.
    """
    if not isinstance(model, ModelWithHead):
        return np.zeros((sae.d_sae if latents is None else len(latents), 0), np.float32)
    rows = np.asarray(sae.W_dec, np.float32)
    effect = model.direct_logits(rows if latents is None else rows[latents], ids)
    return effect - effect.mean(axis=1, keepdims=True)


def nearest(
    sae: SAE, other: SAE | None = None, count: int = 5, latents: Latents | None = None
) -> tuple[Int[np.ndarray, "some count"], Float[np.ndarray, "some count"]]:
    """(latents, cosines): of the same SAE, or of another, those whose decoder rows are most alike, best first.

    As many as `count`, or as there are; of equal ones the first.

    Args:
      latents: the neighbours of these alone.
    """
    return nearest_rows(directions_of(sae), directions_of(other) if other else None, count, latents)


def nearest_rows(
    rows: Float[np.ndarray, "d_sae d_in"],
    other: Float[np.ndarray, "other_d_sae d_in"] | None = None,
    count: int = 5,
    latents: Latents | None = None,
) -> tuple[Int[np.ndarray, "some count"], Float[np.ndarray, "some count"]]:
    """As `nearest`, of rows of norm 1."""
    others = rows if other is None else other
    latents = np.arange(len(rows)) if latents is None else latents
    count = min(count, len(others) - (other is None))  # a latent is not its own neighbour
    top, largest = np.zeros((len(latents), count), np.int64), np.zeros((len(latents), count), np.float32)
    step = rows_at_once(len(others), max(len(latents), 1))
    for start in range(0, len(latents), step):
        some = latents[start : start + step]
        cosines = (rows if len(some) == len(rows) else rows[some]) @ others.T
        if other is None:
            cosines[np.arange(len(some)), some] = -np.inf
        top[start : start + step], largest[start : start + step] = _largest(cosines, count)
    return top, largest


def _largest(
    values: Float[np.ndarray, "n columns"], count: int
) -> tuple[Int[np.ndarray, "n count"], Float[np.ndarray, "n count"]]:
    """(columns, values) of the largest of each row, falling; of equal ones the first."""
    columns = values.shape[1]
    if not 0 < count < columns:
        top = np.argsort(-values, axis=1, kind="stable")[:, :count]
        return top, np.take_along_axis(values, top, axis=1)
    # a sort of whole rows takes most of the time where latents are many: the largest of a few groups of columns are at
    # least as large as the smallest of them, and so are the largest of all
    groups, size = values, columns // (8 * count)
    if size > 1:
        groups = values[:, : columns // size * size].reshape(len(values), -1, size).max(axis=2)
    least = -np.partition(-groups, count - 1, axis=1)[:, count - 1, None]
    row, column = np.nonzero(values >= least)
    order = np.lexsort((column, -values[row, column], row))
    starts = np.searchsorted(row, np.arange(len(values)))
    top = column[order][starts[:, None] + np.arange(count)]
    return top, np.take_along_axis(values, top, axis=1)


def fires_with(statistics: LatentStatistics, latent: int, count: int = 5) -> list[tuple[int, float, float]]:
    """The latents whose firing correlates most with that of `latent`, best first.

    Returns:
      (latent, the share of this latent's firings on which the other fires too, that share over the other's own rate).
    """
    n, own = statistics.rows, np.float64(statistics.fired[latent])

    def correlations(others: Latents, both: Float[np.ndarray, " some"]) -> Float[np.ndarray, " some"]:
        fired = statistics.fired[others].astype(np.float64)
        expected = own * fired / n
        spread = np.sqrt(expected * (1 - own / n) * (n - fired))
        found = np.where(spread > 0, (both - expected) / np.maximum(spread, 1e-12), -1)
        return np.where(others == latent, -np.inf, found)

    others, both = statistics.cofiring.row(latent)
    both = both.astype(np.float64)
    correlation = correlations(others, both)
    if (correlation > 0).sum() < count:  # then latents that never fire with it may come before some that do
        there, counts = others, both
        others, both = np.arange(statistics.d_sae), np.zeros(statistics.d_sae)
        both[there] = counts
        correlation = correlations(others, both)
    best = [i for i in np.argsort(-correlation, kind="stable")[:count].tolist() if both[i] > 0 and others[i] != latent]
    fired = statistics.fired[others[best]].astype(np.float64)
    return [(int(others[i]), both[i] / own, both[i] * n / (own * of)) for i, of in zip(best, fired, strict=True)]
