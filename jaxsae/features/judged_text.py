"""The characters that latents are judged on: in whose text and word each stands, and which properties it has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from jaxsae.text.pieces import Pieces, begins_word, is_space, of_characters, pieces_of
from jaxsae.text.samples import Samples

MOST_CHARACTERS = 200_000
"""Of a longer text only some samples are judged on, evenly spread over it."""


@dataclass(frozen=True)
class JudgedText:
    """Characters of some samples, in the order of the text; padding is left out."""

    samples: Samples
    sample: Int[np.ndarray, " n"]
    """Number of the sample that each character is in."""
    position: Int[np.ndarray, " n"]
    scored_from: int | None = None
    """The first sample of the half that is scored on; None: those of odd number are."""

    @classmethod
    def of(cls, samples: Samples, most: int = MOST_CHARACTERS, scored_from: int | None = None) -> "JudgedText":
        """All characters of the samples; of more than `most`, those of every second, fourth, ... pair of samples.

        Pairs, because latents are chosen on samples of even number and scored on those of odd number.
        """
        sample, position = np.nonzero(samples.real)
        step = 1
        while (kept := sample // 2 % step == 0).sum() > most and step < len(samples):
            step *= 2
        return cls(samples, sample[kept].astype(np.int32), position[kept].astype(np.int32), scored_from)

    def __len__(self) -> int:
        return len(self.sample)

    @cached_property
    def row_at(self) -> Int[np.ndarray, "samples positions"]:
        """The number of the judged character at each position of each sample; -1: it is not judged."""
        out = np.full(self.samples.ids.shape, -1, np.int32)
        out[self.sample, self.position] = np.arange(len(self))
        return out

    @cached_property
    def half(self) -> Int[np.ndarray, " n"]:
        """0: of a sample on which is chosen, by default of even number; 1: of one on which is scored, of odd number."""
        return self.sample % 2 if self.scored_from is None else (self.sample >= self.scored_from).astype(np.int32)

    @cached_property
    def true_ids(self) -> Int[np.ndarray, " n"]:
        """Token ids before the damage."""
        return self.samples.true_ids[self.sample, self.position]

    @cached_property
    def damaged(self) -> Bool[np.ndarray, " n"]:
        """Whether the model does not see the character."""
        return self.samples.damaged[self.sample, self.position]

    @cached_property
    def of_characters(self) -> bool:
        """Whether each token is a character."""
        return of_characters(self.samples.tokenizer)

    @cached_property
    def pieces(self) -> Pieces:
        """What each token is shown as, before the damage."""
        if self.of_characters:
            return pieces_of(self.samples.tokenizer, self.true_ids)
        starts = np.flatnonzero(np.diff(self.sample, prepend=-1))
        # text by text: what a token is shown as may depend on the one before
        return [piece for text in np.split(self.true_ids, starts[1:]) for piece in self.samples.tokenizer.pieces(text)]

    @cached_property
    def is_space(self) -> Bool[np.ndarray, " n"]:
        """Whether the token separates words."""
        return is_space(self.pieces)

    @cached_property
    def begins_word(self) -> Bool[np.ndarray, " n"]:
        """Whether the token begins a word, or is a space."""
        return begins_word(self.pieces) | (np.diff(self.sample, prepend=-1) != 0)

    @cached_property
    def word(self) -> Int[np.ndarray, " n"]:
        """The number of the word that each token is in; a space is a word by itself."""
        return np.cumsum(self.begins_word) - 1

    def properties(self, marks: Callable[[int], Bool[np.ndarray, "p m"]], count: int) -> Bool[np.ndarray, "p n"]:
        """Which of `count` properties each character has; `marks`: of the characters of one sample."""
        out = np.zeros((count, len(self)), bool)
        starts = np.flatnonzero(np.diff(self.sample, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(self)], strict=True):
            out[:, start:end] = marks(int(self.sample[start]))
        return out


@dataclass(frozen=True)
class MarkedRows:
    """Some characters and the properties that they have: what columns are compared with."""

    word: Int[np.ndarray, " n"]
    """The word of each; characters that are neighbours here and of one word are neighbours in the text."""
    text: Int[np.ndarray, " n"]
    """The sample of each."""
    has: Bool[np.ndarray, "p n"]

    @cached_property
    def members(self) -> Sequence[Int[np.ndarray, " m"]]:
        """For each property, the characters that have it."""
        return [np.flatnonzero(row) for row in self.has]

    @cached_property
    def starts(self) -> Sequence[Int[np.ndarray, " instances"]]:
        """For each property, where in its `members` each instance begins.

        An instance is a stretch of neighbouring characters of one word that all have the property.
        """
        out = []
        for rows in self.members:
            apart = (np.diff(rows) > 1) | (np.diff(self.word[rows]) != 0)
            out.append(np.flatnonzero(np.concatenate([[True], apart])) if len(rows) else np.zeros(0, int))
        return out

    def instance(self, p: int) -> Int[np.ndarray, " n"]:
        """The number of each character's instance of a property; -1: it has not the property."""
        out = np.full(len(self.word), -1)
        lengths = np.diff([*self.starts[p], len(self.members[p])])
        out[self.members[p]] = np.repeat(np.arange(len(lengths)), lengths)
        return out

    @cached_property
    def word_number(self) -> Int[np.ndarray, " n"]:
        """The words numbered from 0, without gaps."""
        return np.cumsum(np.diff(self.word, prepend=self.word[:1]) != 0)

    @cached_property
    def words_with(self) -> Bool[np.ndarray, "p words"]:
        """Whether a character of the word has the property."""
        starts = np.flatnonzero(np.diff(self.word, prepend=-1))
        return np.logical_or.reduceat(self.has, starts, axis=1) if len(starts) else self.has
