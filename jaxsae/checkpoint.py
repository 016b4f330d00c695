"""The converted model on disk: an Orbax folder of parameters, with the model's config and where it came from.

DIR/config.json    format version, config, provenance
DIR/params/        Orbax: dotted parameter path -> array, in the type they had in the original file
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxsae.config import InputError, ModelConfig, require
from jaxsae.files import whole
from jaxsae.model import param_shapes

FORMAT = 1


def save_model(
    folder: str | Path, config: ModelConfig, params: Mapping[str, np.ndarray], provenance: Mapping[str, Any]
) -> None:
    """Write a converted model; the folder must not exist."""
    folder = Path(folder)
    require(not folder.exists(), f"the output must not exist yet, got {folder}; remove it or give another name")
    with whole(folder.resolve()) as aside:
        aside.mkdir()
        ocp.save(aside / "params", {path: np.asarray(value) for path, value in params.items()})
        meta = {"format": FORMAT, "config": dataclasses.asdict(config), "provenance": dict(provenance)}
        (aside / "config.json").write_text(json.dumps(meta, indent=2))


def load_model(folder: str | Path) -> tuple[ModelConfig, dict[str, np.ndarray], dict[str, Any]]:
    """(config, parameters in their stored types, provenance) of a converted model."""
    folder = Path(folder).resolve()
    try:
        meta = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        raise InputError(
            f"{folder}: must be a folder made by convert_weights.py, got one without a config.json of its"
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
    require(shapes == param_shapes(config), f"{folder}: parameters must fit its config; convert the .pt again")
    return config, params, meta["provenance"]


def save_state(folder: str | Path, step: int, state: Any, meta: Mapping[str, Any]) -> None:
    """Save a run's state (any pytree of arrays) as `step`; `meta` (JSON) says of which run."""
    keep = ocp.training.preservation_policies.LatestN(2)
    with ocp.training.Checkpointer(Path(folder).resolve(), preservation_policy=keep) as checkpointer:
        checkpointer.save(step, _by_name(state), custom_metadata=dict(meta), overwrite=True)


def load_state(folder: str | Path, like: Callable[[int], Any], meta: Mapping[str, Any]) -> tuple[int, Any]:
    """(step, state) of the newest complete state; `like(step)` is any state of its structure and shapes.

    Raises:
      InputError: nothing saved there, or it is the state of a run with another `meta`; what differs is named.
    """
    folder = Path(folder).resolve()
    require(folder.is_dir(), f"to resume there must be a saved state, got none in {folder}")
    with ocp.training.Checkpointer(folder) as checkpointer:
        latest = checkpointer.latest
        if latest is None:
            raise InputError(f"to resume there must be a saved state, got none in {folder}")
        saved = checkpointer.metadata(latest.step).custom_metadata or {}
        differ = [name for name in meta if saved.get(name) != meta[name]]
        require(
            not differ, f"{folder} holds a run with another {', '.join(differ)}; resume with the same, or start anew"
        )
        shaped = like(latest.step)
        loaded = checkpointer.load(latest.step, _by_name(shaped))
    leaves = [loaded[name] for name in _by_name(shaped)]
    return latest.step, jax.tree.unflatten(jax.tree.structure(shaped), leaves)


def _by_name(tree: Any) -> dict[str, Any]:
    """Path -> leaf: a form that Orbax gives back as it was."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
