"""Activations that are changed at a layer, and what the model says then."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsae.models.protocol import Ids, Mask, ResidualModel

Change = Callable[[Float[Array, "batch position d_model"]], Float[Array, "batch position d_model"]]
LayerChange = tuple[int, Change]
"""A layer, and what is made of what stands at its hook point; what it gives at padding is not used."""


def changed_logits(
    model: ResidualModel,
    ids: Ids,
    mask: Mask,
    places: Int[Array | np.ndarray, " n"],
    change: LayerChange | None,
    text: Bool[np.ndarray, "batch position"] | None = None,
) -> Float[Array, "n vocab"]:
    """The logits at some places, what stands at a layer being changed; None: it is as it is.

    Args:
      text: where it is changed, if not wherever the mask is 1: tokens that are no text stay as they are.
    """
    if change is None:
        return model.logits(ids, mask, places=places)
    layer, function = change
    x = model.activations(ids, mask, layer=layer)
    return model.logits(
        ids,
        mask,
        places=places,
        layer=layer,
        x=where_real(jnp.asarray(mask) != 0 if text is None else jnp.asarray(text), function(x), x),
    )


@jax.jit
def where_real(
    real: Bool[Array, "batch position"],
    changed: Float[Array, "batch position d_model"],
    x: Float[Array, "batch position d_model"],
) -> Float[Array, "batch position d_model"]:
    """The changed stream where there is text, and the stream itself at padding."""
    return jnp.where(real[:, :, None], changed, x)
