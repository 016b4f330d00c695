"""How many latents fire on which share of the rows: the bins and the counts, for figures, tables and the page."""

import numpy as np
from jaxtyping import Float, Int

DECADES = [0.0, *(10.0**exponent for exponent in range(-6, 1))]
"""Edges of bins of one decade each; the first bin has what is rarer."""


def edges_spanning(density: Float[np.ndarray, " d_sae"], per_decade: int) -> Float[np.ndarray, " edges"]:
    """Edges from the decade of the rarest latent that fires up to 1, equally wide on a logarithmic scale."""
    firing = density[density > 0]
    lowest = np.floor(np.log10(firing.min())) if len(firing) else -4.0
    if lowest == 0:  # every latent that fires does so on all rows
        return np.array([0.5, 1.0])
    return np.logspace(lowest, 0, int(per_decade * -lowest) + 1)


def density_counts(
    density: Float[np.ndarray, " d_sae"], edges: Float[np.ndarray, " edges"]
) -> Int[np.ndarray, " bins"]:
    """How many latents fire on a share of the rows between neighbouring edges; those that never fire are left out."""
    return np.histogram(density[density > 0], edges)[0]
