"""The shape of the restoration model. Imports neither JAX nor NumPy: the command line reads the defaults from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from jaxsae.errors import listed, plain_number, require, whole_number

if TYPE_CHECKING:  # heavy
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
        for name, most in MOST.items():
            value = getattr(self, name)
            ok = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
            require(ok, f"the model's {name} must be a whole number in 1..{most}, got {value!r}")
        require(
            self.d_model % self.n_heads == 0,
            f"d_model must be divisible by n_heads, got {self.d_model} and {self.n_heads}",
        )
        require(self.d_head % 2 == 0, f"d_model / n_heads must be even (rotary pairs), got {self.d_head}")
        dropout_ok = isinstance(self.dropout, (int, float)) and 0 <= self.dropout < 1
        require(dropout_ok, f"the model's dropout must be in [0, 1), got {self.dropout!r}")
        base_ok = (
            isinstance(self.rotary_base, (int, float)) and self.rotary_base > 1 and math.isfinite(self.rotary_base)
        )
        require(base_ok, f"the model's rotary_base must be a number above 1, got {self.rotary_base!r}")

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @property
    def tokenizer(self) -> CharacterTokenizer:
        """Of characters."""
        from jaxsae.text.tokenizer import CharacterTokenizer

        return CharacterTokenizer(self.vocab_size)

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` unless the model has such a layer."""
        require(0 <= layer < self.n_layers, f"layer must be in 0..{self.n_layers - 1}, got {layer}")

    def with_layers(self, n_layers: int) -> ModelConfig:
        """The shape of the first so many blocks."""
        return replace(self, n_layers=n_layers)

    @classmethod
    def from_dict(cls, given: Any, source: str) -> ModelConfig:
        """Read a checkpoint's `config`; `source` names the file in errors. A field this replica lacks is refused."""
        require(isinstance(given, dict), f"{source}: config must be a dict, got {type(given).__name__}")
        unknown = sorted(map(str, set(given) - {f.name for f in fields(cls)}))
        require(not unknown, f"{source}: config has fields this replica does not know: {listed(unknown)}")
        require("vocab_size" in given, f"{source}: config must have vocab_size, got {listed(given) or 'nothing'}")
        return cls(
            **{name: whole_number(value) if name in MOST else plain_number(value) for name, value in given.items()}
        )
