"""PyTorch's side of a comparison: the bundled reference of any family, or the user's file with hooks on its layers.

Imports no JAX: it runs in a process of its own as well.
"""

import contextlib
import functools
import importlib
import importlib.util
import inspect
import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from convert.families import Config, family_of
from jaxsae.errors import InputError, require
from jaxsae.models.config_fields import settings

TORCH_TYPES = (torch.float32, torch.float64)


class Weights(Protocol):
    """A checkpoint, as far as it is needed here."""

    @property
    def config(self) -> Config:
        """The model's shape."""

    @property
    def tensors(self) -> Mapping[str, np.ndarray]:
        """Tensors by their PyTorch names."""


def build(checkpoint: Weights) -> nn.Module:
    """The bundled reference with the checkpoint's weights in float32."""
    parts = importlib.import_module(family_of(checkpoint.config).reference)
    with torch.device("meta"):
        module = parts.Model(checkpoint.config)
    module.load_state_dict(_float32(checkpoint.tensors, list(module.state_dict())), assign=True)
    return module.eval()


def build_from_file(checkpoint: Weights, path: str | Path) -> Callable[[], nn.Module]:
    """What makes the user's own model with the checkpoint's weights in float32, a new one each time.

    The file is imported, that is, run; it must define the classes that the family's `user_classes` name.
    """
    create, (_, name) = _user_model(Path(path), checkpoint.config), family_of(checkpoint.config).user_classes
    state = _float32(checkpoint.tensors, list(checkpoint.tensors))

    def make() -> nn.Module:
        module = create()
        try:
            module.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise InputError(f"{path}: its {name} must take the checkpoint's tensors, got: {error}") from None
        return module.eval()

    return make


def _float32(tensors: Mapping[str, np.ndarray], names: Iterable[str]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(tensors[name], np.float32, order="C")) for name in names}


def _user_model(path: Path, config: Config) -> Callable[[], nn.Module]:
    """What makes a model with the classes of the user's file; the file is run once."""
    require(path.is_file(), f"the reference model must be a Python file, got {path}")
    spec = importlib.util.spec_from_file_location("user_reference", path)
    require(
        spec is not None and spec.loader is not None, f"the reference model must be a Python file (.py), got {path}"
    )
    assert spec is not None
    loader = spec.loader
    assert loader is not None
    user = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = user  # dataclasses look their module up
    names = family_of(config).user_classes

    def attempt(run: Callable[[], Any]) -> Any:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return run()
        except Exception as error:
            got = f"{type(error).__name__}: {error}"
            raise InputError(f"{path}: must define {names[0]} and {names[1]}(config), got {got}") from error

    attempt(lambda: loader.exec_module(user))
    return lambda: attempt(lambda: getattr(user, names[1])(getattr(user, names[0])(**settings(config))))


def watch(block: nn.Module, of: str, parts: Mapping[str, str], see: Callable[[torch.Tensor], None]) -> Any:
    """A hook that shows a copy of what stands at a hook point of a block; removed by its `remove`."""
    if of == "resid_pre":
        return block.register_forward_pre_hook(lambda _, inputs: see(inputs[0].detach().clone()))
    module = block if of == "resid_post" else block.get_submodule(parts[of])
    return module.register_forward_hook(lambda _, __, output: see(output.detach().clone()))


@torch.no_grad()
def hook_outputs(
    module: nn.Module,
    ids: np.ndarray,
    mask: np.ndarray | None,
    layers: Sequence[int],
    dtype: torch.dtype,
    blocks_at: str = "layers",
    of: str = "resid_post",
    parts: Mapping[str, str] = MappingProxyType({}),
) -> dict[int, np.ndarray]:
    """What hooks on the module's blocks see, layer -> [batch, position, d_model], computed in `dtype`.

    One sample at a time, as the original scripts run; the forward pass is left after the last layer asked for, and the
    blocks behind it are dropped from `module`.

    Args:
      blocks_at: where the blocks are in the module, such as `torso.layers`.
      of: the hook point of each block, see `jaxsae.models.hooks`.
      parts: hook point -> the module of a block whose output it is.
    """

    class Enough(Exception):  # noqa: N818 - not an error: it ends the forward pass
        pass

    blocks: nn.ModuleList = module.get_submodule(blocks_at)  # type: ignore[assignment]
    del blocks[max(layers) + 1 :]
    module = module.to(dtype)
    got: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}

    def hook(layer: int, output: torch.Tensor) -> None:
        got[layer].append(output.numpy())
        if layer == max(layers):
            raise Enough

    handles = [watch(blocks[i], of, parts, functools.partial(hook, i)) for i in layers]
    takes_mask = mask is not None and len(inspect.signature(module.forward).parameters) > 1
    require(
        takes_mask or mask is None,
        "the reference model's forward must take (input_ids, attention_mask) for padding drop",
    )
    try:
        for i, row in enumerate(ids):
            arguments = [torch.from_numpy(row[None]).long()]
            if mask is not None:
                arguments.append(torch.from_numpy(mask[i][None]).long())
            with contextlib.suppress(Enough), contextlib.redirect_stdout(io.StringIO()):
                module(*arguments)
    except Exception as error:
        raise InputError(f"the reference model must run on the samples, got {type(error).__name__}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    return {layer: np.concatenate(parts) for layer, parts in got.items()}


Activations = dict[int, np.ndarray]
"""Layer -> what a hook on it sees, [batch, position, d_model]."""


@torch.no_grad()
def activations(
    checkpoint: Weights, ids: np.ndarray, mask: np.ndarray | None, layers: Sequence[int], of: str = "resid_post"
) -> tuple[Activations, Activations]:
    """What `hook_outputs` finds of the bundled reference, in float32 and in float64; one block at a time is in memory.

    Tensors are asked for in the order of the blocks, and each once: `checkpoint.tensors` may read them on the way.
    """
    config, found = checkpoint.config, (Activations(), Activations())
    family = family_of(config)
    parts = importlib.import_module(family.reference)
    masks = [None if mask is None else torch.from_numpy(row[None]).long() for row in (ids if mask is None else mask)]
    embedding = torch.from_numpy(np.asarray(checkpoint.tensors[family.embedding], np.float32)[ids])
    streams = [[row[None].to(dtype) for row in embedding] for dtype in TORCH_TYPES]
    with torch.device("meta"):
        block = parts.Block(config)
    for layer in range(max(layers) + 1):
        names = {f"{family.blocks}.{layer}.{name}": name for name in block.state_dict()}
        state = _float32(checkpoint.tensors, names)
        block.load_state_dict({names[name]: tensor for name, tensor in state.items()}, assign=True)
        del state
        for number, dtype in enumerate(TORCH_TYPES):
            block.to(dtype)
            seen: list[torch.Tensor] = []
            handle = watch(block, of, parts.PARTS, seen.append)
            streams[number] = [
                block(x, *parts.around(config, x, one)) for x, one in zip(streams[number], masks, strict=True)
            ]
            handle.remove()
            if layer in layers:
                found[number][layer] = torch.cat(seen).numpy()
    return found


def hooked(
    checkpoint: Weights,
    file: str | Path,
    ids: np.ndarray,
    mask: np.ndarray | None,
    layers: Sequence[int],
    of: str = "resid_post",
) -> tuple[Activations, Activations]:
    """As `activations`, of the user's own model: its file is imported, that is, run.

    Each type has a model of its own: one may keep what it computed in the first, such as rotary angles.
    """
    make, family = build_from_file(checkpoint, file), family_of(checkpoint.config)
    where = family.blocks, of, importlib.import_module(family.reference).PARTS
    theirs, exact = (hook_outputs(make(), ids, mask, layers, dtype, *where) for dtype in TORCH_TYPES)
    return theirs, exact
