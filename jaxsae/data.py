"""Readers and writers of datasets: Hugging Face `save_to_disk` folders, raw texts in JSON or Parquet -> arrays.

What is read is what `datasets` would give: files and rows by `state.json`, in its order. What a folder has besides is
not looked at, and is no part of its fingerprint.
"""

import hashlib
import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jaxsae import text
from jaxsae.config import InputError, listed, note, require
from jaxsae.files import parse_json, read_json, read_text, sha256, sha256_of

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
    def damaged(self) -> np.ndarray:
        """Where the true character is hidden, [n, positions]."""
        return self.labels != text.NO_LABEL

    @property
    def lengths(self) -> np.ndarray:
        """Characters up to and with the last real one, [n]."""
        positions = np.arange(1, self.mask.shape[1] + 1)
        return (positions * (self.mask != 0)).max(axis=1, initial=0)


def load_samples(path: str | Path, split: str = "validation", max_samples: int | None = None) -> Samples:
    """Read the first `max_samples` samples of a split, in order; all where there are fewer, or with None.

    Args:
      path: a `save_to_disk` folder (of a DatasetDict, or of one split), or a file of `read_fragments`, which is
        prepared with seed 42.
      split: `train`, `validation`, `test`, or what else the folder has. A split that was saved alone and does not say
        which it is, is taken for any.

    Raises:
      InputError: no such file or split, no samples in it, or not such data.
    """
    path = Path(path)
    if path.is_dir():
        columns = load_columns(path, split, list(COLUMNS), max_samples)
    elif path.is_file():
        splits = prepare_fragments(read_fragments(path), DEFAULT_SEED)
        require(split in splits, f"split must be one of {listed(splits)}, got {split!r}")
        columns = {name: column[:max_samples] for name, column in splits[split].items()}
    else:
        raise InputError(f"dataset must be a save_to_disk folder or a fragments.json, got {path}, which does not exist")
    require(len(columns["input_ids"]) > 0, f"a split must have samples, got none in {split!r} of {path}")
    return as_samples(columns, path)


def load_several(paths: Sequence[str | Path], split: str = "validation", max_samples: int | None = None) -> Samples:
    """`load_samples` of each, one after another; at most `max_samples` of each."""
    return joined([load_samples(path, split, max_samples) for path in paths])


def paths_in(text: str) -> list[str]:
    """The paths of a list parted by commas; a path that exists as it stands is taken as it stands, commas and all."""
    out: list[str] = []
    rest = text.split(",")
    while rest:
        ends = [n for n in range(1, len(rest) + 1) if Path(",".join(rest[:n])).exists()]
        n = ends[-1] if ends else 1
        out.append(",".join(rest[:n]))
        rest = rest[n:]
    return out


def has_samples(path: str | Path, split: str) -> bool:
    """Whether a dataset has that split, with a sample in it. One split that was saved alone has no other."""
    path = Path(path)
    if path.is_file():
        return True
    if _is_alone(path) or split not in split_names(path):
        return False
    return len(load_columns(path, split, list(COLUMNS), 1)["input_ids"]) > 0


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
    """The splits of a dataset folder."""
    content = _json(Path(path) / "dataset_dict.json")
    splits: Any = content.get("splits") if isinstance(content, dict) else None
    ok = isinstance(splits, list) and all(isinstance(name, str) for name in splits)
    require(ok, f'{path}: dataset_dict.json must be {{"splits": [...]}}')
    return splits


def _is_alone(folder: Path) -> bool:
    """Whether it is of one split, as `Dataset.save_to_disk` writes it."""
    return (folder / "state.json").is_file() and not (folder / "dataset_dict.json").exists()


def _folder_of(path: Path, split: str) -> Path:
    """Where a split lies.

    Raises:
      InputError: there is no such split.
    """
    if not _is_alone(path):
        splits = split_names(path)
        require(split in splits, f"split must be one of {listed(splits)}, got {split!r}")
        return path / split
    # by its own word, or as one of the splits of the folder above
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
        f"{path} is one split, {name!r}, got a wish for {split!r}; give --split {name}, or the folder of all splits",
    )
    return path


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a dataset's content: of a file, or of the files that a folder's splits name, wherever links lead."""
    path = Path(path)
    if path.is_file():
        return sha256(path)
    parts = []
    for split in [""] if _is_alone(path) else split_names(path):
        if not (path / split / "state.json").exists():
            continue  # it is missed when it is asked for
        for key, entries in _named(path / split).items():
            for name, skip, take in entries:
                parts.append((f"{split}/{key}/{name}/{skip}/{take}", path / split / name))
    return sha256_of((name, file) for name, file in parts if file.exists())


PLACES = (("line_num", "line_number", "line"), ("word_idx", "word_index", "word"))
"""Columns that say where in its fragment a row stands, where a table has a row for each line or word: the line, and the
word in the line. Of each, the first that holds numbers counts; `line` and `word` may as well hold text."""
ORDER = tuple(name for names in PLACES for name in names)
IDS = ("_id", "fragment_id", "id")


def read_fragments(path: str | Path, column: str = "atf") -> list[str]:
    """The cleaned texts of a file of fragments, in file order; those without text are left out.

    Where several rows have one id, as in a table with a row for each word, they are one fragment: in the order of
    `ORDER`, or of the file. In JSON an `_id` alone joins nothing: in the original's format every object is a fragment.

    Args:
      path: a JSON list of objects, such a list as JSON lines, or a Parquet table; known by content, not by name.
      column: where their texts are.

    Raises:
      InputError: not such a file, no text in it, or rows of one fragment that cannot be put in order.
    """
    path = Path(path)
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    rows = _parquet_rows(path, column) if is_parquet or path.suffix == ".parquet" else _json_rows(path, column)
    raw = rows[column]
    wrong = next((i for i, one in enumerate(raw) if not isinstance(one, str | None)), None)
    require(wrong is None, f"{path}: {column} must be a string or null, got another type in fragment {wrong}")
    joins = "_id" not in rows or is_parquet
    texts = [t for t in (text.clean(one) for one in _as_fragments(path, rows, column, joins) if one) if t]
    require(
        bool(texts), f"{path}: must have at least one fragment with text, got none of {len(raw)} in column {column}"
    )
    return texts


def _as_fragments(path: Path, rows: Mapping[str, list[Any]], column: str, joins: bool) -> list[str | None]:
    """The texts, rows of one id joined; unless `joins`, only those that say their place in it."""
    found = [name for name in IDS if name in rows]
    has_places = any(name in rows for name in ORDER)
    if has_places:  # beside a number of its own, a row of a line may have its fragment's
        found.sort(key=lambda name: len(set(map(str, rows[name]))) == len(rows[name]))
    key = next(iter(found), None)
    if key is None or None in rows[key]:
        return rows[column]
    try:
        ids = list(zip(*(rows[name] for name in ("source", key) if name in rows), strict=True))
        numbers: dict[Any, list[int]] = {}
        for number, one in enumerate(ids):
            numbers.setdefault(one, []).append(number)
    except TypeError:  # of lists and the like, which name nothing
        return rows[column]
    if len(numbers) == len(ids):
        return rows[column]
    if not has_places and not joins:
        return rows[column]
    order = _places(path, rows)
    out: list[str | None] = []
    told = bool(order)
    for one, of_one in numbers.items():
        ordered = _ordered(of_one, list(order.values()))
        if ordered is None:
            together = of_one[-1] - of_one[0] == len(of_one) - 1
            require(together, f"{path}: rows of one fragment must stand together, got those of {one[-1]!r} apart")
            told = False
        out.append(" ".join(part for n in ordered or of_one if (part := rows[column][n])))
    by = f"by {listed(order)}" if told else "as they stand"
    note(f"{path}: {len(ids):,} rows have {len(numbers):,} different {key}; rows of one are joined, {by}")
    return out


def _places(path: Path, rows: Mapping[str, list[Any]]) -> dict[str, list[float]]:
    """The columns that rows of one fragment can be put in order by -> their numbers, of 2, 2.0 or "2".

    None where the line is said in words alone (`obv. 3'`): numbers of words begin anew with each line.

    Raises:
      InputError: a column has numbers in some rows, and neither numbers nor text in others.
    """
    out: dict[str, list[float]] = {}
    for names in PLACES:
        given = {name: rows[name] for name in names if name in rows and any(v is not None for v in rows[name])}
        for name, values in given.items():
            numbers = [float(v) for v in values if _is_number(v)]
            words = len(numbers) < len(values)
            ok = not words or not numbers or all(isinstance(v, str) for v in values)
            require(ok, f"{path}: rows of one fragment must have places that can be ordered, got others in {name}")
            if not words:
                out[name] = numbers
                break
        else:
            if given and names is PLACES[0]:
                return {}
    return out


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) < 16 and value.isdecimal()
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53


def _ordered(rows: Sequence[int], order: Sequence[Sequence[float]]) -> list[int] | None:
    """Rows of one fragment by their places; None where there are none, or they return: it may have two sides."""
    if not order:
        return None
    places = {n: tuple(column[n] for column in order) for n in rows}
    out = sorted(rows, key=places.__getitem__)
    after = dict(itertools.pairwise(rows))
    returns = any(places[a] == places[b] and after.get(a) != b for a, b in itertools.pairwise(out))
    return None if returns else out


def _json_rows(path: Path, column: str) -> dict[str, list[Any]]:
    """Column -> values, of those that are needed."""
    content = read_text(path, "JSON")
    fragments: Any = _json_lines(path, content) if content.lstrip()[:1] in ("{", "") else None
    if fragments is None:
        try:
            fragments = parse_json(content)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    ok = isinstance(fragments, list) and all(isinstance(f, dict) for f in fragments)
    require(ok, f'{path}: must be a JSON list of fragments, {{"_id": ..., "{column}": ...}} each')
    names = [name for name in (*IDS, "source", *ORDER) if fragments and all(name in f for f in fragments)]
    return {name: [f.get(name) for f in fragments] for name in {column: None} | dict.fromkeys(names)}


def _json_lines(path: Path, content: str) -> list[Any] | None:
    """Their objects; None where the first line is none, so that this is something else."""
    out, by_name = [], path.suffix.lower() in (".jsonl", ".ndjson")
    for number, line in enumerate(content.split("\n"), start=1):
        try:
            out += [parse_json(line)] if line.strip() else []
        except InputError as error:
            if not out and not by_name:
                return None
            raise InputError(f"{path}: line {number} must be JSON in UTF-8: {error}") from None
    return out if len(out) > 1 or by_name else None


def _parquet_rows(path: Path, column: str) -> dict[str, list[Any]]:
    """Column -> values, of those that are needed."""
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        require(
            column in names, f"{path}: must have a column {column}, got {listed(names, 12)}; name it by --text-column"
        )
        wanted = [column, *(name for name in (*IDS, "source", *ORDER) if name in names and name != column)]
        table = pq.read_table(path, columns=wanted)
        table.validate(full=True)
        return {name: table[name].to_pylist() for name in wanted}
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


STATE = {"_data_files", "_indices_files", "_indices_data_files", "_fingerprint", "_format_columns", "_format_kwargs"}
STATE |= {"_format_type", "_indexes", "_output_all_columns", "_split", "_info", "_inplace_history"}
"""What `datasets` of any version writes into a state.json. Which columns it would show, and as what type, does not
matter here: the ones needed are read."""
Entry = tuple[str, int, int | None]
"""(a file, rows of it to skip, rows then to take; None: all)."""


def _named(folder: Path) -> dict[str, list[Entry]]:
    """The files that a state.json names, in its own folder: of data, and of the rows chosen of these.

    Raises:
      InputError: something stands there that is not known: it might say that other rows are meant.
    """
    state = _json(folder / "state.json")
    require(isinstance(state, dict), f"{folder}: state.json must name its _data_files, got none")
    unknown = sorted(map(str, set(state) - STATE))
    require(not unknown, f"{folder}: state.json may have what is known here, got {listed(unknown)}")
    out: dict[str, list[Entry]] = {"data": [], "indices": []}
    # `_indices_data_files`: of versions before 1.2
    for key, kind in (("_data_files", "data"), ("_indices_files", "indices"), ("_indices_data_files", "indices")):
        entries = state.get(key)
        listing = entries if isinstance(entries, list) else []
        ok = isinstance(entries, list | None) and all(map(_is_entry, listing))
        require(ok, f'{folder}: {key} of state.json must be [{{"filename": ...}}, ...], files of that folder')
        out[kind] += [(one["filename"], one.get("skip") or 0, one.get("take")) for one in listing]
    require(isinstance(state.get("_data_files"), list), f"{folder}: state.json must name its _data_files, got none")
    return out


def _is_entry(entry: Any) -> bool:
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
    """A memory-mapped Arrow stream: nothing is read before it is used, but what the rest is found by."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
        table.validate(full=True)  # else offsets that are wrong would be followed out of the file
        _ = table.column_names  # decoded here
        return table.slice(skip, take)
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{path}: must be a whole Arrow stream, got: {' '.join(str(error).split())}") from None


def _rows(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    """A list column as [n, width] of the width that its rows must share."""
    parts = []
    for chunk in column.chunks:
        if len(chunk) == 0:  # as a file of no rows has it, of no width either
            continue
        is_list = (
            pa.types.is_list(chunk.type)
            or pa.types.is_large_list(chunk.type)
            or pa.types.is_fixed_size_list(chunk.type)
        )
        ok = is_list and (pa.types.is_integer(chunk.type.value_type) or pa.types.is_boolean(chunk.type.value_type))
        require(ok, f"{path}: column {name} must hold lists of whole numbers, got {chunk.type!s:.60}")
        values = chunk.flatten()
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int8())
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
    folder = _folder_of(Path(folder), split)
    named = _named(folder)
    if not named["data"]:  # of no rows, as newer versions write it
        return {name: np.zeros((0, 0), np.int8) for name in names or ()}
    table = _joined([_arrow_table(folder / name, skip, take) for name, skip, take in named["data"]], folder)
    names = table.column_names if names is None else names
    missing = [name for name in names if name not in table.column_names]
    require(not missing, f"{folder}: must have columns {listed(names)}, got none named {listed(missing)}")
    twice = [name for name in names if table.column_names.count(name) > 1]
    require(not twice, f"{folder}: columns must differ in name, got several named {listed(twice)}")
    table = table.select(names)
    if named["indices"]:  # rows were selected or shuffled without being rewritten
        indices = _joined([_arrow_table(folder / name, skip, take) for name, skip, take in named["indices"]], folder)
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
