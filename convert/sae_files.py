"""The SAE file, `sae_layer{L}_optimized.pt`: what the original scripts write and read.

    W_enc [d_in, d_sae]   b_enc [d_sae]   W_dec [d_sae, d_in]   b_dec [d_in]   losses: list of float   config: dict

`features = relu(x @ W_enc + b_enc)`; with `config["k"]`, of the k largest pre-activations only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from convert import pt
from jaxsae.config import SAEConfig, require
from jaxsae.sae import SAE

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


def load_sae(path: str | Path) -> SAEFile:
    """Read an SAE file of this project or of the original scripts, its older variants included.

    Raises:
      InputError: not such a file, shapes that do not fit, or an architecture whose features would come out wrong.
    """
    content = pt.read_pt(path, INSTEAD)
    missing = [name for name in (*SAE._fields, "config") if name not in content]
    require(
        not missing,
        f"{path}: must have {', '.join(SAE._fields)} and config, got none of {', '.join(missing)}; give {INSTEAD}",
    )
    given = content["config"]
    require(isinstance(given, dict), f"{path}: config must be a dict, got {type(given).__name__}")
    # Older files are float32 too; half precision is widened.
    arrays = [pt.to_numpy(content[name], f"{path}: {name}").astype(np.float32) for name in SAE._fields]
    sae = SAE(*map(jnp.asarray, arrays))

    extra = {
        k: v for k, v in given.items() if k not in ("d_in", "d_sae", "l1_coef", "l1_coefficient", "k", "architecture")
    }
    d_in, d_sae = (given.get(name) for name in ("d_in", "d_sae"))
    require(
        all(type(d) is int for d in (d_in, d_sae)),
        f"{path}: config must have whole d_in and d_sae, got {d_in!r} and {d_sae!r}",
    )
    k = given.get("k")
    require(k is None or type(k) is int, f"{path}: config.k must be a whole number, got {k!r}")
    l1_coef = given.get("l1_coef", given.get("l1_coefficient", 0.0))
    require(_is_number(l1_coef), f"{path}: config.l1_coef must be a number, got {l1_coef!r}")
    config = SAEConfig(d_in, d_sae, float(l1_coef), k)
    architecture = given.get("architecture", config.architecture)
    known = architecture == config.architecture and "threshold" not in given
    require(
        known,
        f"{path}: config must describe relu, or topk with k, got architecture {architecture!r} and keys {', '.join(map(str, given))}",
    )

    expected = [(d_in, d_sae), (d_sae,), (d_sae, d_in), (d_in,)]
    got = [array.shape for array in sae]
    require(got == expected, f"{path}: shapes must be {_shapes(expected)} (config), got {_shapes(got)}")
    losses = content.get("losses", content.get("training_losses", []))
    require(isinstance(losses, list) and all(map(_is_number, losses)), f"{path}: losses must be a list of numbers")
    return SAEFile(sae, config, [float(loss) for loss in losses], extra)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in zip(SAE._fields, shapes, strict=True))


def save_sae(
    path: str | Path, sae: SAE, config: SAEConfig, losses: Sequence[float] = (), extra: Mapping[str, Any] | None = None
) -> None:
    """Write an SAE file of plain tensors and Python numbers: `torch.load(weights_only=True)` reads it as it is.

    Args:
      sae: one SAE (no members axis), float32.
      losses: mean training loss of each epoch.
      extra: more entries for `config`, such as `layer`; what is not needed to compute the features.
    """
    say = {"d_in": config.d_in, "d_sae": config.d_sae, "l1_coef": config.l1_coef, "architecture": config.architecture}
    if config.k is not None:
        say["k"] = config.k
    tensors = {name: pt.to_tensor(np.asarray(array, np.float32)) for name, array in sae._asdict().items()}
    pt.write_pt(path, {**tensors, "losses": [float(loss) for loss in losses], "config": {**say, **(extra or {})}})
