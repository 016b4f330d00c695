"""The cross-check: are the replica's activations PyTorch's, as far as float32 can tell?

Both are compared with PyTorch in float64. The replica passes where it is about as far from the truth as PyTorch itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convert.checkpoints import Checkpoint
from jaxsae.activations.extraction import extract
from jaxsae.errors import ParityError
from jaxsae.models.protocol import ResidualModel
from jaxsae.text.samples import Samples, joined

if TYPE_CHECKING:  # torch
    from concurrent.futures import Future

    from convert.reference import Activations


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
    *,
    asked: "Future[tuple[Activations, Activations]] | None" = None,
    beside: Samples | None = None,
) -> list[LayerCheck]:
    """Run `samples` through the replica, as training will, and through PyTorch with hooks; compare on real positions.

    PyTorch runs at the full width of the samples (for a restoration model's own file, that must be max_position).

    Args:
      asked: what PyTorch finds, of a `ReferenceProcess`; without it, torch is loaded into this process.
      beside: samples that share the replica's batches, as they do in training; they are not compared.
    """
    real, mask = samples.real, samples.mask if padding == "drop" else None
    rows = extract(model, samples if beside is None else joined([samples, beside]), layers, padding)
    first = rows.sample < len(samples)
    wanted = np.flatnonzero(first)[real[rows.sample[first], rows.position[first]]]
    if asked is not None:
        theirs, exact = asked.result()
    else:
        from convert import reference

        if reference_file is None:
            theirs, exact = reference.activations(checkpoint, samples.ids, mask, layers, str(model.hook))
        else:
            theirs, exact = reference.hooked(checkpoint, reference_file, samples.ids, mask, layers, str(model.hook))
    return [compare(i, np.asarray(rows.values[i])[wanted], theirs[i][real], exact[i][real]) for i in layers]


def require_parity(checks: Sequence[LayerCheck]) -> None:
    """Raise `ParityError` where a layer differs from PyTorch by more than rounding explains."""
    failed = [str(check.layer) for check in checks if not check.passed]
    if failed:
        raise ParityError(
            f"layer {', '.join(failed)} differs from PyTorch more than rounding explains; nothing trained"
        )
