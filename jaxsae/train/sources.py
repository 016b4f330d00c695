"""What a run trains on: rows that a model makes of text, or rows that were extracted before."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from jaxsae import processes
from jaxsae.activations import store, together
from jaxsae.activations.extraction import extract, extract_on_host
from jaxsae.activations.rows import RowsOnDisk
from jaxsae.activations.store import Store
from jaxsae.errors import require
from jaxsae.files import remove_left, temporary_beside
from jaxsae.models.hooks import Hook, hook_of
from jaxsae.models.protocol import ResidualModel, StoredModel
from jaxsae.runtime import give_back_memory, in_words, memory_of_machine
from jaxsae.sae.row_types import AnyRows
from jaxsae.text.samples import Samples, check_samples, kept_positions

SCORED_ROWS = 2**15
"""Rows that an SAE is scored on where there is no held-out text."""

ROWS = "rows"
"""What rows on disk are called while a run goes on."""

Say = Callable[[str], None]
OnRows = Callable[[int], None]


class RunRows(NamedTuple):
    """The rows of a run, by layer."""

    train: Mapping[int, AnyRows]
    scored: Mapping[int, AnyRows]
    """The rows that the SAEs are scored on."""
    scored_on: str
    """What these are."""


@runtime_checkable
class Source(Protocol):
    """Where a run's rows come from."""

    layers: list[int]
    hook: Hook
    """Where the layers are read."""
    d_in: int
    size: int
    """Bytes of the rows in memory."""
    paired: bool
    """Whether beside each row stands that of the same place in the undamaged text."""
    origin: dict[str, Any]
    """What identifies the rows, with the settings that made them."""
    checkpoint_sha256: str | None
    model_name: str | None
    """What the model's class is called in PyTorch, where it is known."""

    def load(
        self,
        folder: Path,
        cleanup: contextlib.ExitStack,
        say: Say,
        on_rows: OnRows,
        own: Sequence[int] | None = None,
        spread: bool = False,
    ) -> RunRows:
        """The rows, in memory or on disk.

        Args:
          folder: where rows may be kept while the run goes on.
          cleanup: what it closes is removed when the run is over.
          say: called with lines that tell what is done.
          on_rows: called with the number of rows made since the last call.
          own: of several processes that train apart, the layers that this one does: of these it has all rows, on its
            host, and none of others. None: each reads its share of all layers.
          spread: they go to more than one device, and stay on the host until then; else those in memory are on the
            first one already.
        """


class TextSource:
    """Rows that a model makes of text.

    Args:
      checkpoint: the model.
      samples: the text.
      layers: the blocks that are read; 0-based.
      hook: where these are read, see `jaxsae.models.hooks`.
      held_out: text that figures are measured on; without it, the rows that are trained on.
      padding: `drop` or `keep`, see `jaxsae.activations.extraction.stream`.
      split: what the samples are called, and `dataset_sha256`, which they are: for the record.
      check: called with a function that gives the model, before anything is extracted; gives the model, or raises
        where it is not right. What it compares with, it can let go of before the model takes its memory.
      memory_limit: bytes above which rows stay on disk; half of what there is for this process, if not given.
      denoise: beside each row stands that of the same place in the undamaged text, `paired`, if some of the text is
        damaged and all fit into the memory of one process.

    Raises:
      InputError: no such layer, or text that the model cannot read.
    """

    def __init__(
        self,
        checkpoint: StoredModel,
        samples: Samples,
        layers: Sequence[int],
        *,
        hook: Hook = "resid_post",
        held_out: Samples | None = None,
        padding: str = "drop",
        split: str | None = None,
        dataset_sha256: str | None = None,
        check: Callable[[Callable[[], ResidualModel]], ResidualModel] = lambda model: model(),
        memory_limit: int | None = None,
        denoise: bool = False,
    ) -> None:
        shape = checkpoint.config
        for layer in layers:
            shape.check_layer(layer)
        # what can be wrong with the text that figures are measured on is found before the work
        for some in (samples, held_out or samples):
            check_samples(some, shape.tokenizer, shape.max_position)
        self.checkpoint: StoredModel | None = checkpoint
        self.samples, self.layers, self.held_out, self.padding = samples, list(layers), held_out, padding
        self.hook = hook
        self.check, self.d_in = check, shape.d_model
        self.checkpoint_sha256: str | None = checkpoint.sha256
        self.model_name: str | None = checkpoint.name
        self.limit = _limit(memory_limit)
        self.total = int(kept_positions(samples, padding).sum())
        self.size = 4 * self.total * self.d_in * len(self.layers)
        joining = 2 * self.size + 2 * self.size // len(self.layers)  # both kinds of rows, and the pairs of one layer
        fit = joining <= self.limit and not processes.together()
        self.paired = denoise and fit and bool(samples.damaged.any())
        self.size *= 2 if self.paired else 1
        self.origin: dict[str, Any] = {
            "split": split,
            "max_samples": len(samples),
            "padding": padding,
            "model_sha256": checkpoint.identity,
            "dataset_sha256": dataset_sha256,
            "streamed": self.size > self.limit,
        }
        if hook != "resid_post":  # which older runs do not say
            self.origin["hook"] = hook if isinstance(hook, str) else {str(layer): name for layer, name in hook.items()}

    def load(
        self,
        folder: Path,
        cleanup: contextlib.ExitStack,
        say: Say,
        on_rows: OnRows,
        own: Sequence[int] | None = None,
        spread: bool = False,
    ) -> RunRows:
        """Check the model, and extract; the model is let go of."""
        assert self.checkpoint is not None
        model = self.check(partial(self.checkpoint.model, n_layers=max(self.layers) + 1, hook=self.hook))
        self.checkpoint, self.check = None, lambda model: model()  # the check may hold the checkpoint too
        give_back_memory()  # the checkpoint's and the check's
        streamed, apart, layers = self.origin["streamed"], own is not None, self.layers if own is None else own
        rows: dict[int, AnyRows]
        if streamed or processes.together():
            if streamed:
                size, limit = in_words(self.size), in_words(self.limit)
                say(f"rows     {size} is above the memory limit of {limit}: they go to disk")
            # the last of processes that share the rows removes them: none waits for others, nor for theirs to be read
            cleanup.callback(remove_left, folder / ROWS)
            beside = processes.from_first(lambda: str(cleanup.enter_context(temporary_beside(folder / ROWS))))
            path = Path(beside) / "store"
            together.write(path, model, self.samples, self.layers, self.padding, {}, on_rows=on_rows)
            found = store.open_stores([str(path)], self.layers[0]).layers
            rows = {layer: _on_host(found[layer]) if apart and not streamed else found[layer] for layer in layers}
            if apart and streamed:
                cleanup.enter_context(processes.claimed_by_all(beside))
            processes.wait("the rows are read")
        else:
            rows = self._extracted(model, self.samples, layers, on_host=spread, on_rows=on_rows)
        if self.held_out is None:
            if not self.paired:
                return RunRows(rows, rows, "training rows")
            scored = {layer: of_layer[:SCORED_ROWS] for layer, of_layer in rows.items()}
            said = "training rows" if self.total <= SCORED_ROWS else f"first {SCORED_ROWS:,} training rows"
            return RunRows(self._beside_undamaged(rows, model, on_rows, spread), scored, said)
        said = f"test split, first {len(self.held_out)} samples"
        if not layers or not (processes.is_first() or apart):
            return RunRows(rows, {}, said)
        paired = self._beside_undamaged(rows, model, on_rows, spread)
        return RunRows(paired, self._extracted(model, self.held_out, layers, on_host=apart), said)

    def _beside_undamaged(
        self, rows: dict[int, AnyRows], model: ResidualModel, on_rows: OnRows, on_host: bool
    ) -> Mapping[int, AnyRows]:
        """The rows, and where they are `paired` beside each that of the undamaged text: those given are let go of."""
        if not self.paired:
            return rows
        found = self._extracted(model, self.samples.undamaged, list(rows), on_host=on_host, on_rows=on_rows)
        join = jnp.concatenate if not on_host else lambda both, axis: _on_host(np.concatenate(both, axis))
        return {layer: join([rows.pop(layer)[:], found.pop(layer)[:]], axis=1) for layer in list(found)}

    def _extracted(
        self,
        model: ResidualModel,
        samples: Samples,
        layers: Sequence[int],
        *,
        on_host: bool,
        on_rows: OnRows = lambda rows: None,
    ) -> dict[int, AnyRows]:
        if on_host:
            found = extract_on_host(model, samples, layers, self.padding, on_rows=on_rows)
            return {layer: _on_host(of_layer) for layer, of_layer in found.items()}
        return dict(extract(model, samples, layers, self.padding, on_rows=on_rows).values)


class StoreSource:
    """Rows that were extracted before, or come from elsewhere; those of the undamaged text are not among them.

    Args:
      found: the rows of the layers to train on.
      name: what they are called in what is said.
      dataset_sha256: which they are, for the record.
      checkpoint: the model that they are taken to be of, where they do not say another.
      memory_limit: as `TextSource`.

    Raises:
      InputError: they say that they are of another model.
    """

    def __init__(
        self,
        found: Store,
        *,
        name: str = "rows",
        dataset_sha256: str | None = None,
        checkpoint: StoredModel | None = None,
        memory_limit: int | None = None,
    ) -> None:
        self.layers, self.d_in, self.found, self.name = list(found.layers), found.d_in, found.layers, name
        self.hook, self.paired = hook_of(found.hook_names()), False
        self.limit = _limit(memory_limit)
        self.size = sum(rows.nbytes for rows in self.found.values())
        self.origin: dict[str, Any] = {key: found.about.get(key) for key in ("split", "max_samples", "padding")}
        if found.max_samples is not None:
            self.origin["max_samples"] = found.max_samples
        self.origin["model_sha256"] = store.model_of(found.about)
        self.checkpoint_sha256: str | None = found.about.get("checkpoint_sha256")
        self.model_name: str | None = found.about.get("model_name")
        if checkpoint is not None:
            said = self.origin["model_sha256"]
            require(
                said in (None, checkpoint.identity, checkpoint.sha256),
                f"the checkpoint must be the one that the rows are of ({str(said)[:12]}...), got another "
                f"({checkpoint.identity[:12]}...); leave it out, or give theirs",
            )
            self.origin["model_sha256"], self.checkpoint_sha256 = checkpoint.identity, checkpoint.sha256
        self.origin |= {"dataset_sha256": dataset_sha256, "streamed": self.size > self.limit}

    def load(
        self,
        folder: Path,
        cleanup: contextlib.ExitStack,
        say: Say,
        on_rows: OnRows,
        own: Sequence[int] | None = None,
        spread: bool = False,
    ) -> RunRows:
        """Into memory where they fit."""
        n = len(self.found[self.layers[0]])
        of = f" of {len(self.layers)} layers" if len(self.layers) > 1 else ""
        say(f"stored   {self.name}: {n:,} rows{of}, of width {self.d_in}, not cross-checked")
        apart = own is not None
        found = {layer: self.found[layer] for layer in (self.layers if own is None else own)}
        rows: Mapping[int, AnyRows] = found
        if not self.origin["streamed"] and (apart or not processes.together()):
            hold = _on_host if apart or spread else lambda of_layer: jnp.asarray(of_layer[:])
            rows = {layer: hold(of_layer) for layer, of_layer in found.items()}
        elif self.origin["streamed"]:
            size, limit = in_words(self.size), in_words(self.limit)
            say(f"rows     {size} is above the memory limit of {limit}: they are read as they are used")
        if n <= SCORED_ROWS:
            return RunRows(rows, rows, "training rows")
        scored = {layer: _on_host(of_layer[:SCORED_ROWS]) for layer, of_layer in found.items()}
        return RunRows(rows, scored, f"first {SCORED_ROWS:,} training rows")


def _on_host(rows: Any) -> RowsOnDisk:
    """Rows in the memory of this process, for when its devices are not what they will be."""
    return RowsOnDisk([np.asarray(rows[:])])


def _limit(given: int | None) -> int:
    """Bytes above which rows stay on disk: as given, or half of what there is for this process."""
    return memory_of_machine() // (2 * processes.here()) if given is None else given
