"""Where latents fire how strongly: places from intervals of a latent's activation, and its firings over whole texts.

Both are taken from the firings that the pass has kept, so that nothing more is collected in it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import ascii_lowercase, ascii_uppercase
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxsae.features.firings import value_of
from jaxsae.features.statistics import LatentStatistics

INTERVALS = 4
"""Equal parts of a latent's largest value."""
OF_EACH = 4
"""Places that are drawn from each interval, if there are as many."""


class Place(NamedTuple):
    """A token on which a latent fires."""

    sample: int
    position: int
    """Index among the sample's tokens, without padding."""
    value: float


class Interval(NamedTuple):
    """The firings of a latent that are between two shares of its largest value."""

    fired: int
    """How many there are, on the judged characters."""
    places: list[Place]
    """Some of them, strongest first."""


class TextFirings(NamedTuple):
    """The firings of a latent on one text, or on all judged texts: one behind the other."""

    sample: Int[np.ndarray, " m"]
    position: Int[np.ndarray, " m"]
    value: Float[np.ndarray, " m"]


@dataclass(frozen=True)
class PlacedFirings:
    """The firings of an SAE's latents on the judged characters, by latent and text."""

    statistics: LatentStatistics

    @cached_property
    def _ends(self) -> Int[np.ndarray, " ends"]:
        """Of each latent's firings among all, which are sorted by latent."""
        return np.append(0, np.cumsum(self.statistics.firings.fired))

    @cached_property
    def _first(self) -> Int[np.ndarray, " samples"]:
        """The number of each text's first judged character; -1: the text is not judged."""
        judged = self.statistics.judged
        out = np.full(len(judged.samples), -1)
        starts = np.flatnonzero(np.diff(judged.sample, prepend=-1))
        kept = starts[self.statistics.firings.judged[starts]]
        out[judged.sample[kept]] = kept
        return out

    def of(self, latent: int) -> TextFirings:
        """All of a latent, in the order of the text."""
        firings, judged = self.statistics.firings, self.statistics.judged
        part = slice(self._ends[latent], self._ends[latent + 1])
        row = firings.row[part]
        sample = judged.sample[row].astype(np.int64)
        return TextFirings(sample, row - self._first[sample], value_of(firings.code[part]))

    def knows(self, sample: int) -> bool:
        """Whether every firing on a text is known: not of one that latents are not judged on."""
        return bool(self._first[sample] >= 0)

    def intervals(self, latent: int, of: TextFirings, besides: Collection[tuple[int, int]] = ()) -> list[Interval]:
        """Of a latent's firings those in each interval, the strongest interval first.

        Places are drawn, as a rule one of a text, and always the same.

        Args:
          of: the latent's firings.
          besides: (sample, position) of places that are not drawn, since they are shown elsewhere.
        """
        peak = float(self.statistics.peak[latent])
        number = np.clip((INTERVALS * of.value / max(peak, 1e-30)).astype(int), 0, INTERVALS - 1)
        width = self.statistics.judged.samples.ids.shape[1]
        left_out = np.isin(of.sample * width + of.position, [sample * width + position for sample, position in besides])
        out = []
        for interval in reversed(range(INTERVALS)):
            here = np.flatnonzero((number == interval) & ~left_out)
            chosen = _drawn(here, of.sample, np.random.default_rng((latent, interval)))
            chosen = chosen[np.argsort(-of.value[chosen], kind="stable")]
            places = [Place(int(of.sample[i]), int(of.position[i]), float(of.value[i])) for i in chosen]
            out.append(Interval(int((number == interval).sum()), places))
        return out


def _drawn(
    here: Int[np.ndarray, " some"], sample: Int[np.ndarray, " m"], rng: np.random.Generator
) -> Int[np.ndarray, " drawn"]:
    """`OF_EACH` of the firings `here`, of different texts as far as there are any."""
    order = rng.permutation(here)
    _, first = np.unique(sample[order], return_index=True)
    again = np.setdiff1d(np.arange(len(order)), first)
    return order[np.concatenate([np.sort(first), again])[:OF_EACH].astype(int)]


SILENCE = 26
"""Letters for stretches on which a latent is silent."""


def encoded(positions: Sequence[int], levels: Sequence[int]) -> str:
    """Firings on one text as the page reads them: levels as digits 1 to 9, and letters for the silent tokens between.

    `a` to `z` are 1 to 26 of them, `A` to `Z` as many times 26; what follows the last firing is silent.
    """
    out, at = [], 0
    for position, level in zip(positions, levels, strict=True):
        while (silent := position - at) > 0:
            times = min(silent // SILENCE, SILENCE)
            out.append(ascii_uppercase[times - 1] if times else ascii_lowercase[silent - 1])
            at += times * SILENCE or silent
        out.append(str(level))
        at += 1
    return "".join(out)
