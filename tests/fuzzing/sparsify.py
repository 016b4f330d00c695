"""SAEs in folders of sparsify."""

from typing import Any

import torch

from fuzzing.configs import config_besides, save_safe, write_json
from fuzzing.inputs import CLEAR, OPEN, UNCLEAR, Input
from fuzzing.sae_meaning import D_IN, SAES, Meaning
from fuzzing.sae_places import settle
from fuzzing.values import json_number, stored, tensors_of

SPARSIFY = ("expansion_factor", "normalize_decoder", "multi_topk", "lr", "seed")


def sparsify(one: Input) -> None:
    """A folder of sparsify."""
    ours = one.pick(*SAES)
    d_sae, k = ours["W_enc"].shape[1], one.rng.randint(1, ours["W_enc"].shape[1])
    arrays = {"encoder.weight": ours["W_enc"].T, "encoder.bias": ours["b_enc"]}
    arrays |= {"W_dec": ours["W_dec"], "b_dec": ours["b_dec"]}
    tensors: dict[str, Any] = tensors_of(one, arrays, 0)
    v = {name: stored(tensor) for name, tensor in tensors.items()}
    meaning = Meaning(v["encoder.weight"].T, v["W_dec"], v["b_dec"], v["encoder.bias"], "topk", k, subtracts=True)
    config: dict[str, Any] = {"d_in": D_IN, "multi_topk": one.maybe(0.3)}
    if not one.maybe(0.05):
        config["k"] = json_number(one, k, "k", 0.85)
    else:
        meaning.k = 32  # its default
        one.did("no k", CLEAR if d_sae >= 32 else UNCLEAR)
    if one.maybe(0.7):
        config["activation"] = "topk" if not one.maybe(0.15) else one.pick("groupmax", "relu", None)
        name = config["activation"]
        one.did(f"activation {name}", CLEAR if name == "topk" else UNCLEAR)
    if one.maybe(0.7):
        config["num_latents"] = one.pick(0, d_sae, d_sae) if not one.maybe(0.1) else d_sae + 1
        one.did(f"num_latents {config['num_latents'] - d_sae}", UNCLEAR if config["num_latents"] > d_sae else CLEAR)
    for word, chance in (("signed", 0.1), ("skip_connection", 0.3), ("transcode", 0.4)):
        if one.maybe(chance):
            config[word] = one.maybe(0.1)
            one.did(f"{word} {config[word]}", UNCLEAR if config[word] else CLEAR)
    if one.maybe(0.03):
        config["d_in"] = one.pick(D_IN + 1, 0, "6")
        one.did(f"d_in {config['d_in']!r}", OPEN if config["d_in"] == "6" else UNCLEAR)
    if one.maybe(0.03):
        tensors[one.pick("W_skip", "threshold")] = torch.ones(D_IN, D_IN)
        one.did("an unknown tensor", UNCLEAR)
    if one.maybe(0.05):
        name = one.pick(*arrays)
        if one.maybe(0.5) or tensors[name].ndim == 1:
            del tensors[name]
            one.did(f"no {name}", UNCLEAR)
        else:
            tensors[name] = tensors[name].t()
            one.did(f"{name} turned", UNCLEAR)
    config_besides(one, config, SPARSIFY)
    said: list[Any] = []
    named, name = None, one.pick("layers.{}", "model.layers.{}", "h.{}", "a layer_{}", "sae {}", "x")
    if one.maybe(0.1):
        name = "layers.{}.mlp"
    n = one.rng.randrange(4)
    if "mlp" in name:
        said.append("other")
        one.did("of a module within the block", UNCLEAR)
    elif name.endswith(".{}"):
        said.append(("block", n))
    elif "layer_" in name:
        named = n
    one.path = one.folder / name.format(n)
    one.path.mkdir()
    write_json(one, config, one.path / "cfg.json")
    save_safe(one, tensors, one.path / "sae.safetensors")
    settle(one, said, named, True)
    if one.sure != UNCLEAR:
        one.meant = meaning.figures()
