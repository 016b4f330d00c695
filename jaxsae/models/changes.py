"""A residual stream that is changed after a layer, and the model run on from there."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxsae.models.protocol import Ids, Mask, ResidualModel

Change = Callable[[Float[Array, "batch position d_model"]], Float[Array, "batch position d_model"]]
LayerChange = tuple[int, Change]
"""A layer, and what is made of the residual stream after it; what it gives at padding is not used."""


def last_stream(
    model: ResidualModel, ids: Ids, mask: Mask, change: LayerChange | None
) -> Float[Array, "batch position d_model"]:
    """The last block's output, the residual stream being changed after a layer; None: as it is."""
    if change is None:
        return model.resid_post(ids, mask, layer=model.n_layers - 1)
    layer, function = change
    stream = model.resid_post(ids, mask, layer=layer)
    return model.resume(where_real(jnp.asarray(mask) != 0, function(stream), stream), mask, layer=layer)


@jax.jit
def where_real(
    real: Bool[Array, "batch position"],
    changed: Float[Array, "batch position d_model"],
    x: Float[Array, "batch position d_model"],
) -> Float[Array, "batch position d_model"]:
    """The changed stream where there is text, and the stream itself at padding."""
    return jnp.where(real[:, :, None], changed, x)
