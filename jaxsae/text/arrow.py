"""Dataset folders as Hugging Face `datasets` saves them: read as it would read them, and written.

`state.json` says which files and rows are read, and in which order. Other files of the folder are ignored.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from jaxsae.errors import InputError, listed, require
from jaxsae.files import read_json


def split_names(path: str | Path) -> list[str]:
    """The splits of a dataset folder."""
    content = _json(Path(path) / "dataset_dict.json")
    splits: Any = content.get("splits") if isinstance(content, dict) else None
    ok = isinstance(splits, list) and all(isinstance(name, str) for name in splits)
    require(ok, f'{path}: dataset_dict.json must be {{"splits": [...]}}')
    return splits


def is_one_split(folder: Path) -> bool:
    """Whether a folder is of one split, as `Dataset.save_to_disk` writes it, and not of a dict of splits."""
    return (folder / "state.json").is_file() and not (folder / "dataset_dict.json").exists()


def _folder_of(path: Path, split: str) -> Path:
    """The folder of a split.

    Raises:
      InputError: there is no such split.
    """
    if not is_one_split(path):
        splits = split_names(path)
        require(split in splits, f"split must be one of {listed(splits)}, got {split!r}")
        return path / split
    # which split it is, its state.json says, or the folder above of which it is a part
    state = _json(path / "state.json")
    name = state.get("_split") if isinstance(state, dict) else None
    above = path.resolve().parent
    if (
        not isinstance(name, str)
        and (above / "dataset_dict.json").is_file()
        and path.resolve().name in split_names(above)
    ):
        name = path.resolve().name
    require(
        not isinstance(name, str) or name == split,
        f"{path} must have the split {split!r}, got the split {name!r} alone; give split {name}, or the folder of all splits",
    )
    return path


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise InputError(f"a save_to_disk folder must have {path.name}, got {path.parent} without it") from None


STATE = {"_data_files", "_indices_files", "_indices_data_files", "_fingerprint", "_format_columns", "_format_kwargs"}
STATE |= {"_format_type", "_indexes", "_output_all_columns", "_split", "_info", "_inplace_history"}
"""The keys that `datasets` of any version writes into a state.json. Those that say which columns it would show, and as
what type, are ignored: the columns that are needed are read."""


class FilePart(NamedTuple):
    """Rows of one file."""

    filename: str
    skip: int
    """How many rows at the start are left out."""
    take: int | None
    """How many rows are used then; None: all that follow."""


class SplitFiles(NamedTuple):
    """The files of a split, in its folder."""

    data: list[FilePart]
    """The rows of these, one file after another."""
    indices: list[FilePart]
    """Numbers of the rows that were chosen; none: all rows, in their order."""


def split_files(folder: Path) -> SplitFiles:
    """The files that the state.json of a split's folder names.

    Raises:
      InputError: it has a key that is not known here, and that may mean that other rows are to be read.
    """
    state = _json(folder / "state.json")
    require(isinstance(state, dict), f"{folder}: state.json must name its _data_files, got none")
    unknown = sorted(map(str, set(state) - STATE))
    require(not unknown, f"{folder}: state.json may have what is known here, got {listed(unknown)}")
    out = SplitFiles([], [])
    # `_indices_data_files` is the key of versions before 1.2
    for key, parts in (
        ("_data_files", out.data),
        ("_indices_files", out.indices),
        ("_indices_data_files", out.indices),
    ):
        entries = state.get(key)
        listing = entries if isinstance(entries, list) else []
        ok = isinstance(entries, list | None) and all(map(_is_entry, listing))
        require(ok, f'{folder}: {key} of state.json must be [{{"filename": ...}}, ...], files of that folder')
        parts += [FilePart(one["filename"], one.get("skip") or 0, one.get("take")) for one in listing]
    require(isinstance(state.get("_data_files"), list), f"{folder}: state.json must name its _data_files, got none")
    return out


def _is_entry(entry: Any) -> bool:
    """Whether it names a file of the same folder, and no rows but by whole numbers."""
    if not isinstance(entry, dict) or not set(entry) <= {"filename", "skip", "take"}:
        return False
    name = entry.get("filename")
    counts = all(entry.get(key) is None or (type(entry[key]) is int and entry[key] >= 0) for key in ("skip", "take"))
    return isinstance(name, str) and Path(name).name == name and counts


def _joined(tables: Sequence[pa.Table], folder: Path) -> pa.Table:
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise InputError(f"{folder}: its files must have the same columns: {' '.join(str(error).split())}") from None


def _arrow_table(path: Path, skip: int = 0, take: int | None = None) -> pa.Table:
    """A memory-mapped Arrow stream: apart from its metadata, nothing is read before it is used."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
        table.validate(full=True)  # without it, wrong offsets would lead out of the file
        _ = table.column_names  # decoded here, so that wrong bytes are found here
        return table.slice(skip, take)
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{path}: must be a whole Arrow stream, got: {' '.join(str(error).split())}") from None


def _rows(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    """A list column as [n, width] of the width that its rows must share."""
    parts = []
    for chunk in column.chunks:
        if len(chunk) == 0:  # of a file without rows, whose lists have no length
            continue
        is_list = (
            pa.types.is_list(chunk.type)
            or pa.types.is_large_list(chunk.type)
            or pa.types.is_fixed_size_list(chunk.type)
        )
        ok = is_list and (pa.types.is_integer(chunk.type.value_type) or pa.types.is_boolean(chunk.type.value_type))
        require(ok, f"{path}: column {name} must hold lists of whole numbers, got {chunk.type!s:.60}")
        require(chunk.null_count == 0, f"{path}: column {name} must have no nulls")
        values = _values(chunk)
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int8())
        require(values.null_count == 0, f"{path}: column {name} must have no nulls")
        width = len(values) // max(len(chunk), 1)
        if not pa.types.is_fixed_size_list(chunk.type):
            require(
                bool((np.diff(_as_numpy(chunk.offsets)) == width).all()), f"{path}: rows of {name} must have one length"
            )
        parts.append(_as_numpy(values).reshape(len(chunk), width))
    require(len({part.shape[1] for part in parts}) <= 1, f"{path}: rows of {name} must have one length")
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.int8)


def _values(lists: pa.Array) -> pa.Array:
    """What is in lists, none of which is null; `flatten` does that too, and imports `pyarrow.compute` for 0.05 s."""
    if pa.types.is_fixed_size_list(lists.type):
        size = lists.type.list_size
        return lists.values.slice(lists.offset * size, len(lists) * size)
    first, last = lists.offsets[0].as_py(), lists.offsets[-1].as_py()
    return lists.values.slice(first, last - first)


def _as_numpy(array: pa.Array) -> np.ndarray:
    """An array of numbers without nulls; its own `to_numpy` imports pandas where that is installed, for 0.3 s."""
    return np.from_dlpack(array)


def load_columns(
    folder: str | Path,
    split: str,
    names: Sequence[str] | None = None,
    max_samples: int | None = None,
    *,
    also: str | None = None,
) -> dict[str, np.ndarray]:
    """Columns of a split of a `save_to_disk` folder, each [n, width]: those in `names`, or all there are.

    Args:
      also: a column of one value a row, as text [n], which need not be there.
    """
    folder = _folder_of(Path(folder), split)
    files = split_files(folder)
    if not files.data:  # newer versions write a split without rows so
        return {name: np.zeros((0, 0), np.int8) for name in names or ()}
    table = _joined([_arrow_table(folder / name, skip, take) for name, skip, take in files.data], folder)
    names = table.column_names if names is None else names
    extra = [also] if also is not None and table.column_names.count(also) == 1 else []
    missing = [name for name in names if name not in table.column_names]
    require(not missing, f"{folder}: must have columns {listed(names)}, got none named {listed(missing)}")
    twice = [name for name in names if table.column_names.count(name) > 1]
    require(not twice, f"{folder}: columns must differ in name, got several named {listed(twice)}")
    table = table.select([*names, *extra])
    if files.indices:  # rows were selected or shuffled without being rewritten
        indices = _joined([_arrow_table(folder / name, skip, take) for name, skip, take in files.indices], folder)
        try:
            table = table.take(indices["indices"].slice(0, max_samples))
        except (pa.ArrowException, KeyError, IndexError) as error:
            raise InputError(
                f"{folder}: its indices must be of its rows, got: {' '.join(str(error).split())}"
            ) from None
    table = table.slice(0, max_samples)
    found = {name: _rows(table[name], name, folder) for name in names}
    return found | {name: np.array([str(one) for one in table[name].to_pylist()], object) for name in extra}


def save_splits(folder: Path, splits: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write splits of columns as Hugging Face `datasets` does with save_to_disk; `folder` must exist and be empty.

    Args:
      splits: name -> column -> numbers [n, width], or text [n].
    """
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    for split, columns in splits.items():
        (folder / split).mkdir()
        features: dict[str, Any] = {name: _feature(column) for name, column in columns.items()}
        arrays = {
            name: _list_array(column) if column.ndim == 2 else pa.array(list(map(str, column)), pa.string())
            for name, column in columns.items()
        }
        schema = pa.schema(
            [(name, array.type) for name, array in arrays.items()],
            metadata={"huggingface": json.dumps({"info": {"features": features}})},
        )
        table = pa.table(arrays, schema=schema)
        filename = "data-00000-of-00001.arrow"
        with pa.OSFile(str(folder / split / filename), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table, max_chunksize=1000)
        fingerprint = hashlib.sha256((folder / split / filename).read_bytes()).hexdigest()[:16]
        state: dict[str, Any] = {
            "_data_files": [{"filename": filename}],
            "_fingerprint": fingerprint,
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
        (folder / split / "state.json").write_text(json.dumps(state, indent=2))
        (folder / split / "dataset_info.json").write_text(json.dumps(info, indent=2))


def _feature(column: np.ndarray) -> dict[str, Any]:
    """What `datasets` says of a column."""
    value = {"dtype": str(column.dtype) if column.ndim == 2 else "string", "_type": "Value"}
    return {"feature": value, "_type": "List"} if column.ndim == 2 else value


def _list_array(column: np.ndarray) -> pa.ListArray:
    offsets = np.arange(0, column.size + 1, column.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(column.reshape(-1)))
