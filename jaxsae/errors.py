"""Errors and notes about what is given from outside, and the checks that raise them. Imports neither JAX nor torch."""

import warnings
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Something given from outside is wrong: says what must hold, what was got and what to do, in one line."""


class ParityError(Exception):
    """The replica does not compute what PyTorch computes."""


def require(holds: bool, message: str) -> None:
    """Raise `InputError(message)` unless `holds`."""
    if not holds:
        raise InputError(message)


class InputNote(UserWarning):
    """What was given is used, but not as one might think: says how, in one line. Commands print it as `note: ...`."""


def note(message: str) -> None:
    """Warn with an `InputNote`."""
    warnings.warn(message, InputNote, stacklevel=2)


def listed(names: Iterable[Any], most: int = 4, mark: str = ", ") -> str:
    """`a, b, c`; of many, the first `most` and how many more there are: an error stays one line that can be read."""
    every = [str(name) for name in names]
    shown = [name if len(name) <= 60 else f"{name[:57]}..." for name in every[:most]]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return mark.join(shown) + more


def whole_number(value: Any) -> Any:
    """A number that is whole, as an `int`, whatever type it has (`np.int64`, 384.0); anything else as it is."""
    value = plain_number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def plain_number(value: Any) -> Any:
    """A NumPy number, or an array without dimensions, as Python's own; anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def one_line(message: str, most: int = 300) -> str:
    """A message as one line of at most so many characters; of a longer one the middle, which names things, is cut."""
    message = " ".join(message.split())
    if len(message) >= most:
        half = (most - 5) // 2
        message = f"{message[:half]} ... {message[-half:]}"
    return f"{message}\n"
