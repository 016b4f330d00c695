"""The shape of a transformer in JAX that no family here is of: what a user's own replica has for its config."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jaxsae.errors import require

if TYPE_CHECKING:  # heavy
    from jaxsae.text.plain_texts import PlainTexts
    from jaxsae.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Shape:
    """What is known of a model without its weights; see `jaxsae.models.protocol.ModelShape`."""

    n_layers: int
    d_model: int
    max_position: int
    """Longest text, in tokens."""
    tokenizer: Tokenizer
    causal: bool = False
    """Whether it predicts the next token at each position."""

    @property
    def datasets(self) -> PlainTexts:
        """How its texts are read."""
        from jaxsae.text.plain_texts import PlainTexts

        return PlainTexts(self.tokenizer, self.max_position, causal=self.causal)

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` unless the model has such a layer."""
        require(0 <= layer < self.n_layers, f"layer must be in 0..{self.n_layers - 1}, got {layer}")

    def with_layers(self, n_layers: int) -> Shape:
        """The shape of the first so many blocks."""
        return replace(self, n_layers=n_layers)
