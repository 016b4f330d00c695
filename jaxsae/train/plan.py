"""In what parts the SAEs of a run are trained: those that share a compiled step, as many at once as pays."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
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


def plan_parts(
    rows: Mapping[int, AnyRows],
    members: Mapping[str, Member],
    side_by_side: int = 1,
    together: Collection[Sequence[str]] = (),
) -> list[list[Part]]:
    """In what parts `loop.train` trains the members, in order; those listed together share a compiled step.

    Args:
      rows: layer -> its rows.
      members: key -> member.
      side_by_side: how many parts train at the same time, each on devices of its own.
      together: members that make a part of their own in any case.

    Raises:
      InputError: fewer rows than a batch, or k above d_sae.
    """
    groups: dict[tuple, list[str]] = {}
    shapes: dict[tuple, SAEConfig] = {}
    for key, (layer, config) in members.items():
        n, width = rows[layer].shape
        d_in = config.d_in(width)
        enough = n >= config.batch_size
        require(enough, f"rows must be at least a batch, got {n} rows and a batch_size of {config.batch_size}")
        free = {"seed": 0, "l1_coef": 0, "target_l0": config.target_l0 is None}
        alike = tuple((dataclasses.asdict(config) | free | {"k": config.sae(d_in).k, "n": n}).items())
        groups.setdefault(alike, []).append(key)
        shapes[alike] = config.sae(d_in)
    out = []
    for alike, keys in groups.items():
        layer, config = members[keys[0]]
        steps = config.epochs * (rows[layer].shape[0] // config.batch_size)
        first = [tuple(some) for some in together if set(some) <= set(keys)]
        rest = [key for key in keys if not any(key in some for some in first)]
        at_once = min(members_at_once(shapes[alike]), max(1, -(-len(rest) // side_by_side)))
        starts = range(0, len(rest), at_once)
        parts = [Part(some, steps) for some in (*first, *(tuple(rest[start : start + at_once]) for start in starts))]
        out.append(sorted(parts, key=lambda part: keys.index(part.members[0])))
    return out
