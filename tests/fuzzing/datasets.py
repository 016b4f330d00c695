"""Folders of `save_to_disk` of Hugging Face datasets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fuzzing.configs import write_json
from fuzzing.inputs import CLEAR, OPEN, UNCLEAR, Input


def rows_of(rng: np.random.Generator, n: int, width: int, left: bool, holes: bool) -> dict[str, np.ndarray]:
    """ids, labels, mask."""
    length = rng.integers(1, width + 1, (n, 1))
    place = np.arange(width)
    mask = place >= width - length if left else place < length
    if holes:
        mask &= rng.random((n, width)) > 0.1
    ids = np.where(mask, rng.integers(33, 120, (n, width)), 32)
    damaged = mask & (rng.random((n, width)) < 0.2)
    labels = np.where(damaged, ids, -100)
    return {"input_ids": np.where(damaged, 35, ids), "labels": labels, "attention_mask": mask.astype(np.int64)}


WHOLE = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())


def listed(one: Input, column: np.ndarray, kind: pa.DataType, form: str) -> pa.Array:
    """A column of lists; in one of Arrow's kinds of lists."""
    n, width = column.shape
    flat = pa.array(column.reshape(-1).astype(bool) if pa.types.is_boolean(kind) else column.reshape(-1), kind)
    if form == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, width)
    offsets = np.arange(0, n * width + 1, width)
    if form == "large":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


FURTHER: dict[str, Callable[[int], pa.Array]] = {
    "text": lambda n: pa.array([f"text {i}" for i in range(n)]),
    "id": lambda n: pa.array(range(n)),
    "token_type_ids": lambda n: pa.array([[0, 1]] * n),
    "meta": lambda n: pa.array([{"a": None, "b": i} for i in range(n)]),
    "nothing": lambda n: pa.nulls(n),
    "time": lambda n: pa.array([0] * n, pa.timestamp("s")),
}


def dataset(one: Input) -> None:
    """A folder of `save_to_disk`."""
    rng = np.random.default_rng(one.rng.randrange(2**32))
    width, total = one.pick(1, 5, 8, 16), one.pick(1, 2, 5, 9, 13)
    left, holes = one.maybe(0.15), one.maybe(0.15)
    rows = rows_of(rng, total, width, left, holes)
    one.did(f"{total} rows of {width}{', left' * left}{', holes' * holes}")
    every = False  # whether each row is read: one of them is bad
    if one.maybe(0.06):
        name, value, sure = one.pick(
            ("attention_mask", 2, UNCLEAR), ("attention_mask", -1, UNCLEAR), ("labels", -1, UNCLEAR),
            ("labels", -101, UNCLEAR), ("input_ids", -3, UNCLEAR), ("input_ids", 0x110000, UNCLEAR),
            ("input_ids", 0x10FFFF, CLEAR), ("labels", 2**32 + 65, UNCLEAR), ("input_ids", 2**32 + 65, UNCLEAR),
        )  # fmt: skip
        rows[name][rng.integers(total), rng.integers(width)] = value
        one.did(f"{name} of {value}", sure)
        every = True
    form, kinds = one.pick("list", "list", "list", "large", "fixed"), {}
    for name, usual in (("input_ids", pa.int32()), ("labels", pa.int32()), ("attention_mask", pa.int8())):
        low, high = int(rows[name].min()), int(rows[name].max())
        fit = [
            t for t in WHOLE if np.iinfo(t.to_pandas_dtype()).min <= low and high <= np.iinfo(t.to_pandas_dtype()).max
        ]
        if name == "attention_mask" and low >= 0 and high <= 1:
            fit += [pa.bool_()] * 3
        kinds[name] = usual if one.maybe(0.7) and usual in fit else one.rng.choice(fit)
    forms = {name: form if one.maybe(0.9) else one.pick("list", "large", "fixed") for name in kinds}
    one.did(", ".join(f"{forms[name]} {kind}" for name, kind in kinds.items()))
    arrays = {name: listed(one, rows[name], kinds[name], forms[name]) for name in kinds}
    if one.maybe(0.08):
        name, what = (
            one.pick(*arrays),
            one.pick("floats", "texts", "null row", "null value", "numbers", "ragged", "twice"),
        )
        values: list[Any] = rows[name].tolist()
        if what == "floats":
            arrays[name] = pa.array([[float(x) for x in row] for row in values])
        elif what == "texts":
            arrays[name] = pa.array([[str(x) for x in row] for row in values])
        elif what == "null row":
            arrays[name] = pa.array([None, *values[1:]], pa.list_(pa.int32()))
        elif what == "null value":
            arrays[name] = pa.array([[None, *values[0][1:]], *values[1:]], pa.list_(pa.int32()))
        elif what == "numbers":
            arrays[name] = pa.array([row[0] for row in values], pa.int32())
        elif what == "ragged":
            arrays[name] = pa.array([[*values[0], 0], *values[1:]], pa.list_(pa.int64()))
        one.did(f"{name}: {what}", OPEN if what == "floats" else UNCLEAR)
        every = True
        twice = name if what == "twice" else None
    else:
        twice = None
    columns = list(arrays)
    if one.maybe(0.04):
        columns.remove(name := one.pick(*columns))
        one.did(f"no {name}", UNCLEAR)
    for name in one.rng.sample(list(FURTHER), one.pick(0, 0, 1, 2)):
        arrays[name] = FURTHER[name](total)
        columns.append(name)
        one.did(f"a column {name}")
    if one.maybe(0.3):
        one.rng.shuffle(columns)
        one.did("columns in another order")
    if twice in columns:
        columns.append(twice)
    table = pa.table([arrays[name] for name in columns], names=columns)

    alone = one.maybe(0.2)
    split = one.pick("validation", "validation", "train", "test", "dev")
    others = [name for name in ("train", "validation", "test") if name != split]
    home = one.path = one.folder / one.pick("dataset", "Smith, J")
    part = home if alone else home / split
    part.mkdir(parents=True)

    # files of rows, of which the state may take some
    cuts = sorted(rng.integers(0, total + 1, one.pick(0, 0, 1, 2)).tolist())
    entries, rows_taken = [], []
    for number_, (start, stop) in enumerate(zip([0, *cuts], [*cuts, total], strict=True)):
        piece, entry = table.slice(start, stop - start), {"filename": f"data-{number_:05}-of-{len(cuts) + 1:05}.arrow"}
        taken = list(range(start, stop))
        if one.maybe(0.08) and not every:
            skip, take = one.pick(0, 1, 2), one.pick(None, 1, 3)
            entry |= {"skip": skip} if skip or one.maybe(0.5) else {}
            entry |= {"take": take} if take is not None or one.maybe(0.5) else {}
            taken = taken[skip:][:take]
            one.did(f"skip {skip}, take {take}")
        write_stream(one, piece, part / entry["filename"])
        entries.append(entry)
        rows_taken += taken
    if len(entries) > 1:
        one.did(f"{len(entries)} files")
        if one.maybe(0.1):
            entries.reverse()
            rows_taken = []
            for entry in entries:
                number_ = int(entry["filename"][5:10])
                start, stop = [0, *cuts][number_], [*cuts, total][number_]
                rows_taken += list(range(start, stop))[entry.get("skip") or 0 :][: entry.get("take")]
            one.did("files in another order")
    state: dict[str, Any] = {
        "_data_files": entries, "_fingerprint": "a", "_format_columns": None, "_format_kwargs": {}, "_format_type": None,
        "_output_all_columns": False, "_split": None,
    }  # fmt: skip
    if one.maybe(0.25) and not every:
        n = len(rows_taken)
        chosen = rng.integers(0, max(n, 1), one.pick(1, 2, n, n + 3)).tolist() if n else []
        index = pa.array(chosen, one.pick(pa.uint64(), pa.uint64(), pa.int64(), pa.uint32()))
        name = "indices"
        if one.maybe(0.06) and chosen:
            index, sure = one.pick(
                (pa.array([*chosen, n], pa.uint64()), UNCLEAR), (pa.array([*chosen, -1], pa.int64()), UNCLEAR),
                (pa.array([*chosen, None], pa.uint64()), UNCLEAR), (pa.array(map(str, chosen)), UNCLEAR),
                (pa.array([float(c) for c in chosen]), UNCLEAR),
            )  # fmt: skip
            one.did(f"indices of {index.type} that cannot be", sure)
        elif one.maybe(0.03):
            name = "rows"
            one.did("indices by another name", UNCLEAR)
        write_stream(one, pa.table({name: index}), part / "indices.arrow")
        state[one.pick("_indices_files", "_indices_files", "_indices_data_files")] = [{"filename": "indices.arrow"}]
        one.did("indices")
        if one.sure != UNCLEAR:
            rows_taken = [rows_taken[i] for i in chosen]
        every |= one.sure == UNCLEAR
    elif one.maybe(0.2):
        state[one.pick("_indices_files", "_indices_data_files")] = None
    if one.maybe(0.15):
        state |= {"_format_type": one.pick("torch", "numpy", None), "_format_columns": ["labels"]}
        one.did("a format")
    if one.maybe(0.1):
        state |= {"_indexes": {}, "_info": "{}", "_inplace_history": []}
        one.did("an older state")
    if one.maybe(0.05):
        word, value, sure = one.pick(
            ("_filter", "x", UNCLEAR), ("_slice", [0, 1], UNCLEAR), ("_data_files", None, UNCLEAR),
            ("_data_files", [{"filename": "../x.arrow"}], UNCLEAR), ("_data_files", ["data.arrow"], UNCLEAR),
            ("_data_files", [{"filename": "data-00000-of-00001.arrow", "rows": 3}], UNCLEAR), ("order", 1, UNCLEAR),
            ("_data_files", [], UNCLEAR), ("_data_files", [{"filename": "gone.arrow"}], UNCLEAR),
        )  # fmt: skip
        state[word] = value
        one.did(f"state: {word} {value}", sure)
    if alone:
        one.did("a split alone")
        if one.maybe(0.5):
            state["_split"] = split if one.maybe(0.85) else others[0]
            if state["_split"] != split:
                one.did("of another name", UNCLEAR)
    write_json(one, state, part / "state.json")
    if one.maybe(0.7):
        (part / "dataset_info.json").write_text("{}")
    if not alone:
        names = [split, *(others if one.maybe(0.5) else [])]
        one.rng.shuffle(names)
        if one.maybe(0.03):
            names.remove(split)
            one.did("a split that is not listed", UNCLEAR)
        write_json(one, {"splits": names}, home / "dataset_dict.json")
        if one.maybe(0.15):
            home.rename(store := home.with_name("store"))
            home.mkdir()
            (home / "dataset_dict.json").symlink_to(store / "dataset_dict.json")
            (home / split).symlink_to(store / split)
            one.did("links")
    if one.maybe(0.2):
        for name in (".DS_Store", "cache-1.arrow", "data.lock", "tmp.parquet"):
            (part / name).write_bytes(b"\0x")
        one.did("files beside")
    most = one.pick(None, None, 1, 2, 5, 100)
    if every:
        most = None  # what lies after the samples that are read is not looked at
    one.given = (split, most)
    if one.maybe(0.02) and not alone:
        one.given = ("nonsense", most)
        one.did("another split", UNCLEAR)
    if not rows_taken:
        one.did("no rows", UNCLEAR)
    elif one.sure != UNCLEAR:
        found = [rows[name][rows_taken][:most] for name in kinds]
        one.meant = found


def write_stream(one: Input, table: pa.Table, path: Path) -> None:
    """An Arrow stream, in one of its ways."""
    options, form = {}, one.rng.random()
    if form < 0.05:
        options["options"] = pa.ipc.IpcWriteOptions(compression=one.pick("lz4", "zstd"))
        one.did("compressed")
    new = pa.ipc.new_stream
    if 0.05 < form < 0.06:
        new = pa.ipc.new_file
        one.did("an Arrow file in place of a stream", OPEN)
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=one.pick(1, 3, 1000))


def read_dataset(one: Input) -> list[np.ndarray]:
    from jaxsae.text import loading

    samples = loading.load_samples(one.path, *one.given)
    assert [a.dtype for a in (samples.ids, samples.labels, samples.mask)] == [np.int32, np.int32, np.int8]
    return [samples.ids, samples.labels, samples.mask]
