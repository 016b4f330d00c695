"""A store that several processes write, each its share of the text; a process that is alone writes all of it."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jaxsae import processes
from jaxsae.activations import store
from jaxsae.errors import require
from jaxsae.files import temporary_beside
from jaxsae.models.protocol import ResidualModel
from jaxsae.text.samples import Samples, kept_positions


def write(
    path: str | Path,
    model: ResidualModel,
    samples: Samples,
    layers: Sequence[int],
    padding: str,
    about: Mapping[str, Any],
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> None:
    """As `store.write`, by all processes together; the store is there for all of them when it returns.

    All must see the same file system.

    Args:
      on_rows: called with the number of rows that all have made since the last call, about.
    """
    path = Path(path)
    if not processes.together():
        store.write(path, model, samples, layers, padding, about, on_rows=on_rows)
        return
    index, count = processes.share()
    with ExitStack() as stack:

        def begin() -> str:
            require(not path.exists(), f"the output must not exist, got {path}; give another or remove it")
            rows = int(kept_positions(samples, padding).sum())
            store.check_space(path.parent, 4 * rows * model.d_model * len(layers))
            return str(stack.enter_context(temporary_beside(path)) / path.name)

        def end() -> None:
            store.join(folder, count, samples)
            os.replace(folder, path)

        folder = Path(processes.from_first(begin))
        store.write(
            folder, model, samples, layers, padding, about, (index, count), on_rows=lambda rows: on_rows(rows * count)
        )
        processes.wait("the shares are written")
        processes.from_first(end)
