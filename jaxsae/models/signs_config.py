"""The shape of the sign model. Imports neither JAX nor NumPy: the command line can read it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsae.errors import require
from jaxsae.models import config_fields

if TYPE_CHECKING:  # heavy
    from jaxsae.text.loading import Datasets
    from jaxsae.text.signs import SignTokenizer

MOST = {
    "vocab_size": 2**24,
    "max_seq_len": 2**20,
    "d_model": 2**17,
    "d_ff": 2**20,
    "d_kv": 2**17,
    "num_heads": 2**12,
    "num_layers": 2**10,
}
"""Beyond reason, as for the restoration model."""


@dataclass(frozen=True)
class SignConfig:
    """The sign transformer's shape, as its checkpoint's `config` gives it; the defaults are the original's."""

    vocab_size: int
    """Number of token ids: five special ones, then signs."""
    d_model: int = 384
    d_ff: int = 1536
    d_kv: int = 32
    """Width of one attention head."""
    num_heads: int = 8
    num_layers: int = 16
    max_seq_len: int = 768
    """Longest text, in tokens, the two that frame it included."""
    dropout: float = 0.1
    """Probability, in training only."""
    layer_norm_eps: float = 1e-6
    """Added to the mean square that a norm divides by."""
    rotary_base: float = 10000
    """What the rotary frequencies were made from; those that are computed with are in the checkpoint."""
    signs: tuple[str, ...] = field(default=(), repr=False, metadata=config_fields.BESIDE)
    """What each id stands for, from a `vocab.json`; empty: not known. No part of what the model computes."""

    def __post_init__(self) -> None:
        config_fields.check_sizes(self, MOST)
        require(self.d_kv % 2 == 0, f"d_kv must be even (rotary pairs), got {self.d_kv}")
        config_fields.check_rates(self.dropout, self.rotary_base)
        epsilon_ok = isinstance(self.layer_norm_eps, (int, float)) and 0 < self.layer_norm_eps < 1
        require(epsilon_ok, f"the model's layer_norm_eps must be between 0 and 1, got {self.layer_norm_eps!r}")
        n = len(self.signs)
        require(n in (0, self.vocab_size), f"a model of {self.vocab_size} ids must have as many signs, got {n}")

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.num_layers

    @property
    def max_position(self) -> int:
        """Longest text, in tokens."""
        return self.max_seq_len

    @property
    def d_inner(self) -> int:
        """Width of all attention heads together."""
        return self.num_heads * self.d_kv

    @cached_property
    def tokenizer(self) -> SignTokenizer:
        """Of signs."""
        from jaxsae.text.signs import SignTokenizer

        return SignTokenizer(self.signs, self.vocab_size)

    @property
    def datasets(self) -> Datasets:
        """How its texts are read."""
        from jaxsae.text.sign_texts import SignTexts

        return SignTexts(self.tokenizer, self.max_seq_len)

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` unless the model has such a layer."""
        config_fields.check_layer(layer, self.num_layers)

    def with_layers(self, n_layers: int) -> SignConfig:
        """The shape of the first so many blocks."""
        return dataclasses.replace(self, num_layers=n_layers)

    def with_vocabulary(self, path: str | Path) -> SignConfig:
        """With the signs of a `vocab.json`, which must be as many as the model's ids."""
        from jaxsae.text.signs import read_vocabulary

        return dataclasses.replace(self, signs=read_vocabulary(path, self.vocab_size))

    @classmethod
    def from_dict(cls, given: Any, source: str) -> SignConfig:
        """Read a checkpoint's `config`; `source` names the file in errors. A field this replica lacks is refused."""
        return config_fields.from_settings(cls, MOST, given, source)
