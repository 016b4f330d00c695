"""A converted model on disk: a folder of parameters (Orbax), with the model's config and where it came from.

DIR/config.json    format version, config, provenance
DIR/params/        Orbax: dotted parameter path -> array, in the type they had in the original file"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsae.errors import InputError, require
from jaxsae.files import atomic_path, read_json
from jaxsae.models.restoration import RestorationModel
from jaxsae.models.restoration_config import ModelConfig

FORMAT = 1


def save_model(
    folder: str | Path, config: ModelConfig, params: Mapping[str, np.ndarray], provenance: Mapping[str, Any]
) -> None:
    """Write a converted model; the folder must not exist."""
    from orbax.checkpoint import v1 as ocp  # large: most commands need none of it

    folder = Path(folder)
    require(not folder.exists(), f"the output must not exist yet, got {folder}; remove it or give another name")
    with atomic_path(folder.resolve()) as temporary:
        temporary.mkdir()
        ocp.save(temporary / "params", {path: np.asarray(value) for path, value in params.items()})
        meta = {"format": FORMAT, "config": dataclasses.asdict(config), "provenance": dict(provenance)}
        (temporary / "config.json").write_text(json.dumps(meta, indent=2))


def load_model(folder: str | Path) -> tuple[ModelConfig, dict[str, np.ndarray], dict[str, Any]]:
    """(config, parameters in their stored types, provenance) of a converted model."""
    from orbax.checkpoint import v1 as ocp

    folder = Path(folder).resolve()
    try:
        meta = read_json(folder / "config.json")
    except (OSError, InputError):
        raise InputError(
            f"{folder}: must be a folder made by jaxsae convert-weights, got one without a config.json of its"
        ) from None
    version = meta.get("format") if isinstance(meta, dict) else None
    require(version == FORMAT, f"{folder}: its format must be {FORMAT}, got {version!r}; convert the .pt again")
    config = ModelConfig.from_dict(meta["config"], str(folder))
    try:
        stored = ocp.metadata(folder / "params").metadata
        host = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
        abstract = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=host) for path, leaf in stored.items()}
        params = {path: np.asarray(value) for path, value in ocp.load(folder / "params", abstract).items()}
    except Exception as error:  # Orbax and TensorStore raise many kinds; all of them mean the same to the user
        first_line = str(error).strip().split("\n")[0]
        raise InputError(
            f"{folder}: must be a whole Orbax checkpoint, got: {first_line}; convert the .pt again"
        ) from error
    shapes = {path: value.shape for path, value in params.items()}
    require(
        shapes == RestorationModel.param_shapes(config),
        f"{folder}: parameters must fit its config; convert the .pt again",
    )
    return config, params, meta["provenance"]
