"""Rows on disk: a folder of plain arrays, which any other tool can read or write.

    store.json      {"format": "jaxsae-rows", "version": 1, "layers": [8], "rows": n, "d_in": 384, ...}
    layer8.npy      float32 [n, d_in], one such file for each layer
    sample.npy      int32 [n]: which sample a row is of; position.npy: which character of it
    token.npy       int32 [n]: the character's id; label.npy: the true one where the text is damaged, else -100
    real.npy        int32 [n]: 0 at padding

A bare `.npy` of shape [n, d_in] does as well, of any floating type.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxsae.activations import extract_to, kept_positions
from jaxsae.config import InputError, require
from jaxsae.data import Samples, as_samples, joined
from jaxsae.files import whole
from jaxsae.model import RestorationModel
from jaxsae.rows import RowsOnDisk
from jaxsae.text import NO_LABEL, PADDING_ID

FORMAT, VERSION = "jaxsae-rows", 1
SPARSEST = 4096
"""Positions for each that has a row, at most: text is made of the positions, and what is declared may be anything."""
ORIGIN = ("sample", "position", "token", "label", "real")


@dataclass(frozen=True)
class Store:
    """Rows of one or more layers, of one or more stores."""

    layers: dict[int, RowsOnDisk]
    about: dict[str, Any]
    """What store.json says; of several, what it says in all of them alike."""
    folders: list[Path]
    """Where it is; none for a bare `.npy`."""

    @property
    def d_in(self) -> int:
        """Width of the rows."""
        return next(iter(self.layers.values())).shape[1]

    def only(self, layers: Sequence[int]) -> "Store":
        """Of these layers, in this order."""
        missing = [layer for layer in layers if layer not in self.layers]
        require(not missing, f"layer must be one of the stored {_listed(self)}, got {', '.join(map(str, missing))}")
        return replace(self, layers={layer: self.layers[layer] for layer in layers})

    def samples(self) -> Samples | None:
        """The text that the rows are of, one row for each of its positions in order; None where it is not said.

        Where only the real positions have rows, the others are padding.

        Raises:
          InputError: what is said of the rows cannot be.
        """
        if not self.folders or not all((f / f"{name}.npy").exists() for f in self.folders for name in ORIGIN):
            return None
        return joined([_samples(folder) for folder in self.folders])


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
    origin = (sample, position, *(of[kept] for of in (samples.ids, samples.labels, samples.mask)))
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
        head |= {"positions": samples.ids.shape[1]}
        (folder / "store.json").write_text(json.dumps({**head, "padding": padding, **about}, indent=2))


def check_space(folder: Path, needed: int) -> None:
    """Raise `InputError` where the disk under `folder` has not so many bytes left."""
    folder = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    require(
        needed < free,
        f"the disk of {folder} must have {needed / 1e6:,.1f} MB for the rows, has {free / 1e6:,.1f}; "
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
        same = store.d_in == first.d_in
        require(same, f"stores must have one width, got {first.d_in} and {store.d_in} ({path})")
        models = [s.about.get("checkpoint_sha256") for s in (first, store)]
        require(
            models[0] == models[1] or None in models,
            f"stores must be of one model, got {path} of another than {paths[0]}",
        )
    layers = {at: RowsOnDisk([part for store in opened for part in store.layers[at].parts]) for at in first.layers}
    about = {k: v for k, v in first.about.items() if all(s.about.get(k) == v for s in opened)}
    return Store(layers, about, [folder for store in opened for folder in store.folders])


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
    return Store({layer: RowsOnDisk([array]) for layer, array in rows.items()}, about, [folder])


def _open_array(path: str, layer: int) -> Store:
    return Store({layer: RowsOnDisk([_array(Path(path))])}, {}, [])


def _samples(folder: Path) -> Samples:
    about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    columns = {name: _load(folder / f"{name}.npy") for name in ORIGIN}
    n, width = about["rows"], about.get("positions")
    ok = all(column.shape == (n,) and column.dtype.kind in "iu" for column in columns.values())
    require(ok, f"{folder}: {', '.join(ORIGIN)}.npy must hold a whole number for each of the {n} rows")
    sample, position, token, label, real = columns.values()
    require(about.get("padding") in ("drop", "keep"), f"{folder}: store.json must say the padding, drop or keep")
    inside = (
        type(width) is int
        and 0 < width < 2**31
        and sample.min() >= 0
        and position.min() >= 0
        and position.max() < width
    )
    place = sample.astype(np.int64) * (width if inside else 0) + position
    require(
        inside and bool((np.diff(place) > 0).all()), f"{folder}: rows must be in the order of the text, and are not"
    )
    shape = (int(sample.max()) + 1, width)
    few = shape[0] * width > SPARSEST * n
    require(not few, f"{folder}: at least one in {SPARSEST} positions must have a row, got {n} rows of {shape}")
    ids, labels, mask = (np.full(shape, fill, np.int32) for fill in (PADDING_ID, NO_LABEL, 0))
    for whole_array, column in ((ids, token), (labels, label), (mask, real)):
        whole_array[sample, position] = column
    return as_samples({"input_ids": ids, "labels": labels, "attention_mask": mask}, folder)


def text_of(stored: Store, checkpoint_sha256: str, max_samples: int | None = None) -> Samples:
    """The text of rows of that model, its first `max_samples` samples.

    Raises:
      InputError: rows of another model, or that do not say which characters they are of.
    """
    theirs = stored.about.get("checkpoint_sha256")
    require(
        theirs == checkpoint_sha256,
        f"stored rows must be of the model given ({checkpoint_sha256[:12]}...), got rows of {str(theirs)[:12]}...; "
        "give the --checkpoint that they were extracted with",
    )
    samples = stored.samples()
    require(samples is not None, f"stored rows must say of which characters they are ({', '.join(ORIGIN)}.npy)")
    return samples[: max_samples or len(samples)]  # type: ignore[index, arg-type]


def _array(path: Path) -> np.ndarray:
    array = _load(path)
    ok = isinstance(array, np.ndarray) and array.ndim == 2 and array.dtype.kind == "f" and array.size > 0
    require(
        ok,
        f"{path}: must hold rows [n, d_in] of floating numbers, got {getattr(array, 'dtype', '?')}"
        f" {getattr(array, 'shape', '')}",
    )
    return array


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python does, with all the kinds of errors that has
        raise InputError(f"{path}: must be a whole .npy file, got {' '.join(str(error).split())[:200]}") from None
