"""What directions add to the logits of a PyTorch module past its later blocks, where each position has its own head.

The last block's output is replaced by a direction, long enough to be all that a last normalisation sees; half of what
its logits and those of its opposite differ by is what the direction adds: of a norm and a linear head exactly, up to
the factor that the norm divides by.
"""

import functools

import numpy as np
import torch
from jaxtyping import Float, Int

from convert.hooked import HookedModel
from convert.modules import Place
from convert.torch_run import Put
from jaxsae.errors import InputError

AT_ONCE = 1024
"""Directions in one pass, about."""
LENGTH = 1e4
"""Of what stands there: so long that the epsilon of a norm is nothing beside it."""


class HookedLanguageModel(HookedModel):
    """A module of which `is_position_wise` holds; see `jaxsae.models.protocol.ModelWithHead`."""

    def __init__(self, model: HookedModel, last: Place) -> None:
        super().__init__(model.shape, model.runner, model.places, model.hook)
        self.last = last
        """The last block's output."""

    def direct_logits(
        self, directions: Float[np.ndarray, "n d_model"], ids: Int[np.ndarray, " ids"]
    ) -> Float[np.ndarray, "n ids"]:
        """What directions add to the logits of `ids`; see the module's head.

        Where a norm takes the length away, as if what stands there had a root mean square of 1.
        """
        odd = odd_logits(self, self.last, directions)[:, ids]
        size = np.sqrt(np.square(directions).mean(axis=1, keepdims=True))
        return odd * size if self._takes_length else odd / LENGTH

    @functools.cached_property
    def _takes_length(self) -> bool:
        """Whether a norm before the head makes all lengths one."""
        direction = np.random.default_rng(0).standard_normal((1, self.d_model)).astype(np.float32)
        short, long = (np.abs(odd_logits(self, self.last, f * direction, at_once=8)).sum() for f in (0.5, 1))
        return bool(long < 1.5 * short)


def odd_logits(
    model: HookedModel, last: Place, directions: Float[np.ndarray, "n d_model"], at_once: int = AT_ONCE
) -> Float[np.ndarray, "n vocab"]:
    """Half the difference of the logits of each direction and of its opposite in place of the last block's output."""
    width = min(model.max_position, 64, at_once)
    texts = at_once // width
    ids, size = np.full((texts, width), model.tokenizer.padding_id), texts * width
    out = []
    for start in range(0, len(directions), size):
        some = directions[start : start + size]
        x = np.zeros((size, directions.shape[1]), np.float32)
        x[: len(some)] = some * LENGTH
        puts = [Put(last, torch.from_numpy(sign * x.reshape(texts, width, -1))) for sign in (1, -1)]
        with torch.no_grad():
            one, other = (model.runner.logits(ids, None, put).reshape(size, -1)[: len(some)] for put in puts)
        out.append(((one - other) / 2).float().numpy())
    return np.concatenate(out)


def is_position_wise(model: HookedModel, last: Place) -> bool:
    """Whether the logits of a position are those of what stands there, whatever stands elsewhere."""
    directions = np.random.default_rng(0).standard_normal((8, model.d_model)).astype(np.float32)
    try:
        alone, among = (odd_logits(model, last, some, at_once=8)[0] for some in (directions[:1], directions))
    except InputError:  # the last block is of another width, or gives something else
        return False
    largest = float(np.abs(alone).max())
    return largest > 0 and bool(np.allclose(alone, among, rtol=1e-3, atol=1e-3 * largest))
