"""`.pt` files, read without running anything in them and written whole.

Unlike `torch.load` alone, a flipped byte is found (the zip's checksums) and a compressed or over-declared entry is
refused before anything is allocated.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy._core.multiarray as multiarray
import torch

from jaxsae.config import InputError, require
from jaxsae.files import whole

# What NumPy numbers in a pickle consist of: the original scripts save their losses as numpy.float64. Data only.
_NUMPY_NUMBERS: list[Any] = [
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    multiarray.scalar,
    (multiarray.scalar, "numpy.core.multiarray.scalar"),  # files pickled under NumPy 1
]


def _check_zip(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(64)
    if not head.startswith(b"PK\x03\x04"):
        kinds = [
            (head == b"", "an empty file"),
            (
                head.startswith(b"version https://git-lfs"),
                "a Git LFS pointer (fetch the file itself with `git lfs pull`)",
            ),
            (head.lstrip().lower().startswith((b"<!doctype", b"<html")), "an HTML page (a failed download?)"),
            (head[:1] == b"\x80", "a bare pickle (save it again with torch.save of PyTorch 1.6 or newer)"),
        ]
        got = next((kind for found, kind in kinds if found), "something else")
        raise InputError(f"{path}: must be a zip file as torch.save writes it, got {got}")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            stored = all(e.compress_type == zipfile.ZIP_STORED for e in entries)
            require(stored, f"{path}: entries must be stored uncompressed, as torch.save does, got compressed ones")
            declared, actual = sum(e.file_size for e in entries), path.stat().st_size
            require(
                declared <= actual, f"{path}: entries must fit in the file, got {declared} bytes declared in {actual}"
            )
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: must be a whole zip file, got a truncated or damaged one; copy it again") from None
    require(damaged is None, f"{path}: checksums must hold, got a damaged entry {damaged}; copy the file again")


def read_pt(path: str | Path, instead: str) -> dict[str, Any]:
    """The dict in a `.pt` file, its tensors on the CPU and mapped from the file rather than copied.

    Args:
      instead: what to give instead, for the error when the file holds objects.

    Raises:
      InputError: no such file, not a whole zip file, classes other than tensors and numbers in it, or not a dict.
    """
    path = Path(path)
    require(path.is_file(), f"{path}: must be a .pt file, got {'a folder' if path.is_dir() else 'no such file'}")
    _check_zip(path)
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        unsafe = ", ".join(_unsafe(path)) or "a malformed pickle"
        raise InputError(
            f"{path}: must hold tensors and numbers only, got {unsafe} (nothing was run); give {instead}"
        ) from None
    except Exception as error:  # whatever else a damaged pickle makes torch raise
        first_line = str(error).strip().split("\n")[0]
        raise InputError(
            f"{path}: must be a file as torch.save writes it, got: {first_line or type(error).__name__}"
        ) from error
    require(isinstance(content, dict), f"{path}: must hold a dict, got {type(content).__name__}; give {instead}")
    return content


def _unsafe(path: Path) -> list[str]:
    """Names of the classes in the pickle that are not tensors or numbers, found without running it."""
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a malformed pickle has no list of names
        return []


def write_pt(path: str | Path, content: dict[str, Any]) -> None:
    """Write a `.pt` file; it appears whole or not at all."""
    with whole(path) as aside:
        torch.save(content, aside)


def to_numpy(tensor: Any, what: str) -> np.ndarray:
    """A tensor's or Parameter's values in their stored floating type (bfloat16 by ml_dtypes); NaN is refused."""
    require(isinstance(tensor, torch.Tensor), f"{what} must be a tensor, got {type(tensor).__name__}")
    tensor = tensor.detach()
    floating = tensor.layout == torch.strided and tensor.dtype in (
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    )
    require(floating, f"{what} must hold dense floating-point numbers, got {tensor.layout} {tensor.dtype}")
    require(bool(torch.isfinite(tensor).all()), f"{what} must be finite, got NaN or infinity")
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """The inverse of `to_numpy`: a tensor of its own memory, of the same type."""
    array = np.array(array, order="C")
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
