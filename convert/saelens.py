"""SAELens's folders: `cfg.json`, `sae_weights.safetensors`; as its `SAE.load_from_disk` (6.54.12) reads them."""

import math
from pathlib import Path
from typing import Any

from convert import config_keys, folders, sae_files
from convert.fields import Fields
from convert.sae_files import SAEFile, is_number
from jaxsae.config import architecture_rules
from jaxsae.errors import listed, require, whole_number

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
"""Beside the weights, of a checkpoint from during training."""
VERSION = "6.54.12"
"""Whose format is written. Where none is stated, its loader takes the folder for one of before version 6."""
BIASES = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}


def read(path: Path) -> SAEFile:
    """An SAE of the kinds in `BIASES`; rows that are reshaped are refused, and rows scaled by a factor not known."""
    given = folders.read_config(path / CONFIG)
    metadata = given.inner("metadata")
    architecture, k = str(given.take("architecture", "standard")), given.take("k")
    # Before version 6: the activation function by name, and the hook at top level
    activation = given.take("activation_fn_str", given.take("activation_fn", "relu"))
    if activation == "topk":
        its = given.take("activation_fn_kwargs")
        its_k = its.get("k") if isinstance(its, dict) else None
        agree = its_k is not None and k in (None, its_k)
        require(
            agree, f"{path}: activation_fn topk must have its k in activation_fn_kwargs, got {its!r:.60}, and k {k!r}"
        )
        architecture, k = "topk", its_k
    for holds, what in (
        (architecture in BIASES, f"architecture {architecture!r}"),
        (activation in ("relu", "topk"), f"activation_fn {activation!r}"),
        (given.take("reshape_activations", "none") == "none", "reshaped activations"),
        (not given.take("finetuning_scaling_factor"), "a finetuning_scaling_factor"),
        (k is None or architecture == "topk", f"k for architecture {architecture!r}"),
    ):
        require(holds, f"{path}: must be {', '.join(BIASES)} on plain rows, got {what}, which is not known here")
    factor = _scale(path, given.take("normalize_activations"))
    tensors = folders.read_safetensors(path / WEIGHTS)
    if "scaling_factor" in tensors and (tensors["scaling_factor"] == 1).all():
        tensors.pop("scaling_factor")  # of older files; their loader leaves it out too
    names = ("W_enc", "W_dec", "b_dec", *BIASES[architecture])
    weights = folders.as_weights(path, tensors, {name: name for name in names})
    folders.take_sizes(given, weights, "d_in", "d_sae")
    subtracts = _is_true(given, "apply_b_dec_to_input", True)
    if architecture == "gated":
        weights = folders.without_gate(weights, subtracts)
    elif subtracts:
        weights = folders.fold_subtraction(weights)
    if architecture == "topk":
        k = folders.whole_number(path / CONFIG, "k", 100 if k is None else k)  # its default
    if _is_true(given, "rescale_acts_by_decoder_norm", False) and architecture == "topk":
        weights = folders.unit_rows(weights)
    weights = folders.for_scaled_rows(weights, factor)
    hook = _agreed(path, [fields.take(word) for fields in (metadata, given) for word in ("hook_name", "hook_point")])
    note = metadata.take("jaxsae")
    head = [fields.take("hook_head_index") for fields in (metadata, given)]
    require(head == [None, None], f"{path}: must be of the whole residual stream, got hook_head_index {head}")
    out = metadata.take("hook_name_out", hook)
    require(out in (None, hook), f"{path}: must reconstruct what it reads, got a transcoder from {hook} to {out}")
    words_of_layer = [(metadata, "hook_layer"), (given, "hook_layer"), (given, "hook_point_layer")]
    layer = whole_number(_agreed(path, [fields.take(word) for fields, word in words_of_layer]))
    reads = sae_files.input_of(hook)
    if reads is not None:  # its layer is that of the hook; the stream is the output of the block before
        same = layer is None or (type(layer) is int and layer == reads)
        require(same, f"{path}: hook_layer and hook_name must say the same, got {layer!r} and {hook!r}")
        layer = None
    # what else it says of model and text is free, by its own rules
    sae_files.pass_over(given, config_keys.IGNORED_KEYS_OF_LIBRARIES["saelens"])
    return folders.as_file(path, weights, k, note, sae_files.layer_and_hook(path, layer, hook))


def _is_true(fields: Fields, word: str, default: bool) -> bool:
    """A word that says yes or no."""
    value = fields.take(word, default)
    ok = isinstance(value, int) and value in (0, 1)
    require(ok, f"{fields.where}: {word} must be true or false, got {value!r:.60}")
    return bool(value)


def _agreed(path: Path, said: list[Any]) -> Any:
    """What a folder says in several places, which must be the same; None: nothing."""
    given = [one for one in said if one is not None]
    same = all(one == given[0] for one in given)
    require(same, f"{path / CONFIG}: hooks and layers must be the same in all places, got {listed(map(repr, given))}")
    return given[0] if given else None


def _scale(path: Path, normalize: Any) -> float:
    """What rows are multiplied by before they reach the weights: 1 once training has ended, for then it is in them.

    Raises:
      InputError: rows are normalised in another way, or by a factor that the folder does not have.
    """
    wanted = {None: False, False: False, "none": False, True: True, "expected_average_only_in": True}
    known = isinstance(normalize, str | bool | None) and normalize in wanted
    require(known, f"{path}: must be on plain rows, got normalize_activations {normalize!r}, which is not known here")
    require(not (path / WHITENING).exists(), f"{path}: must be on plain rows, got {WHITENING}, which is not known here")
    factor: Any = None
    if (path / SCALER).exists():
        scaler = folders.read_config(path / SCALER)
        factor = scaler.take("scaling_factor")
        scaler.finish("may have nothing but a scaling_factor")
    if not wanted[normalize]:
        folded = factor in (None, 1)
        require(folded, f"{path}: normalize_activations and {SCALER} must say the same, got {normalize!r} and {factor}")
        return 1.0
    ok = is_number(factor) and 0 < factor < math.inf
    require(
        ok,
        f"{path}: must have the scaling_factor of its rows in {SCALER}, got {factor}: a checkpoint from during training, "
        "whose weights are of scaled rows; give the folder of the finished run",
    )
    return float(factor)


def write(path: Path, file: SAEFile) -> None:
    """All that we train, bit for bit: BatchTopK and Matryoshka as the JumpReLU that they are once trained."""
    stores = architecture_rules(file.config.architecture).stores
    architecture = {"": "standard", "k": "topk", "threshold": "jumprelu"}[stores]
    config: dict[str, Any] = {
        "architecture": architecture,
        "d_in": file.config.d_in,
        "d_sae": file.config.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,  # left out, it is true
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": VERSION,
            "sae_lens_training_version": None,
            "model_name": file.extra.get("model_name", "RestorationModel"),
            "hook_name": folders.hook_of(file),
            "prepend_bos": False,
            "training_architecture": file.config.architecture,
            "jaxsae": folders.note_of(file),
        },
    }
    tensors = folders.arrays(file)
    if architecture == "topk":
        config |= {"k": file.config.k, "rescale_acts_by_decoder_norm": False}
    if architecture == "jumprelu":
        tensors["threshold"] = folders.thresholds(file)
    folders.write_folder(path, (CONFIG, config), WEIGHTS, tensors)
