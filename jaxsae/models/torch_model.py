"""What a user's own file says of a PyTorch module, so that it can be read by hooks. Imports no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxsae.text.tokenizer import Frame


@dataclass(frozen=True)
class TorchModel:
    """A PyTorch module, and how text goes into it; `load()` of a user's file returns one.

    Positional arguments are enough where the module is called as `module(ids, mask)`, or as Hugging Face's are.
    """

    module: Any
    """The `torch.nn.Module`; it is run on the CPU, in float32, in eval mode."""
    encode: Callable[[str], Sequence[int]]
    """Text -> token ids, without special tokens."""
    pieces: Callable[[Sequence[int]], Sequence[str]]
    """Token ids -> what each is shown as. Joined they are the text: the first piece of a word begins with a space where
    a token is more than a character."""
    vocab_size: int | None = None
    """Ids are in 0..vocab_size-1; None: the rows of its first embedding."""
    blocks: str | None = None
    """Dotted name of the ModuleList of blocks; None: the longest one."""
    max_position: int = 512
    """Longest text, in tokens, special tokens included."""
    mask_id: int | None = None
    """The id of the token that hides another, which the module then predicts; None: none is hidden."""
    causal: bool = False
    """Whether the module predicts the next token at each position."""
    frame: Frame = ((), ())
    """The ids that are put before and behind every text."""
    padding_id: int = 0
    """The id that stands at padding."""
    forward: Callable[[Any, Any, Any], Any] | None = None
    """`forward(module, ids, mask)` -> logits [texts, positions, vocab_size]; `mask` is 1 = real, 0 = padding, or None.
    Left out: the module is called with what the names of its parameters ask for."""
    unit: str = "token"
    """What a token is called."""
