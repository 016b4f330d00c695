"""The shape of a transformer in JAX that no family here is of: what a user's own replica has for its config."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jaxsae.errors import InputError
from jaxsae.models import config_fields

if TYPE_CHECKING:  # heavy
    from jaxsae.models.torch_model import TorchModel
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

    @classmethod
    def of(cls, given: TorchModel, *, n_layers: int, d_model: int, vocab_size: int | None = None) -> Shape:
        """The shape of a replica of a PyTorch module: all that `given` says of its texts is taken over.

        Args:
          vocab_size: ids are in 0..vocab_size-1; None: as `given` says, else the rows of the module's first embedding.

        Raises:
          InputError: nothing says how many ids there are.
        """
        from jaxsae.text.piece_tokenizer import PieceTokenizer

        vocab = vocab_size if vocab_size is not None else given.vocab_size
        if vocab is None:
            rows = (getattr(module, "num_embeddings", None) for module in given.module.modules())
            vocab = next((n for n in rows if isinstance(n, int)), None)
        if vocab is None:
            raise InputError(
                "Shape.of must know vocab_size, as the module has no embedding, got None; give vocab_size="
            )
        before, behind = given.frame
        about = given.padding_id, given.mask_id, (tuple(before), tuple(behind))
        tokenizer = PieceTokenizer.named(given.unit, given.encode, given.pieces, vocab, *about)
        return cls(n_layers, d_model, given.max_position, tokenizer, given.causal)

    @property
    def datasets(self) -> PlainTexts:
        """How its texts are read."""
        from jaxsae.text.plain_texts import PlainTexts

        return PlainTexts(self.tokenizer, self.max_position, causal=self.causal)

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` unless the model has such a layer."""
        config_fields.check_layer(layer, self.n_layers)

    def with_layers(self, n_layers: int) -> Shape:
        """The shape of the first so many blocks."""
        return replace(self, n_layers=n_layers)
