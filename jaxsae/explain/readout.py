"""What two candidates of a damaged place are worth to the model, in variants of the text or of its residual stream."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsae.errors import require
from jaxsae.models.changes import LayerChange, changed_logits
from jaxsae.models.protocol import ModelWithNeurons, ResidualModel, predicts_next
from jaxsae.text.batching import padded_length
from jaxsae.text.pieces import framed

AT_ONCE = 4096
"""Characters of a batch, about."""

Stream = Float[np.ndarray, "n d_model"]


class Contrast(NamedTuple):
    """What stands at a place in each of several variants."""

    difference: Float[np.ndarray, " variants"]
    """Logit of the candidate minus that of the token it is compared with."""
    guess: Int[np.ndarray, " variants"]
    """The most probable token."""


@jax.jit
def _contrast(
    logits: Float[Array, "n vocab"], pair: Int[Array | np.ndarray, " two"]
) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
    return logits[:, pair[0]] - logits[:, pair[1]], logits.argmax(axis=-1)


class Readout:
    """A damaged place of a text: two candidates, the difference of their logits, and what that would be otherwise.

    A model that hides nothing is asked what comes next where the place begins.

    Args:
      ids: token ids of the text as the model sees it, [n], without the tokenizer's frame.
      candidate: the token that is explained; None: the most probable one.
      against: what it is compared with; None: the most probable other one.
      change: (layer, what is done to the residual stream after that block) in every variant.

    Raises:
      InputError: the text is empty or too long, or there is no such position or token.
    """

    def __init__(
        self,
        model: ResidualModel,
        ids: Int[np.ndarray, " n"],
        position: int,
        candidate: int | None = None,
        against: int | None = None,
        change: LayerChange | None = None,
    ) -> None:
        n, tokenizer = len(ids), model.tokenizer
        whole, self.inside = framed(tokenizer, np.asarray(ids, np.int32))
        """Where the text stands in what the model takes."""
        most, unit = model.max_position - len(whole) + n, tokenizer.unit
        require(0 < n <= most, f"a text must have 1..{most} {unit}s, got {n}")
        require(0 <= position < n, f"position must be in 0..{n - 1}, got {position}")
        self.model, self.ids, self.position, self.change = model, np.asarray(ids, np.int32), position, change
        self.hides = not predicts_next(model)
        """Whether the model predicts a hidden token, rather than the next."""
        hidden = tokenizer.damaged_id is not None
        require(
            hidden or not self.hides, "the model must hide tokens or predict the next one to be explained, does neither"
        )
        self.at = self.inside.start + position - (not self.hides)
        """The place at which the model predicts it."""
        require(self.at >= 0, "position must be at least 1, as nothing stands before the first, got 0")
        self.room = padded_length(len(whole), model.max_position)
        self.size = max(1, AT_ONCE // self.room)
        """Variants of a batch."""
        self.mask = np.zeros((1, self.room), np.int8)
        self.mask[0, : len(whole)] = 1
        self.padded_ids = np.full(self.room, tokenizer.padding_id, np.int32)
        self.padded_ids[: len(whole)] = whole
        self._streams: dict[int, np.ndarray] = {}
        logits = np.asarray(self._logits_of_texts(self.padded_ids[None])[0], np.float64)
        self.logits: Float[np.ndarray, " vocab"] = logits
        """Of every token at the place."""
        order = np.argsort(-logits, kind="stable")
        self.candidate = int(order[order != against][0]) if candidate is None else candidate
        self.against = int(order[order != self.candidate][0]) if against is None else against
        for token in (self.candidate, self.against):
            require(0 <= token < len(logits), f"a candidate must be in 0..{len(logits) - 1}, got {token}")
        require(self.candidate != self.against, "a candidate must be compared with another, got the same one twice")
        self.difference = float(logits[self.candidate] - logits[self.against])
        """The logit difference that is explained."""

    def probabilities(self, temperature: float = 1.0) -> Float[np.ndarray, " vocab"]:
        """Of every token at the place, the logits divided by a temperature."""
        scaled = self.logits / temperature
        return np.exp(scaled - np.logaddexp.reduce(scaled))

    def of_texts(self, variants: Iterable[Int[np.ndarray, " n"]]) -> Contrast:
        """What stands at the place in other texts of the same length."""
        return self._batched((self._filled(self.padded_ids, ids) for ids in variants), self._logits_of_texts)

    def without(self, variants: Iterable[Bool[np.ndarray, " n"]]) -> Contrast:
        """What stands at the place in texts without some tokens: hidden, or no position attends to them."""
        damaged_id = self.model.tokenizer.damaged_id
        if self.hides and damaged_id is not None:
            return self.of_texts(np.where(one, damaged_id, self.ids) for one in variants)
        return self._batched((self._filled(self.mask[0], ~one) for one in variants), self._logits_of_masks)

    def of_streams(
        self, layer: int, groups: Mapping[str, Iterable[Stream]]
    ) -> dict[str, Float[np.ndarray, " variants"]]:
        """The logit difference if the residual stream after block `layer` were another; no change is made to it.

        Args:
          groups: named variants of the stream; all run in the same batches.
        """
        names: list[str] = []
        base = self._whole_stream(layer)

        def every() -> Iterator[np.ndarray]:
            for name, variants in groups.items():
                for x in variants:
                    names.append(name)
                    yield self._filled(base, x)

        found = self._batched(every(), lambda x: self._logits_of_streams(x, layer)).difference
        return {name: found[np.array(names) == name] for name in groups}

    def stream(self, layer: int) -> Stream:
        """The residual stream of the text after block `layer`.

        Raises:
          InputError: it is changed after another layer.
        """
        if self.change is not None:
            at = self.change[0]
            require(at == layer, f"what is changed after layer {at} must be explained there, got layer {layer}")
        x = self._whole_stream(layer)[None]
        return np.asarray(x if self.change is None else self.change[1](jnp.asarray(x)))[0, self.inside]

    def _whole_stream(self, layer: int) -> Float[np.ndarray, "room d_model"]:
        """What stands at the layer without any change, of all that the model takes."""
        if layer not in self._streams:
            self._streams[layer] = np.asarray(self.model.activations(self.padded_ids[None], self.mask, layer=layer))[0]
        return self._streams[layer]

    def neurons(self, model: ModelWithNeurons, layer: int) -> Float[np.ndarray, "n d_ff"]:
        """The feed-forward neurons of block `layer` on the text."""
        return np.asarray(model.neurons(self.padded_ids[None], self.mask, layer=layer))[0, self.inside]

    def gradients(self, layer: int, variants: Iterable[Stream]) -> Iterator[Stream]:
        """Derivative of the logit difference by the residual stream after block `layer`, at each of several streams."""

        def difference(x: Array) -> Array:
            return _contrast(self._logits_of_streams(x, layer), self._pair)[0].sum()

        # a quarter: what the gradient needs of the forward pass is kept
        base = self._whole_stream(layer)
        for count, batch in filled_batches((self._filled(base, x) for x in variants), max(1, self.size // 4)):
            yield from np.asarray(jax.grad(difference)(jnp.asarray(batch)))[:count, self.inside]

    @property
    def _pair(self) -> np.ndarray:
        return np.array([self.candidate, self.against])

    def _filled(self, base: np.ndarray, rows: np.ndarray) -> np.ndarray:
        out = base.copy()
        out[self.inside] = rows
        return out

    def _batched(self, variants: Iterable[np.ndarray], logits: Callable[[np.ndarray], Array]) -> Contrast:
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for count, batch in filled_batches(variants, self.size):
            difference, guess = _contrast(logits(batch), self._pair)
            found.append((np.asarray(difference)[:count], np.asarray(guess)[:count]))
        differences, guesses = zip(*found, strict=True) if found else ((np.zeros(0),), (np.zeros(0, int),))
        return Contrast(np.concatenate(differences), np.concatenate(guesses))

    def _logits_of_texts(self, ids: np.ndarray) -> Float[Array, "batch vocab"]:
        mask, places = np.repeat(self.mask, len(ids), axis=0), self._places(len(ids))
        return changed_logits(self.model, ids, mask, places, self.change, self._text(len(ids)))

    def _logits_of_masks(self, mask: np.ndarray) -> Float[Array, "batch vocab"]:
        ids = np.repeat(self.padded_ids[None], len(mask), axis=0)
        return changed_logits(self.model, ids, mask, self._places(len(ids)), self.change, self._text(len(ids)))

    def _logits_of_streams(self, x: Array | np.ndarray, layer: int) -> Float[Array, "batch vocab"]:
        ids, mask = (np.repeat(of_text, len(x), axis=0) for of_text in (self.padded_ids[None], self.mask))
        return self.model.logits(ids, mask, places=self._places(len(x)), layer=layer, x=jnp.asarray(x))

    def _text(self, variants: int) -> Bool[np.ndarray, "variants room"]:
        """Where the text stands, of which a change is made."""
        out = np.zeros((variants, self.room), bool)
        out[:, self.inside] = True
        return out

    def _places(self, variants: int) -> Int[np.ndarray, " variants"]:
        return np.arange(variants) * self.room + self.at


def filled_batches(items: Iterable[np.ndarray], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(count, that many items and the first one again up to `size`): one shape, so that there is little to compile."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield len(batch), np.stack([*batch, *batch[:1] * (size - len(batch))])
