"""Pictures of a training run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure  # without pyplot, which keeps every figure and looks for a screen
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from jaxsae.train.densities import density_counts, edges_spanning

INK, ACCENT, GREY = "#22303c", "#1f6f8b", "#b9c4cc"
STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def training_plot(path: str | Path, title: str, losses: Sequence[float], density: np.ndarray, rows_scored: str) -> None:
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
        label_log_axis(left.yaxis)
        left.xaxis.get_major_locator().set_params(integer=True)
        left.grid(axis="y", which="both", color=GREY, alpha=0.4, linewidth=0.5)

        density_histogram(right, density, rows_scored)
        figure.savefig(path, dpi=150)


def label_log_axis(axis: Axis, most: int = 6) -> None:
    """Label a logarithmic axis in plain numbers at 1, 2 and 5 times powers of ten; if it is long, at powers alone."""
    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high < 10 ** (most / 3) * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=most + 3))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def density_histogram(axes: Axes, density: np.ndarray, rows_scored: str) -> None:
    """How many latents fire on which share of the rows."""
    edges = edges_spanning(density, per_decade=8)
    counts = density_counts(density, edges)
    axes.hist(edges[:-1], bins=edges.tolist(), weights=counts, color=ACCENT, edgecolor="white", linewidth=0.5)
    dead = int((density == 0).sum())
    axes.set(xscale="log", xlabel=f"share of rows a latent fires on ({rows_scored})", ylabel="latents")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.set_title(f"{dead:,} of {len(density):,} never fire", loc="left", fontsize=9)


def pareto_plot(path: str | Path, points: Sequence[tuple[int, float, float]], rows_scored: str) -> None:
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
        axes.xaxis.set_major_locator(FixedLocator(apart([l0 for _, l0, _ in points])))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        label_log_axis(axes.yaxis)
        axes.grid(which="both", color=GREY, alpha=0.4, linewidth=0.5)
        axes.legend(frameon=False, fontsize=8, ncols=1 + len(layers) // 9)
        figure.savefig(path, dpi=150)


def apart(values: Sequence[float], ratio: float = 1.12) -> list[float]:
    """The values above 0 but those that are closer to the one before than labels of them have room."""
    kept: list[float] = []
    for value in sorted(value for value in values if value > 0):
        if not kept or value > ratio * kept[-1]:
            kept.append(value)
    return kept
