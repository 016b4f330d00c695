"""What the rest of the library asks of a model: the activations at a place of each block, and what follows from them.

The protocols can be checked at run time because the tests check the types of arguments.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, Num

from jaxsae.errors import require
from jaxsae.models.hooks import Hook
from jaxsae.text.tokenizer import Tokenizer

Ids = Int[Array | np.ndarray, "batch position"]
Mask = Num[Array | np.ndarray, "batch position"]
Places = Int[Array | np.ndarray, "batch position"]
ResidualStream = Float[Array, "batch position d_model"]


@runtime_checkable
class ModelShape(Protocol):
    """What is known of a model without its weights."""

    @property
    def n_layers(self) -> int:
        """Number of blocks; layer `i` is the residual stream after block `i`, counted from 0."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""

    @property
    def max_position(self) -> int:
        """Longest text, in tokens."""

    @property
    def tokenizer(self) -> Tokenizer:
        """What its token ids stand for."""

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` unless the model has such a layer."""


@runtime_checkable
class ResidualModel(ModelShape, Protocol):
    """A model that can be read and changed at one place of every block, its hook point: most often the residual
    stream after it.

    `mask`: 1 = real, 0 = padding, which no position attends to; None: every position is real.
    """

    @property
    def hook(self) -> Hook:
        """The hook point, see `jaxsae.models.hooks`."""

    @property
    def dtype(self) -> Any:
        """Of the activations."""

    def stream(self, ids: Ids, mask: Mask | None = None) -> Iterator[ResidualStream]:
        """What stands at the hook point of block 0, 1, ...; a block runs when its value is asked for."""

    def activations(self, ids: Ids, mask: Mask | None = None, *, layer: int) -> ResidualStream:
        """What stands at the hook point of block `layer`; later blocks do not run."""

    def logits(
        self,
        ids: Ids,
        mask: Mask | None = None,
        *,
        places: Int[Array | np.ndarray, " n"],
        layer: int | None = None,
        x: ResidualStream | None = None,
    ) -> Float[Array, "n vocab"]:
        """Logits over token ids at some places.

        Args:
          places: numbers of positions, the texts of the batch being laid one behind the other.
          layer: the block at whose hook point `x` stands instead of what the model puts there; None: it is as it is.
        """


@runtime_checkable
class ModelWithHead(Protocol):
    """A model that says what a direction adds to its logits without being run."""

    def direct_logits(
        self, directions: Float[np.ndarray, "n d_model"], ids: Int[np.ndarray, " ids"]
    ) -> Float[np.ndarray, "n ids"]:
        """What directions in the residual stream add to the logits of `ids` past all later blocks.

        Up to a factor that is the same for all ids, such as the one that a last normalisation divides by.
        """


def predicts_next(model: ModelShape) -> bool:
    """Whether a model predicts the next token at each position, rather than one that is hidden there."""
    return bool(getattr(getattr(model, "shape", model), "causal", False))


class LazyModel:
    """A model of which the shape is known; its weights are laid out for the device when they are first asked for.

    Args:
      load: gives the model; None: there is none, only rows that it gave.
    """

    def __init__(self, shape: ModelShape, load: Callable[[], ResidualModel] | None) -> None:
        self.shape = shape
        self._load: Callable[[], ResidualModel] | None = load
        self.there = load is not None

    @cached_property
    def model(self) -> ResidualModel:
        """The model, the same each time.

        Raises:
          InputError: there is none.
        """
        require(self.there, "this needs the model that the rows are of, got none; give its checkpoint")
        assert self._load is not None
        model, self._load = self._load(), None  # and with it goes what the weights were read from
        return model

    @property
    def known(self) -> ResidualModel | None:
        """The model, if there is one."""
        return self.model if self.there else None


@runtime_checkable
class PackingModel(Protocol):
    """A model that reads several texts in one row, one behind the other, as if each were alone."""

    def stream_packed(self, ids: Ids, text: Places, position: Places) -> Iterator[ResidualStream]:
        """As `stream`; a position attends to those of the same text in its row.

        Args:
          text: which text of its row a position is of, by any number.
          position: the place in its text, from 0.
        """


@runtime_checkable
class ModelOfOnePass(Protocol):
    """A model that gives what stands at several layers from one pass, and cannot stop in between."""

    def activations_of(self, ids: Ids, mask: Mask | None = None, *, layers: Sequence[int]) -> dict[int, ResidualStream]:
        """What stands at the hook point of each layer; what runs behind the last of them does not run."""


@runtime_checkable
class ModelWithNeurons(Protocol):
    """A model that shows its feed-forward neurons, with which latents are compared."""

    def neurons(self, ids: Ids, mask: Mask | None = None, *, layer: int) -> Float[Array, "batch position d_ff"]:
        """The hidden values of block `layer`'s feed-forward network, after its activation function."""

    def neuron_directions(self, layer: int) -> Float[np.ndarray, "d_ff d_model"]:
        """What a value of 1 of each neuron of block `layer` adds to the residual stream after it."""


@runtime_checkable
class StoredModel(Protocol):
    """A model on disk, as `convert.read_checkpoint` reads it.

    Another family is a row of the table in `convert.families`; with its PyTorch reference there, `convert.verify`
    compares the two.
    """

    @property
    def name(self) -> str:
        """What its class is called in PyTorch."""

    @property
    def config(self) -> ModelShape:
        """Its shape."""

    @property
    def sha256(self) -> str:
        """SHA-256 of its file."""

    @property
    def identity(self) -> str:
        """SHA-256 of what it computes, whatever file it is stored in."""

    def model(self, *, n_layers: int | None = None, hook: Hook = "resid_post") -> ResidualModel:
        """The model; with `n_layers`, of the first blocks alone.

        Args:
          hook: where it is read and changed.
        """
