"""Model x samples -> rows: the residual stream after a layer, one row a token, with the place of each in the text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsae.activations.rows import RowsOnDisk
from jaxsae.errors import require
from jaxsae.models.protocol import ResidualModel
from jaxsae.text.batching import Batch, plan_batches
from jaxsae.text.samples import Samples, check_samples, kept_positions


@dataclass(frozen=True)
class ExtractedRows:
    """Activations in the order of the text: `values[layer][i]` belongs to token `position[i]` of sample `sample[i]`."""

    values: dict[int, Float[Array, "n d_model"]]
    sample: np.ndarray
    position: np.ndarray


@partial(jax.jit, donate_argnums=0)
def _write(
    values: Float[Array, "n d_model"], x: Float[Array, "batch position d_model"], row: Int[Array, "batch position"]
) -> Float[Array, "n d_model"]:
    """Put x's vectors into their rows, in place; a row number past the end drops the vector."""
    return values.at[row.reshape(-1)].set(x.reshape(-1, x.shape[-1]), mode="drop")


class StreamBatch(NamedTuple):
    """A batch of samples and their residual stream."""

    samples: np.ndarray
    """The numbers of the samples, [batch]."""
    kept: Bool[np.ndarray, "batch position"]
    """The positions that rows are made of."""
    values: dict[int, Float[Array, "batch position d_model"]]
    """Layer -> the residual stream after it."""


def stream(
    model: ResidualModel, samples: Samples, layers: Sequence[int], padding: str = "drop"
) -> Iterator[StreamBatch]:
    """The residual stream after each of `layers`, batch by batch, from one forward pass that ends after the last layer.

    With `drop`, padding is masked from attention and each sample runs at a length close to its own; with `keep`, the
    model runs as the original script runs it: no mask, all positions.
    """
    for layer in layers:
        model.check_layer(layer)
    check_samples(samples, model.tokenizer, model.max_position)
    kept = kept_positions(samples, padding)
    require(bool(kept.any()), "samples must have characters, got only padding")
    for rows, length in _batches(samples, padding):
        ids = jnp.asarray(samples.ids[rows, :length])
        mask = None if padding == "keep" else jnp.asarray(samples.mask[rows, :length])
        after = zip(range(max(layers) + 1), model.stream(ids, mask), strict=False)
        yield StreamBatch(rows, kept[rows, :length], {layer: x for layer, x in after if layer in layers})


def _batches(samples: Samples, padding: str) -> list[Batch]:
    n, width = samples.ids.shape
    return (
        [Batch(np.array([i]), width) for i in range(n)] if padding == "keep" else plan_batches(samples.lengths, width)
    )


def stream_from_rows(rows: Mapping[int, RowsOnDisk], samples: Samples, padding: str = "drop") -> Iterator[StreamBatch]:
    """As `stream`, from rows that were extracted before, of these samples and perhaps of more after them."""
    kept, row_of = _numbered(samples, padding)
    for numbers, length in _batches(samples, padding):
        kept_here = kept[numbers, :length]
        values = {}
        for layer, layer_rows in rows.items():
            x = np.zeros((*kept_here.shape, layer_rows.shape[1]), np.float32)
            x[kept_here] = layer_rows[row_of[numbers, :length][kept_here]]
            values[layer] = jnp.asarray(x)
        yield StreamBatch(numbers, kept_here, values)


def extract(
    model: ResidualModel,
    samples: Samples,
    layers: Sequence[int],
    padding: str = "drop",
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> ExtractedRows:
    """The rows that `stream` gives, of every position (`keep`) or every real one (`drop`), in the order of the text.

    They are in memory once, on the device that computes them.

    Args:
      on_rows: called with the number of rows made since the last call.
    """
    kept, row_of = _numbered(samples, padding)
    sample, position = np.nonzero(kept)
    shape, dtype = (len(sample), model.d_model), model.dtype
    values = {layer: jnp.zeros(shape, dtype) for layer in layers}
    for batch in stream(model, samples, layers, padding):
        row = jnp.asarray(row_of[batch.samples, : batch.kept.shape[1]])
        values = {layer: _write(values[layer], x, row) for layer, x in batch.values.items()}
        jax.block_until_ready(values)
        on_rows(int(batch.kept.sum()))
    return ExtractedRows(values, sample.astype(np.int32), position.astype(np.int32))


def extract_to(
    out: Mapping[int, np.ndarray],
    model: ResidualModel,
    samples: Samples,
    padding: str = "drop",
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> None:
    """As `extract`, into arrays on the host (layer -> [n, d_model]) that may be files; only one batch is in memory."""
    _, row_of = _numbered(samples, padding)
    for batch in stream(model, samples, list(out), padding):
        row = row_of[batch.samples, : batch.kept.shape[1]][batch.kept]
        for layer, x in batch.values.items():
            out[layer][row] = np.asarray(x)[batch.kept]
        on_rows(len(row))


def _numbered(samples: Samples, padding: str) -> tuple[np.ndarray, np.ndarray]:
    """(the positions that rows are made of, the row number of each; of other positions, the number of rows)."""
    kept = kept_positions(samples, padding)
    numbers = np.where(kept, kept.reshape(-1).cumsum().reshape(kept.shape) - 1, int(kept.sum()))
    return kept, numbers.astype(np.int32)
