"""What latents do to the restorations: the model with a latent removed, or set to a value, beside the model itself."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxsae.features import splice
from jaxsae.features.splice import Restored
from jaxsae.features.statistics import LayerSAE
from jaxsae.models.protocol import ResidualModel
from jaxsae.text.pieces import shown
from jaxsae.text.samples import Samples
from jaxsae.text.tokenizer import Tokenizer


class Setting(NamedTuple):
    """A latent, and the value that it is set to."""

    latent: int
    value: float = 0.0
    """0 removes the latent."""


class RestorationChange(NamedTuple):
    """Restorations at some damaged positions, before and after the latent is set; NaN where there is no position."""

    positions: int
    top1_before: float
    """Share of positions whose most probable character is the true one."""
    top1_after: float
    probability_before: float
    """Mean probability of the true character."""
    probability_after: float
    kl: float
    """KL divergence from the unchanged model's distribution, in nats."""
    guesses_changed: int
    """Positions whose most probable character is another one."""


class CausalEffect(NamedTuple):
    """The effect of one setting."""

    feature: int
    value: float
    where_it_fires: RestorationChange
    """At the damaged characters on which the latent fires."""
    elsewhere: RestorationChange
    swaps: list[tuple[str, str, int]]
    """(guess before, guess after, how often), of the guesses that changed, the most frequent first."""

    def as_json(self) -> dict[str, Any]:
        """As `jaxsae inspect --json` writes it."""
        return {
            "feature": self.feature,
            "value": self.value,
            "where it fires": self.where_it_fires._asdict(),
            "elsewhere": self.elsewhere._asdict(),
            "swaps": [list(swap) for swap in self.swaps],
        }


def causal_effects(
    model: ResidualModel, samples: Samples, at: LayerSAE, settings: Sequence[tuple[int, float]]
) -> list[CausalEffect]:
    """What the model restores with each (latent, value) set, the SAE's error kept; one pass for all settings."""
    if not settings:
        return []
    latents = np.array([latent for latent, _ in settings])
    changes = {str(i): splice.steer(at.sae, [setting]) for i, setting in enumerate(settings)}
    found, values = splice.restorations(
        model, samples, at.layer, changes, lambda x: splice.some_latents(at.sae, x, latents)
    )
    return [
        _effect(Setting(*setting), found["clean"], found[str(i)], values[:, i] > 0, model.tokenizer)
        for i, setting in enumerate(settings)
    ]


def _effect(
    setting: Setting,
    clean: Restored,
    changed: Restored,
    fires: Bool[np.ndarray, " positions"],
    tokenizer: Tokenizer,
) -> CausalEffect:
    moved = np.flatnonzero(clean.guess != changed.guess)
    pairs, counts = np.unique(np.stack([clean.guess[moved], changed.guess[moved]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:5]
    names = [[shown(piece, tokenizer) for piece in tokenizer.pieces(pairs[i])] for i in order]
    swaps = [(before, after, int(counts[i])) for i, (before, after) in zip(order, names, strict=True)]
    return CausalEffect(*setting, _change(clean, changed, fires), _change(clean, changed, ~fires), swaps)


def _change(clean: Restored, changed: Restored, where: Bool[np.ndarray, " positions"]) -> RestorationChange:
    before, after = clean.effect(where), changed.effect(where)
    return RestorationChange(
        positions=before.positions,
        top1_before=before.top1,
        top1_after=after.top1,
        probability_before=clean.probability(where),
        probability_after=changed.probability(where),
        kl=after.kl,
        guesses_changed=int((clean.guess != changed.guess)[where].sum()),
    )
