"""Readers and writers of datasets: Hugging Face `save_to_disk` folders, raw texts in JSON or Parquet -> arrays."""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jaxsae import text
from jaxsae.config import InputError, require
from jaxsae.files import parse_json, read_json

COLUMNS = {"input_ids": np.int32, "labels": np.int32, "attention_mask": np.int8}
DEFAULT_SEED = 42
"""The original's, for a `fragments.json` given where a dataset is expected."""


@dataclass(frozen=True)
class Samples:
    """Damaged texts as the model takes them, each array [n, positions].

    `ids`: token ids; `labels`: the true id where the text is damaged, else -100; `mask`: 1 = real, 0 = padding.
    """

    ids: np.ndarray
    labels: np.ndarray
    mask: np.ndarray

    def __post_init__(self) -> None:
        require(self.ids.shape == self.labels.shape == self.mask.shape, "ids, labels and mask must have one shape")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> "Samples":
        return Samples(self.ids[rows], self.labels[rows], self.mask[rows])

    @property
    def lengths(self) -> np.ndarray:
        """Characters up to and with the last real one, [n]."""
        positions = np.arange(1, self.mask.shape[1] + 1)
        return (positions * (self.mask != 0)).max(axis=1, initial=0)


def load_samples(path: str | Path, split: str = "validation", max_samples: int | None = None) -> Samples:
    """Read the first `max_samples` samples of a split, in order; all where there are fewer, or with None.

    Args:
      path: a `save_to_disk` folder (of a DatasetDict), or a file of `read_fragments`, which is prepared with seed 42.
      split: `train`, `validation`, `test`, or what else the folder has.

    Raises:
      InputError: no such file or split, or not such data.
    """
    path = Path(path)
    if path.is_dir():
        columns = load_columns(path, split, list(COLUMNS), max_samples)
    elif path.is_file():
        splits = prepare_fragments(read_fragments(path), DEFAULT_SEED)
        require(split in splits, f"split must be one of {', '.join(splits)}, got {split!r}")
        columns = {name: column[:max_samples] for name, column in splits[split].items()}
    else:
        raise InputError(f"dataset must be a save_to_disk folder or a fragments.json, got {path}, which does not exist")
    require(len(columns["input_ids"]) > 0, f"a split must have samples, got none in {split!r} of {path}")
    return as_samples(columns, path)


def as_samples(columns: Mapping[str, np.ndarray], path: Path) -> Samples:
    """The columns of a dataset, in the types that they have here.

    Raises:
      InputError: not of one shape, or values that cannot be; `path` is named.
    """
    shapes = {name: columns[name].shape for name in COLUMNS}
    require(len(set(shapes.values())) == 1, f"{path}: {', '.join(COLUMNS)} must have one shape, got {shapes}")
    for name, least in (("input_ids", 0), ("labels", text.NO_LABEL), ("attention_mask", 0)):
        low, high = (int(end) for end in (columns[name].min(initial=0), columns[name].max(initial=0)))
        most = 1 if name == "attention_mask" else sys.maxunicode
        require(least <= low and high <= most, f"{path}: {name} must be in {least}..{most}, got {low}..{high}")
    labels = columns["labels"]
    ok = not ((labels < 0) & (labels != text.NO_LABEL)).any()
    require(ok, f"{path}: labels must be characters, or {text.NO_LABEL} where there is no damage")
    return Samples(*(columns[name].astype(dtype, copy=False) for name, dtype in COLUMNS.items()))


def joined(several: Sequence[Samples]) -> Samples:
    """Samples of several datasets, one after another; they must be of one width."""
    widths = {samples.ids.shape[1] for samples in several}
    require(len(widths) == 1, f"datasets must have samples of one length, got {', '.join(map(str, sorted(widths)))}")
    return Samples(*(np.concatenate([getattr(s, name) for s in several]) for name in ("ids", "labels", "mask")))


def split_names(path: str | Path) -> list[str]:
    """The splits of a dataset that `load_samples` reads."""
    if Path(path).is_file():
        return ["train", "validation", "test"]
    content = _json(Path(path) / "dataset_dict.json")
    splits: Any = content.get("splits") if isinstance(content, dict) else None
    ok = isinstance(splits, list) and all(isinstance(name, str) for name in splits)
    require(ok, f'{path}: dataset_dict.json must be {{"splits": [...]}}')
    return splits


def read_fragments(path: str | Path, column: str = "atf") -> list[str]:
    """The cleaned texts of a file of fragments, in file order; those without text are left out.

    Args:
      path: a JSON list of objects, such a list as JSON lines (`.jsonl`), or a `.parquet` table.
      column: where their texts are.

    Raises:
      InputError: not such a file, or no text in it.
    """
    path = Path(path)
    raw = _parquet_column(path, column) if path.suffix == ".parquet" else _json_column(path, column)
    wrong = next((i for i, one in enumerate(raw) if not isinstance(one, str | None)), None)
    require(wrong is None, f"{path}: {column} must be a string or null, got another type in fragment {wrong}")
    texts = [t for t in (text.clean(one) for one in raw if one) if t]
    require(
        bool(texts), f"{path}: must have at least one fragment with text, got none of {len(raw)} in column {column}"
    )
    return texts


def _json_column(path: Path, column: str) -> list[Any]:
    fragments = _json_lines(path) if path.suffix == ".jsonl" else read_json(path)
    ok = isinstance(fragments, list) and all(isinstance(f, dict) for f in fragments)
    require(ok, f'{path}: must be a JSON list of fragments, {{"_id": ..., "{column}": ...}} each')
    return [fragment.get(column) for fragment in fragments]


def _json_lines(path: Path) -> list[Any]:
    out = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                out += [parse_json(line.decode("utf-8"))] if line.strip() else []
            except (InputError, UnicodeDecodeError) as error:
                raise InputError(f"{path}: line {number} must be JSON in UTF-8: {error}") from None
    return out


def _parquet_column(path: Path, column: str) -> list[Any]:
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        require(
            column in names, f"{path}: must have a column {column}, got {', '.join(names)}; name it by --text-column"
        )
        table = pq.read_table(path, columns=[column])
        table.validate(full=True)
        return table[column].to_pylist()
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{path}: must be a whole Parquet file, got: {' '.join(str(error).split())}") from None


def prepare_fragments(texts: Iterable[str], seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Split name -> column name -> array [n, 768], as the original preprocessing makes them with `seed`."""
    columns = text.prepare(texts, seed)
    rows_of = text.split_indices(len(columns["input_ids"]), seed)
    return {split: {name: column[rows] for name, column in columns.items()} for split, rows in rows_of.items()}


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise InputError(f"a save_to_disk folder must have {path.name}, got {path.parent} without it") from None


def _file_names(state: Any, key: str, folder: Path) -> list[str]:
    """The files that a state.json names, in its own folder."""
    entries = state.get(key) if isinstance(state, dict) else None
    listed = entries if isinstance(entries, list) else []
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in listed]
    ok = isinstance(entries, list | None) and all(isinstance(name, str) and Path(name).name == name for name in names)
    require(ok, f'{folder}: {key} of state.json must be [{{"filename": ...}}, ...], files of that folder')
    return [str(name) for name in names]


def _joined(tables: Sequence[pa.Table], folder: Path) -> pa.Table:
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise InputError(f"{folder}: its files must have the same columns: {' '.join(str(error).split())}") from None


def _arrow_table(path: Path) -> pa.Table:
    """A memory-mapped Arrow stream: nothing is read before it is used, but what the rest is found by."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
        table.validate(full=True)  # else offsets that are wrong would be followed out of the file
        _ = table.column_names  # decoded here
        return table
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{path}: must be a whole Arrow stream, got: {' '.join(str(error).split())}") from None


def _rows(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    """A list column as [n, width] of the width that its rows must share."""
    parts = []
    for chunk in column.chunks:
        is_list = (
            pa.types.is_list(chunk.type)
            or pa.types.is_large_list(chunk.type)
            or pa.types.is_fixed_size_list(chunk.type)
        )
        ok = is_list and pa.types.is_integer(chunk.type.value_type)
        require(ok, f"{path}: column {name} must hold lists of whole numbers, got {chunk.type}")
        values = chunk.flatten()
        require(chunk.null_count == 0 and values.null_count == 0, f"{path}: column {name} must have no nulls")
        width = len(values) // max(len(chunk), 1)
        if not pa.types.is_fixed_size_list(chunk.type):
            require(
                bool((np.diff(chunk.offsets.to_numpy()) == width).all()), f"{path}: rows of {name} must have one length"
            )
        parts.append(values.to_numpy(zero_copy_only=False).reshape(len(chunk), width))
    require(len({part.shape[1] for part in parts}) <= 1, f"{path}: rows of {name} must have one length")
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.int8)


def load_columns(
    folder: str | Path, split: str, names: Sequence[str] | None = None, max_samples: int | None = None
) -> dict[str, np.ndarray]:
    """Columns of a split of a `save_to_disk` folder, each [n, width]: those in `names`, or all there are."""
    folder = Path(folder)
    splits = split_names(folder)
    require(split in splits, f"split must be one of {', '.join(splits)}, got {split!r}")
    folder = folder / split
    state = _json(folder / "state.json")
    files, indices_files = (_file_names(state, key, folder) for key in ("_data_files", "_indices_files"))
    require(bool(files), f"{folder}: state.json must name its _data_files, got none")
    table = _joined([_arrow_table(folder / name) for name in files], folder)
    names = table.column_names if names is None else names
    missing = [name for name in names if name not in table.column_names]
    require(not missing, f"{folder}: must have columns {', '.join(names)}, got none named {', '.join(missing)}")
    table = table.select(names)
    if indices_files:  # rows were selected or shuffled without being rewritten
        indices = _joined([_arrow_table(folder / name) for name in indices_files], folder)
        try:
            table = table.take(indices["indices"].slice(0, max_samples))
        except (pa.ArrowException, KeyError, IndexError) as error:
            raise InputError(
                f"{folder}: its indices must be of its rows, got: {' '.join(str(error).split())}"
            ) from None
    table = table.slice(0, max_samples)
    return {name: _rows(table[name], name, folder) for name in names}


def save_splits(folder: Path, splits: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write splits of columns as Hugging Face `datasets` does with save_to_disk; `folder` must exist and be empty."""
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    for split, columns in splits.items():
        (folder / split).mkdir()
        kinds = {name: str(column.dtype) for name, column in columns.items()}
        features = {
            name: {"feature": {"dtype": kind, "_type": "Value"}, "_type": "List"} for name, kind in kinds.items()
        }
        schema = pa.schema(
            [(name, pa.list_(pa.type_for_alias(kind))) for name, kind in kinds.items()],
            metadata={"huggingface": json.dumps({"info": {"features": features}})},
        )
        table = pa.table({name: _list_array(column) for name, column in columns.items()}, schema=schema)
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


def _list_array(column: np.ndarray) -> pa.ListArray:
    offsets = np.arange(0, column.size + 1, column.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(column.reshape(-1)))
