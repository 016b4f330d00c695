"""A map of latents: decoder rows that point alike are laid side by side in two dimensions.

t-SNE (van der Maaten and Hinton 2008, JMLR 9) from the first two principal axes on. Each row is drawn to the rows
nearest to it by cosine, and pushed off by all others. Their push is summed on a grid, where it is a convolution (after
Linderman et al. 2019, "Fast interpolation-based t-SNE", arXiv 1712.09005), so that time grows with the rows and not
with their square. Nothing is drawn at random: the same rows give the same map.
"""

import functools

import numpy as np
from jaxtyping import Complex, Float, Int

from jaxsae.features.pair_counts import CSR
from jaxsae.features.relations import nearest_rows

PERPLEXITY, NEIGHBOURS = 20, 50
"""As how many neighbours each row's are weighted, and how many it has at most."""
STEPS, EARLY = 300, 80
"""Steps, and how many of them pull `EXAGGERATION` times, so that families find together."""
EXAGGERATION = 12.0
CELL, CELLS, GROWTH = 0.5, 160, 1.3
"""Width of the grid's cells, how many it has along each axis at most, and how they widen on a wider map."""


def principal_axes(rows: Float[np.ndarray, "n d"], count: int = 2) -> Float[np.ndarray, "n count"]:
    """Coordinates on the first principal axes; the sign of each axis is such that its longest component is above 0."""
    centred = rows - rows.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :count]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return centred @ (axes * signs)


def layout(directions: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """A place in [0, 1] x [0, 1] for each row of norm 1; the wider axis comes first."""
    n = len(directions)
    if n <= 3:
        return np.stack([np.linspace(0, 1, n), np.zeros(n)], axis=1)
    directions = np.asarray(directions, np.float32)
    pulls = _pulls(directions)
    place = principal_axes(directions)
    place = np.pad(place, [(0, 0), (0, 2 - place.shape[1])])
    place *= 1e-2 / max(float(place[:, 0].std()), 1e-12)
    place += 1e-4 * np.stack([np.cos(np.arange(n)), np.sin(np.arange(n))], axis=1)  # rows may be equal
    place = place.astype(np.float32)
    row, rate = np.repeat(np.arange(n), np.diff(pulls.indptr)), max(n / EXAGGERATION / 4, 50.0)
    speed, gains = np.zeros_like(place), np.ones_like(place)
    weights = pulls.copy()
    for step in range(STEPS):
        gap = place[row] - place[pulls.indices]
        weights.data = pulls.data / (1 + (gap**2).sum(axis=1))
        pull = place * weights.sum(axis=1)[:, None] - weights @ place
        slope = 4 * ((EXAGGERATION if step < EARLY else 1.0) * pull - _push(place))
        gains = np.maximum(np.where(np.sign(slope) == np.sign(speed), 0.8 * gains, gains + 0.2), 0.01)
        speed = (0.5 if step < EARLY else 0.8) * speed - rate * gains * slope
        place += speed
        place -= place.mean(axis=0)
    place -= place.min(axis=0)
    place = place[:, np.argsort(-place.max(axis=0), kind="stable")]
    return place / max(float(place.max()), 1e-12)


def _pulls(directions: Float[np.ndarray, "n d"]) -> CSR:
    """How strongly each row is drawn to each of its neighbours: t-SNE's joint probabilities."""
    from scipy.sparse import csr_array  # heavy: for the page alone

    n = len(directions)
    nearest, cosines = nearest_rows(directions, count=min(NEIGHBOURS, n - 1))
    far = 1 - cosines.astype(np.float64)
    far -= far.min(axis=1, keepdims=True)
    low, high = np.full(n, 1e-3), np.full(n, 1e6)
    wanted = np.log(min(PERPLEXITY, nearest.shape[1] / 3))
    for _ in range(60):  # the sharpness at which the entropy is that of so many neighbours
        sharp = np.sqrt(low * high)
        weight = np.exp(-sharp[:, None] * far)
        share = weight / weight.sum(axis=1, keepdims=True)
        entropy = -(share * np.log(np.maximum(share, 1e-300))).sum(axis=1)
        low, high = np.where(entropy > wanted, sharp, low), np.where(entropy > wanted, high, sharp)
    ends = np.arange(n + 1) * nearest.shape[1]
    one_way = csr_array((share.ravel(), nearest.ravel(), ends), (n, n))
    return csr_array((one_way + one_way.T) / (2 * n)).astype(np.float32)


def _push(place: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """What pushes each place off all others: the sum of gap / (1 + gap²)², over that of 1 / (1 + gap²)."""
    from scipy import fft

    low = place.min(axis=0)
    extent = float((place.max(axis=0) - low).max())
    cell = CELL
    while extent > CELLS * cell:
        cell *= GROWTH
    size = 32 * (int(extent / cell) // 32 + 1) + 1  # of few sizes, so that the kernels stay
    at = (place - low) / cell
    corner = at.astype(int)
    inside = (at - corner).astype(np.float32)
    corners = [(i, j, np.abs(1 - i - inside[:, 0]) * np.abs(1 - j - inside[:, 1])) for i in (0, 1) for j in (0, 1)]
    mass = np.zeros(size * size)
    for i, j, part in corners:
        mass += np.bincount((corner[:, 0] + i) * size + corner[:, 1] + j, part, size * size)
    kernels, wide = _kernels(size, cell)
    spread = fft.rfft2(mass.reshape(size, size).astype(np.float32), (wide, wide))
    fields = fft.irfft2(spread * kernels, (wide, wide))[:, :size, :size]
    found = sum(part * fields[:, corner[:, 0] + i, corner[:, 1] + j] for i, j, part in corners)
    return (found[1:] / max(float(found[0].sum()) - len(place), 1e-9)).T


@functools.lru_cache(maxsize=2)
def _kernels(size: int, cell: float) -> tuple[Complex[np.ndarray, "3 wide half"], int]:
    """(the transforms of what a place does to others at each distance, the size they are made for)."""
    from scipy import fft

    wide = fft.next_fast_len(2 * size, real=True)
    steps = np.arange(wide)
    gap = (cell * np.where(steps <= wide // 2, steps, steps - wide)).astype(np.float32)
    near = 1 / (1 + gap[:, None] ** 2 + gap[None] ** 2)
    return fft.rfft2(np.stack([near, gap[:, None] * near**2, gap[None] * near**2])), wide


def neighbour_share(places: Float[np.ndarray, "n axes"], families: Int[np.ndarray, " n"], count: int = 10) -> float:
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
