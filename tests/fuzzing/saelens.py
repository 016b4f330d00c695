"""SAEs in folders of SAELens."""

import json
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from fuzzing.configs import config_besides, plain_objects, save_safe, write_json
from fuzzing.inputs import CLEAR, OPEN, UNCLEAR, Input
from fuzzing.sae_meaning import D_IN, SAES, Meaning
from fuzzing.sae_places import places, settle
from fuzzing.values import json_number, stored, tensors_of

SAELENS = (
    "dtype", "device", "neuronpedia_id", "lr", "l1_coefficient", "training_tokens", "sae_lens_version", "dataset_path",
    "context_size", "prepend_bos", "model_name", "seed", "train_batch_size_tokens", "log_to_wandb",
)  # fmt: skip
HOOKS = {"layer": ("hook_layer",), "hook": ("hook_name", "hook_point")}
NEW_HOOKS = {"layer": ("hook_layer",), "hook": ("hook_name",)}


def saelens(one: Input) -> None:
    """A folder of SAELens, of version 6 or older."""
    arrays = one.pick(*SAES)
    d_sae, rng = arrays["W_enc"].shape[1], np.random.default_rng(one.rng.randrange(3))
    kind = one.pick("standard", "standard", "topk", "topk", "jumprelu", "gated")
    old = one.maybe(0.4)
    if kind == "gated":
        arrays = {name: array for name, array in arrays.items() if name != "b_enc"}
        arrays |= {name: rng.normal(size=d_sae).astype(np.float32) for name in ("b_gate", "b_mag")}
        arrays["r_mag"] = (0.3 * rng.normal(size=d_sae)).astype(np.float32)
    if kind == "jumprelu":
        arrays = arrays | {"threshold": rng.uniform(-0.1 if one.maybe(0.2) else 0.05, 1, d_sae).astype(np.float32)}
    tensors: dict[str, Any] = tensors_of(one, arrays, 0)
    values = {name: stored(tensor) for name, tensor in tensors.items()}
    meaning = Meaning(*(values[name] for name in ("W_enc", "W_dec", "b_dec")), values.get("b_enc"), subtracts=True)
    if kind == "gated":
        meaning.rule, meaning.gate = "gated", tuple(values[name] for name in ("b_gate", "b_mag", "r_mag"))
    if kind == "jumprelu":
        meaning.rule, meaning.threshold = "threshold", values["threshold"]
    config: dict[str, Any] = {"architecture": kind}
    metadata: dict[str, Any] = {}
    if not old:
        metadata["sae_lens_version"] = one.pick("6.54.12", "6.0.0")
    for word, size in (("d_in", D_IN), ("d_sae", d_sae)):
        if one.maybe(0.02):
            config[word] = one.pick(size + 1, 0, 1)
            one.did(f"another {word}", UNCLEAR)
        elif one.maybe(0.02):
            one.did(f"no {word}", OPEN)
        else:
            config[word] = json_number(one, size, word, 0.95)
    if kind in ("standard", "topk") and one.maybe(0.02):
        config["architecture"] = one.pick("batchtopk", "abstopk", "transcoder", "temporal", "", 5, ["standard"])
        one.did(f"architecture {config['architecture']!r}", UNCLEAR)
    named = config["architecture"] == kind  # else a later change would take back what is wrong
    if kind == "standard" and named and one.maybe(0.1):
        del config["architecture"]
        one.did("no architecture", CLEAR if old else OPEN)
    if kind == "topk":
        meaning.rule, meaning.k = "topk", one.rng.randint(1, d_sae)
        if old and named and one.maybe(0.6):
            # `activation_fn_kwargs` decides, whatever `architecture` says
            config |= {
                "architecture": one.pick("standard", "topk"),
                one.pick("activation_fn_str", "activation_fn"): "topk",
            }
            config["activation_fn_kwargs"] = {"k": json_number(one, meaning.k, "k", 0.85)}
            if one.maybe(0.2):
                del config["architecture"]
            if one.maybe(0.1):
                config["activation_fn_kwargs"] = one.pick({}, None, [meaning.k], {"k": None})
                one.did("activation_fn topk without its k", UNCLEAR)
            if one.maybe(0.2):
                config["k"] = meaning.k if one.maybe(0.6) else meaning.k % d_sae + 1
                one.did("k twice", CLEAR if config["k"] == meaning.k else UNCLEAR)
        elif one.maybe(0.06):
            meaning.k = 100  # its loader's default
            one.did("no k", OPEN if d_sae > 100 else UNCLEAR)
        else:
            config["k"] = json_number(one, meaning.k, "k", 0.85)
        if one.maybe(0.3):
            meaning.by_norm = one.maybe(0.6)
            config["rescale_acts_by_decoder_norm"] = meaning.by_norm
            one.did(f"rescale {meaning.by_norm}")
        elif one.maybe(0.04):
            config["rescale_acts_by_decoder_norm"] = one.pick("false", "true", 2, [False])
            one.did("rescale in no bool", UNCLEAR)
    elif one.maybe(0.04):
        config["k"] = 3
        one.did("k of no topk", UNCLEAR)
    elif one.maybe(0.03):
        config["rescale_acts_by_decoder_norm"] = one.pick(True, False)
        one.did("rescale of no topk", OPEN)  # its loader does not look at it
    if kind != "topk" and one.maybe(0.15):
        name = "relu" if not one.maybe(0.2) else one.pick("gelu", "tanh-relu", "topk")
        config[one.pick("activation_fn_str", "activation_fn")] = name
        one.did(f"activation_fn {name}", CLEAR if name == "relu" else UNCLEAR)
    if one.maybe(0.6):
        meaning.subtracts = one.maybe(0.4)
        config["apply_b_dec_to_input"] = meaning.subtracts
    elif one.maybe(0.1):
        # its encode multiplies by it: 0 and 1 are as false and true, of what else there is none can be meant
        form, sure = one.pick((0, OPEN), (1, OPEN), (None, UNCLEAR), ("false", UNCLEAR), (0.5, UNCLEAR), ("", UNCLEAR))
        config["apply_b_dec_to_input"], meaning.subtracts = form, form == 1
        one.did(f"apply_b_dec_to_input {form!r}", sure)
    scaler: Any = None
    if one.maybe(0.3):
        form = one.pick("none", "none", False, None, "average", "average")
        if one.maybe(0.1):
            form = one.pick("layer_norm", "constant_norm_rescale", 1, "x")
        if form == "average":
            config["normalize_activations"] = one.pick("expected_average_only_in", "expected_average_only_in", True)
            scaler = meaning.factor = one.pick(0.25, 2.0, 3, 1)
            one.did(f"rows scaled by {scaler}")
            if one.maybe(0.15):
                scaler = one.pick(None, 0, -1, "2", True, float("nan"))
                one.did(f"a factor of {scaler!r}", UNCLEAR)
        else:
            config["normalize_activations"] = form
            one.did(f"normalize_activations {form!r}", CLEAR if form in ("none", False, None) else UNCLEAR)
    elif one.maybe(0.03):
        scaler = one.pick(1, 0.5)
        one.did(f"a factor of {scaler} that no word asks for", OPEN if scaler == 1 else UNCLEAR)
    if one.maybe(0.1):
        form = "none" if not one.maybe(0.3) else one.pick("hook_z", None, "x")
        config["reshape_activations"] = form
        one.did(f"reshape {form}", {"none": CLEAR, None: OPEN}.get(form, UNCLEAR))
    if one.maybe(0.05):
        config["finetuning_scaling_factor"] = one.maybe(0.3)
        # where there is no tensor of factors its loader does nothing
        one.did("finetuning_scaling_factor", OPEN if config["finetuning_scaling_factor"] else CLEAR)
    if one.maybe(0.05):
        ones = one.maybe(0.6)
        tensors["scaling_factor"] = torch.full((d_sae,), 1.0 if ones else 2.0)
        one.did(f"scaling_factor of {'1' if ones else '2'}", CLEAR if ones else UNCLEAR)
    if one.maybe(0.03):
        word, value, sure = one.pick(
            ("hook_head_index", 2, UNCLEAR), ("hook_head_index", None, CLEAR), ("hook_head_index", 0, UNCLEAR),
            ("hook_name_out", "blocks.3.hook_mlp_out", UNCLEAR),
        )  # fmt: skip
        (metadata if word == "hook_name_out" or one.maybe(0.5) else config)[word] = value
        one.did(f"{word} {value}", sure)
    at = config if old else metadata
    said = places(one, HOOKS if old or one.maybe(0.05) else NEW_HOOKS, at.__setitem__, json_number)
    if "hook_point" in at and not old:
        one.did("hook_point in metadata", OPEN)
    if one.maybe(0.04):
        other = metadata if old else config
        other["hook_name"] = f"blocks.{(n := one.rng.randrange(4))}.hook_resid_post"
        said.append(("block", n))
        one.did("a place in the other part of the file too", OPEN)
    config_besides(one, config, SAELENS)
    if one.maybe(0.2):
        metadata[one.pick("anything", "l0", "normalize_activations", "k")] = plain_objects(one)
    if one.maybe(0.04):
        name = one.pick("W_skip", "b_gate", "threshold", "mean", "module.W_enc")
        if name not in tensors:
            tensors[name] = torch.ones(d_sae)
            one.did(f"a tensor {name}", UNCLEAR)
    if one.maybe(0.04):
        del tensors[(name := one.pick(*arrays))]
        one.did(f"no {name}", UNCLEAR)
    elif one.maybe(0.03):
        name = one.pick("W_enc", "W_dec")
        tensors[name] = tensors[name].t()
        one.did(f"{name} turned", UNCLEAR)
    if metadata or one.maybe(0.5):
        config["metadata"] = metadata
    elif one.maybe(0.1):
        config["metadata"] = one.pick(None, [])
        one.did("metadata of no kind", OPEN)
    named = one.rng.randrange(4) if one.maybe(0.3) and (not said or one.maybe(0.1)) else None
    one.path = one.folder / (one.pick("sae", "blocks", "mlp 7") if named is None else f"my_layer_{named}")
    one.path.mkdir()
    write_json(one, config, one.path / "cfg.json")
    save_safe(one, tensors, one.path / "sae_weights.safetensors")
    if scaler is not None:
        (one.path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scaler}))
    if one.maybe(0.2):
        (one.path / "runner_cfg.json").write_text('{"k": 3, "normalize_activations": "layer_norm"}')
        save_file({"sparsity": torch.zeros(d_sae)}, one.path / "sparsity.safetensors")
        one.did("files beside")
    if one.maybe(0.02):
        save_file({"mean": torch.ones(D_IN)}, one.path / "activation_whitening.safetensors")
        one.did("whitening beside", UNCLEAR)
    settle(one, said, named, True)
    if one.maybe(0.2):
        one.path /= "sae_weights.safetensors"
        if named is not None and not any(s[0] in ("block", "layer", "input") for s in said):
            one.did("the folder's name is hidden", UNCLEAR if one.given is None else OPEN)
            one.layer = one.given if one.given is not None else one.layer
    if one.sure != UNCLEAR:
        one.meant = meaning.figures()
