"""The sparse autoencoder: one object that is complete by itself.

    pre_acts = x @ W_enc + b_enc
    latents  = what the architecture makes of pre_acts     (`jaxsae.sae.architectures`)
    x_hat    = latents @ W_dec + b_dec

`b_dec` is not subtracted from the input. Functions are written for one SAE; an ensemble carries a leading axis of
members on every array and runs them under `jax.vmap`.
"""

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxsae.config import architecture_rules
from jaxsae.errors import require
from jaxsae.models.products import matmul

UNDAMAGED = "W_undamaged"
"""Of `SAE.training`: the decoder that tells of a row's latents the row of the same place in the undamaged text."""

if TYPE_CHECKING:
    Leaf = Array
else:  # while JAX maps over a pytree its leaves may be anything: shapes, specifications, NumPy arrays
    Leaf = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SAE:
    """The arrays of an SAE file, and which of their pre-activations fire; rows of W_dec have unit norm.

    Architecture and `k` are static: two SAEs that differ in them are different programs to `jax.jit`.

    Raises:
      InputError: an unknown architecture, or `k` or thresholds that it does not have.
    """

    W_enc: Leaf
    """[*members, d_in, d_sae]. Shapes are not checked: a training step may hold a matrix transposed, see `Stepper`."""
    b_enc: Leaf
    """[*members, d_sae]."""
    W_dec: Leaf
    """[*members, d_sae, d_in]."""
    b_dec: Leaf
    """[*members, d_in]."""
    threshold: Leaf | None = None
    """[*members, d_sae]: a latent fires where its pre-activation is above it. None: the architecture has no thresholds,
    or none yet."""
    training: dict[str, Leaf] = field(default_factory=dict)
    """Parameters that training alone knows, by name, each [*members, d_sae], but for `UNDAMAGED`, which is as W_dec;
    empty once the SAE is trained."""
    architecture: str = field(default="relu", metadata={"static": True})
    """One of `jaxsae.config.ARCHITECTURES`."""
    k: int | None = field(default=None, metadata={"static": True})
    """TopK: at most this many latents fire per row."""

    def __post_init__(self) -> None:
        stores = architecture_rules(self.architecture).stores
        need_k = stores == "k"
        require(
            need_k == (self.k is not None), f"k goes with topk, got architecture {self.architecture} and k {self.k}"
        )
        ok = not hasattr(self.threshold, "ndim") or stores == "threshold"  # JAX puts marks in place of arrays
        require(ok, f"thresholds go with an architecture that has them, got them for {self.architecture}")

    @property
    def d_in(self) -> int:
        """Width of the rows that it reads."""
        return self.W_enc.shape[-2]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_enc.shape[-1]

    def replace(self, **changes: Any) -> "SAE":
        """The SAE with other values of some fields."""
        return dataclasses.replace(self, **changes)


def identity(sae: SAE) -> str:
    """SHA-256 of what an SAE computes: the same for one SAE in any file."""
    digest = hashlib.sha256(f"{sae.architecture} {sae.k}".encode())
    for array in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, sae.threshold):
        if array is not None:
            values = np.ascontiguousarray(array, np.float32)
            digest.update(f" {values.shape}".encode())
            digest.update(values.reshape(-1).data)  # no copy
    return digest.hexdigest()


def unit_norm(W: Float[Array, "a b"], axis: int = -1) -> Float[Array, "a b"]:
    """Each row, or with axis 0 each column, divided by its Euclidean norm."""
    return W / jnp.linalg.norm(W, axis=axis, keepdims=True)


def pre_activations(sae: SAE, x: Float[Array, "n d_in"], dtype: str | None = None) -> Float[Array, "n d_sae"]:
    """x @ W_enc + b_enc, with the operands of the product rounded to `dtype`, if it is given."""
    return matmul(x, sae.W_enc, dtype) + sae.b_enc[None, :]


def decode(sae: SAE, latents: Float[Array, "n d_sae"], dtype: str | None = None) -> Float[Array, "n d_in"]:
    """Reconstructed rows."""
    return matmul(latents, sae.W_dec, dtype) + sae.b_dec[None, :]
