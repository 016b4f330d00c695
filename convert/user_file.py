"""What a function of a user's own file returns. The file is imported, that is, run."""

import contextlib
import hashlib
import importlib
import importlib.util
import io
import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jaxsae.errors import InputError, require
from jaxsae.files import absent

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
    require(Path(found[1]).is_file(), f"the model's file must exist, got {found[1]}: {absent(found[1])}")
    require(
        found[2] is not None,
        f"the model must be given as FILE.py:FUNCTION, got {path}; name the function, such as load",
    )
    return UserFunction(Path(found[1]), found[2])


class Called(NamedTuple):
    """What a function has returned, and what it was made of."""

    value: Any
    code: str
    """SHA-256 of the text of the file, and of all that it has imported from its folder."""


def call(function: UserFunction) -> Called:
    """Import the file, whose folder it may import from, and call the function; what it prints is not shown.

    What it imports from its folder is imported anew at every call, and is no other file's module of the same name.

    Raises:
      InputError: it has no such function, or fails.
    """
    file, name = function
    folder = file.resolve().parent
    spec = importlib.util.spec_from_file_location("user_" + re.sub(r"\W", "_", str(file.resolve())), file)
    assert spec is not None
    assert spec.loader is not None
    user = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = user  # dataclasses look their module up
    before = set(sys.modules)
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            spec.loader.exec_module(user)
            wanted = getattr(user, name, None)
            if wanted is not None:
                value = wanted()
                return Called(value, _code([file.resolve(), *_imported(before, folder).values()], folder))
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise InputError(f"{file}: {name}() must return the model, got {got}") from error
    finally:
        for imported in _imported(before, folder):
            del sys.modules[imported]  # what has imported it keeps it
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # for what it imports later
    defined = [word for word, value in vars(user).items() if callable(value) and not word.startswith("_")]
    own = [word for word in defined if getattr(getattr(user, word), "__module__", None) == spec.name]
    raise InputError(f"{file}: must define {name}(), got {', '.join(own) or 'no function'}")


def _imported(before: Collection[str], folder: Path) -> dict[str, Path]:
    """Modules that were imported since from a folder itself, not from an environment within it -> their places."""
    found: dict[str, Path] = {}
    for name, module in list(sys.modules.items()):
        if name in before or name.split(".")[0] in before:
            continue
        said = getattr(module, "__dict__", {})  # some of torch's have any attribute that is asked for
        file, packages = said.get("__file__"), list(said.get("__path__") or [])
        place = Path(packages[0] if packages else file or "")  # of a package its folder
        if folder in place.parents and len(place.relative_to(folder).parts) == name.count(".") + 1:
            found[name] = Path(file) if file else place
    return found


def _code(files: Iterable[Path], folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(set(files)):
        if file.suffix == ".py":
            content = file.read_bytes()
            digest.update(f"{file.relative_to(folder)} {len(content)} ".encode() + content)
    return digest.hexdigest()
