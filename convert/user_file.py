"""What a function of a user's own file returns. The file is imported, that is, run."""

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from jaxsae.errors import InputError, require

_FUNCTION = re.compile(r"(.+\.py)(?::(\w+))?")


class UserFunction(NamedTuple):
    """A function of a file."""

    file: Path
    name: str


def names_function(path: str | Path) -> bool:
    """Whether it has the form `FILE.py:FUNCTION`, or is a Python file."""
    return _FUNCTION.fullmatch(str(path)) is not None


def user_function(path: str | Path) -> UserFunction:
    """The parts of `FILE.py:FUNCTION`.

    Raises:
      InputError: there is no such file, or no function is named.
    """
    found = _FUNCTION.fullmatch(str(path))
    require(found is not None, f"the model must be FILE.py:FUNCTION, got {path}")
    assert found is not None
    require(Path(found[1]).is_file(), f"the model's file must exist, got {found[1]}, which does not")
    require(
        found[2] is not None,
        f"the model must be given as FILE.py:FUNCTION, got {path}; name the function, such as load",
    )
    return UserFunction(Path(found[1]), found[2])


def call(function: UserFunction) -> Any:
    """Import the file, whose folder it may import from, and call the function; what it prints is not shown.

    Raises:
      InputError: it has no such function, or fails.
    """
    file, name = function
    spec = importlib.util.spec_from_file_location(f"user_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    user = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = user  # dataclasses look their module up
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            spec.loader.exec_module(user)
            wanted = getattr(user, name, None)
            if wanted is not None:
                return wanted()
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise InputError(f"{file}: {name}() must return the model, got {got}") from error
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)  # for what it imports later
    defined = [word for word, value in vars(user).items() if callable(value) and not word.startswith("_")]
    own = [word for word in defined if getattr(getattr(user, word), "__module__", None) == spec.name]
    raise InputError(f"{file}: must define {name}(), got {', '.join(own) or 'no function'}")
