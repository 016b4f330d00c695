"""What an SAE of any format computes, in float64."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fuzzing.inputs import MARGIN, UNCLEAR, Figures, Input, WrongError

D_IN, WIDTHS = 6, (10, 110)
X = np.random.default_rng(7).normal(size=(20, D_IN)).astype(np.float32)


def sae_arrays(seed: int, d_sae: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"W_enc": (D_IN, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, D_IN), "b_dec": (D_IN,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


SAES = [sae_arrays(seed, d_sae) for seed in range(3) for d_sae in (10, 10, 10, 110)]


@dataclass
class Meaning:
    """An SAE in the words of all its formats."""

    W_enc: np.ndarray
    W_dec: np.ndarray
    b_dec: np.ndarray
    b_enc: np.ndarray | None = None
    rule: str = "relu"
    k: int | None = None
    threshold: Any = None
    subtracts: bool = False
    factor: float = 1.0
    by_norm: bool = False
    gate: tuple[np.ndarray, ...] = ()
    """b_gate, b_mag, r_mag."""

    def figures(self) -> Figures:
        """Latents and reconstruction side by side."""
        z = self.factor * X.astype(np.float64) - self.b_dec * self.subtracts
        norm = np.linalg.norm(self.W_dec, axis=1) if self.by_norm else 1.0
        u = z @ self.W_enc
        if self.rule == "gated":
            gate, magnitude, grown = self.gate
            pre, on = np.exp(grown) * u + magnitude, u + gate
        else:
            pre = (u + self.b_enc) * norm
            on = pre - (self.threshold if self.rule == "threshold" else 0)
        largest = max(np.abs(pre).max(), np.abs(z).max(), np.abs(self.b_dec).max())
        near = np.abs(on) < MARGIN * largest
        latents = np.where(on > 0, np.maximum(pre, 0), 0)
        if self.rule in ("relu", "topk"):
            near[:] = False
        if self.rule == "topk" and self.k is not None and self.k < pre.shape[1]:
            order = np.sort(pre, axis=1)[:, ::-1]
            kth, following = order[:, self.k - 1], order[:, self.k]
            latents = np.where(pre >= kth[:, None], latents, 0)
            near |= ((kth - following < MARGIN * largest) & (following > -MARGIN * largest))[:, None]
        back = (latents / norm @ self.W_dec + self.b_dec) / self.factor
        sure = np.concatenate([~near, np.repeat(~near.any(1, keepdims=True), back.shape[1], 1)], 1)
        found = np.concatenate([latents, back], 1)
        return found, sure, max(largest, np.abs(found).max())


def read_sae(one: Input) -> np.ndarray:
    """Latents, reconstruction; `one.layer` must be the one that is found."""
    import jax.numpy as jnp

    from convert import layer_of, load_sae
    from jaxsae.sae.architectures import encode
    from jaxsae.sae.autoencoder import decode

    file = load_sae(one.path)
    layer = layer_of(one.path, file, one.given)
    latents = encode(file.sae, jnp.asarray(X))
    out = np.concatenate([np.asarray(latents), np.asarray(decode(file.sae, latents))], 1)
    if one.sure != UNCLEAR and layer != one.layer:
        raise WrongError(f"layer {layer} instead of {one.layer}")
    return out
