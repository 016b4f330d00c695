"""Pictures of a training run."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

INK, ACCENT, GREY = "#22303c", "#1f6f8b", "#b9c4cc"


def training_figure(
    path: str | Path, title: str, losses: Sequence[float], density: np.ndarray, rows_scored: str
) -> None:
    """Loss over epochs, and how many latents fire on which share of rows; a PNG.

    Args:
      losses: mean training loss of each epoch.
      density: [d_sae] share of the rows on which each latent fires.
      rows_scored: what those rows are, for the axis.
    """
    with plt.rc_context(
        {
            "font.size": 10,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "text.color": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        left.plot(range(1, len(losses) + 1), losses, color=ACCENT, marker="o" if len(losses) < 10 else None)
        left.set(yscale="log", xlabel="epoch", ylabel="training loss")
        left.xaxis.get_major_locator().set_params(integer=True)
        left.grid(axis="y", which="both", color=GREY, alpha=0.4, linewidth=0.5)

        alive = density[density > 0]
        low = np.floor(np.log10(alive.min())) if len(alive) else -4.0
        bins = np.logspace(low, 0, int(8 * -low) + 1) if low < 0 else np.array([0.5, 1.5])
        right.hist(alive, bins=bins, color=ACCENT, edgecolor="white", linewidth=0.5)
        dead = int((density == 0).sum())
        right.set(xscale="log", xlabel=f"share of rows a latent fires on ({rows_scored})", ylabel="latents")
        right.text(0.02, 0.97, f"{dead:,} of {len(density):,} never fire", transform=right.transAxes, va="top")
        figure.savefig(path, dpi=150)
        plt.close(figure)
