"""dictionary_learning's folders: `config.json`, `ae.pt`; as its `load_dictionary` (0.1.0) reads them."""

from pathlib import Path

import numpy as np

from convert import config_keys, folders, pt, sae_files
from convert.sae_files import TENSORS, SAEFile
from jaxsae.errors import require, whole_number

WEIGHTS, CONFIG = "ae.pt", "config.json"
_LINEAR = {"W_enc": "encoder.weight T", "b_enc": "encoder.bias", "W_dec": "decoder.weight T"}
_PLAIN = {name: name for name in TENSORS}
CLASSES: dict[str, dict[str, str]] = {
    "AutoEncoder": _LINEAR | {"b_dec": "bias"},
    "AutoEncoderNew": _LINEAR | {"b_dec": "decoder.bias"},
    "AutoEncoderTopK": _LINEAR | {"b_dec": "b_dec"},
    "BatchTopKSAE": _LINEAR | {"b_dec": "b_dec"},
    "MatryoshkaBatchTopKSAE": _PLAIN,
    "JumpReluAutoEncoder": _PLAIN | {"threshold": "threshold"},
    "GatedAutoEncoder": {
        "W_enc": "encoder.weight T",
        "W_dec": "decoder.weight T",
        "b_dec": "decoder_bias",
        "r_mag": "r_mag",
        "b_gate": "gate_bias",
        "b_mag": "mag_bias",
    },
}
"""Its classes: our name -> theirs."""
SUBTRACTS = ("AutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")


def read(path: Path) -> SAEFile:
    """Any of its classes; the latents are those of its `encode` as it computes without being asked otherwise."""
    config = folders.read_config(path / CONFIG)
    trainer, buffer = config.inner("trainer"), config.inner("buffer")
    kind = str(trainer.take("dict_class"))
    require(kind in CLASSES, f"{path}: config.json must have trainer.dict_class of {', '.join(CLASSES)}, got {kind!r}")
    stored = pt.read_pt(path / WEIGHTS, "the ae.pt that its trainer saves")
    tensors = {str(name): stored.take(name) for name in stored}
    thresholded = kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")
    topk = kind == "AutoEncoderTopK"
    one = tensors.pop("threshold", None) if thresholded or topk else None  # a number; TopK's is not used
    k, stored_k = trainer.take("k"), tensors.pop("k", None) if thresholded or topk else None
    if kind == "MatryoshkaBatchTopKSAE":
        tensors.pop("group_sizes", None)
    weights = folders.as_weights(path, tensors, CLASSES[kind])
    folders.take_sizes(trainer, weights, "activation_dim", "dict_size")
    if thresholded:
        size = getattr(one, "size", 0)
        require(size == 1, f"{path}: threshold must be one number, got {size}")
        weights["threshold"] = np.full(weights["W_enc"].shape[1], float(pt.floating(one, f"{path}: threshold").item()))
    if kind == "GatedAutoEncoder":
        weights = folders.without_gate(weights, subtracts=True)
    if kind in SUBTRACTS:
        weights = folders.fold_subtraction(weights)
    # its loader brings this one's decoder to unit norm, unless torch.allclose finds that it is
    if kind == "AutoEncoder" and not np.allclose(np.linalg.norm(weights["W_dec"], axis=1), 1):
        weights = folders.unit_rows(weights)
    require(k is None or topk or thresholded, f"{path}: k must go with a TopK, got {k!r} and {kind}")
    if topk:
        k = folders.whole_number(path / CONFIG, "k", k)
        same = whole_number(stored_k) in (None, k)
        require(same, f"{path}: k must be the same in config.json and {WEIGHTS}, got {k} and {stored_k}")
    io = buffer.take("io", "out")
    require(io == "out", f"{path}: must be of what a module gives, got buffer.io {io!r}, its input")
    place = sae_files.layer_and_hook(path, trainer.take("layer"), trainer.take("submodule_name"))
    note = config.take("jaxsae")
    for fields in (trainer, buffer, config):
        sae_files.pass_over(fields, config_keys.IGNORED_KEYS_OF_LIBRARIES["dictionary_learning"])
    return folders.as_file(path, weights, k if topk else None, note, place)


def write(path: Path, file: SAEFile) -> None:
    """All that we train: a ReLU is a threshold of 0, bit for bit as all thresholds are.

    Its TopK subtracts `b_dec` from the input, for which `b_enc` makes up, to rounding.
    """
    topk, arrays = file.config.k is not None, folders.arrays(file)
    trainer = {
        "dict_class": "AutoEncoderTopK" if topk else "JumpReluAutoEncoder",
        "activation_dim": file.config.d_in,
        "dict_size": file.config.d_sae,
        "layer": file.extra.get("layer"),
        "lm_name": file.extra.get("model_name", "RestorationModel"),
        "submodule_name": folders.hook_of(file),
    }
    tensors = arrays | {"threshold": folders.thresholds(file)}
    if topk:
        trainer["k"] = file.config.k
        tensors = {
            "encoder.weight": arrays["W_enc"].T,
            "encoder.bias": folders.b_enc_with_subtraction(file),
            "decoder.weight": arrays["W_dec"].T,
            "b_dec": arrays["b_dec"],
            "k": np.asarray(file.config.k, np.int32),
            "threshold": np.asarray(-1, np.float32),  # not set
        }
    content = {"trainer": trainer, "buffer": {}, "jaxsae": folders.note_of(file)}
    folders.write_folder(path, (CONFIG, content), WEIGHTS, tensors)
