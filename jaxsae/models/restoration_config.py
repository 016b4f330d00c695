"""The shape of the restoration model. Imports neither JAX nor NumPy: the command line reads the defaults from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jaxsae.errors import require
from jaxsae.models import config_fields

if TYPE_CHECKING:  # heavy
    from jaxsae.text.loading import Datasets
    from jaxsae.text.tokenizer import CharacterTokenizer

MOST = {
    "vocab_size": 2**24,
    "max_position": 2**20,
    "d_model": 2**17,
    "n_heads": 2**12,
    "d_ff": 2**20,
    "n_layers": 2**10,
}
"""Beyond reason: what a file declares is compared with its tensors only after tables of that size are made."""


@dataclass(frozen=True)
class ModelConfig:
    """The restoration transformer's shape, as its checkpoint's `config` gives it; the defaults are the original's."""

    vocab_size: int
    """Number of token ids; ids are Unicode code points."""
    max_position: int = 768
    """Longest text, in characters."""
    d_model: int = 384
    n_heads: int = 8
    d_ff: int = 1536
    n_layers: int = 16
    dropout: float = 0.1
    """Probability, in training only."""
    rotary_base: float = 10000

    def __post_init__(self) -> None:
        config_fields.check_sizes(self, MOST)
        require(
            self.d_model % self.n_heads == 0,
            f"d_model must be divisible by n_heads, got {self.d_model} and {self.n_heads}",
        )
        require(self.d_head % 2 == 0, f"d_model / n_heads must be even (rotary pairs), got {self.d_head}")
        config_fields.check_rates(self.dropout, self.rotary_base)

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @property
    def tokenizer(self) -> CharacterTokenizer:
        """Of characters."""
        from jaxsae.text.tokenizer import CharacterTokenizer

        return CharacterTokenizer(self.vocab_size)

    @property
    def datasets(self) -> Datasets:
        """How its texts are read."""
        from jaxsae.text import loading

        return loading

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` unless the model has such a layer."""
        config_fields.check_layer(layer, self.n_layers)

    def with_layers(self, n_layers: int) -> ModelConfig:
        """The shape of the first so many blocks."""
        return replace(self, n_layers=n_layers)

    @classmethod
    def from_dict(cls, given: Any, source: str) -> ModelConfig:
        """Read a checkpoint's `config`; `source` names the file in errors. A field this replica lacks is refused."""
        return config_fields.from_settings(cls, MOST, given, source)
