"""In what parts the SAEs of a run are trained: those that share a compiled step, as many at once as pays."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from jaxsae.config import SAEConfig, TrainConfig
from jaxsae.errors import require
from jaxsae.sae.row_types import AnyRows
from jaxsae.train.step import members_at_once


class Member(NamedTuple):
    """One SAE of a run of several: which rows it is trained on, and how."""

    layer: int
    config: TrainConfig


class Part(NamedTuple):
    """Members that train as one batched step."""

    members: tuple[str, ...]
    """Their keys."""
    steps: int
    """Batched steps until the last of them has trained, where none stops early."""


def plan_parts(rows: Mapping[int, AnyRows], members: Mapping[str, Member]) -> list[list[Part]]:
    """In what parts `loop.train` trains the members, in order; those listed together share a compiled step.

    Args:
      rows: layer -> its rows.
      members: key -> member.

    Raises:
      InputError: fewer rows than a batch, or k above d_sae.
    """
    groups: dict[tuple, list[str]] = {}
    shapes: dict[tuple, SAEConfig] = {}
    for key, (layer, config) in members.items():
        n, d_in = rows[layer].shape
        enough = n >= config.batch_size
        require(enough, f"rows must be at least a batch, got {n} rows and a batch_size of {config.batch_size}")
        free = {"seed": 0, "l1_coef": 0, "target_l0": config.target_l0 is None}
        alike = tuple((dataclasses.asdict(config) | free | {"k": config.sae(d_in).k, "n": n}).items())
        groups.setdefault(alike, []).append(key)
        shapes[alike] = config.sae(d_in)
    out = []
    for alike, keys in groups.items():
        at_once = members_at_once(shapes[alike])
        layer, config = members[keys[0]]
        steps = config.epochs * (rows[layer].shape[0] // config.batch_size)
        out.append([Part(tuple(keys[start : start + at_once]), steps) for start in range(0, len(keys), at_once)])
    return out
