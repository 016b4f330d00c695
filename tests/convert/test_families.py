"""The table of families: total over each of them, light to read, and alone in knowing them."""

import dataclasses
import importlib
import re
import subprocess
import sys

import pytest
import sign_model
import torch
from conftest import ROOT, TINY

from convert import families
from convert.families import FAMILIES
from jaxsae.models.config_fields import settings

CONFIGS = {"restoration": TINY, "signs": sign_model.CONFIG}
OWN_FILES = {
    "convert/signs.py",
    "convert/signs_reference.py",
    "jaxsae/models/signs.py",
    "jaxsae/models/signs_config.py",
    "jaxsae/text/sign_texts.py",
    "jaxsae/text/signs.py",
}
"""Of the second family."""


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_row_is_total_over_its_family(family):
    config, parts = CONFIGS[family.name], importlib.import_module(family.reference)
    assert families.family_of(config) is family
    reference = parts.Model(config)
    expected = {name: tuple(tensor.shape) for name, tensor in reference.state_dict().items()}
    assert families.torch_shapes(config) == expected
    assert family.embedding in expected
    blocks = reference.get_submodule(family.blocks)
    assert len(blocks) == config.n_layers
    assert isinstance(blocks[0], parts.Block)
    ids = torch.zeros((1, 3), dtype=torch.long)
    x = torch.zeros((1, 3, config.d_model))
    assert blocks[0](x, *parts.around(config, x, None)).shape == x.shape
    assert reference(ids).shape == (1, 3, config.vocab_size)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_config_says_itself_as_a_file_does(family):
    config = CONFIGS[family.name]
    assert family.config.from_dict(settings(config), "file") == config
    assert families.recognised(settings(config), [], "file") is family
    assert families.recognised({}, list(families.torch_shapes(config)), "file") is family
    one = config.with_layers(1)
    assert (one.n_layers, dataclasses.replace(one, vocab_size=9).vocab_size) == (1, 9)


def test_reading_a_config_takes_neither_torch_nor_jax():
    code = "import sys, convert.families; print({'jax', 'flax', 'torch', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_is_of_one_family_stands_in_its_own_files():
    """All else reaches it by its row."""
    own = re.compile(
        r"SignModel|SignConfig|SignTokenizer|SignTexts|signs_config|sign_texts|text\.signs|models\.signs\b"
    )
    sources = [path for folder in ("jaxsae", "convert") for path in (ROOT / folder).rglob("*.py")]
    naming = {str(path.relative_to(ROOT)) for path in sources if own.search(path.read_text())}
    assert naming - OWN_FILES == {"convert/families.py"}
