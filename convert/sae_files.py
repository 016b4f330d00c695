"""The SAE file, `sae_layer{L}_optimized.pt`: what the original scripts write and read.

    W_enc [d_in, d_sae]   b_enc [d_sae]   W_dec [d_sae, d_in]   b_dec [d_in]   losses: list of float   config: dict

`features = relu(x @ W_enc + b_enc)`; with `config["k"]`, of the k largest pre-activations only; with
`config["threshold"]` (one number, or one per latent), only where the pre-activation is above it.
"""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from convert import pt
from jaxsae.config import THRESHOLDED, SAEConfig, require
from jaxsae.sae import SAE

TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
NEEDS: dict[str, str | None] = {"relu": None, "topk": "k"} | dict.fromkeys(THRESHOLDED, "threshold")
"""Architecture -> what to apply besides the plain formula."""
INSTEAD = "an sae_layer*_optimized.pt (a dict with W_enc, b_enc, W_dec, b_dec and config)"


@dataclass(frozen=True)
class SAEFile:
    """An SAE as its file has it."""

    sae: SAE
    config: SAEConfig
    losses: list[float] = field(default_factory=list)
    """Mean training loss of each epoch; empty where the file has none (`*_best.pt`)."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What else its config says, such as `layer`."""


def load_pt(path: str | Path) -> SAEFile:
    """Read an SAE file of this project or of the original scripts, its older variants included.

    Raises:
      InputError: not such a file, shapes that do not fit, or an architecture whose features would come out wrong.
    """
    content = pt.read_pt(path, INSTEAD)
    missing = [name for name in (*TENSORS, "config") if name not in content]
    require(
        not missing,
        f"{path}: must have {', '.join(TENSORS)} and config, got none of {', '.join(missing)}; give {INSTEAD}",
    )
    given = content["config"]
    require(isinstance(given, dict), f"{path}: config must be a dict, got {type(given).__name__}")
    extra = dict(given)
    d_in, d_sae, k, target_l0 = (extra.pop(name, None) for name in ("d_in", "d_sae", "k", "target_l0"))
    require(
        all(type(d) is int for d in (d_in, d_sae)),
        f"{path}: config must have whole d_in and d_sae, got {d_in!r} and {d_sae!r}",
    )
    for name, value in (("k", k), ("target_l0", target_l0)):
        require(value is None or type(value) is int, f"{path}: config.{name} must be a whole number, got {value!r}")
    l1_coef = extra.pop("l1_coef", extra.pop("l1_coefficient", 0.0))
    require(is_number(l1_coef), f"{path}: config.l1_coef must be a number, got {l1_coef!r}")
    threshold = extra.pop("threshold", None)
    architecture = extra.pop("architecture", "relu" if k is None else "topk")
    applied = [name for name, value in (("k", k), ("threshold", threshold)) if value is not None]
    require(
        isinstance(architecture, str)
        and architecture in NEEDS
        and applied == [need for need in [NEEDS[architecture]] if need],
        f"{path}: config must describe relu, topk with k, or {', '.join(THRESHOLDED)} with threshold, "
        f"got architecture {architecture!r} and keys {', '.join(map(str, given))}",
    )
    config = SAEConfig(d_in, d_sae, float(l1_coef), k, architecture, target_l0)

    # Older files are float32 too; half precision is widened.
    arrays = [pt.floating(content[name], f"{path}: {name}").astype(np.float32) for name in TENSORS]
    expected = [(d_in, d_sae), (d_sae,), (d_sae, d_in), (d_in,)]
    got = [array.shape for array in arrays]
    require(got == expected, f"{path}: shapes must be {_shapes(expected)} (config), got {_shapes(got)}")
    sae = SAE(*map(jnp.asarray, arrays))
    if threshold is not None:
        many = threshold if isinstance(threshold, list) else [threshold] * d_sae
        ok = len(many) == d_sae and all(is_number(value) and 0 <= value < math.inf for value in many)
        require(ok, f"{path}: config.threshold must be a number of at least 0, or {d_sae} (d_sae) of them")
        sae = sae._replace(threshold=jnp.asarray(many, jnp.float32))
    losses = content.get("losses", content.get("training_losses", []))
    require(isinstance(losses, list) and all(map(is_number, losses)), f"{path}: losses must be a list of numbers")
    return SAEFile(sae, config, [float(loss) for loss in losses], extra)


def layer_of(path: str | Path, file: SAEFile, given: int | None) -> int:
    """The layer an SAE was trained on: its file says so, else its name; else it must be given.

    Raises:
      InputError: none of them says it, or `given` is another.
    """
    named = re.search(r"layer_?(\d+)", Path(path).name)
    recorded = file.extra.get("layer", int(named[1]) if named else None)
    if given is None:
        require(isinstance(recorded, int), f"{path} must say its layer, which it does not; give --layer")
        return int(recorded)  # type: ignore[arg-type]
    agree = recorded in (None, given)
    require(agree, f"--layer must be the one {path} was trained on, {recorded}, got {given}; leave --layer out")
    return given


def check_model(path: str | Path, file: SAEFile, checkpoint_sha256: str, other: bool = False) -> None:
    """An SAE is of one model: where its file says of which, that must be the one given.

    Args:
      other: it is known to be another; only say so on standard error.

    Raises:
      InputError: it is not.
    """
    recorded = file.extra.get("checkpoint_sha256")
    if recorded in (None, checkpoint_sha256):
        return
    what = f"{path} was trained on another model ({str(recorded)[:12]}...) than the one given ({checkpoint_sha256[:12]}...)"
    require(other, f"{what}; give its --checkpoint, or --other-model if that is meant")
    sys.stderr.write(f"note: {what}\n")


def is_number(value: Any) -> bool:
    """Of any type, but no bool and not NaN."""
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in zip(TENSORS, shapes, strict=True))


def save_sae(
    path: str | Path, sae: SAE, config: SAEConfig, losses: Sequence[float] = (), extra: Mapping[str, Any] | None = None
) -> None:
    """Write an SAE file of plain tensors and Python numbers: `torch.load(weights_only=True)` reads it as it is.

    Args:
      sae: one SAE (no members axis), float32.
      losses: mean training loss of each epoch.
      extra: more entries for `config`, such as `layer`; what is not needed to compute the features.
    """
    say: dict[str, Any] = {
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "l1_coef": config.l1_coef,
        "architecture": config.architecture,
    }
    for name in ("k", "target_l0"):
        if getattr(config, name) is not None:
            say[name] = getattr(config, name)
    if sae.threshold is not None:
        values = np.asarray(sae.threshold, np.float32).tolist()
        say["threshold"] = values[0] if len(set(values)) == 1 else values
    tensors = {name: pt.to_tensor(np.asarray(getattr(sae, name), np.float32)) for name in TENSORS}
    pt.write_pt(path, {**tensors, "losses": [float(loss) for loss in losses], "config": {**say, **(extra or {})}})
