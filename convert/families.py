"""The families of models that are known: one row each, and all that is done with a checkpoint is done by its row.

What a row names is loaded when it is used: reading a config takes neither torch nor JAX.
"""

import importlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from convert import restoration, signs, table
from convert.table import Entry
from jaxsae.errors import listed, require
from jaxsae.models.config_fields import settings
from jaxsae.models.restoration_config import ModelConfig
from jaxsae.models.signs_config import SignConfig

if TYPE_CHECKING:  # JAX
    from jaxsae.models.transformer import Transformer

Config = ModelConfig | SignConfig


class Family(NamedTuple):
    """One family: checkpoints whose `config` has the fields of `config` and whose tensors are those of `table`."""

    name: str
    """As a converted folder says it."""
    config: type[ModelConfig] | type[SignConfig]
    table: tuple[Entry, ...]
    replica: str
    """The class of its Flax replica, as `module:class`."""
    reference: str
    """The module with its PyTorch reference: `Block`, `Model` and `around`."""
    user_classes: tuple[str, str]
    """The names that a user's own file gives the config and the model."""
    vocabulary: str | None = None
    """The file beside a checkpoint that says what ids stand for; None: the ids say it themselves."""

    @property
    def embedding(self) -> str:
        """The PyTorch name of the tensor that ids are looked up in."""
        return next(e.torch_name for e in self.table if e.path == "embed.embedding")

    @property
    def blocks(self) -> str:
        """Where the blocks are in the PyTorch module, such as `torso.layers`."""
        return next(e.torch_name.partition(".{i}.")[0] for e in self.table if "{i}" in e.torch_name)

    def entries(self, config: Config) -> list[Entry]:
        """The name table of a model, in the order of tensors in a checkpoint."""
        return table.expand_layers(self.table, config.n_layers)

    def model(self) -> "type[Transformer]":
        """The class `replica`, loaded."""
        module, _, name = self.replica.partition(":")
        return getattr(importlib.import_module(module), name)


FAMILIES = (
    Family(
        name="restoration",
        config=ModelConfig,
        table=restoration.TABLE,
        replica="jaxsae.models.restoration:RestorationModel",
        reference="convert.restoration_reference",
        user_classes=("RestorationConfig", "RestorationModel"),
    ),
    Family(
        name="signs",
        config=SignConfig,
        table=signs.TABLE,
        replica="jaxsae.models.signs:SignModel",
        reference="convert.signs_reference",
        user_classes=("AeneasConfig", "AeneasForMLM"),
        vocabulary="vocab.json",
    ),
)

INSTEAD = "the best_model.pt of a restoration or sign model (model_state_dict and config); others: docs/models.md"


def family_of(config: Config) -> Family:
    """The family that a config is of."""
    return next(family for family in FAMILIES if isinstance(config, family.config))


def family_named(name: Any, source: str) -> Family:
    """The family that a converted folder names; `source` names the folder in errors."""
    found = [family for family in FAMILIES if family.name == name]
    require(bool(found), f"{source}: its family must be one of {listed(f.name for f in FAMILIES)}, got {name!r}")
    return found[0]


def recognised(config: Any, names: Iterable[str], source: str) -> Family:
    """The family that most of a checkpoint's config fields and tensor names are of.

    Args:
      config: as the file has it; what all families have counts for none.
      source: names the file in errors.

    Raises:
      InputError: nothing in it is of any family.
    """
    names = list(names)
    of_blocks = Counter(re.sub(r"\.\d+\.", ".{i}.", name, count=1) for name in names)
    fields = set(config) if isinstance(config, dict) else set()
    common = set.intersection(*(set(family.config.__dataclass_fields__) for family in FAMILIES))

    def known(family: Family) -> int:
        tensors = tuple(entry.torch_name for entry in family.table)  # a wrapper's prefix may stand before them
        n = sum(count for name, count in of_blocks.items() if name.endswith(tensors))
        return n + len(fields & set(family.config.__dataclass_fields__) - common)

    best = max(FAMILIES, key=known)
    kinds = " or ".join(f"{family.name} (tensors such as {family.embedding})" for family in FAMILIES)
    got = f"{listed(names, 2) or 'none'}; config {listed(map(str, fields), 3) or 'without fields'}"
    require(known(best) > 0, f"{source}: must be a model of a known family, {kinds}, got tensors {got}")
    return best


def torch_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """PyTorch name -> shape of every tensor that a checkpoint of this config has."""
    family = family_of(config)
    return table.torch_shapes(family.entries(config), family.model().param_shapes(config))


def to_flax(tensors: Mapping[str, np.ndarray], config: Config, source: str) -> dict[str, np.ndarray]:
    """`table.to_flax_names` with the table of the config's family."""
    family = family_of(config)
    return table.to_flax_names(tensors, family.entries(config), family.model().param_shapes(config), source)


def to_torch(params: Mapping[str, np.ndarray], config: Config) -> dict[str, np.ndarray]:
    """Flax path -> array becomes PyTorch name -> array, in the order of a checkpoint."""
    return table.to_torch_names(params, family_of(config).entries(config))


def identity_settings(config: Config) -> dict[str, Any]:
    """What a config says of what the model computes; dropout, which only training reads, is left out."""
    kept = {name: value for name, value in settings(config).items() if name != "dropout"}
    return kept | {"rotary_base": float(config.rotary_base)}  # 10000 and 10000.0 are one
