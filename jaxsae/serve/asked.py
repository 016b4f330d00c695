"""What a request asks: its body, bounded while it comes, and its fields, each checked; what is unknown is refused."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxsae.errors import InputError, require
from jaxsae.files import parse_json

MOST_NUMBER = 2**31 - 1
"""Of layers, features and positions: what is larger is none of them, and does not fit what JAX indexes with."""
MOST_VALUE = 1e6
DISCARDED = 16 * 2**20
"""Bytes of a body that is too long which are still read, to be forgotten: else the client would not see the answer."""


@dataclass(frozen=True)
class Limits:
    """How much may be asked, and for how long it is worked on."""

    body: int = 64 * 1024
    """Bytes of a request's body."""
    body_seconds: float = 10.0
    """How long a body may take to come."""
    text: int = 2048
    """Characters of a text as it is typed; what is left of it when cleaned is for the model to refuse."""
    settings: int = 64
    """Latents that are set at once."""
    waiting: int = 8
    """Requests that may wait for the one that is being computed."""
    seconds: float = 120.0
    """How long an answer may take, waiting included."""


class RefusedError(Exception):
    """A request that is not answered: the status and the line to say so with.

    Args:
      status: of HTTP.
      again: seconds after which asking once more may help; None: it does not.
    """

    def __init__(self, status: int, message: str, again: int | None = None) -> None:
        super().__init__(message)
        self.status, self.again = status, again


async def read_body(chunks: AsyncIterator[bytes], limits: Limits) -> bytes:
    """The body of a request, of which never more than the limit is kept, whatever its headers say.

    Raises:
      RefusedError: it has more bytes than may be, or did not come in time.
    """
    kept, size = bytearray(), 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in chunks:
                size += len(chunk)
                if size <= limits.body:
                    kept += chunk
                elif size > DISCARDED:
                    break
    except TimeoutError:
        reason = f"the body must come within {limits.body_seconds:g} seconds, got {size:,} bytes of it"
        raise RefusedError(408, reason) from None
    if size > limits.body:
        raise RefusedError(413, f"the body must have at most {limits.body:,} bytes, got more")
    return bytes(kept)


def fields(body: bytes, known: Mapping[str, Callable[[Any], Any]], required: frozenset[str]) -> dict[str, Any]:
    """The fields of a JSON object, each as its function in `known` gives it; a field that is null counts as left out.

    Raises:
      InputError: no JSON object, a field that is not known, one that is missing, or one that a function refuses.
    """
    try:
        content = parse_json(body.decode())
    except UnicodeDecodeError as error:
        raise InputError(f"the body must be JSON in UTF-8, got {error.reason}") from None
    require(isinstance(content, dict), f"the body must be a JSON object, got {_kind(content)}")
    given = {name: value for name, value in content.items() if value is not None}
    unknown = [name for name in content if name not in known]
    require(not unknown, f"fields must be of {', '.join(known)}, got {unknown[:1]}")
    missing = sorted(required - set(given))
    require(not missing, f"{', '.join(missing)} must be given, got none")
    return {name: known[name](value) for name, value in given.items()}


def text_of(limits: Limits) -> Callable[[Any], str]:
    """A check: a text that a person could have typed."""

    def check(value: Any) -> str:
        require(isinstance(value, str), f"text must be a string, got {_kind(value)}")
        n, most = len(value), limits.text
        require(n <= most, f"text must have at most {most:,} characters, got {n:,}; ask about a part of it")
        return _unicode("text", value)

    return check


def character(value: Any) -> str:
    """A check: one character as the model knows them, which may take more than one of Unicode."""
    require(isinstance(value, str), f"a candidate must be a string, got {_kind(value)}")
    require(1 <= len(value) <= 32, f"a candidate must be one character, got {len(value)}")
    return _unicode("a candidate", value)


def _unicode(what: str, value: str) -> str:
    lone = any("\ud800" <= one <= "\udfff" for one in value)
    require(not lone, f"{what} must be Unicode, got a surrogate without its other half")
    return value


def number(what: str) -> Callable[[Any], int]:
    """A check: a whole number from 0 on, which is called `what` in errors."""

    def check(value: Any) -> int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        require(whole, f"{what} must be a whole number, got {_kind(value)}")
        require(0 <= value <= MOST_NUMBER, f"{what} must be in 0..{MOST_NUMBER}")
        return int(value)

    return check


def flag(value: Any) -> bool:
    """A check: true or false."""
    require(isinstance(value, bool), f"fill must be true or false, got {_kind(value)}")
    return bool(value)


def settings_of(limits: Limits) -> Callable[[Any], list[tuple[int, int, float]]]:
    """A check: latents that are set, each once; gives (layer, feature, value)."""

    def check(value: Any) -> list[tuple[int, int, float]]:
        require(isinstance(value, list), f"settings must be a list, got {_kind(value)}")
        n, most = len(value), limits.settings
        require(n <= most, f"settings must be at most {most}, got {n}")
        found = [_setting(one) for one in value]
        differ = len({(layer, feature) for layer, feature, _ in found}) == n
        require(differ, "settings must be of different features, got one twice")
        return found

    return check


def _setting(one: Any) -> tuple[int, int, float]:
    names = ("layer", "feature", "value")
    as_said = isinstance(one, dict) and sorted(one) == sorted(names)
    require(as_said, f"each of the settings must be an object of {', '.join(names)}")
    value = one["value"]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    require(is_number, f"value must be a number, got {_kind(value)}")
    fits = math.isfinite(value) and abs(value) <= MOST_VALUE if isinstance(value, float) else abs(value) <= MOST_VALUE
    require(fits, f"value must be finite, and at most {MOST_VALUE:,.0f} in size")
    return number("layer")(one["layer"]), number("feature")(one["feature"]), float(value)


def _kind(value: Any) -> str:
    """What JSON calls it."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
