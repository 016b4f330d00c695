"""What the text of stored rows is besides its numbers: `pieces.json`, and files of what is known of each token.

    pieces.json     {"unit": "token", "vocab_size": n, "padding_id": 0, "damaged_id": 103, "frame": [[101], [102]],
                     "causal": false, "pieces": {"7592": " hello", ...}, "columns": {name: [of each sample]},
                     "token_columns": {name: [its different values]}}
    column0.npy     int32 [n]: of each row, which value of the first of `token_columns`; column1.npy, ...

Rows of characters have at most `{"columns": ...}`: an id is a character, and nothing stands around a text.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxsae.errors import InputError, require
from jaxsae.files import read_json
from jaxsae.text.preparation import NO_LABEL
from jaxsae.text.samples import Samples
from jaxsae.text.stored_tokenizer import StoredTokenizer
from jaxsae.text.tokenizer import CharacterTokenizer

FILE = "pieces.json"


def write_text(folder: Path, samples: Samples, kept: np.ndarray) -> None:
    """Write what the ids of samples stand for, where these are not plain characters, and their columns.

    Args:
      kept: the positions that rows are of.
    """
    tokenizer = samples.tokenizer
    columns = {n: [str(v) for v in column] for n, column in samples.columns.items() if column.ndim == 1}
    plain = isinstance(tokenizer, CharacterTokenizer) and samples.special is None
    if plain and not samples.causal and len(columns) == len(samples.columns):
        if columns:
            _write(folder, {"columns": columns})
        return
    real = samples.mask != 0
    before, behind = tokenizer.frame
    others = [tokenizer.padding_id, *before, *behind, *([] if tokenizer.damaged_id is None else [tokenizer.damaged_id])]
    used = [samples.ids[real].ravel(), samples.labels[samples.scored].ravel(), np.array(others, np.int64)]
    ids = np.unique(np.concatenate(used)).tolist()
    of_tokens = [name for name, column in samples.columns.items() if column.ndim == 2]
    values = {}
    for number, name in enumerate(of_tokens):
        distinct, codes = np.unique(samples.columns[name][kept].astype(str), return_inverse=True)
        values[name] = distinct.tolist()
        np.save(folder / f"column{number}.npy", codes.reshape(-1).astype(np.int32))
    said = {
        "unit": tokenizer.unit,
        "vocab_size": tokenizer.vocab_size,
        "padding_id": tokenizer.padding_id,
        "damaged_id": tokenizer.damaged_id,
        "frame": [list(before), list(behind)],
        "causal": samples.causal,
        "pieces": {str(number): tokenizer.pieces([number])[0] for number in ids},
        "columns": columns,
        "token_columns": values,
    }
    _write(folder, said)


def _write(folder: Path, said: dict[str, Any]) -> None:
    (folder / FILE).write_text(json.dumps(said, ensure_ascii=False, indent=1), encoding="utf-8")


def with_text(samples: Samples, folder: Path, at: tuple[np.ndarray, np.ndarray], padding: str) -> Samples:
    """Samples with what their ids stand for, what stands around each, and their columns, as a store has these.

    Args:
      samples: the numbers alone; padding where there is no row.
      at: (sample, position) of each row.
      padding: `drop`: rows are of the text alone; `keep`: of what stands around it, too.

    Raises:
      InputError: the files contradict themselves, or the rows.
    """
    if not (folder / FILE).exists():
        return samples
    said = read_json(folder / FILE)
    plain = isinstance(said, dict) and set(said) == {"columns"}
    try:
        columns = {str(name): np.array(list(map(str, values)), object) for name, values in said["columns"].items()}
        if plain:
            return replace(samples, columns=_of_samples(columns, len(samples), folder))
        before, behind = (tuple(int(n) for n in part) for part in said["frame"])
        known = {int(number): str(piece) for number, piece in said["pieces"].items()}
        numbers = [int(said[name]) for name in ("vocab_size", "padding_id")]
        damaged = said["damaged_id"]
        damaged = None if damaged is None else int(damaged)
        tokenizer = StoredTokenizer(known, numbers[0], str(said["unit"]), numbers[1], damaged, (before, behind))
        of_tokens, causal = dict(said["token_columns"]), bool(said["causal"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder / FILE}: must say what ids stand for, got {type(error).__name__}: {error}") from None
    n, width = samples.ids.shape
    columns = _of_samples(columns, n, folder)
    for number, (name, values) in enumerate(of_tokens.items()):
        codes = np.load(folder / f"column{number}.npy", allow_pickle=False)
        ok = (
            codes.shape == at[0].shape
            and codes.dtype.kind in "iu"
            and bool(((codes >= 0) & (codes < len(values))).all())
        )
        require(ok, f"{folder}: column{number}.npy must have the number of a value for each row")
        columns[name] = np.full((n, width), "", object)
        columns[name][at] = np.array(values, object)[codes]
    numbers_only = replace(samples, tokenizer=tokenizer, causal=causal, columns=columns)
    return _framed(numbers_only, before, behind, folder, has_frame=padding == "keep")


def _of_samples(columns: dict[str, np.ndarray], n: int, folder: Path) -> dict[str, np.ndarray]:
    """The columns of the first `n` samples, which there must be."""
    wrong = [name for name, values in columns.items() if len(values) < n]
    require(not wrong, f"{folder / FILE}: columns must have a value for each of {n} samples, got fewer in {wrong}")
    return {name: values[:n] for name, values in columns.items()}


def _framed(
    samples: Samples, before: tuple[int, ...], behind: tuple[int, ...], folder: Path, *, has_frame: bool
) -> Samples:
    """With the frame around each text, which is put there unless the numbers have it already."""
    ids, labels, mask = samples.ids.copy(), samples.labels, samples.mask.copy()
    ids[mask == 0] = samples.tokenizer.padding_id
    special = np.zeros(ids.shape, bool)
    for row in range(len(ids)):
        real = np.flatnonzero(mask[row])
        if not len(real):
            continue
        start, end = int(real[0]), int(real[-1]) + 1
        if not has_frame:
            start -= len(before)
            end += len(behind)
        framed = slice(start, start + len(before)), slice(end - len(behind), end)
        ok = start == 0 and end <= ids.shape[1] and end - start > len(before) + len(behind)
        require(ok, f"{folder}: positions must leave room for what stands around a text, got {real[0]}..{real[-1]}")
        ids[row, framed[0]], ids[row, framed[1]] = before, behind
        for part in framed:
            mask[row, part], special[row, part] = 1, True
    require(not (labels[special] != NO_LABEL).any(), f"{folder}: what stands around a text must have no label")
    return replace(samples, ids=ids, mask=mask, special=special if before or behind else None)


def widened(several: list[Samples]) -> list[Samples]:
    """Samples of one tokenizer and one width: stored pieces are put together, and what is narrower is padded."""
    stored = [one.tokenizer for one in several if isinstance(one.tokenizer, StoredTokenizer)]
    if len(stored) < len(several):
        return several
    tokenizer, width = stored[0], max(one.ids.shape[1] for one in several)
    for other in stored[1:]:
        tokenizer = tokenizer.with_known(other)

    def padded(one: Samples) -> Samples:
        room = [(0, 0), (0, width - one.ids.shape[1])]

        def fill(array: np.ndarray, value: Any) -> np.ndarray:
            return np.pad(array, room, constant_values=value)

        special = None if one.special is None else fill(one.special, False)
        columns = {name: column if column.ndim == 1 else fill(column, "") for name, column in one.columns.items()}
        ids, labels = fill(one.ids, tokenizer.padding_id), fill(one.labels, NO_LABEL)
        return replace(
            one, ids=ids, labels=labels, mask=fill(one.mask, 0), special=special, columns=columns, tokenizer=tokenizer
        )

    return [padded(one) for one in several]
