"""A dict from a file that raises an error where a key was never used."""

from collections.abc import Iterator, Mapping
from typing import Any

from convert.pickles import Skipped, plain
from jaxsae.errors import InputError, listed, require


class Fields(Mapping[Any, Any]):
    """The dict in a file, taken key by key, so that in the end it is known which keys nobody took.

    As a mapping it has the keys that are left; a value is looked at when it is asked for.

    Args:
      content: as it was read; values that are not taken may be anything.
      where: the name of the dict in errors.
      instead: what to give instead, for errors.
    """

    def __init__(self, content: dict[Any, Any], where: str, instead: str = "") -> None:
        self._left, self.where, self.instead = dict(content), where, instead

    def __contains__(self, key: object) -> bool:
        return key in self._left

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._left))

    def __len__(self) -> int:
        return len(self._left)

    def __getitem__(self, key: Any) -> Any:
        try:
            return plain(self._left[key])
        except InputError as error:
            give = f"; give {self.instead}" if self.instead else ""
            raise InputError(f"{self.where}: {key}: {error}{give}") from None

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, or `default`.

        Raises:
          InputError: it holds something of a class that is not known.
        """
        if key not in self._left:
            return default
        value = self[key]
        del self._left[key]
        return value

    def inner(self, key: str) -> "Fields":
        """The dict that is the value of a key, to be taken key by key; an empty one where there is no such key.

        Raises:
          InputError: it is something else.
        """
        value = self._left.pop(key, None)
        require(
            isinstance(value, dict | None),
            f"{self.where}: {key} must be a dict (an object), got {type(value).__name__}",
        )
        return Fields(value or {}, f"{self.where}: {key}", self.instead)

    def drop(self, *keys: str) -> None:
        """Take keys without looking at their values."""
        for key in keys:
            self._left.pop(key, None)

    def described(self) -> str:
        """The keys that are left; where a value is of an unknown class, with that class."""
        kinds = {key: f" ({value.kinds})" if isinstance(value, Skipped) else "" for key, value in self._left.items()}
        return listed((f"{key}{kind}" for key, kind in kinds.items()), 6)

    def finish(self, what: str) -> None:
        """Raise `InputError` unless every key was taken; `what` is the condition that the error states."""
        left = listed(map(repr, self._left))
        require(not self._left, f"{self.where}: {what}, got {left}")
