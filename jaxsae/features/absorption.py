"""Absorption: whether the latent of a general property is silent where the latent of a special one fires.

After Chanin et al. 2024 (2409.14507): sparsity lets a latent for a special case (a frequent logogram) carry what is
general as well (being a logogram), and the general latent falls silent there. Theirs is found by a probe; here the
properties are known, so it is counted.

A pair is a *parent* and a *child*, a property that only characters of the parent have. Each is read by the latent with
the best run score where latents are chosen; everything is counted where they are scored, in stretches of the parent
(`MarkedRows.starts`). The child's latent fires on a stretch where it is at its threshold or above on any character; the
parent's latent is silent on one where it is 0 on all of them. Absorption is

    P(parent's latent silent | child's latent fires) - P(parent's latent silent | it does not):

1 where the parent's latent is silent exactly there, 0 where the two have nothing to do with each other, below 0 where
they fire together. Stretches, because the two may read one ending by different characters of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxsae.features.detection import COVERAGE, DRAWS
from jaxsae.features.judge import Judgement, SparseColumns
from jaxsae.features.judged_text import MarkedRows

FEWEST_STRETCHES = 30
"""Of the parent, with the child's latent and without it: a pair with fewer is not counted."""


class Pair(NamedTuple):
    """Two properties by their numbers."""

    parent: int
    child: int


def nested(has: Bool[np.ndarray, "p n"], parents: Sequence[int]) -> list[Pair]:
    """The pairs of a parent and a property that only some of its characters have, and no others."""
    count = has.sum(axis=1)
    return [
        Pair(parent, child)
        for parent in parents
        for child in range(len(has))
        if 0 < count[child] < count[parent] and not (has[child] & ~has[parent]).any()
    ]


class Absorption(NamedTuple):
    """Of one pair, on texts on which nothing was chosen."""

    pair: Pair
    parent_latent: int
    child_latent: int
    stretches: int
    """Of the parent, those on which the child's latent fires, and `others`, the rest."""
    others: int
    silent: float
    """Share of these on which the parent's latent is silent, and `silent_else`, of the others."""
    silent_else: float

    @property
    def share(self) -> float:
        """The absorption."""
        return self.silent - self.silent_else


class AbsorptionScore(NamedTuple):
    """Of some pairs."""

    pairs: list[Absorption]
    median: float
    """Of the pairs' absorption; 0 where there is no pair."""
    low: float
    """`low` and `high` hold the median in 95 of 100 draws of as many texts (bootstrap)."""
    high: float
    one_latent: int
    """Pairs that are left out because one latent reads both best."""


def absorption(judgement: Judgement, score: SparseColumns, pairs: Sequence[Pair]) -> AbsorptionScore:
    """The absorption of each pair of properties, and its median.

    Args:
      judgement: of the columns, by the run score.
      score: the columns where they are scored.
    """
    texts, text = np.unique(score.marked.text, return_inverse=True)
    counts, out, one_latent = [], [], 0
    for pair in pairs:
        parent_latent, child_latent = (judgement.best(p)[0] for p in pair)
        if parent_latent == child_latent:
            one_latent += 1
            continue
        child = score.fires(child_latent, int(judgement.at[pair.child, child_latent]))
        of_pair = _by_text(score.marked, pair.parent, text, score.fires(parent_latent, 0), child)
        total = of_pair.sum(axis=0)
        if total[:2].min() < FEWEST_STRETCHES:
            continue
        counts.append(of_pair)
        shares = (float(share[0]) for share in _shares(total[None]))
        out.append(Absorption(pair, parent_latent, child_latent, int(total[0]), int(total[1]), *shares))
    if not out:
        return AbsorptionScore([], 0.0, 0.0, 0.0, one_latent)
    draws = np.random.default_rng(0).multinomial(len(texts), np.full(len(texts), 1 / len(texts)), DRAWS).astype(float)
    silent, silent_else = _shares(np.tensordot(draws, np.stack(counts, axis=1), axes=1))
    medians = np.median(silent - silent_else, axis=1)
    low, high = np.quantile(medians, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return AbsorptionScore(out, float(np.median([one.share for one in out])), float(low), float(high), one_latent)


def _by_text(
    marked: MarkedRows,
    parent: int,
    text: Int[np.ndarray, " n"],
    parent_fires: Bool[np.ndarray, " n"],
    child_fires: Bool[np.ndarray, " n"],
) -> Float[np.ndarray, "texts 4"]:
    """Stretches of the parent in each text: with the child's latent, without it, and of each those in silence."""
    members, starts = marked.members[parent], marked.starts[parent]
    if not len(members):
        return np.zeros((1, 4))
    heard, child = (np.logical_or.reduceat(fires[members], starts) for fires in (parent_fires, child_fires))
    of = text[members[starts]]
    kinds = (child, ~child, child & ~heard, ~child & ~heard)
    return np.stack([np.bincount(of[kind], minlength=text.max() + 1) for kind in kinds], axis=1).astype(np.float64)


def _shares(counts: Float[np.ndarray, "*draws 4"]) -> tuple[Float[np.ndarray, "*draws"], Float[np.ndarray, "*draws"]]:
    """Of counts as `_by_text` gives them: the share in silence with the child's latent, and without it."""
    with_child, without, silent, silent_else = np.moveaxis(counts, -1, 0)
    return silent / np.maximum(with_child, 1), silent_else / np.maximum(without, 1)
