"""What a user's own file says of a PyTorch module, so that it can be read by hooks. Imports no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TorchModel:
    """A PyTorch module, and how text goes into it; `load()` of a user's file returns one.

    Positional arguments are enough where the module is called as `module(ids, mask)`, or as Hugging Face's are.

    Args:
      module: the `torch.nn.Module`; it is run on the CPU, in float32, in eval mode.
      encode: text -> token ids, without special tokens.
      pieces: token ids -> what each is shown as. Joined they are the text: the first piece of a word begins with a
        space where a token is more than a character. It is asked for every id in 0..vocab_size-1.
      vocab_size: ids are in 0..vocab_size-1; None: the rows of its first embedding.
      blocks: dotted name of the ModuleList, or Sequential, of blocks; None: of the outermost ones the longest.
      max_position: longest text, in tokens, special tokens included.
      mask_id: the id of the token that hides another, which the module then predicts; None: none is hidden.
      causal: whether the module predicts the next token at each position.
      frame: the ids that are put before and behind every text, such as `([1], [2])`.
      padding_id: the id that stands at padding.
      forward: `forward(module, ids, mask)` -> logits [texts, positions, vocab_size]; `mask` is 1 = real, 0 = padding,
        or None. Left out: the module is called with what the names of its parameters ask for.
      unit: what a token is called.
    """

    module: Any
    encode: Callable[[str], Sequence[int]]
    pieces: Callable[[Sequence[int]], Sequence[str]]
    vocab_size: int | None = None
    blocks: str | None = None
    max_position: int = 512
    mask_id: int | None = None
    causal: bool = False
    frame: Sequence[Sequence[int]] = ((), ())
    padding_id: int = 0
    forward: Callable[[Any, Any, Any], Any] | None = None
    unit: str = "token"
