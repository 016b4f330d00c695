"""The two files of a folder: a config in JSON, tensors in safetensors."""

import codecs
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fuzzing.inputs import OPEN, UNCLEAR, Input
from fuzzing.sae_words import UNKNOWN


def write_json(one: Input, content: Any, path: Path) -> None:
    """A config in JSON, seldom in another encoding."""
    text, form = json.dumps(content, indent=one.pick(None, 2, 4), ensure_ascii=one.maybe(0.5)), one.rng.random()
    raw = text.encode()
    if form < 0.03:
        raw = codecs.BOM_UTF8 + raw
        one.did("a byte order mark", OPEN)
    elif form < 0.05:
        raw = text.encode("utf-16")
        one.did("UTF-16", OPEN)
    elif form < 0.07 and isinstance(content, dict) and content:
        key = one.pick(*content)
        raw = (text.rstrip("}\n ") + f', "{key}": null}}').encode()
        one.did(f"{key} twice", UNCLEAR)
    path.write_bytes(raw)


def save_safe(one: Input, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """safetensors has no layouts."""
    save_file({name: t.detach().resolve_neg().clone().contiguous() for name, t in tensors.items()}, path)


def plain_objects(one: Input) -> Any:
    return one.pick(None, 1, 0.5, "x", True, [1, 2], {"a": {"b": 1}})


def config_besides(one: Input, config: dict[str, Any], silent: tuple[str, ...]) -> None:
    """As `besides`, in JSON."""
    for _ in range(one.pick(0, 1, 2)):
        config[one.pick(*silent)] = plain_objects(one)
    if one.maybe(0.05):
        config[one.pick(*UNKNOWN)] = one.pick(1, 2.0, "x", True, [1])
        one.did("an unknown word", UNCLEAR)
