"""Rows on disk: a folder of plain arrays, which any other tool can read or write.

    store.json      {"format": "jaxsae-rows", "version": 1, "layers": [8], "rows": n, "d_in": 384, ...}
    layer8.npy      float32 [n, d_in], one such file for each layer
    sample.npy      int32 [n]: which sample a row is of; position.npy: which character of it
    token.npy       int32 [n]: the character's id; label.npy: the true one where the text is damaged, else -100

A bare `.npy` of shape [n, d_in] does as well, of any floating type.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxsae.activations import extract_to, kept_positions
from jaxsae.config import InputError, require
from jaxsae.data import Samples
from jaxsae.files import whole
from jaxsae.model import RestorationModel
from jaxsae.rows import RowsOnDisk

FORMAT, VERSION = "jaxsae-rows", 1
ORIGIN = ("sample", "position", "token", "label")


@dataclass(frozen=True)
class Store:
    """Rows of one or more layers, of one or more stores."""

    layers: dict[int, RowsOnDisk]
    about: dict[str, Any]
    """What store.json says; of several, what it says in all of them alike."""


def write(
    path: str | Path,
    model: RestorationModel,
    samples: Samples,
    layers: Sequence[int],
    padding: str,
    about: Mapping[str, Any],
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> None:
    """Extract rows to a store at `path`, which must not exist; it appears when it is whole.

    Args:
      about: of the model and the text; goes into store.json.
      on_rows: called with the number of rows made since the last call.

    Raises:
      InputError: `path` exists, or the disk has not the space.
    """
    path, width = Path(path), model.config.d_model
    require(not path.exists(), f"the output must not exist, got {path}; give another or remove it")
    kept = kept_positions(samples, padding)
    n = int(kept.sum())
    check_space(path.parent, n * (len(layers) * width + len(ORIGIN)) * 4)
    sample, position = np.nonzero(kept)
    origin = (sample, position, samples.ids[kept], samples.labels[kept])
    with whole(path) as folder:
        folder.mkdir()
        values = {
            layer: np.lib.format.open_memmap(folder / f"layer{layer}.npy", "w+", np.float32, (n, width))
            for layer in layers
        }
        extract_to(values, model, samples, padding, on_rows=on_rows)
        for array in values.values():
            array.flush()
        for name, numbers in zip(ORIGIN, origin, strict=True):
            np.save(folder / f"{name}.npy", numbers.astype(np.int32))
        head = {"format": FORMAT, "version": VERSION, "layers": list(layers), "rows": n, "d_in": width}
        (folder / "store.json").write_text(json.dumps({**head, "padding": padding, **about}, indent=2))


def check_space(folder: Path, needed: int) -> None:
    """Raise `InputError` where the disk under `folder` has not so many bytes left."""
    folder = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    require(
        needed < free,
        f"the disk of {folder} must have {needed / 1e9:.1f} GB for the rows, has {free / 1e9:.1f}; "
        "give fewer layers or samples, or another disk",
    )


def is_store(path: str) -> bool:
    """Whether rows can be read from there, rather than text."""
    return path.endswith(".npy") or (Path(path) / "store.json").exists()


def open_stores(paths: Sequence[str], layer: int) -> Store:
    """Stores and `.npy` files, their rows one after another; `layer` says which a bare `.npy` is of.

    Nothing is read before it is used.

    Raises:
      InputError: not such files, not whole, of another version, or not of one model, width or set of layers.
    """
    opened = [_open_array(path, layer) if path.endswith(".npy") else _open(Path(path)) for path in paths]
    first = opened[0]
    for path, store in zip(paths, opened, strict=True):
        same = sorted(store.layers) == sorted(first.layers)
        require(
            same, f"stores must have the same layers, got {_listed(first)} in {paths[0]} and {_listed(store)} in {path}"
        )
        widths = [next(iter(s.layers.values())).shape[1] for s in (first, store)]
        require(widths[0] == widths[1], f"stores must have one width, got {widths[0]} and {widths[1]} ({path})")
        models = [s.about.get("checkpoint_sha256") for s in (first, store)]
        require(
            models[0] == models[1] or None in models,
            f"stores must be of one model, got {path} of another than {paths[0]}",
        )
    layers = {at: RowsOnDisk([part for store in opened for part in store.layers[at].parts]) for at in first.layers}
    return Store(layers, {k: v for k, v in first.about.items() if all(s.about.get(k) == v for s in opened)})


def _listed(store: Store) -> str:
    return ", ".join(map(str, sorted(store.layers)))


def _open(folder: Path) -> Store:
    try:
        about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        known, layers = about["format"] == FORMAT and about["version"], [int(layer) for layer in about["layers"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: store.json must describe rows, got {type(error).__name__}: {error}") from None
    require(known == VERSION, f"{folder}: must be of version {VERSION} of {FORMAT}, got {known or about['format']}")
    rows = {layer: _array(folder / f"layer{layer}.npy") for layer in layers}
    for layer, array in rows.items():
        wanted = (about.get("rows"), about.get("d_in"))
        require(array.shape == wanted, f"{folder}: layer{layer}.npy must have shape {wanted}, got {array.shape}")
    require(bool(rows), f"{folder}: must have a layer, got none")
    return Store({layer: RowsOnDisk([array]) for layer, array in rows.items()}, about)


def _open_array(path: str, layer: int) -> Store:
    return Store({layer: RowsOnDisk([_array(Path(path))])}, {})


def _array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: must be a whole .npy file, got {' '.join(str(error).split())}") from None
    ok = isinstance(array, np.ndarray) and array.ndim == 2 and array.dtype.kind == "f" and array.size > 0
    require(
        ok,
        f"{path}: must hold rows [n, d_in] of floating numbers, got {getattr(array, 'dtype', '?')}"
        f" {getattr(array, 'shape', '')}",
    )
    return array
