"""The cross-check: are the replica's activations PyTorch's, as far as float32 can tell?

Both are compared with PyTorch in float64. The replica passes where it is about as far from the truth as PyTorch itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from convert import reference
from convert.restoration import Checkpoint
from jaxsae.activations.extraction import extract
from jaxsae.errors import ParityError
from jaxsae.models.protocol import ResidualModel
from jaxsae.text.samples import Samples


@dataclass(frozen=True)
class LayerCheck:
    """One layer's differences over real positions, in the units of the residual stream."""

    layer: int
    max_abs: float
    """Of JAX - PyTorch, float32 both."""
    rms: float
    ours_to_float64: float
    """RMS distance of JAX from PyTorch in float64."""
    torch_to_float64: float
    ours_to_float64_max: float
    torch_to_float64_max: float
    layer_rms: float
    """Of the layer's activations themselves."""
    positions: int

    @property
    def passed(self) -> bool:
        """At most 3 times (RMS) and 4 times (maximum) PyTorch's own distance, plus 1e-6 of the layer's RMS."""
        allowance = 1e-6 * self.layer_rms
        rms_ok = self.ours_to_float64 <= 3 * self.torch_to_float64 + allowance
        return rms_ok and self.ours_to_float64_max <= 4 * self.torch_to_float64_max + allowance  # NaN is never <=


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def compare(layer: int, ours: np.ndarray, theirs: np.ndarray, exact: np.ndarray) -> LayerCheck:
    """Compare a layer's activations [positions, d_model]: JAX float32, PyTorch float32, PyTorch float64."""
    ours64, theirs64 = ours.astype(np.float64), theirs.astype(np.float64)
    return LayerCheck(
        layer=layer,
        max_abs=float(np.abs(ours64 - theirs64).max()),
        rms=_rms(ours64 - theirs64),
        ours_to_float64=_rms(ours64 - exact),
        torch_to_float64=_rms(theirs64 - exact),
        ours_to_float64_max=float(np.abs(ours64 - exact).max()),
        torch_to_float64_max=float(np.abs(theirs64 - exact).max()),
        layer_rms=_rms(exact),
        positions=len(ours),
    )


def cross_check(
    model: ResidualModel,
    checkpoint: Checkpoint,
    samples: Samples,
    layers: Sequence[int],
    padding: str,
    reference_file: str | Path | None = None,
) -> list[LayerCheck]:
    """Run `samples` through the replica, as training will, and through PyTorch with hooks; compare on real positions.

    PyTorch runs at the full width of the samples (for the user's own file, that must be max_position).
    """
    real = samples.real
    rows = extract(model, samples, layers, padding)
    wanted = real[rows.sample, rows.position]
    mask = samples.mask if padding == "drop" else None
    if reference_file is None:
        module = reference.build(checkpoint, n_layers=max(layers) + 1)
    else:
        module = reference.build_from_file(checkpoint, reference_file)
    theirs = reference.resid_post(module, samples.ids, mask, layers, torch.float32)
    exact = reference.resid_post(module, samples.ids, mask, layers, torch.float64)
    return [compare(i, np.asarray(rows.values[i])[wanted], theirs[i][real], exact[i][real]) for i in layers]


def require_parity(checks: Sequence[LayerCheck]) -> None:
    """Raise `ParityError` where a layer differs from PyTorch by more than rounding explains."""
    failed = [str(check.layer) for check in checks if not check.passed]
    if failed:
        raise ParityError(
            f"layer {', '.join(failed)} differs from PyTorch more than rounding explains; nothing trained"
        )
