"""A transformer in JAX that a function of the user's own file returns, as a stored model; its parity with PyTorch."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convert.verify import LayerCheck, compare
from jaxsae.activations.extraction import extract
from jaxsae.errors import require
from jaxsae.models.hooks import HOOKS, Hook
from jaxsae.models.own import Shape
from jaxsae.models.transformer import Transformer, params_of
from jaxsae.text.samples import Samples

if TYPE_CHECKING:  # torch
    from convert.hooked import HookedCheckpoint


@dataclass(frozen=True)
class OwnReplica:
    """See `jaxsae.models.protocol.StoredModel`."""

    replica: Transformer
    source: str
    """What it is called in errors."""
    text_of_file: bytes
    """Of the file that made it, which is part of what it is."""

    def __post_init__(self) -> None:
        got = type(self.replica.config).__name__
        ok = isinstance(self.replica.config, Shape)
        require(ok, f"{self.source}: the replica's config must be a jaxsae.models.own.Shape, got {got}")

    @property
    def config(self) -> Shape:
        """Its shape."""
        return self.replica.config

    @property
    def name(self) -> str:
        """What its class is called."""
        return type(self.replica).__name__

    @property
    def about(self) -> str:
        """What is read of it, in words."""
        says = "predicts the next token" if self.config.causal else "restores hidden tokens"
        return f"{self.name}: {self.config.n_layers} blocks in JAX; {says}"

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of its parameters and of the text of the file that made it."""
        digest = hashlib.sha256(self.text_of_file)
        for name, parameter in params_of(self.replica).items():
            value = np.ascontiguousarray(parameter)
            digest.update(f"{name} {value.dtype} {value.shape}".encode())
            digest.update(value.data)
        return digest.hexdigest()

    @property
    def sha256(self) -> str:
        """Its identity: it is in no file of its own."""
        return self.identity

    def model(self, *, n_layers: int | None = None, hook: Hook = HOOKS[0]) -> Transformer:
        """The replica, read at a hook point; blocks that are not asked for do not run."""
        return self.replica.hooked_at(hook)


def parity(
    ours: OwnReplica,
    theirs: "HookedCheckpoint",
    samples: Samples,
    layers: Sequence[int],
    padding: str,
    hook: Hook = HOOKS[0],
) -> list[LayerCheck]:
    """The replica's activations beside those of a PyTorch module by hooks, both beside the module's in float64.

    The module is left in float64.
    """
    require(
        theirs.config.n_layers == ours.config.n_layers,
        f"the PyTorch module must have as many blocks as the replica, {ours.config.n_layers}, got {theirs.config.n_layers}",
    )
    mask = samples.mask if padding == "drop" else None
    rows = extract(ours.model(hook=hook), samples, layers, padding)
    wanted = samples.real[rows.sample, rows.position]
    seen = [theirs.outputs(samples.ids, mask, layers, hook), theirs.double().outputs(samples.ids, mask, layers, hook)]
    real = samples.real
    return [
        compare(layer, np.asarray(rows.values[layer])[wanted], *(of_type[layer][real] for of_type in seen))
        for layer in layers
    ]
