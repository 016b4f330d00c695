"""Model x samples -> rows: the residual stream after a layer, one row a token, with the place of each in the text."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsae.activations.rows import RowsOnDisk
from jaxsae.errors import require
from jaxsae.models.protocol import ModelOfOnePass, PackingModel, ResidualModel
from jaxsae.runtime import forget
from jaxsae.text.batching import Batch, Packed, pack, plan_batches
from jaxsae.text.samples import Samples, check_samples, kept_positions


@dataclass(frozen=True)
class ExtractedRows:
    """Activations in the order of the text: `values[layer][i]` belongs to token `position[i]` of sample `sample[i]`."""

    values: dict[int, Float[Array, "n d_model"]]
    sample: np.ndarray
    position: np.ndarray


class StreamBatch(NamedTuple):
    """Positions of samples, and their residual stream. The rows are of one sample each, or of several packed ones."""

    sample: Int[np.ndarray, "batch position"]
    """The number of the sample that a position is of; where it is of none, some other number that is not used."""
    position: Int[np.ndarray, "batch position"]
    """Its place in the sample."""
    kept: Bool[np.ndarray, "batch position"]
    """The positions that rows are made of; a sample's are in their order, and none of another between them."""
    values: dict[int, Float[Array, "batch position d_model"]]
    """Layer -> the residual stream after it."""

    def samples(self) -> Iterator[tuple[int, slice]]:
        """Each sample, and where its rows stand among the kept positions of the batch."""
        of = self.sample[self.kept]
        starts = np.flatnonzero(np.diff(of, prepend=-1)).tolist()
        for start, end in itertools.pairwise([*starts, len(of)]):
            yield int(of[start]), slice(start, end)


Share = tuple[int, int]
"""(index, count): of the batches of all samples, every count-th from number `index` on, such as one process makes. What
stands in a batch does not depend on the count."""


def stream(
    model: ResidualModel, samples: Samples, layers: Sequence[int], padding: str = "drop", share: Share = (0, 1)
) -> Iterator[StreamBatch]:
    """What stands at the hook point of each of `layers`, batch by batch, from one forward pass that ends there.

    With `drop`, padding is masked from attention, and samples are packed into rows where the model can read them so.
    With `keep`, the model runs as the original script runs it: no mask, all positions.
    """
    for layer in layers:
        model.check_layer(layer)
    check_samples(samples, model.tokenizer, model.max_position)
    kept = kept_positions(samples, padding)
    require(bool(kept.any()), "samples must have text, got only padding")
    given = samples.mask != 0 if padding == "drop" else kept
    for sample, position in _batches(samples, padding, isinstance(model, PackingModel), share):
        there, of_rows = ((sample >= 0) & which[sample, position] for which in (given, kept))
        ids = jnp.asarray(np.where(there, samples.ids[sample, position], 0))
        mask = None if padding == "keep" else jnp.asarray(there.astype(np.int8))
        if isinstance(model, ModelOfOnePass):
            yield StreamBatch(sample, position, of_rows, model.activations_of(ids, mask, layers=layers))
            continue
        if isinstance(model, PackingModel) and mask is not None:
            values = model.stream_packed(ids, np.where(there, sample, -1), np.maximum(position, 0))
        else:
            values = model.stream(ids, mask)
        after = zip(range(max(layers) + 1), values, strict=False)
        yield StreamBatch(sample, position, of_rows, {layer: x for layer, x in after if layer in layers})


def kept_by_share(model: ResidualModel, samples: Samples, padding: str, share: Share) -> Bool[np.ndarray, "n position"]:
    """The positions that rows are made of in a share of the batches: those of whole samples."""
    kept = kept_positions(samples, padding)
    if share == (0, 1):
        return kept
    mine = np.zeros(len(samples), bool)
    for sample, _ in _batches(samples, padding, isinstance(model, PackingModel), share):
        mine[sample[sample >= 0]] = True
    return kept & mine[:, None]


def _batches(samples: Samples, padding: str, packing: bool, share: Share = (0, 1)) -> Iterator[Packed]:
    """Which positions of which samples stand where in a share of the batches."""
    index, count = share
    return itertools.islice(_all_batches(samples, padding, packing), index, None, count)


def _all_batches(samples: Samples, padding: str, packing: bool) -> Iterator[Packed]:
    n, width = samples.ids.shape
    if padding == "drop" and packing:
        yield from pack(samples.lengths, width)
        return
    plan = [Batch(np.array([i]), width) for i in range(n)]
    for rows, length in plan if padding == "keep" else plan_batches(samples.lengths, width):
        shape = len(rows), length
        yield Packed(np.broadcast_to(rows[:, None], shape), np.broadcast_to(np.arange(length), shape))


def stream_from_rows(rows: Mapping[int, RowsOnDisk], samples: Samples, padding: str = "drop") -> Iterator[StreamBatch]:
    """As `stream`, from rows that were extracted before, of these samples and perhaps of more after them."""
    kept = kept_positions(samples, padding)
    row_of = _numbered(kept)
    for sample, position in _batches(samples, padding, packing=True):
        there = (sample >= 0) & kept[sample, position]
        values = {}
        for layer, layer_rows in rows.items():
            x = np.zeros((*there.shape, layer_rows.shape[1]), np.float32)
            x[there] = layer_rows[row_of[sample, position][there]]
            values[layer] = jnp.asarray(x)
        yield StreamBatch(sample, position, there, values)


def extract(
    model: ResidualModel,
    samples: Samples,
    layers: Sequence[int],
    padding: str = "drop",
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> ExtractedRows:
    """The rows that `stream` gives, of every position (`keep`) or every real one (`drop`), in the order of the text.

    Args:
      on_rows: called with the number of rows made since the last call.
    """
    rows = extract_on_host(model, samples, layers, padding, on_rows=on_rows)
    values = {layer: jax.device_put(rows.pop(layer)) for layer in list(rows)}
    sample, position = np.nonzero(kept_positions(samples, padding))
    return ExtractedRows(values, sample.astype(np.int32), position.astype(np.int32))


def extract_on_host(
    model: ResidualModel,
    samples: Samples,
    layers: Sequence[int],
    padding: str = "drop",
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> dict[int, np.ndarray]:
    """As `extract`: layer -> its rows, on no device yet."""
    shape = (int(kept_positions(samples, padding).sum()), model.d_model)
    rows = {layer: _for_device(shape, model.dtype) for layer in layers}
    extract_to(rows, model, samples, padding, on_rows=on_rows)
    return rows


def _for_device(shape: tuple[int, int], dtype: Any) -> np.ndarray:
    """An array to fill that JAX on CPU then takes as it lies in memory: it must begin at a multiple of 64 bytes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size].view(dtype).reshape(shape)


FILE_BYTES = 2**25
"""So many bytes are written to arrays that are mapped files before what was written stops counting as memory."""


def extract_to(
    out: Mapping[int, np.ndarray],
    model: ResidualModel,
    samples: Samples,
    padding: str = "drop",
    share: Share = (0, 1),
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> None:
    """As `extract`, into arrays on the host (layer -> [n, d_model]) that may be files; only one batch is in memory.

    The rows are those of `kept_by_share`, in the order of the text.
    """
    row_of = _numbered(kept_by_share(model, samples, padding, share))
    written = 0
    for batch in stream(model, samples, list(out), padding, share):
        row = row_of[batch.sample, batch.position][batch.kept]
        for layer, x in batch.values.items():
            out[layer][row] = np.asarray(x)[batch.kept]
        on_rows(len(row))
        written += len(row)
        if written * model.d_model * 4 * len(out) > FILE_BYTES:
            written = 0
            forget(out.values())


def _numbered(kept: Bool[np.ndarray, "n position"]) -> Int[np.ndarray, "n position"]:
    """The row number of each kept position; of others, the number of rows."""
    return np.where(kept, kept.reshape(-1).cumsum().reshape(kept.shape) - 1, int(kept.sum())).astype(np.int32)
