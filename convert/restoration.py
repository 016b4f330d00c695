"""The restoration model's checkpoint: the original scripts' `.pt`, or a folder that convert-weights made of it."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert import pt, table
from jaxsae.errors import note, require, whole_number
from jaxsae.files import sha256
from jaxsae.models.hooks import Hook
from jaxsae.models.restoration import RestorationModel
from jaxsae.models.restoration_config import ModelConfig
from jaxsae.runtime import forget

INSTEAD = "the best_model.pt of the restoration model (a dict with model_state_dict and config)"


@dataclass(frozen=True)
class Checkpoint:
    """A restoration model as stored: tensors by their PyTorch names, in their stored types."""

    config: ModelConfig
    tensors: dict[str, np.ndarray]
    fingerprint: Callable[[], str]

    @functools.cached_property
    def sha256(self) -> str:
        """Of the file that it was read from; of a converted folder, that of the file that was converted."""
        return self.fingerprint()

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of config and tensors: the same for one model in any file, folder and type.

        Tensors are taken as float32, with which the model computes. Dropout, which only training reads, is left out.
        """
        digest, settings = hashlib.sha256(), dataclasses.asdict(self.config)
        del settings["dropout"]
        settings["rotary_base"] = float(settings["rotary_base"])
        digest.update(repr(sorted(settings.items())).encode())
        for name in table.torch_shapes(self.config):
            tensor = np.ascontiguousarray(self.tensors[name], np.float32)
            digest.update(f"{name} {tensor.shape}".encode())
            digest.update(tensor.data)
            forget([self.tensors[name]])
        return digest.hexdigest()

    def model(
        self, dtype: Any = np.float32, n_layers: int | None = None, hook: Hook = "resid_post"
    ) -> RestorationModel:
        """The Flax replica with these weights; with `n_layers`, of the first blocks alone.

        Args:
          hook: where it is read and changed, one of `jaxsae.models.hooks.HOOKS`.
        """
        config = self.config if n_layers is None else self.config.with_layers(n_layers)
        names = table.torch_shapes(config)
        kept = {name: tensor for name, tensor in self.tensors.items() if name in names}
        model = RestorationModel.from_params(config, table.to_flax(kept, config, "checkpoint"), dtype)
        forget(self.tensors.values())  # most are copied, in another layout
        return model.hooked_at(hook)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a `.pt` file or a converted folder.

    Every key of `model_state_dict` and `config` in a `.pt` must be known; other entries of the file are ignored.

    Raises:
      InputError: not such a file, or its tensors do not fit its config; the first differences are named.
    """
    path = Path(path)
    if path.is_dir():
        from jaxsae.models.folder import load_model  # Orbax: 0.1 s, for folders alone

        config, params, provenance = load_model(path)
        return Checkpoint(config, table.to_torch(params, config), lambda: provenance["sha256"])
    content = pt.read_pt(path, INSTEAD)
    both = all(key in content for key in ("model_state_dict", "config"))
    require(
        both, f"{path}: must have model_state_dict and config, got {content.described() or 'nothing'}; give {INSTEAD}"
    )
    state = content.take("model_state_dict")
    is_state = isinstance(state, dict)
    require(is_state, f"{path}: must have model_state_dict and config, got {type(state).__name__}; give {INSTEAD}")
    config = ModelConfig.from_dict(content.take("config"), str(path))
    vocab_size = whole_number(content.take("vocab_size", config.vocab_size))  # absent in last_model.pt
    require(
        vocab_size == config.vocab_size, f"{path}: vocab_size must be config's {config.vocab_size}, got {vocab_size!r}"
    )
    state = {str(name): tensor for name, tensor in state.items()}
    if prefix := table.wrapper(state, table.torch_shapes(config)):
        note(
            f"{path}: the names of its tensors begin with {prefix}, as a wrapper of PyTorch's puts it; read without it"
        )
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        require(isinstance(tensor, np.ndarray), f"{path}: {name} must be a tensor, got {type(tensor).__name__}")
    table.to_flax(state, config, str(path))  # shapes first: a tensor may be declared larger than its file
    for name, tensor in state.items():
        pt.floating(tensor, f"{path}: {name}")
        forget([tensor])
    return Checkpoint(config, state, lambda: sha256(path))


def load_restoration_model(path: str | Path) -> RestorationModel:
    """The Flax replica with the weights of a `.pt` file or a converted folder, in float32."""
    return read_checkpoint(path).model()


def to_folder(source: str | Path, folder: str | Path) -> None:
    """`.pt` -> Orbax folder with config and provenance; tensors keep their type, bit for bit."""
    from jaxsae.models.folder import save_model

    read = read_checkpoint(source)
    params = table.to_flax(read.tensors, read.config, str(source))
    save_model(folder, read.config, params, {"source": Path(source).name, "sha256": read.sha256})


def to_pt(folder: str | Path, target: str | Path) -> None:
    """Orbax folder -> `.pt` that the original code loads; tensors keep their type, bit for bit."""
    from jaxsae.models.folder import load_model

    target = Path(target)
    require(not target.exists(), f"the output must not exist yet, got {target}; remove it or give another name")
    config, params, _ = load_model(folder)
    write_checkpoint(target, config, table.to_torch(params, config))


def write_checkpoint(path: str | Path, config: ModelConfig, tensors: dict[str, np.ndarray]) -> None:
    """Write a checkpoint in the original format, tensors by their PyTorch names."""
    content = {"model_state_dict": tensors, "config": dataclasses.asdict(config), "vocab_size": config.vocab_size}
    pt.write_pt(path, content)
