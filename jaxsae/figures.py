"""Pictures of a training run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure  # without pyplot, which keeps every figure and looks for a screen

from jaxsae.survey import Survey

INK, ACCENT, GREY = "#22303c", "#1f6f8b", "#b9c4cc"
STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def training_figure(
    path: str | Path, title: str, losses: Sequence[float], density: np.ndarray, rows_scored: str
) -> None:
    """Loss over epochs, and how many latents fire on which share of rows; a PNG.

    Args:
      losses: mean training loss of each epoch.
      density: [d_sae] share of the rows on which each latent fires.
      rows_scored: what those rows are, for the axis.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        left.plot(range(1, len(losses) + 1), losses, color=ACCENT, marker="o" if len(losses) < 10 else None)
        left.set(yscale="log", xlabel="epoch", ylabel="training loss")
        left.xaxis.get_major_locator().set_params(integer=True)
        left.grid(axis="y", which="both", color=GREY, alpha=0.4, linewidth=0.5)

        density_histogram(right, density, rows_scored)
        figure.savefig(path, dpi=150)


def density_histogram(axes: Axes, density: np.ndarray, rows_scored: str) -> None:
    """How many latents fire on which share of the rows."""
    alive = density[density > 0]
    low = np.floor(np.log10(alive.min())) if len(alive) else -4.0
    bins = np.logspace(low, 0, int(8 * -low) + 1) if low < 0 else np.array([0.5, 1.5])
    axes.hist(alive, bins=bins.tolist(), color=ACCENT, edgecolor="white", linewidth=0.5)
    dead = int((density == 0).sum())
    axes.set(xscale="log", xlabel=f"share of rows a latent fires on ({rows_scored})", ylabel="latents")
    axes.set_title(f"{dead:,} of {len(density):,} never fire", loc="left", fontsize=9)


def latents_figure(path: str | Path, title: str, survey: Survey, chosen: Sequence[int]) -> None:
    """How strongly latents fire: all at a glance, how often, and each of `chosen` by itself; a PNG.

    At a glance: a column a latent, the most frequent first; colour is on how many characters it has such a value.
    """
    assert survey.levels is not None
    counts, edges = survey.levels.counts[:, 0].sum(axis=0), survey.levels.edges()
    there = np.flatnonzero(counts.sum(axis=0))
    part = slice(there[0], there[-1] + 1) if len(there) else slice(0, 1)
    edges = np.append(edges[part], 2 * edges[part][-1] - edges[part][-2] if part.stop - part.start > 1 else 1.0)
    chosen = list(chosen)[:24]
    across = 6
    rows = -(-len(chosen) // across)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 4.6 + 1.7 * rows), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        parts: Any = figure.subfigures(2, 1, height_ratios=(4.4, max(1.7 * rows, 0.1)))
        top, bottom = parts
        glance, density = top.subplots(1, 2, width_ratios=(2, 1))
        order = np.argsort(-survey.fired, kind="stable")
        image = np.ma.masked_equal(counts[order][:, part].T, 0)
        mesh = glance.pcolormesh(
            np.arange(survey.d_sae + 1), edges, image, norm=LogNorm(1, max(2, counts.max())), cmap="viridis_r"
        )
        glance.set(yscale="log", xlabel="features, the most frequent first", ylabel="value")
        top.colorbar(mesh, ax=glance, label="characters", pad=0.01)
        density_histogram(density, survey.rate, f"{survey.rows:,} characters")
        axes = np.reshape(bottom.subplots(max(rows, 1), across, squeeze=False), -1)
        for ax in axes[len(chosen) :]:
            ax.set_axis_off()
        for ax, latent in zip(axes, chosen, strict=False):
            ax.stairs(counts[latent, part], edges, fill=True, color=ACCENT)
            ax.set(xscale="log", yscale="symlog", ylim=(0, None))
            ax.set_title(f"{latent}: {survey.rate[latent]:.2%}, max {survey.peak[latent]:.3g}", fontsize=8, loc="left")
            ax.tick_params(labelsize=7)
        figure.savefig(path, dpi=130)


def pareto_figure(path: str | Path, points: Sequence[tuple[int, float, float]], rows_scored: str) -> None:
    """Error over sparsity, a line for each layer; a PNG.

    Args:
      points: (layer, L0, FVU) of each SAE.
      rows_scored: what they were scored on, for the axis.
    """
    layers = sorted({layer for layer, *_ in points})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(layers)))
        for layer, colour in zip(layers, colours, strict=True):
            l0, fvu = zip(*sorted((l0, fvu) for number, l0, fvu in points if number == layer), strict=True)
            axes.plot(l0, fvu, "o-", color=colour, label=f"layer {layer}")
        axes.set(xscale="log", yscale="log", xlabel=f"L0 ({rows_scored})", ylabel="fraction of variance unexplained")
        axes.grid(which="both", color=GREY, alpha=0.4, linewidth=0.5)
        axes.legend(frameon=False, fontsize=8, ncols=1 + len(layers) // 9)
        figure.savefig(path, dpi=150)
