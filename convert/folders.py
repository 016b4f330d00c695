"""What the formats of other libraries share: a folder of a JSON config and tensors, brought into our plain formula.

Three things that other libraries do have no word in our file, and are folded into the weights, in float64: subtracting
`b_dec` from the input, decoder rows that have no unit norm, and gates.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from convert import pt
from convert.fields import Fields
from convert.sae_files import TENSORS, SAEFile, is_number
from jaxsae.config import ARCHITECTURES, SAEConfig
from jaxsae.errors import InputError, listed, require
from jaxsae.files import atomic_path, read_json, to_json
from jaxsae.models.hooks import hook_name
from jaxsae.sae.autoencoder import SAE

Weights = dict[str, np.ndarray]
"""W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_dec [d_in]; b_enc, threshold and all others [d_sae]; float64."""


def read_config(path: Path) -> Fields:
    """The object in a JSON file, to be taken word by word."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise InputError(f"{path.parent} must have {path.name} beside its weights, got none") from None
    require(isinstance(content, dict), f"{path}: must be a JSON object, got {type(content).__name__}")
    return Fields(content, str(path))


def take_sizes(fields: Fields, weights: Weights, d_in: str, d_sae: str) -> None:
    """Take a config's words for the widths; where it has them, they must be the widths of the weights."""
    for word, size in zip((d_in, d_sae), weights["W_enc"].shape, strict=True):
        said = fields.take(word)
        ok = said in (None, size) or (said == 0 and word == "num_latents")  # sparsify: expansion_factor is used then
        require(ok, f"{fields.where}: {word} must be that of the weights, {size}, got {said!r}")


def read_safetensors(path: Path) -> Weights:
    """Name -> array, in the file's types."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise InputError(f"{path}: must be a whole safetensors file, got: {' '.join(str(error).split())}") from None


def as_weights(path: Path, given: Mapping[str, Any], names: Mapping[str, str]) -> Weights:
    """Tensors under our names; every tensor must be known.

    Args:
      names: our name -> theirs, with ` T` where theirs is the transpose.
    """
    theirs = {ours: name.removesuffix(" T") for ours, name in names.items()}
    missing, unused = sorted(set(theirs.values()) - set(given)), sorted(set(given) - set(theirs.values()))
    lists = f"misses {listed(missing) or 'none'} and has besides {listed(unused) or 'none'}"
    require(not missing and not unused, f"{path}: must have the tensors {', '.join(theirs.values())}, {lists}")
    out = {}
    for ours, name in theirs.items():
        array = pt.floating(given[name], f"{path}: {name}").astype(np.float64)
        out[ours] = array.T if names[ours].endswith(" T") else array
    d_in, d_sae = out["W_enc"].shape if out["W_enc"].ndim == 2 else (0, 0)
    matrices = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    ok = all(array.shape == matrices.get(name, (d_sae,)) for name, array in out.items())
    got = ", ".join(f"{name} {list(array.shape)}" for name, array in out.items())
    require(ok, f"{path}: shapes must fit W_enc [d_in, d_sae], got {got}")
    return out


def whole_number(path: Path, name: str, value: Any) -> int:
    """A setting that must be a whole number of at least 1."""
    require(type(value) is int and value >= 1, f"{path}: {name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def fold_subtraction(weights: Weights) -> Weights:
    """An SAE of x that has the latents which the given one has of x - b_dec."""
    return weights | {"b_enc": weights["b_enc"] - weights["b_dec"] @ weights["W_enc"]}


def for_scaled_rows(weights: Weights, factor: float) -> Weights:
    """An SAE of x that has the latents which the given one has of factor * x."""
    W_enc, W_dec, b_dec = weights["W_enc"] * factor, weights["W_dec"] / factor, weights["b_dec"] / factor
    return weights | {"W_enc": W_enc, "W_dec": W_dec, "b_dec": b_dec}


def unit_rows(weights: Weights) -> Weights:
    """The same SAE with decoder rows of norm 1, and latents that are larger by the norms they had."""
    norm = np.linalg.norm(weights["W_dec"], axis=1)
    W_enc, b_enc, W_dec = weights["W_enc"] * norm, weights["b_enc"] * norm, weights["W_dec"] / norm[:, None]
    return weights | {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec}


def without_gate(weights: Weights, subtracts: bool) -> Weights:
    """A gated SAE as one with thresholds (Rajamanoharan et al. 2024, arXiv 2404.16014: JumpReLU with tied weights).

    With u = x @ W_enc a latent is e^r_mag u + b_mag, where that and u + b_gate are positive: where it is above
    b_mag - e^r_mag b_gate.

    Args:
      subtracts: whether b_dec is subtracted from x.
    """
    grown = np.exp(weights.pop("r_mag"))
    gate, magnitude = weights.pop("b_gate"), weights.pop("b_mag")
    weights |= {"W_enc": weights["W_enc"] * grown, "b_enc": magnitude, "threshold": magnitude - grown * gate}
    return fold_subtraction(weights) if subtracts else weights


def b_enc_with_subtraction(file: SAEFile) -> np.ndarray:
    """The `b_enc` with which a reader that subtracts `b_dec` from the input gets the same latents."""
    W_enc, b_enc, b_dec = (np.asarray(array, np.float64) for array in (file.sae.W_enc, file.sae.b_enc, file.sae.b_dec))
    return (b_enc + b_dec @ W_enc).astype(np.float32)


def as_file(path: Path, weights: Weights, k: int | None, note: Any, extra: dict[str, Any]) -> SAEFile:
    """The weights that were read, as one of our files.

    Args:
      weights: of the plain formula, with or without a threshold.
      k: of a TopK.
      note: what `note_of` gave when the file was written; None: another program wrote it.
      extra: other entries of the config.
    """
    d_in, d_sae = weights["W_enc"].shape
    threshold = weights.get("threshold")
    if threshold is not None:
        threshold = np.maximum(threshold, 0)  # a latent is at least 0 anyway
    note = {} if note is None else note
    architecture: Any = "topk" if k else "relu" if threshold is None else "jumprelu"
    ok = isinstance(note, dict) and isinstance(note.get("extra", {}), dict) and is_number(note.get("l1_coef", 0.0))
    ok = ok and isinstance(note.get("losses", []), list) and all(map(is_number, note.get("losses", [])))
    ok = ok and isinstance(note.get("target_l0"), int | None)
    ok = ok and set(note) <= {"architecture", "l1_coef", "target_l0", "losses", "extra"}
    require(ok, f"{path}: what jaxsae noted in it must be as it writes it, got something else")
    trained = note.get("architecture")
    if trained == "relu" and (k == d_sae or (threshold is not None and not threshold.any())):
        architecture, k, threshold = "relu", None, None
    elif (
        architecture == "jumprelu"
        and isinstance(trained, str)
        and trained in ARCHITECTURES
        and ARCHITECTURES[trained].stores == "threshold"
    ):
        architecture = trained
    config = SAEConfig(d_in, d_sae, float(note.get("l1_coef", 0.0)), k, architecture, note.get("target_l0"))
    tensors: dict[str, Any] = {name: jnp.asarray(weights[name], jnp.float32) for name in TENSORS}
    tensors |= {} if threshold is None else {"threshold": jnp.asarray(threshold, jnp.float32)}
    sae = SAE(**tensors, architecture=architecture, k=k)
    return SAEFile(sae, config, note.get("losses", []), extra | note.get("extra", {}))


def note_of(file: SAEFile) -> dict[str, Any]:
    """The parts of our file that other formats have no place for; `as_file` reads them again."""
    config = file.config
    settings = {"architecture": config.architecture, "l1_coef": config.l1_coef, "target_l0": config.target_l0}
    return settings | {"losses": file.losses, "extra": file.extra}


def hook_of(file: SAEFile) -> str | None:
    """The hook that an SAE was trained on, in TransformerLens's words; None: it is not known."""
    layer = file.extra.get("layer")
    return file.extra.get("hook_name") or (None if layer is None else hook_name(layer))


def arrays(file: SAEFile) -> Weights:
    """W_enc, b_enc, W_dec, b_dec, float32."""
    return {name: np.asarray(getattr(file.sae, name), np.float32) for name in TENSORS}


def thresholds(file: SAEFile) -> np.ndarray:
    """The threshold of each latent; a ReLU's is 0."""
    if file.sae.threshold is None:
        return np.zeros(file.config.d_sae, np.float32)
    return np.asarray(file.sae.threshold, np.float32)


def write_folder(path: Path, config: tuple[str, Mapping[str, Any]], weights: str, tensors: Weights) -> None:
    """(name, content) of the JSON file, and tensors, in a folder that appears whole or not at all."""
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        temporary.mkdir()
        (temporary / config[0]).write_text(to_json(config[1], indent=2), encoding="utf-8")
        if weights.endswith(".pt"):
            pt.write_pt(temporary / weights, tensors)
        else:
            save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, temporary / weights)
