"""A map of latents: decoder rows that point alike are laid side by side in two dimensions.

After UMAP (McInnes, Healy, Melville 2018, arXiv 1802.03426), made plain: each row is tied to the rows nearest to it by
cosine; from the first two principal components on, ties pull together with the gradient of its low-dimensional
similarity 1 / (1 + d²), and rows drawn at random push apart. The same rows always give the same map.
"""

import numpy as np
from jaxtyping import Float, Int

from jaxsae.features.relations import nearest_rows

NEIGHBOURS = 12
"""Rows that each is tied to."""
STEPS = 300
REPELLED = 6
"""Rows drawn for each row in each step, that push it away."""
FARTHEST = 4.0
"""Length of a step along one tie, at most, in the first step."""


def principal_axes(rows: Float[np.ndarray, "n d"], count: int = 2) -> Float[np.ndarray, "n count"]:
    """Coordinates on the first principal axes; the sign of each axis is such that its longest component is above 0."""
    centred = rows - rows.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :count]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return centred @ (axes * signs)


def layout(directions: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """A place in [0, 1] x [0, 1] for each row of norm 1.

    Raises:
      ValueError: there are rows that are not finite.
    """
    n = len(directions)
    if not np.isfinite(directions).all():
        raise ValueError("directions must be finite")
    if n < 3 or directions.shape[1] < 2:
        return np.stack([np.linspace(0, 1, n), np.full(n, 0.5)], axis=1) if n else np.zeros((0, 2))
    directions = np.asarray(directions, np.float32)
    first, second = _ties(directions)
    place = principal_axes(directions).astype(np.float64)
    place *= 10 / max(np.abs(place).max(), 1e-12)
    rng = np.random.default_rng(0)
    place += rng.normal(0, 1e-3, place.shape)  # rows that are equal
    for step in range(STEPS):
        rate = 1 - step / STEPS
        gap = place[first] - place[second]
        squared = (gap**2).sum(axis=1, keepdims=True)
        pull = np.clip(-2 * gap / (1 + squared), -FARTHEST, FARTHEST)
        move = _summed(first, pull, n) - _summed(second, pull, n)
        for _ in range(REPELLED):
            gap = place - place[rng.permutation(n)]
            squared = (gap**2).sum(axis=1, keepdims=True)
            move += np.clip(2 * gap / ((0.01 + squared) * (1 + squared)), -FARTHEST, FARTHEST)
        place += rate * np.clip(move / 4, -FARTHEST, FARTHEST)
    place -= place.min(axis=0)
    return place / max(place.max(), 1e-12)


def _ties(directions: Float[np.ndarray, "n d"]) -> tuple[Int[np.ndarray, " ties"], Int[np.ndarray, " ties"]]:
    """The pairs of rows of which one is among the nearest of the other, each once."""
    n = len(directions)
    nearest, _ = nearest_rows(directions, count=NEIGHBOURS)
    one, other = np.repeat(np.arange(n), nearest.shape[1]), nearest.ravel()
    pairs = np.unique(np.minimum(one, other) * n + np.maximum(one, other))
    return np.divmod(pairs, n)


def _summed(number: Int[np.ndarray, " m"], values: Float[np.ndarray, "m 2"], n: int) -> Float[np.ndarray, "n 2"]:
    """The sum of the values of each number."""
    return np.stack([np.bincount(number, values[:, axis], n) for axis in (0, 1)], axis=1)


def neighbour_share(
    places: Float[np.ndarray, "n axes"], families: Int[np.ndarray, " n"], count: int = 10
) -> float:
    """How well a map shows families: the share of the `count` nearest rows of each row that are of its family.

    Over the rows of a family (-1: of none).
    """
    members = np.flatnonzero(families >= 0)
    places, families = np.asarray(places, np.float64)[members], families[members]
    if len(members) <= count:
        return float("nan")
    shares = []
    for at in range(0, len(places), 512):
        part = places[at : at + 512]
        distance = ((part[:, None] - places[None]) ** 2).sum(axis=2)
        distance[np.arange(len(part)), at + np.arange(len(part))] = np.inf
        near = np.argpartition(distance, count, axis=1)[:, :count]
        shares.append((families[near] == families[at : at + 512, None]).mean(axis=1))
    return float(np.concatenate(shares).mean())
