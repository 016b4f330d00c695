"""Pictures of what latents do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure  # without pyplot, which keeps every figure and looks for a screen
from matplotlib.ticker import MaxNLocator

from jaxsae.features.histograms import per_octave
from jaxsae.features.statistics import LatentStatistics
from jaxsae.train.plots import ACCENT, STYLE, density_histogram, label_log_axis


def latents_plot(
    path: str | Path, title: str, statistics: LatentStatistics, chosen: Sequence[int], unit: str = "character"
) -> None:
    """Draw how strongly latents fire: all of them in one picture, how often, and each of `chosen` by itself; a PNG.

    In the picture of all, each latent is a column, the most frequent first; the colour says on how many characters the
    latent has a value of this size, per octave: the bins of values grow.

    Args:
      chosen: latents, of which the first 24 are drawn by themselves.
      unit: what a token is called.
    """
    counts, bounds = statistics.histogram.counts, statistics.histogram.bounds()
    filled = np.flatnonzero(counts.sum(axis=0))
    part = slice(filled[0], filled[-1] + 1) if len(filled) else slice(0, 1)
    edges = bounds[part.start : part.stop + 1]
    densities = per_octave(counts[:, part], edges)
    chosen = list(chosen)[:24]
    columns = 6
    rows = -(-len(chosen) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 4.6 + 1.9 * rows), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        subfigures: Any = figure.subfigures(2, 1, height_ratios=(4.4, max(1.9 * rows, 0.1)))
        top, bottom = subfigures
        overview, density = top.subplots(1, 2, width_ratios=(2, 1))
        order = np.argsort(-statistics.fired, kind="stable")
        image = np.ma.masked_equal(densities[order].T, 0)
        mesh = overview.pcolormesh(
            np.arange(statistics.d_sae + 1), edges, image, norm=LogNorm(1, max(2, densities.max())), cmap="viridis_r"
        )
        overview.set(yscale="log", xlabel="features, the most frequent first", ylabel="value")
        label_log_axis(overview.yaxis)
        top.colorbar(mesh, ax=overview, label=f"{unit}s per octave", pad=0.01)
        density_histogram(density, statistics.rate, f"{statistics.rows:,} {unit}s")
        if chosen:
            bottom.supxlabel("value", fontsize=9)
            bottom.supylabel(f"{unit}s per octave", fontsize=9)
        axes = np.reshape(bottom.subplots(max(rows, 1), columns, squeeze=False), -1)
        for ax in axes[len(chosen) :]:
            ax.set_axis_off()
        for ax, latent in zip(axes, chosen, strict=False):
            ax.stairs(densities[latent], edges, fill=True, color=ACCENT)
            ax.set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(0, None))
            ax.set_title(
                f"{latent}: {statistics.rate[latent]:.2%}, max {statistics.peak[latent]:.3g}", fontsize=9, loc="left"
            )
            label_log_axis(ax.xaxis, most=3)
            ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            ax.tick_params(labelsize=8)
        figure.savefig(path, dpi=130)
