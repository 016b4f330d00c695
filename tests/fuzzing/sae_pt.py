"""SAEs in our own `.pt`."""

import argparse
import collections
from typing import Any

import numpy as np
import torch

from fuzzing.inputs import CLEAR, OPEN, UNCLEAR, Input
from fuzzing.sae_meaning import D_IN, SAES, Meaning
from fuzzing.sae_places import places, settle
from fuzzing.sae_words import ACTIVATIONS, ARCHITECTURES, besides, limits_of, rule
from fuzzing.values import number, save, spoiled, stored, tensors_of

PT = {"layer": ("layer", "hook_layer", "layer_index"), "hook": ("hook_name", "hook_point", "hook", "submodule_name")}
"""The words of our file; its own is the first."""


def sae_pt(one: Input) -> None:
    """`sae_layer*_optimized.pt`."""
    tensors: dict[str, Any] = tensors_of(one, one.pick(*SAES))
    d_sae = tensors["W_enc"].shape[1]
    meaning = Meaning(**{name: stored(tensor) for name, tensor in tensors.items()})
    config: dict[str, Any] = {}
    beside: dict[str, Any] = {}

    def put(word: str, value: Any, in_config: float = 0.85) -> None:
        (config if one.maybe(in_config) else beside)[word] = value

    for word, size in (("d_in", D_IN), ("d_sae", d_sae)):
        if one.maybe(0.02):
            config[word] = size + one.pick(-1, 1, d_sae)
            one.did(f"another {word}", UNCLEAR)
        elif one.maybe(0.02):
            one.did(f"no {word}", OPEN)
        else:
            config[word] = number(one, size, word, 0.92)
    if one.maybe(0.8):
        config[one.pick("l1_coef", "l1_coef", "l1_coefficient")] = one.pick(1e-3, 0, 0.0, np.float64(1e-3), None)

    k, architecture, activation, limits, value = None, None, None, None, 0.0
    kinds = [one.pick("plain", "plain", "topk", "topk", "threshold", "threshold", "any")]
    if kinds[0] == "topk" or (kinds[0] == "any" and one.maybe(0.4)):
        k = one.rng.randint(1, d_sae)
        for word in one.rng.sample(("k", "k_sparse", "top_k", "topk"), one.pick(1, 1, 1, 2)):
            put(word, number(one, k, word, 0.7))
        if one.maybe(0.04):
            put("k_sparse", k + 1)
            config["k"] = k
            one.did("two ks", UNCLEAR)
        if one.maybe(0.03):
            config["k"] = one.pick(0, d_sae + 1, 10**9)
            for word in ("k_sparse", "top_k", "topk"):
                config.pop(word, None)
                beside.pop(word, None)
            beside.pop("k", None)
            one.did("a k that cannot be", UNCLEAR)
    elif one.maybe(0.05):
        put(one.pick("k", "k_sparse"), None)
        one.did("k None")
    if kinds[0] == "threshold" or (kinds[0] == "any" and one.maybe(0.4)):
        limits, value = limits_of(one, d_sae)
        put(one.pick("threshold", "threshold", "thresholds"), limits)
        if one.maybe(0.04):
            config["threshold"], beside["threshold"] = limits, 0.75
            one.did("two thresholds", UNCLEAR)
    elif one.maybe(0.05):
        put("threshold", None)
        one.did("threshold None")
    if one.maybe(0.5):
        fit = [name for name, (kind, _) in ARCHITECTURES.items() if kind == {"plain": "relu"}.get(kinds[0], kinds[0])]
        name = one.pick(*fit) if fit and not one.maybe(0.1) else one.pick(*ARCHITECTURES)
        architecture, sure = ARCHITECTURES[name]
        put(one.pick("architecture", "architecture", "sae_type"), name)
        one.did(f"architecture {name}", sure)
    if one.maybe(0.25):
        name = one.pick(*ACTIVATIONS) if one.maybe(0.25) else "relu"
        activation, sure = ACTIVATIONS[name]
        put(one.pick("activation", "activation_fn", "activation_function"), name)
        one.did(f"activation {name}", sure)
    meaning.rule, sure = rule(architecture, activation, k, limits is not None, not np.any(value))
    one.did(f"a {meaning.rule}, k {k}, {'' if limits is None else 'thresholds'}", sure)
    meaning.k, meaning.threshold = k, value
    if one.maybe(0.04):
        put("apply_b_dec_to_input", True)
        meaning.subtracts = True
        one.did("b_dec subtracted, in SAELens's word", OPEN)
    elif one.maybe(0.04):
        put("apply_b_dec_to_input", False)
    besides(one, put)
    if one.maybe(0.04):
        spoiled(one, tensors, one.pick(*tensors))
    if one.maybe(0.03):
        name = one.pick(*tensors)
        tensors[one.pick("module.", "W", "encoder.") + name] = tensors.pop(name)
        one.did(f"{name} by another name", OPEN)
    said = places(one, PT, put, number)
    named = one.rng.randrange(4) if one.maybe(0.6) else None
    if named is not None and said and not one.maybe(0.1):
        named = next((s[1] - (s[0] == "input") for s in said if s[0] in ("layer", "block", "input")), None)
    name = one.pick("sae_layer{}_optimized.pt", "sae_layer_{}.pt", "sae_layer{}_best.pt").format(named)
    one.path = one.folder / ("sae.pt" if named is None else name)
    settle(one, said, named, False)
    if one.maybe(0.9):
        losses = [
            [1.0, 0.5], [np.float64(1)], [torch.tensor(1.0)], None, [], (1.0,), np.ones(2), {"a": 1}, "low",
            [float("nan")], [[1.0], [2.0]], [None],
        ]  # fmt: skip
        beside[one.pick("losses", "losses", "training_losses")] = one.rng.choice(losses)
    content = {**tensors, **beside, "config": config}
    if one.maybe(0.03):
        form = one.pick("ordered", "namespace", "no config", "none", "within", "list")
        content["config"] = {"ordered": collections.OrderedDict(config), "namespace": argparse.Namespace(**config)}.get(
            form
        )
        if form == "no config":
            del content["config"]
        elif form == "within":
            content = {"state_dict": {**tensors, **beside}, "config": config}
        elif form == "list":
            content["config"] = list(config.items())
        one.did(
            f"content: {form}", {"ordered": CLEAR, "namespace": OPEN, "within": OPEN, "list": OPEN}.get(form, UNCLEAR)
        )
    save(one, content, one.path)
    if one.sure != UNCLEAR:
        one.meant = meaning.figures()
