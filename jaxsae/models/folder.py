"""A converted model on disk: a folder of parameters (Orbax), with the model's config and where it came from.

DIR/config.json    format version, family, config, provenance
DIR/params/        Orbax: dotted parameter path -> array, in the type they had in the original file
DIR/vocab.json     where the model has one: what its ids stand for

The families of models are not known here: config and parameters are what the folder says, still to be checked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsae.errors import InputError, require
from jaxsae.files import atomic_path, read_json

FORMAT = 1


FIRST_FAMILY = "restoration"
"""The family of folders that do not say one: when they were made, there was no other."""


class StoredModel(NamedTuple):
    """What a converted model's folder holds."""

    family: Any
    config: Any
    params: dict[str, np.ndarray]
    """Dotted path -> array, in the stored type."""
    provenance: dict[str, Any]


def save_model(
    folder: str | Path,
    family: str,
    config: Mapping[str, Any],
    params: Mapping[str, np.ndarray],
    provenance: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> None:
    """Write a converted model; the folder must not exist.

    Args:
      files: name -> content of what else goes into the folder.
    """
    from orbax.checkpoint import v1 as ocp  # large: most commands need none of it

    folder = Path(folder)
    require(not folder.exists(), f"the output must not exist yet, got {folder}; remove it or give another name")
    with atomic_path(folder.resolve()) as temporary:
        temporary.mkdir()
        ocp.save(temporary / "params", {path: np.asarray(value) for path, value in params.items()})
        meta = {"format": FORMAT, "family": family, "config": dict(config), "provenance": dict(provenance)}
        (temporary / "config.json").write_text(json.dumps(meta, indent=2))
        for name, content in files.items():
            (temporary / name).write_bytes(content)


def load_model(folder: str | Path) -> StoredModel:
    """Read a converted model."""
    from orbax.checkpoint import v1 as ocp

    folder = Path(folder).resolve()
    try:
        meta = read_json(folder / "config.json")
    except (OSError, InputError):
        inside = folder / "best_model.pt"
        meant = f"; is {inside} meant?" if inside.is_file() else ""
        raise InputError(
            f"{folder}: must be a folder made by jaxsae convert-weights, got one without its config.json{meant}"
        ) from None
    version = meta.get("format") if isinstance(meta, dict) else None
    require(version == FORMAT, f"{folder}: its format must be {FORMAT}, got {version!r}; convert the .pt again")
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
    return StoredModel(meta.get("family", FIRST_FAMILY), meta["config"], params, meta["provenance"])
