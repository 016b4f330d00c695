"""Rows on disk: a folder of plain arrays, which any other tool can read or write.

    store.json      {"format": "jaxsae-rows", "version": 1, "layers": [8], "rows": n, "d_in": 384, ...}
    layer8.npy      float32 [n, d_in], one such file for each layer
    sample.npy      int32 [n]: which sample a row is of; position.npy: which character of it
    token.npy       int32 [n]: the character's id; label.npy: the true id where the text is damaged, else -100
    real.npy        int32 [n]: 0 at padding
    pieces.json     where tokens are no characters: what they stand for, see `jaxsae.activations.stored_text`

Of a store that several processes made, each its share, the layers' files are in parts:

    part-0          a store of its own, with the rows of its samples; part-1, ...
    runs.npy        int64 [runs, 2]: the first row of each run of rows that one part has, and the number of this part in
                    "parts" of store.json

A bare `.npy` file of rows can be read as well: of shape [n, d_in], of any floating type; or of shape [n, positions,
d_in], where a file of the same name with `_mask` ([n, positions], 1 = real) says which positions are padding.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxsae.activations.extraction import Share, extract_to, kept_by_share
from jaxsae.activations.rows import RowsOnDisk, Runs
from jaxsae.activations.stored_text import widened, with_text, write_text
from jaxsae.errors import InputError, listed, require
from jaxsae.files import atomic_path, read_json, sha256, sha256_of, write_json
from jaxsae.models.hooks import hook_name, hook_names
from jaxsae.models.protocol import ResidualModel
from jaxsae.text.preparation import NO_LABEL, PADDING_ID
from jaxsae.text.samples import Samples, as_samples, joined, kept_positions
from jaxsae.text.tokenizer import UNICODE, Tokenizer

FORMAT, VERSION = "jaxsae-rows", 1
MOST_POSITIONS_PER_ROW = 4096
"""The text that rows are of is built with all its positions: a wrong number in a file must not fill the memory."""
ORIGIN = ("sample", "position", "token", "label", "real")


@dataclass(frozen=True)
class Store:
    """Rows of one or more layers, of one or more stores."""

    layers: dict[int, RowsOnDisk]
    about: dict[str, Any]
    """What store.json says; of several stores, the entries that are the same in all."""
    folders: list[Path]
    """The folders of the stores; a bare `.npy` has none."""
    max_samples: int | None = None
    """Only the rows of the first so many samples of each folder; None: all."""

    @property
    def d_in(self) -> int:
        """Width of the rows."""
        return next(iter(self.layers.values())).shape[1]

    def hook_names(self, layers: Sequence[int] | None = None) -> dict[int, str]:
        """The place in the model that each layer, or each of these, is of."""
        said = self.about.get("hook_names", {})
        return {layer: said.get(str(layer), hook_name(layer)) for layer in (self.layers if layers is None else layers)}

    def shape(self) -> "StoredShape":
        """What the rows tell of their model."""
        samples = self.samples()
        most, tokenizer = (1, UNICODE) if samples is None else (samples.ids.shape[1], samples.tokenizer)
        return StoredShape(tuple(sorted(self.layers)), self.d_in, most, tokenizer)

    def only(self, layers: Sequence[int]) -> "Store":
        """The same with these layers alone, in this order."""
        missing = [layer for layer in layers if layer not in self.layers]
        require(not missing, f"layer must be one of the stored {_listed(self)}, got {', '.join(map(str, missing))}")
        return replace(self, layers={layer: self.layers[layer] for layer in layers})

    def samples(self, tokenizer: Tokenizer | None = None) -> Samples | None:
        """The text that the rows are of, each position with a row in order; None where the stores do not have it.

        Where only the real positions have rows, the others are padding, but for what stands around texts.

        Args:
          tokenizer: the model's; without it, what the stores say that their tokens stand for.

        Raises:
          InputError: the files that say which characters the rows are of contradict themselves.
        """
        if not self.folders or not all((f / f"{name}.npy").exists() for f in self.folders for name in ORIGIN):
            return None
        found = joined(widened([_samples(folder)[: self.max_samples] for folder in self.folders]))
        return found if tokenizer is None else replace(found, tokenizer=tokenizer)


@dataclass(frozen=True)
class StoredShape:
    """What is known of a model of which there are only rows."""

    layers: tuple[int, ...]
    d_model: int
    max_position: int
    tokenizer: Tokenizer

    @property
    def n_layers(self) -> int:
        """As many blocks as it must have."""
        return max(self.layers) + 1

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` unless there are rows of the layer."""
        stored = ", ".join(map(str, self.layers))
        require(layer in self.layers, f"layer must be one of the stored {stored}, got {layer}")


def write(
    path: str | Path,
    model: ResidualModel,
    samples: Samples,
    layers: Sequence[int],
    padding: str,
    about: Mapping[str, Any],
    share: Share | None = None,
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> None:
    """Extract rows to a store at `path`, which must not exist; it appears when it is whole.

    Args:
      about: of the model and the text; goes into store.json.
      share: (index, count): write only that share of the samples, which are all given, to `path/part-<index>`; `join`
        makes one store of all. It numbers the samples as all of them are numbered, and may have none.
      on_rows: called with the number of rows made since the last call.

    Raises:
      InputError: `path` or the part exists, or the disk has not the space.
    """
    path = Path(path) if share is None else part_folder(Path(path), share[0])
    about = about if share is None else {**about, "share": [*share]}
    share = share or (0, 1)
    width = model.d_model
    require(not path.exists(), f"the output must not exist, got {path}; give another or remove it")
    kept = kept_by_share(model, samples, padding, share)
    n = int(kept.sum())
    check_space(path.parent, n * (len(layers) * width + len(ORIGIN)) * 4)
    with atomic_path(path) as folder:
        folder.mkdir()
        values = {
            layer: np.lib.format.open_memmap(folder / f"layer{layer}.npy", "w+", np.float32, (n, width))
            for layer in layers
        }
        extract_to(values, model, samples, padding, share, on_rows=on_rows)
        for array in values.values():
            array.flush()
        for name, numbers in _origin(samples, kept).items():
            np.save(folder / f"{name}.npy", numbers)
        write_text(folder, samples, kept)
        head = {"format": FORMAT, "version": VERSION, "layers": list(layers), "rows": n, "d_in": width}
        head |= {"positions": samples.ids.shape[1]}
        if model.hook != "resid_post":
            head["hook_names"] = {str(layer): name for layer, name in hook_names(model.hook, layers).items()}
        (folder / "store.json").write_text(json.dumps({**head, "padding": padding, **about}, indent=2))


def _origin(samples: Samples, kept: np.ndarray) -> dict[str, np.ndarray]:
    """What is said of each row, by name."""
    columns = (*np.nonzero(kept), *(column[kept] for column in (samples.ids, samples.labels, samples.mask)))
    return {name: column.astype(np.int32) for name, column in zip(ORIGIN, columns, strict=True)}


def part_folder(folder: Path, index: int) -> Path:
    """Where a share lies."""
    return folder / f"part-{index}"


def join(folder: str | Path, count: int, samples: Samples) -> None:
    """Make one store of the shares that `write` wrote to a folder; it has the rows that `write` makes of all.

    store.json, which names the parts that have rows, is written last: without it, the folder is no store.

    Args:
      samples: those of all shares.

    Raises:
      InputError: it is a store already, or the shares are not all there, not whole, or not of the same rows.
    """
    folder = Path(folder)
    require(not (folder / "store.json").exists(), f"{folder} must not be joined yet, got its store.json; remove that")
    whole: dict[str, Any] = {}
    names, parts = [], []
    for index in range(count):
        path = part_folder(folder, index)
        require(path.exists(), f"{folder} must have all of {count} shares, got no {path.name}; extract it")
        about, layers = _described(path)
        said, whole = about.get("share"), whole or about
        require(said == [index, count], f"{path} must be share {[index, count]}, got {said}; extract all shares again")
        _check_part(path, about, whole)
        if about.get("rows"):  # there may be more shares than batches
            _arrays(path, about, layers)
            columns = {name: _load(path / f"{name}.npy") for name in ORIGIN}
            ok = all(column.shape == (about["rows"],) and column.dtype == np.int32 for column in columns.values())
            require(ok, f"{path}: {', '.join(ORIGIN)}.npy must hold an int32 for each row; extract it again")
            names.append(path.name)
            parts.append(columns)
    require(whole.get("padding") in ("drop", "keep"), f"{folder}: parts must say the padding, drop or keep")
    kept = kept_positions(samples, whole["padding"])
    origin = _origin(samples, kept)
    part_of = np.full(len(samples), -1)
    for number, columns in enumerate(parts):
        part_of[columns["sample"][np.isin(columns["sample"], origin["sample"])]] = number
    of_row = part_of[origin["sample"]]
    for number, columns in enumerate(parts):
        same = all(np.array_equal(columns[name], column[of_row == number]) for name, column in origin.items())
        require(same, f"{folder / names[number]} must be of these samples, got rows of others; extract it again")
    missing = int((of_row < 0).sum())
    require(not missing, f"{folder} must have a row of each position, got none of {missing}; extract all shares again")
    for name, column in origin.items():
        np.save(folder / f"{name}.npy", column)
    write_text(folder, samples, kept)
    starts = np.flatnonzero(np.diff(of_row, prepend=-1))
    np.save(folder / "runs.npy", np.stack([starts, of_row[starts]], axis=1))
    whole = {key: value for key, value in whole.items() if key != "share"}
    write_json(folder / "store.json", {**whole, "rows": len(of_row), "parts": names})


def _check_part(path: Path, about: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
    """Raise `InputError` unless a part says the same as the whole, but for what each says of itself."""
    said = {**whole, **about}.keys() - {"rows", "share", "parts"}
    differ = sorted(key for key in said if about.get(key) != whole.get(key))
    require(
        not differ, f"{path} must be of the same rows as the others, got another {listed(differ)}; extract it again"
    )


def check_space(folder: Path, needed: int) -> None:
    """Raise `InputError` where the disk of `folder` has fewer free bytes than needed."""
    folder = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    require(
        needed < free,
        f"the disk of {folder} must have {needed / 1e6:,.1f} MB for the rows, has {free / 1e6:,.1f}; "
        "give fewer layers or samples, or another disk",
    )


def open_stores(paths: Sequence[str], layer: int, max_samples: int | None = None) -> Store:
    """Open stores and `.npy` files, whose rows follow one another; rows are read when they are used.

    Args:
      layer: the layer of the rows in a bare `.npy`, which does not say it.
      max_samples: take the rows of the first so many samples of each; None: all.

    Raises:
      InputError: not such files, not whole, of another version, or not of one model, width or set of layers; or rows
        that do not say of which samples they are, where `max_samples` is given.
    """
    opened = [
        _open_array(path, layer, max_samples) if path.endswith((".npy", ".pt")) else _open(Path(path), max_samples)
        for path in paths
    ]
    first = opened[0]
    for path, store in zip(paths, opened, strict=True):
        same = sorted(store.layers) == sorted(first.layers)
        require(
            same, f"stores must have the same layers, got {_listed(first)} in {paths[0]} and {_listed(store)} in {path}"
        )
        same = store.d_in == first.d_in
        require(same, f"stores must have one width, got {first.d_in} and {store.d_in} ({path})")
        places = first.hook_names(), store.hook_names()
        require(
            places[0] == places[1],
            f"stores must be of the same places of the model, got {listed(places[0].values())} in {paths[0]} and "
            f"{listed(places[1].values())} in {path}",
        )
        models = [model_of(s.about) for s in (first, store)]
        require(
            models[0] == models[1] or None in models,
            f"stores must be of one model, got {path} of another than {paths[0]}",
        )
    layers = {at: RowsOnDisk.joined([store.layers[at] for store in opened]) for at in first.layers}
    about = {k: v for k, v in first.about.items() if all(s.about.get(k) == v for s in opened)}
    return Store(layers, about, [folder for store in opened for folder in store.folders], max_samples)


def model_of(about: Mapping[str, Any]) -> str | None:
    """The model that rows are of, as their store says: its identity, or in older stores the SHA-256 of its file."""
    return about.get("model_sha256", about.get("checkpoint_sha256"))


def fingerprint(path: str, layers: Sequence[int]) -> str:
    """SHA-256 of the rows of those layers and of the files that describe them."""
    if not Path(path).is_dir():
        mask = _mask_beside(Path(path))
        return sha256(path) if mask is None else sha256_of((file.name, file) for file in (Path(path), mask))
    names = ["store.json", *(f"layer{layer}.npy" for layer in layers), *(f"{name}.npy" for name in ORIGIN)]
    about, _ = _described(Path(path))
    if "parts" in about:
        names += ["runs.npy", *(f"{part}/layer{layer}.npy" for part in _parts(Path(path), about) for layer in layers)]
    return sha256_of((name, Path(path) / name) for name in names if (Path(path) / name).exists())


def _listed(store: Store) -> str:
    return ", ".join(map(str, sorted(store.layers)))


def _open(folder: Path, max_samples: int | None = None) -> Store:
    about, layers = _described(folder)
    require(bool(layers), f"{folder}: must have a layer, got none")
    if "parts" in about:
        rows = _rows_of_parts(folder, about, layers)
    else:
        rows = {layer: RowsOnDisk([array]) for layer, array in _arrays(folder, about, layers).items()}
    if max_samples is not None:
        says = (folder / "sample.npy").exists()
        require(says, f"{folder} must say which samples its rows are of to take {max_samples}, got no sample.npy")
        sample = _load(folder / "sample.npy")
        ok = sample.shape == (about["rows"],) and sample.dtype.kind in "iu" and bool((np.diff(sample) >= 0).all())
        require(ok, f"{folder}: sample.npy must hold a number for each row, in order")
        end = int(np.searchsorted(sample, max_samples))
        rows = {layer: of_layer.head(end) for layer, of_layer in rows.items()}
    return Store(rows, about, [folder])


def _described(folder: Path) -> tuple[dict[str, Any], list[int]]:
    """(what store.json says, the layers that it names)."""
    try:
        about = read_json(folder / "store.json")
        known, layers = about["format"] == FORMAT and about["version"], [int(layer) for layer in about["layers"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: store.json must describe rows, got {type(error).__name__}: {error}") from None
    require(known == VERSION, f"{folder}: must be of version {VERSION} of {FORMAT}, got {known or about['format']}")
    return about, layers


def _arrays(folder: Path, about: Mapping[str, Any], layers: Sequence[int]) -> dict[int, np.ndarray]:
    """The rows of each layer that lie in a folder itself."""
    arrays = {layer: _array(folder / f"layer{layer}.npy") for layer in layers}
    for layer, array in arrays.items():
        wanted = (about.get("rows"), about.get("d_in"))
        require(array.shape == wanted, f"{folder}: layer{layer}.npy must have shape {wanted}, got {array.shape}")
    return arrays


def _parts(folder: Path, about: Mapping[str, Any]) -> list[str]:
    """The folders that the rows of a joined store lie in: only such as it has itself."""
    names = about["parts"]
    ok = isinstance(names, list) and bool(names) and all(re.fullmatch(r"part-\d+", str(name)) for name in names)
    require(ok, f"{folder}: parts must be names such as part-0, got {str(names)[:80]}; join the shares again")
    return names


def _rows_of_parts(folder: Path, about: Mapping[str, Any], layers: Sequence[int]) -> dict[int, RowsOnDisk]:
    arrays = []
    for path in (folder / name for name in _parts(folder, about)):
        require(path.exists(), f"{folder} must have all of its parts, got no {path.name}; extract it again")
        of_part, _ = _described(path)
        _check_part(path, of_part, about)
        arrays.append(_arrays(path, of_part, layers))
    sizes = [len(of_part[layers[0]]) for of_part in arrays]
    n = sum(sizes)
    require(
        n == about.get("rows"), f"{folder}: parts must have {about.get('rows')} rows together, got {n}; extract again"
    )
    runs = _load(folder / "runs.npy")
    ok = (
        isinstance(runs, np.ndarray)
        and runs.ndim == 2
        and runs.shape[1] == 2
        and len(runs) > 0
        and runs.dtype.kind in "iu"
    )
    if ok:
        starts, part = np.append(runs[:, 0], n).astype(np.int64), runs[:, 1].astype(np.int64)
        ok = starts[0] == 0 and bool((np.diff(starts) > 0).all()) and bool(np.isin(part, np.arange(len(sizes))).all())
        ok = ok and np.bincount(part, np.diff(starts), len(sizes)).tolist() == sizes
    require(ok, f"{folder}: runs.npy must say in which part each run of rows is, and does not; join the shares again")
    in_order = Runs.interleaved(starts, part)
    return {layer: RowsOnDisk([of_part[layer] for of_part in arrays], in_order) for layer in layers}


def _open_array(path: str, layer: int, max_samples: int | None = None) -> Store:
    if path.endswith(".pt"):
        raise InputError(
            f"{path} is a .pt file, and rows must be a folder that `jaxsae extract` made or a .npy of [n, d_in]; save what "
            "it holds with numpy.save, padding left out"
        )
    require(max_samples is None, f"{path} must say which samples its rows are of to take {max_samples}, and cannot")
    array, mask = _load(Path(path)), _mask_beside(Path(path))
    if isinstance(array, np.ndarray) and array.ndim == 3:
        require(
            mask is not None,
            f"{path}: must hold rows [n, d_in], got {list(array.shape)}: of positions some are padding; give the mask of "
            f"the real ones as {Path(path).stem}_mask.npy beside it, or rows alone",
        )
        real = _load(mask) if mask else array
        ok = real.shape == array.shape[:2] and real.dtype.kind in "iub" and bool(np.isin(real, (0, 1)).all())
        require(
            ok, f"{mask}: must hold 0 or 1 for each of {list(array.shape[:2])}, got {real.dtype} {list(real.shape)}"
        )
        array = array[real != 0]
    return Store({layer: RowsOnDisk([_checked(array, Path(path))])}, {}, [])


def _mask_beside(path: Path) -> Path | None:
    mask = path.with_name(f"{path.stem}_mask.npy")
    return mask if mask.exists() else None


def _samples(folder: Path) -> Samples:
    about = read_json(folder / "store.json")
    columns = {name: _load(folder / f"{name}.npy") for name in ORIGIN}
    n, width = about["rows"], about.get("positions")
    ok = all(column.shape == (n,) and column.dtype.kind in "iu" for column in columns.values())
    require(ok, f"{folder}: {', '.join(ORIGIN)}.npy must hold a whole number for each of the {n} rows")
    sample, position, token, label, real = columns.values()
    require(about.get("padding") in ("drop", "keep"), f"{folder}: store.json must say the padding, drop or keep")
    in_range = (
        type(width) is int
        and 0 < width < 2**31
        and sample.min() >= 0
        and position.min() >= 0
        and position.max() < width
    )
    place = sample.astype(np.int64) * (width if in_range else 0) + position
    require(
        in_range and bool((np.diff(place) > 0).all()), f"{folder}: rows must be in the order of the text, and are not"
    )
    shape = (int(sample.max()) + 1, width)
    few = shape[0] * width > MOST_POSITIONS_PER_ROW * n
    require(
        not few,
        f"{folder}: at least one in {MOST_POSITIONS_PER_ROW} positions must have a row, got {n} rows of {shape}",
    )
    ids, labels, mask = (np.full(shape, fill, np.int32) for fill in (PADDING_ID, NO_LABEL, 0))
    ids[sample, position], labels[sample, position], mask[sample, position] = token, label, real
    found = as_samples({"input_ids": ids, "labels": labels, "attention_mask": mask}, folder)
    return with_text(found, folder, (sample, position), about["padding"])


def text_of(
    stored: Store, identity: str | None, sha256: str | None = None, tokenizer: Tokenizer | None = None
) -> Samples:
    """The text of rows, which must be of the given model.

    Args:
      identity: the model's, as is `tokenizer`.
      sha256: of the model's file, which older stores have instead.

    Raises:
      InputError: rows of another model, or that do not say which characters they are of.
    """
    theirs = model_of(stored.about)
    given = identity if sha256 is None or "model_sha256" in stored.about else sha256
    require(
        theirs == given,
        f"stored rows must be of the model given ({str(given)[:12]}...), got rows of {str(theirs)[:12]}...; "
        "give the checkpoint that they were extracted with",
    )
    samples = stored.samples(tokenizer)
    require(samples is not None, f"stored rows must say of which characters they are ({', '.join(ORIGIN)}.npy)")
    return samples  # type: ignore[return-value]


def _array(path: Path) -> np.ndarray:
    return _checked(_load(path), path)


def _checked(array: Any, path: Path) -> np.ndarray:
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
