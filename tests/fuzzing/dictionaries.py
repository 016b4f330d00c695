"""SAEs in folders of dictionary_learning."""

import collections
from typing import Any

import numpy as np
import torch

from fuzzing.configs import config_besides, plain_objects, write_json
from fuzzing.inputs import CLEAR, OPEN, UNCLEAR, Input
from fuzzing.sae_meaning import D_IN, SAES, Meaning
from fuzzing.sae_places import places, settle
from fuzzing.values import json_number, save, spoiled, stored, tensors_of

DICTIONARY = (
    "trainer_class", "lr", "steps", "seed", "device", "warmup_steps", "decay_start", "wandb_name", "lm_name",
    "l1_penalty", "auxk_alpha", "threshold_beta", "threshold_start_step", "group_fractions", "sparsity_warmup_steps",
)  # fmt: skip
BUFFER = ("d_submodule", "n_ctxs", "ctx_len", "refresh_batch_size", "out_batch_size", "device")
CLASSES = (
    "AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder",
    "GatedAutoEncoder",
)  # fmt: skip


def dictionary(one: Input) -> None:
    """A folder of dictionary_learning."""
    ours = one.pick(*SAES)
    if one.maybe(0.5):
        ours = ours | {"W_dec": ours["W_dec"] / np.linalg.norm(ours["W_dec"], axis=1, keepdims=True)}
    d_sae, kind = ours["W_enc"].shape[1], one.pick(*CLASSES)
    rng = np.random.default_rng(one.rng.randrange(3))
    linear = {"encoder.weight": ours["W_enc"].T, "decoder.weight": ours["W_dec"].T}
    thresholded, k = kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"), one.rng.randint(1, d_sae)
    if kind in ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"):
        arrays = dict(ours)
    elif kind == "GatedAutoEncoder":
        arrays = linear | {"decoder_bias": ours["b_dec"]}
        arrays |= {name: 0.5 * rng.normal(size=d_sae).astype(np.float32) for name in ("r_mag", "gate_bias", "mag_bias")}
    else:
        bias = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}.get(kind, "b_dec")
        arrays = linear | {"encoder.bias": ours["b_enc"], bias: ours["b_dec"]}
    if kind == "JumpReluAutoEncoder":
        arrays["threshold"] = rng.uniform(0.05, 1, d_sae).astype(np.float32)
    tensors: dict[str, Any] = tensors_of(one, arrays)
    v = {name: stored(tensor) for name, tensor in tensors.items()}
    if "encoder.weight" in v:
        bias = next(v[name] for name in ("bias", "decoder.bias", "b_dec", "decoder_bias") if name in v)
        meaning = Meaning(v["encoder.weight"].T, v["decoder.weight"].T, bias, v.get("encoder.bias"))
    else:
        meaning = Meaning(v["W_enc"], v["W_dec"], v["b_dec"], v["b_enc"])
    meaning.subtracts = kind not in ("AutoEncoderNew", "JumpReluAutoEncoder")
    # its loader makes the decoder of this one of unit norm and the encoder as much larger
    meaning.by_norm = kind == "AutoEncoder"
    trainer: dict[str, Any] = {"dict_class": kind, "activation_dim": D_IN, "dict_size": d_sae}
    if kind == "GatedAutoEncoder":
        meaning.rule, meaning.gate = "gated", (v["gate_bias"], v["mag_bias"], v["r_mag"])
    if kind == "JumpReluAutoEncoder":
        meaning.rule, meaning.threshold = "threshold", v["threshold"]
    if thresholded or kind == "AutoEncoderTopK":
        limit = one.pick(0.4, 0.0, -1.0, 1.2)
        before = one.sure
        trainer["k"] = json_number(one, k, "k", 0.9)
        if thresholded:  # its encode goes by the threshold
            one.sure = max(before, min(one.sure, OPEN))
        tensors |= {"k": torch.tensor(k, dtype=one.pick(torch.int32, torch.int64)), "threshold": torch.tensor(limit)}
        if kind == "AutoEncoderTopK":
            meaning.rule, meaning.k = "topk", k
            if one.maybe(0.1):
                tensors.pop(one.pick("k", "threshold"))
                one.did("no k or threshold in ae.pt", OPEN)
            if one.maybe(0.05):
                tensors["k"] = torch.tensor(k % d_sae + 1)
                one.did("another k in ae.pt", UNCLEAR)
            if one.maybe(0.05):
                del trainer["k"]
                one.did("k in ae.pt alone", OPEN if "k" in tensors else UNCLEAR)
        else:
            meaning.rule, meaning.threshold = "threshold", np.float64(np.float32(limit))
            if limit == -1.0:
                meaning.rule = "relu"  # not set: every latent above it fires that fires at all
            if one.maybe(0.1):
                form, sure = one.pick(
                    (torch.tensor([limit]), OPEN), (limit, OPEN), (torch.ones(d_sae), UNCLEAR), (None, UNCLEAR)
                )
                tensors["threshold"] = form
                one.did(f"threshold of {type(form).__name__}", sure)
            if one.maybe(0.05):
                del tensors["threshold"]
                one.did("no threshold", UNCLEAR)
            if one.maybe(0.05):
                tensors["k"] = torch.tensor(k % d_sae + 1)
                one.did("another k in ae.pt, which its threshold makes up for", OPEN)
        if kind == "MatryoshkaBatchTopKSAE":
            tensors["group_sizes"] = torch.tensor([4, d_sae - 4])
    elif one.maybe(0.04):
        trainer["k"] = k
        one.did("k of no TopK", UNCLEAR)
    if one.maybe(0.03):
        word = one.pick("activation_dim", "dict_size")
        trainer[word] = one.pick(trainer[word] + 1, 0, 1)
        one.did(f"another {word}", UNCLEAR)
    elif one.maybe(0.03):
        del trainer[one.pick("activation_dim", "dict_size")]
        one.did("no size", OPEN)
    if one.maybe(0.03):
        name = one.pick("CrossCoder", "IdentityDict", None, ["AutoEncoder"], *CLASSES)
        if (name, kind) in (("AutoEncoderTopK", "BatchTopKSAE"), ("BatchTopKSAE", "AutoEncoderTopK")):
            name = None  # one's files are the other's too
        trainer["dict_class"] = name
        one.did(f"class {name}", UNCLEAR if name != kind else CLEAR)
    if one.maybe(0.04):
        spoiled(one, tensors, one.pick(*arrays))
    if one.maybe(0.03):
        tensors[one.pick("W_skip", "x", "mean")] = torch.ones(D_IN)
        one.did("an unknown tensor", UNCLEAR)
    if one.maybe(0.05):
        tensors = {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}
        one.did("names behind _orig_mod.", OPEN)
    said = places(one, {"layer": ("layer",), "hook": ("submodule_name",)}, trainer.__setitem__, json_number)
    buffer: dict[str, Any] = {}
    if one.maybe(0.6):
        buffer["io"] = "out" if not one.maybe(0.1) else one.pick("in", "in_and_out")
        one.did(f"io {buffer['io']}", CLEAR if buffer["io"] == "out" else UNCLEAR)
    for _ in range(one.pick(0, 1, 2)):
        buffer[one.pick(*BUFFER)] = plain_objects(one)
    config_besides(one, trainer, DICTIONARY)
    content: dict[str, Any] = {"trainer": trainer, "buffer": buffer}
    if one.maybe(0.1) and "io" not in buffer:
        del content["buffer"]
        one.did("no buffer")
    named = one.rng.randrange(4) if one.maybe(0.3) and (not said or one.maybe(0.1)) else None
    one.path = one.folder / ("trainer_0" if named is None else f"my_layer{named}")
    one.path.mkdir()
    write_json(one, content, one.path / "config.json")
    save(one, tensors if one.maybe(0.5) else collections.OrderedDict(tensors), one.path / "ae.pt")
    settle(one, said, named, True)
    if one.sure != UNCLEAR:
        one.meant = meaning.figures()
