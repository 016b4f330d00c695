"""Damaged texts as the model takes them."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from jaxsae.errors import InputError, listed, require
from jaxsae.text import preparation
from jaxsae.text.pieces import Pieces, pieces_of
from jaxsae.text.tokenizer import UNICODE, Tokenizer

COLUMNS = {"input_ids": np.int32, "labels": np.int32, "attention_mask": np.int8}
NAMES = "_id"
"""The column of what texts are called, such as a tablet's number in its museum."""


@dataclass(frozen=True)
class Samples:
    """Texts as the model takes them, each array [n, positions]."""

    ids: np.ndarray
    """Token ids."""
    labels: np.ndarray
    """The id that is to be predicted, -100 where none is: that of a hidden token, or of the next one (`causal`)."""
    mask: np.ndarray
    """1 = real, 0 = padding."""
    special: np.ndarray | None = None
    """Tokens that are no text, such as those that begin and end every text: attended to, but without rows."""
    tokenizer: Tokenizer = UNICODE
    """What the ids stand for."""
    causal: bool = False
    """Whether the model predicts the next token at every position; then nothing is hidden."""
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What else is known of each text [n], or of each token [n, positions], by name, as text."""

    def __post_init__(self) -> None:
        require(self.ids.shape == self.labels.shape == self.mask.shape, "ids, labels and mask must have one shape")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> "Samples":
        special = None if self.special is None else self.special[rows]
        return replace(
            self,
            ids=self.ids[rows],
            labels=self.labels[rows],
            mask=self.mask[rows],
            special=special,
            columns={name: column[rows] for name, column in self.columns.items()},
        )

    @property
    def real(self) -> np.ndarray:
        """Where there is text, and neither padding nor a special token, [n, positions]."""
        return self.mask != 0 if self.special is None else (self.mask != 0) & ~self.special

    @property
    def scored(self) -> np.ndarray:
        """Where the model is to predict a token, [n, positions]."""
        return self.labels != preparation.NO_LABEL

    @property
    def damaged(self) -> np.ndarray:
        """Where the true token is hidden, [n, positions]."""
        return np.zeros_like(self.scored) if self.causal else self.scored

    @property
    def true_ids(self) -> np.ndarray:
        """The token ids before the damage, [n, positions]."""
        return np.where(self.damaged, self.labels, self.ids)

    @property
    def undamaged(self) -> "Samples":
        """The same texts with nothing hidden."""
        return replace(self, ids=self.true_ids, labels=np.full_like(self.labels, preparation.NO_LABEL))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sample up to its last one that is not padding, [n]."""
        positions = np.arange(1, self.mask.shape[1] + 1)
        return (positions * (self.mask != 0)).max(axis=1, initial=0)

    def name_of(self, sample: int) -> str:
        """What the dataset calls a sample's text; empty where it does not say."""
        return str(self.columns[NAMES][sample]) if NAMES in self.columns else ""

    def pieces_of(self, sample: int) -> Pieces:
        """A sample's text token by token, as it was before the damage."""
        one = self[sample : sample + 1]
        return pieces_of(self.tokenizer, one.true_ids[one.real])

    def text_of(self, sample: int) -> str:
        """A sample's text, as it was before the damage."""
        return "".join(self.pieces_of(sample))


def as_samples(columns: Mapping[str, np.ndarray], path: Path) -> Samples:
    """The columns of a dataset as samples, in the types that these have.

    Raises:
      InputError: they differ in shape, or have impossible values; `path` is named.
    """
    shapes = {name: columns[name].shape for name in COLUMNS}
    require(len(set(shapes.values())) == 1, f"{path}: {', '.join(COLUMNS)} must have one shape, got {shapes}")
    for name, least in (("input_ids", 0), ("labels", preparation.NO_LABEL), ("attention_mask", 0)):
        low, high = (int(end) for end in (columns[name].min(initial=0), columns[name].max(initial=0)))
        most = 1 if name == "attention_mask" else sys.maxunicode
        require(least <= low and high <= most, f"{path}: {name} must be in {least}..{most}, got {low}..{high}")
    labels = columns["labels"]
    ok = not ((labels < 0) & (labels != preparation.NO_LABEL)).any()
    require(ok, f"{path}: labels must be characters, or {preparation.NO_LABEL} where there is no damage")
    ids, labels, mask = (columns[name].astype(dtype, copy=False) for name, dtype in COLUMNS.items())
    return Samples(ids, labels, mask, columns={NAMES: columns[NAMES]} if NAMES in columns else {})


def joined(several: Sequence[Samples]) -> Samples:
    """Samples of several datasets, one after another; they must be of one width."""
    widths = {samples.ids.shape[1] for samples in several}
    require(len(widths) == 1, f"datasets must have samples of one length, got {', '.join(map(str, sorted(widths)))}")
    first = several[0]
    special = None if first.special is None else np.concatenate([s.special for s in several if s.special is not None])
    ids, labels, mask = (np.concatenate([getattr(s, name) for s in several]) for name in ("ids", "labels", "mask"))
    shared = [name for name in first.columns if all(name in s.columns for s in several)]
    columns = {name: np.concatenate([s.columns[name] for s in several]) for name in shared}
    return replace(first, ids=ids, labels=labels, mask=mask, special=special, columns=columns)


def check_samples(samples: Samples, tokenizer: Tokenizer, max_position: int) -> None:
    """Raise `InputError` unless ids and labels are in a model's vocabulary, and samples are short enough for it."""
    width = samples.ids.shape[1]
    require(width <= max_position, f"samples must have at most {max_position} positions (max_position), got {width}")
    for what, numbers in (("token ids", samples.ids), ("labels", np.where(samples.scored, samples.labels, 0))):
        outside = (numbers < 0) | (numbers >= tokenizer.vocab_size)
        if outside.any():
            sample, position = (int(n) for n in np.argwhere(outside)[0])
            number = int(numbers[sample, position])
            (piece,) = tokenizer.pieces([number])
            shown = f" ({piece!r})" if piece else ""
            raise InputError(
                f"{what} must be in 0..{tokenizer.vocab_size - 1} (the model's vocabulary), got {numbers.min()}.."
                f"{numbers.max()}: {number}{shown} at position {position} of sample {sample}, and {int(outside.sum()) - 1} more"
            )


def check_shared(samples: Samples, own: Tokenizer, other: Tokenizer, max_position: int) -> None:
    """Raise `InputError` unless a second model reads samples as the one does that they were made for.

    Args:
      own: tokenizer of the model that they were made for.
      other: of the second model, and `max_position`, its longest text.
    """
    for what in ("unit", "frame", "damaged_id", "padding_id"):
        one, another = getattr(own, what), getattr(other, what)
        require(one == another, f"models must have the same {what} of tokens to read one text, got {one} and {another}")
    check_samples(samples, other, max_position)
    ids = np.unique(np.concatenate([samples.ids[samples.mask != 0], samples.labels[samples.scored]]))
    pairs = zip(ids.tolist(), own.pieces(ids), other.pieces(ids), strict=True)
    differ = [
        f"{number} is {one.strip()!r} and {another.strip()!r}" for number, one, another in pairs if one != another
    ]
    what = f"models must have one vocabulary to read one text, got ids that differ: {listed(differ, 2)}"
    require(not differ, f"{what}; give that of both (vocab=FILE)")


def kept_positions(samples: Samples, padding: str) -> Bool[np.ndarray, "n position"]:
    """The positions that rows are made of: every one (`keep`) or the real ones (`drop`)."""
    return np.ones(samples.ids.shape, bool) if padding == "keep" else samples.real
