"""Pictures of what latents do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure  # without pyplot, which keeps every figure and looks for a screen

from jaxsae.features.histograms import per_octave
from jaxsae.features.statistics import LatentStatistics
from jaxsae.train.plots import ACCENT, STYLE, density_histogram


def latents_plot(path: str | Path, title: str, statistics: LatentStatistics, chosen: Sequence[int]) -> None:
    """Draw how strongly latents fire: all of them in one picture, how often, and each of `chosen` by itself; a PNG.

    In the picture of all, each latent is a column, the most frequent first; the colour says on how many characters an
    octave the latent has a value of this size.
    """
    bounds, counts = statistics.histogram.bounds(), statistics.histogram.counts
    densities = per_octave(counts, bounds)
    filled = np.flatnonzero(counts.sum(axis=0))
    part = slice(filled[0], filled[-1] + 1) if len(filled) else slice(0, 1)
    edges = bounds[part.start : part.stop + 1]
    chosen = list(chosen)[:24]
    columns = 6
    rows = -(-len(chosen) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 4.6 + 1.7 * rows), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        subfigures: Any = figure.subfigures(2, 1, height_ratios=(4.4, max(1.7 * rows, 0.1)))
        top, bottom = subfigures
        overview, density = top.subplots(1, 2, width_ratios=(2, 1))
        order = np.argsort(-statistics.fired, kind="stable")
        image = np.ma.masked_equal(densities[order][:, part].T, 0)
        mesh = overview.pcolormesh(
            np.arange(statistics.d_sae + 1), edges, image, norm=LogNorm(1, max(2, densities.max())), cmap="viridis_r"
        )
        overview.set(yscale="log", xlabel="features, the most frequent first", ylabel="value")
        top.colorbar(mesh, ax=overview, label="characters per octave", pad=0.01)
        density_histogram(density, statistics.rate, f"{statistics.rows:,} characters")
        axes = np.reshape(bottom.subplots(max(rows, 1), columns, squeeze=False), -1)
        for ax in axes[len(chosen) :]:
            ax.set_axis_off()
        for ax, latent in zip(axes, chosen, strict=False):
            ax.stairs(densities[latent, part], edges, fill=True, color=ACCENT)
            ax.set(xscale="log", yscale="symlog", ylim=(0, None))
            ax.set_title(
                f"{latent}: {statistics.rate[latent]:.2%}, max {statistics.peak[latent]:.3g}", fontsize=8, loc="left"
            )
            ax.tick_params(labelsize=7)
        figure.savefig(path, dpi=130)
