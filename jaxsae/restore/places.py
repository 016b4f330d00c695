"""What a model says of chosen positions of texts: one forward pass, batched, in few shapes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxsae.errors import InputError, listed, require
from jaxsae.models.changes import LayerChange, changed_logits
from jaxsae.models.protocol import ResidualModel
from jaxsae.text.batching import padded_length
from jaxsae.text.damaged_text import DAMAGED, DamagedText
from jaxsae.text.preparation import PADDING_ID

BATCH_CHARS = 8192
"""So many characters are run together, at most."""


class Asked(NamedTuple):
    """A text and the positions in it that are asked for."""

    ids: Int[np.ndarray, " n"]
    positions: Int[np.ndarray, " p"]


class Best(NamedTuple):
    """The most probable tokens at some positions, best first."""

    ids: Int[np.ndarray, "p k"]
    log_p: Float[np.ndarray, "p k"]
    """Their log-probabilities, in nats."""


def best_tokens(
    model: ResidualModel, asked: Sequence[Asked], k: int, *, change: LayerChange | None = None, temperature: float = 1.0
) -> list[Best]:
    """The `k` most probable tokens at each position that is asked for, for each text.

    Args:
      k: cut to the size of the vocabulary.
      change: made to the residual stream.
      temperature: logits are divided by it.
    """
    k = min(k, model.tokenizer.vocab_size)
    found: list[Best | None] = [None] * len(asked)
    for rows, counts, logits in _batches(model, asked, change):
        log_p, ids = (np.asarray(part) for part in _top(logits, jnp.float32(temperature), k))
        at = 0
        for row, count in zip(rows, counts, strict=True):
            found[row] = Best(ids[at : at + count], log_p[at : at + count])
            at += count
    return [best for best in found if best is not None]


def log_p_of(
    model: ResidualModel,
    asked: Sequence[Asked],
    tokens: Sequence[Int[np.ndarray, " _"]],
    *,
    change: LayerChange | None = None,
    temperature: float = 1.0,
) -> list[Float[np.ndarray, " _"]]:
    """The log-probabilities of given tokens, one at each position that is asked for, for each text."""
    found: list[np.ndarray] = [np.zeros(0)] * len(asked)
    for rows, counts, logits in _batches(model, asked, change):
        wanted = np.zeros(len(logits), np.int32)
        wanted[: sum(counts)] = np.concatenate([tokens[row] for row in rows])
        log_p = np.asarray(_log_p(logits, jnp.asarray(wanted), jnp.float32(temperature)))[: sum(counts)]
        for row, part in zip(rows, np.split(log_p, np.cumsum(counts)[:-1]), strict=True):
            found[row] = part
    return found


def logits_of(model: ResidualModel, asked: Sequence[Asked]) -> Float[np.ndarray, "positions vocab"]:
    """The logits at all positions that are asked for, text after text."""
    found: list[np.ndarray] = [np.zeros((0, model.tokenizer.vocab_size), np.float32)] * len(asked)
    for rows, counts, logits in _batches(model, asked, None):
        parts = np.split(np.asarray(logits)[: sum(counts)], np.cumsum(counts)[:-1])
        for row, part in zip(rows, parts, strict=True):
            found[row] = part
    return np.concatenate(found)


def _batches(
    model: ResidualModel, asked: Sequence[Asked], change: LayerChange | None
) -> Iterator[tuple[list[int], list[int], Float[Array, "room vocab"]]]:
    """Which texts were run together, how many positions of each are asked for, and their logits, with more behind."""
    longest = max((len(one.ids) for one in asked), default=0)
    most = model.max_position
    require(longest <= most, f"a text must have at most {most} characters (max_position), got {longest}")
    of_length: dict[int, list[int]] = {}
    for row, one in enumerate(asked):
        of_length.setdefault(padded_length(len(one.ids), most), []).append(row)
    for length, every in of_length.items():
        size = max(1, BATCH_CHARS // length)
        for start in range(0, len(every), size):
            rows = every[start : start + size]
            room = _room(len(rows), 1)
            ids = np.full((room, length), PADDING_ID, np.int32)
            mask = np.zeros((room, length), np.int8)
            mask[len(rows) :] = 1  # of no text: what comes out is not used, and must be finite
            for at, row in enumerate(rows):
                n = len(asked[row].ids)
                ids[at, :n], mask[at, :n] = asked[row].ids, 1
            flat = np.concatenate([at * length + asked[row].positions for at, row in enumerate(rows)])
            places = np.zeros(_room(len(flat), 16), np.int32)
            places[: len(flat)] = flat
            logits = changed_logits(model, jnp.asarray(ids), jnp.asarray(mask), places, change)
            yield rows, [len(asked[row].positions) for row in rows], logits


def _room(n: int, least: int) -> int:
    """The next of `least`, 2 `least`, 4 `least`, ...: few shapes to compile for."""
    return least << max(0, -(-n // least) - 1).bit_length()


_top = jax.jit(lambda logits, t, k: jax.lax.top_k(jax.nn.log_softmax(logits / t), k), static_argnums=2)


@jax.jit
def _log_p(
    logits: Float[Array, "n vocab"], tokens: Int[Array, " n"], temperature: Float[Array, ""]
) -> Float[Array, " n"]:
    return jnp.take_along_axis(jax.nn.log_softmax(logits / temperature), tokens[:, None], axis=1)[:, 0]


def encoded(model: ResidualModel, text: DamagedText) -> Int[np.ndarray, " n"]:
    """The token ids of what the model sees of a text.

    Raises:
      InputError: it has characters that the model does not know; they are named with their places in the user's text.
    """
    tokenizer = model.tokenizer
    try:
        ids = tokenizer.encode(text.cleaned)
    except InputError:
        ids = np.zeros(0, np.int32)
        known = {character: _knows(model, character) for character in set(text.cleaned)}
        places = zip(text.cleaned, text.origin.tolist(), strict=True)
        unknown = [f"{character!r} at {place}" for character, place in places if not known[character]]
        require(not unknown, f"a text must have characters of the model's vocabulary, got {listed(unknown)}")
    fits = len(ids) == len(text.cleaned) and len(tokenizer.encode(DAMAGED)) == 1
    require(fits, "the model must have one token for each character, got one that has not")
    return ids


def _knows(model: ResidualModel, character: str) -> bool:
    try:
        return len(model.tokenizer.encode(character)) == 1
    except InputError:
        return False


def around(n: int, start: int, end: int, most: int) -> slice:
    """The `most` positions of a text of `n` around the place between `start` and `end`; all where there are fewer."""
    before = max(0, min((start + end - most) // 2, n - most))
    return slice(before, min(n, before + most))
