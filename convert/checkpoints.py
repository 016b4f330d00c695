"""A model's checkpoint: the `.pt` that PyTorch scripts wrote, or a folder that convert-weights made of it."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convert import families, pt, table
from convert.families import INSTEAD, Config, Family
from jaxsae.errors import note, require, whole_number
from jaxsae.files import sha256
from jaxsae.models.config_fields import settings
from jaxsae.models.hooks import Hook
from jaxsae.models.protocol import ResidualModel
from jaxsae.runtime import forget

if TYPE_CHECKING:
    from jaxsae.models.restoration import RestorationModel


@dataclass(frozen=True)
class Checkpoint:
    """A model as stored: tensors by their PyTorch names, in their stored types."""

    config: Config
    tensors: dict[str, np.ndarray]
    fingerprint: Callable[[], str]
    vocabulary: Path | None = None
    """The file that says what its ids stand for; None where none is needed, or none was found."""

    @property
    def code(self) -> str:
        """SHA-256 of the user's files that made it: of none."""
        return ""

    @property
    def family(self) -> Family:
        """Its row in the table of families."""
        return families.family_of(self.config)

    @property
    def name(self) -> str:
        """What its class is called in PyTorch."""
        return self.family.user_classes[1]

    @functools.cached_property
    def sha256(self) -> str:
        """Of the file that it was read from; of a converted folder, that of the file that was converted."""
        return self.fingerprint()

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of config and tensors: the same for one model in any file, folder and type.

        Tensors are taken as float32, with which the model computes.
        """
        digest = hashlib.sha256()
        digest.update(repr(sorted(families.identity_settings(self.config).items())).encode())
        for name in families.torch_shapes(self.config):
            tensor = np.ascontiguousarray(self.tensors[name], np.float32)
            digest.update(f"{name} {tensor.shape}".encode())
            digest.update(tensor.data)
            forget([self.tensors[name]])
        return digest.hexdigest()

    def model(self, dtype: Any = np.float32, n_layers: int | None = None, hook: Hook = "resid_post") -> ResidualModel:
        """The Flax replica with these weights; with `n_layers`, of the first blocks alone.

        Args:
          hook: where it is read and changed, one of `jaxsae.models.hooks.HOOKS`.
        """
        config = self.config if n_layers is None else self.config.with_layers(n_layers)
        names = families.torch_shapes(config)
        kept = {name: tensor for name, tensor in self.tensors.items() if name in names}
        model = self.family.model().from_params(config, families.to_flax(kept, config, "checkpoint"), dtype)
        forget(self.tensors.values())  # most are copied, in another layout
        return model.hooked_at(hook)

    def with_vocabulary(self, path: str | Path) -> "Checkpoint":
        """With a file that says what the ids stand for.

        Raises:
          InputError: it is none, or not of this model.
        """
        name, path = self.family.vocabulary, Path(path)
        require(name is not None, f"a vocabulary is for models of words or signs, got {path} for another; leave it out")
        assert not isinstance(self.config, families.ModelConfig)
        return dataclasses.replace(self, config=self.config.with_vocabulary(path), vocabulary=path)


def read_checkpoint(path: str | Path, vocabulary: str | Path | None = None) -> Checkpoint:
    """Read a `.pt` file or a converted folder, of any known family.

    Every key of `model_state_dict` and `config` in a `.pt` must be known; other entries of the file are ignored.

    Args:
      vocabulary: a `vocab.json`, for models that need one to know what their ids stand for; by default that beside the
        file, or in the folder, if there is one.

    Raises:
      InputError: not such a file, or its tensors do not fit its config; the first differences are named.
    """
    path = Path(path)
    found = _from_folder(path) if path.is_dir() else _from_pt(path)
    if vocabulary is None and found.family.vocabulary is not None:
        beside = (path if path.is_dir() else path.parent) / found.family.vocabulary
        vocabulary = beside if beside.is_file() else None
    return found if vocabulary is None else found.with_vocabulary(vocabulary)


def _from_folder(path: Path) -> Checkpoint:
    from jaxsae.models.folder import load_model  # Orbax: 0.1 s, for folders alone

    stored = load_model(path)
    family = families.family_named(stored.family, str(path))
    config = family.config.from_dict(stored.config, str(path))
    shapes = {name: value.shape for name, value in stored.params.items()}
    require(
        shapes == family.model().param_shapes(config),
        f"{path}: parameters must fit its config; convert the .pt again",
    )
    return Checkpoint(config, families.to_torch(stored.params, config), lambda: stored.provenance["sha256"])


def _from_pt(path: Path) -> Checkpoint:
    content = pt.read_pt(path, INSTEAD)
    both = all(key in content for key in ("model_state_dict", "config"))
    require(
        both, f"{path}: must have model_state_dict and config, got {content.described() or 'nothing'}; give {INSTEAD}"
    )
    state = content.take("model_state_dict")
    is_state = isinstance(state, dict)
    require(is_state, f"{path}: must have model_state_dict and config, got {type(state).__name__}; give {INSTEAD}")
    given = content.take("config")
    state = {str(name): tensor for name, tensor in state.items()}
    config = families.recognised(given, state, str(path)).config.from_dict(given, str(path))
    vocab_size = whole_number(content.take("vocab_size", config.vocab_size))  # absent in last_model.pt
    require(
        vocab_size == config.vocab_size, f"{path}: vocab_size must be config's {config.vocab_size}, got {vocab_size!r}"
    )
    if prefix := table.wrapper(state, families.torch_shapes(config)):
        note(
            f"{path}: the names of its tensors begin with {prefix}, as a wrapper of PyTorch's puts it; read without it"
        )
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        require(isinstance(tensor, np.ndarray), f"{path}: {name} must be a tensor, got {type(tensor).__name__}")
    families.to_flax(state, config, str(path))  # shapes first: a tensor may be declared larger than its file
    for name, tensor in state.items():
        pt.floating(tensor, f"{path}: {name}")
        forget([tensor])
    return Checkpoint(config, state, lambda: sha256(path))


def load_restoration_model(path: str | Path) -> "RestorationModel":
    """The Flax replica with the weights of a restoration model's `.pt` file or converted folder, in float32."""
    from jaxsae.models.restoration import RestorationModel

    model = read_checkpoint(path).model()
    require(
        isinstance(model, RestorationModel),
        f"{path}: must be a restoration model, got a {type(model).__name__}; convert.read_checkpoint(path).model() has it",
    )
    assert isinstance(model, RestorationModel)
    return model


def to_folder(source: str | Path, folder: str | Path) -> None:
    """`.pt` -> Orbax folder with config and provenance; tensors keep their type, bit for bit.

    The vocabulary beside the `.pt` goes with it.
    """
    from jaxsae.models.folder import save_model

    read = read_checkpoint(source)
    params = families.to_flax(read.tensors, read.config, str(source))
    provenance = {"source": Path(source).name, "sha256": read.sha256}
    files = {str(read.family.vocabulary): read.vocabulary.read_bytes()} if read.vocabulary else {}
    save_model(folder, read.family.name, settings(read.config), params, provenance, files)


def to_pt(folder: str | Path, target: str | Path) -> None:
    """Orbax folder -> `.pt` that the original code loads; tensors keep their type, bit for bit."""
    target = Path(target)
    require(not target.exists(), f"the output must not exist yet, got {target}; remove it or give another name")
    read = read_checkpoint(folder)
    write_checkpoint(target, read.config, read.tensors)
    if read.vocabulary:
        note(f"what the ids of {target} stand for is in {read.vocabulary}: put a copy of it beside the .pt")


def write_checkpoint(path: str | Path, config: Config, tensors: dict[str, np.ndarray]) -> None:
    """Write a checkpoint in the original format, tensors by their PyTorch names."""
    content = {"model_state_dict": tensors, "config": settings(config), "vocab_size": config.vocab_size}
    pt.write_pt(path, content)
