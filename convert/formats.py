"""SAEs on disk, of this project and of other libraries: recognised, read, and written without changing a feature."""

from pathlib import Path

from convert import FORMATS, dictionary_learning, sae_files, saelens, sparsify
from convert.sae_files import SAEFile
from jaxsae.errors import require
from jaxsae.files import sha256, sha256_of

FOLDERS = dict(zip(FORMATS[1:], (saelens, dictionary_learning, sparsify), strict=True))


def recognised(path: str | Path) -> tuple[str, Path]:
    """(one of `FORMATS`, the file or folder); a folder may be given by its file of weights.

    Raises:
      InputError: a folder of none of them.
    """
    path, weights = Path(path), {module.WEIGHTS: name for name, module in FOLDERS.items()}
    if path.is_file() and path.name in weights:
        path = path.parent
    if not path.is_dir():
        return "pt", path
    found = [name for file, name in weights.items() if (path / file).is_file()]
    require(
        len(found) == 1,
        f"{path}: an SAE's folder must have one of {', '.join(weights)}, got {' and '.join(found) or 'none of them'}",
    )
    return found[0], path


def load_sae(path: str | Path) -> SAEFile:
    """Read an SAE: a `.pt` of this project or the original scripts, or a folder of another library.

    Raises:
      InputError: none of these, or one whose features would come out wrong.
    """
    kind, path = recognised(path)
    return sae_files.read_sae_pt(path) if kind == "pt" else FOLDERS[kind].read(path)


def convert_sae(source: str | Path, path: str | Path, to: str) -> SAEFile:
    """Write an SAE in another of the `FORMATS`; `path` must not exist, and appears whole or not at all.

    Returns:
      The SAE that was read; its `extra` also says from which file.

    Raises:
      InputError: as `load_sae`, or the format cannot hold such an SAE.
    """
    path = Path(path)
    require(not path.exists(), f"{path} must not exist yet; remove it or give another name")
    kind, source = recognised(source)
    file = load_sae(source)
    names = () if kind == "pt" else (FOLDERS[kind].CONFIG, FOLDERS[kind].WEIGHTS)
    digest = sha256_of((name, source / name) for name in names) if names else sha256(source)
    file = SAEFile(file.sae, file.config, file.losses, file.extra | {"source": {"format": kind, "sha256": digest}})
    if to == "pt":
        sae_files.save_sae(path, file.sae, file.config, file.losses, file.extra)
    else:
        FOLDERS[to].write(path, file)
    return file
