"""sparsify's folders: `cfg.json`, `sae.safetensors`; as its `SparseCoder.load_from_disk` (1.3.3) reads them."""

import re
from pathlib import Path

from convert import config_keys, folders, sae_files
from convert.sae_files import SAEFile
from jaxsae.errors import require

WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"
HOOKPOINT = re.compile(r"(?:\w+\.)*(?:layers?|h|blocks?)\.\d+(?:\.\w+)*")
"""What it calls a folder by: the module whose output is read. A folder of another name has been renamed."""
NAMES = {"W_enc": "encoder.weight T", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}


def read(path: Path) -> SAEFile:
    """A TopK autoencoder; the folder's name, such as `layers.8`, tells the layer."""
    given = folders.read_config(path / CONFIG)
    note, transcode, activation = given.take("jaxsae"), given.take("transcode"), given.take("activation", "topk")
    for holds, what in (
        (activation == "topk", f"activation {activation!r}"),
        (not given.take("skip_connection"), "a skip connection"),
        (not given.take("signed"), "signed latents"),
        (not transcode or note is not None, "a transcoder, which predicts other rows than it reads"),
    ):
        require(holds, f"{path}: must be a TopK autoencoder, got {what}, which the plain formula cannot give")
    weights = folders.as_weights(path, folders.read_safetensors(path / WEIGHTS), NAMES)
    folders.take_sizes(given, weights, "d_in", "num_latents")
    k = folders.whole_number(path / CONFIG, "k", given.take("k", 32))
    if not transcode:
        weights = folders.fold_subtraction(weights)
    by_folder = path.name if HOOKPOINT.fullmatch(path.name) else None
    hook = given.take("hook_name", by_folder)
    sae_files.pass_over(given, config_keys.IGNORED_KEYS_OF_LIBRARIES["sparsify"])
    return folders.as_file(path, weights, k, note, sae_files.layer_and_hook(path, None, hook))


def write(path: Path, file: SAEFile) -> None:
    """A TopK, or a ReLU as a TopK of all its latents; bit for bit the same weights.

    Raises:
      InputError: the SAE has thresholds.
    """
    require(
        file.sae.threshold is None,
        f"an SAE for sparsify must be topk or relu, got {file.config.architecture}, whose thresholds it has no word for; "
        "convert it to saelens or dictionary_learning",
    )
    arrays = folders.arrays(file)
    config = {
        "activation": "topk",
        "expansion_factor": max(1, file.config.d_sae // file.config.d_in),
        "normalize_decoder": True,
        "num_latents": file.config.d_sae,
        "k": file.config.k or file.config.d_sae,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": True,  # its word for subtracting nothing from the input
        "d_in": file.config.d_in,
        "hook_name": folders.hook_of(file),
        "jaxsae": folders.note_of(file),
    }
    tensors = {ours: array.T if NAMES[ours].endswith(" T") else array for ours, array in arrays.items()}
    named = {NAMES[ours].removesuffix(" T"): array for ours, array in tensors.items()}
    folders.write_folder(path, (CONFIG, config), WEIGHTS, named)
