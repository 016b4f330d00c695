"""SAELens's folders: `cfg.json`, `sae_weights.safetensors`; as its `SAE.load_from_disk` (6.54.12) reads them."""

from pathlib import Path
from typing import Any

from convert import folders
from convert.sae_files import SAEFile
from jaxsae.config import require

WEIGHTS = "sae_weights.safetensors"
VERSION = "6.54.12"
"""Whose format is written. Where none is stated, its loader takes the folder for one of before version 6."""
BIASES = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}


def read(path: Path) -> SAEFile:
    """An SAE of the kinds in `BIASES`; what is normalised or reshaped on the way in is refused."""
    given = folders.read_config(path / "cfg.json")
    metadata = given.get("metadata", {})
    require(isinstance(metadata, dict), f"{path}: metadata of cfg.json must be an object, got {metadata!r}")
    architecture, k = str(given.get("architecture", "standard")), given.get("k", 100)
    # Before version 6: the activation function by name, and the hook at top level
    activation = given.get("activation_fn_str", given.get("activation_fn", "relu"))
    if activation == "topk":
        its = given.get("activation_fn_kwargs")
        architecture, k = "topk", its.get("k") if isinstance(its, dict) else None
    for holds, what in (
        (architecture in BIASES, f"architecture {architecture!r}"),
        (activation in ("relu", "topk"), f"activation_fn {activation!r}"),
        # expected_average_only_in: the scale is in the weights already
        (
            given.get("normalize_activations") in (None, False, True, "none", "expected_average_only_in"),
            f"normalize_activations {given.get('normalize_activations')!r}",
        ),
        (given.get("reshape_activations", "none") == "none", "reshaped activations"),
        (not given.get("finetuning_scaling_factor"), "a finetuning_scaling_factor"),
    ):
        require(holds, f"{path}: must be {', '.join(BIASES)} on plain rows, got {what}, which is not known here")
    tensors = folders.read_safetensors(path / WEIGHTS)
    if "scaling_factor" in tensors and (tensors["scaling_factor"] == 1).all():
        tensors.pop("scaling_factor")  # of older files; their loader leaves it out too
    names = ("W_enc", "W_dec", "b_dec", *BIASES[architecture])
    weights = folders.as_weights(path, tensors, {name: name for name in names})
    subtracts = bool(given.get("apply_b_dec_to_input", True))
    if architecture == "gated":
        weights = folders.without_gate(weights, subtracts)
    elif subtracts:
        weights = folders.nothing_subtracted(weights)
    k = folders.whole_number(path / "cfg.json", "k", k) if architecture == "topk" else None
    if k and given.get("rescale_acts_by_decoder_norm"):
        weights = folders.unit_rows(weights)
    hook = metadata.get("hook_name", given.get("hook_name", given.get("hook_point")))
    return folders.as_file(path, weights, k, metadata.get("jaxsae"), folders.told_by(hook))


def write(path: Path, file: SAEFile) -> None:
    """All that we train, bit for bit: BatchTopK and Matryoshka as the JumpReLU that they are once trained."""
    architecture = {"relu": "standard", "topk": "topk"}.get(file.config.architecture, "jumprelu")
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
            "model_name": "RestorationModel",
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
    folders.write_folder(path, ("cfg.json", config), WEIGHTS, tensors)
