"""Numbers, tensors and other objects, as a file may have them."""

import argparse
import collections
import pathlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fuzzing.inputs import CLEAR, OPEN, UNCLEAR, Input


def number(one: Input, n: int, what: str, plain: float = 0.6) -> Any:
    """A whole number as a pickle may have it."""
    if one.maybe(plain):
        return n
    forms: list[tuple[str, Any, int]] = [
        ("np.int64", np.int64(n), CLEAR),
        ("np.int32", np.int32(n), CLEAR),
        ("np.float64", np.float64(n), CLEAR),
        ("float", float(n), CLEAR),
        ("tensor", torch.tensor(n), CLEAR),
        ("float tensor", torch.tensor(float(n)), CLEAR),
        ("array", np.array(n), CLEAR),
        ("text", str(n), OPEN),
        ("list", [n], OPEN),
        ("tensor of one", torch.tensor([n]), OPEN),
        ("array of one", np.array([n]), OPEN),
    ]
    bad = [
        ("half", n + 0.5, UNCLEAR),
        ("word", "many", UNCLEAR),
        ("bool", True, UNCLEAR),
        ("negative", -1 - n, UNCLEAR),
        ("nan", float("nan"), UNCLEAR),
        ("dict", {"value": n}, UNCLEAR),
    ]
    name, value, sure = one.rng.choice(bad if one.maybe(0.15) else forms)
    one.did(f"{what} as {name}", sure)
    return value


def json_number(one: Input, n: int, what: str, plain: float = 0.8) -> Any:
    """A whole number as JSON may have it."""
    if one.maybe(plain):
        return n
    forms = [("float", float(n), OPEN), ("text", str(n), OPEN), ("list", [n], OPEN), ("half", n + 0.5, UNCLEAR)]
    forms += [("bool", True, UNCLEAR), ("negative", -1 - n, UNCLEAR), ("word", "many", UNCLEAR)]
    name, value, sure = one.rng.choice(forms)
    one.did(f"{what} as {name}", sure)
    return value


def laid(one: Input, tensor: torch.Tensor, what: str, chance: float = 0.15) -> torch.Tensor:
    """The same tensor, as it may lie in a file."""
    if not one.maybe(chance):
        return tensor
    n, flat = tensor.numel(), tensor.reshape(-1)
    form = one.pick("transposed", "view", "strided", "parameter", "attribute", "grad", "negated", "part", "protocol")
    if form == "transposed" and tensor.ndim == 2:
        tensor = tensor.t().contiguous().t()
    elif form == "view":
        big = torch.full((n + 7,), 9.0, dtype=tensor.dtype)
        big[3 : 3 + n] = flat
        tensor = big[3 : 3 + n].view(tensor.shape)
    elif form == "strided":
        big = torch.full((2 * n,), 9.0, dtype=tensor.dtype)
        big[::2] = flat
        tensor = big[::2] if tensor.ndim == 1 else big.view(tensor.shape[0], -1)[:, ::2]
    elif form == "part" and tensor.ndim == 2:
        big = torch.full((tensor.shape[0] + 2, tensor.shape[1] + 3), 9.0, dtype=tensor.dtype)
        big[1:-1, 2:-1] = tensor
        tensor = big[1:-1, 2:-1]
    elif form in ("parameter", "attribute"):
        tensor = torch.nn.Parameter(tensor)
        if form == "attribute":
            tensor.no_decay = True
    elif form == "grad":
        tensor = tensor.clone().requires_grad_()
    elif form == "negated":  # a bit of the tensor says that its elements are to be negated
        one.did(f"{what} negated by a bit", OPEN)
        return torch._neg_view(-tensor)
    else:
        return tensor
    one.did(f"{what} {form}")
    return tensor


DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def stored(tensor: torch.Tensor) -> np.ndarray:
    """The values that lie in the file, float64."""
    return tensor.detach().resolve_neg().to(torch.float64).numpy().copy()


def tensors_of(one: Input, arrays: dict[str, np.ndarray], chance: float = 0.15) -> dict[str, torch.Tensor]:
    """As tensors of one type, seldom of several; each in a layout of its own."""
    out = {}
    of_all = one.pick(*DTYPES) if one.maybe(0.2) else None
    if of_all:
        one.did(f"tensors in {of_all}")
    for name, array in arrays.items():
        kind = of_all or (one.pick(*DTYPES) if one.maybe(0.03) else None)
        if kind and not of_all:
            one.did(f"{name} in {kind}")
        tensor = torch.from_numpy(np.array(array)).to(DTYPES[kind] if kind else torch.float32)
        out[name] = laid(one, tensor, name, chance)
    return out


def spoiled(one: Input, tensors: dict[str, torch.Tensor], name: str) -> None:
    """One tensor that no figures can come from."""
    if name not in tensors:
        return
    tensor = tensors[name].detach().resolve_neg().clone()
    form = one.pick("nan", "whole numbers", "complex", "sparse", "one too few", "turned", "a list", "none")
    if form == "nan":
        tensor[(0,) * tensor.ndim] = float("nan")
    made: dict[str, Any] = {
        "nan": tensor,
        "whole numbers": tensor.nan_to_num().to(torch.int32),
        "complex": tensor.to(torch.complex64),
        "sparse": tensor.float().to_sparse(),
        "one too few": tensor[:-1],
        "turned": tensor.t() if tensor.ndim == 2 else tensor[None],
        "a list": tensor.tolist(),
        "none": None,
    }
    if form == "turned" and tensor.shape == tensor.t().shape:
        form = "none"  # a square matrix would not show it
    tensors[name] = made[form]
    one.did(f"{name}: {form}", UNCLEAR)


def save(one: Input, content: Any, path: Path) -> None:
    """torch.save in one of its ways."""
    more: dict[str, Any] = {}
    if one.maybe(0.05):
        more["pickle_protocol"] = one.pick(3, 4, 5)
        one.did(f"protocol {more['pickle_protocol']}")
    if one.maybe(0.01):
        more["_use_new_zipfile_serialization"] = False
        one.did("a file of before PyTorch 1.6", OPEN)
    from torch.utils.serialization import config

    config.save.compute_crc32 = not one.maybe(0.02)
    try:
        torch.save(content, path, **more)
    finally:
        config.save.compute_crc32 = True


class Own:
    """Of a user's own script."""


def objects(one: Input) -> Any:
    """Anything that lies in a file and says nothing."""
    return one.pick(
        None,
        1,
        0.5,
        "x",
        True,
        [1, 2],
        {"a": {"b": 1}},
        (1, "2"),
        {3},
        np.float64(1.5),
        np.arange(3),
        torch.ones(2),
        argparse.Namespace(lr=1e-3),
        pathlib.PurePosixPath("/data"),
        torch.float32,
        torch.device("cpu"),
        collections.Counter("aab"),
        collections.defaultdict(list, {"loss": [1.0]}),
        Own,
        float("nan"),
    )
