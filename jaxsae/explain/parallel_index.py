"""An index of passages on disk: which latents fire in each, and which letters it has; memory mapped.

    index.json           format, version, the model, SAE and layer that it is of, the corpus, counts
    texts.json           the texts; captions.json: what each latent fires on, in words
    passages.npy         int32 [passages, 3]: text, start, end
    latents_*.npy        the passages that each latent fires in: starts [d_sae + 1], passages and weights [entries]
    letters_*.npy        the same of each n-gram of characters; alphabet, grams and idf: see `letters.Letters`

Weights are such that a passage is a vector of length 1 in both.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from jaxsae.errors import InputError, require
from jaxsae.explain.letters import Letters
from jaxsae.explain.passages import Passage
from jaxsae.files import atomic_path, read_json
from jaxsae.sae.autoencoder import SAE, identity

FORMAT, VERSION = "jaxsae-parallels", 1
_POSTINGS = {"starts": np.int32, "passages": np.int32, "weights": np.float32}
COLUMNS: dict[str, type] = {"passages": np.int32}
"""Name of an array -> its type."""
COLUMNS |= {f"{name}_{part}": kind for name in ("latents", "letters") for part, kind in _POSTINGS.items()}
COLUMNS |= {"letters_alphabet": np.int32, "letters_grams": np.uint64, "letters_idf": np.float32}


@dataclass(frozen=True)
class Postings:
    """A sparse matrix, features x passages: the passages that have a feature stand together."""

    starts: Int[np.ndarray, " starts"]
    passages: Int[np.ndarray, " entries"]
    """Ascending within each feature."""
    weights: Float[np.ndarray, " entries"]
    count: int
    """Number of passages."""

    @classmethod
    def of(cls, rows: scipy.sparse.csr_matrix) -> "Postings":
        """From a row for each passage."""
        columns = rows.tocsc()
        require(columns.nnz < 2**31, f"an index must have fewer than 2^31 entries, got {columns.nnz:,}; give less text")
        numbers = columns.indptr.astype(np.int32), columns.indices.astype(np.int32)
        return cls(*numbers, columns.data.astype(np.float32), rows.shape[0])

    @property
    def features(self) -> int:
        """Number of features."""
        return len(self.starts) - 1

    def scores(self, queries: scipy.sparse.csr_matrix) -> Float[np.ndarray, "queries passages"]:
        """The dot product of each query with each passage."""
        shape = (self.features, self.count)
        matrix = scipy.sparse.csr_matrix((self.weights, self.passages, self.starts), shape, copy=False)
        # against dense columns all entries are read once, in their order: faster than to pick those of the queries
        return np.asarray(matrix.T @ queries.T.toarray(), np.float32).T

    def weight(self, feature: int, passage: int) -> float:
        """Of a feature in a passage; 0 where it does not have it."""
        start, end = self.starts[feature], self.starts[feature + 1]
        at = start + np.searchsorted(self.passages[start:end], passage)
        return float(self.weights[at]) if at < end and self.passages[at] == passage else 0.0


@dataclass(frozen=True)
class Index:
    """The passages of a corpus, in the order of the texts."""

    about: dict[str, Any]
    """What index.json says."""
    texts: list[str]
    captions: list[str]
    """What each latent fires on, in words."""
    passages: Int[np.ndarray, "passages 3"]
    latents: Postings
    letters: Postings
    grams: Letters

    def passage(self, number: int) -> Passage:
        """One passage."""
        return Passage(*map(int, self.passages[number]))


def write_index(path: str | Path, index: Index) -> None:
    """Write an index to a folder, which appears whole.

    Raises:
      InputError: the folder is there, with something in it.
    """
    path = Path(path)
    free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    require(free, f"the index must not exist, got {path}; give another folder or remove it")
    head = {"format": FORMAT, "version": VERSION, **index.about, "sizes": {"texts": len(index.texts)}}
    head["sizes"] |= {name: len(array) for name, array in arrays(index).items()}
    with atomic_path(path) as folder:
        folder.mkdir()
        for name, array in arrays(index).items():
            np.save(folder / f"{name}.npy", array)
        for name, content in (("texts", index.texts), ("captions", index.captions), ("index", head)):
            (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def arrays(index: Index) -> dict[str, np.ndarray]:
    """File name -> array."""
    out = {"passages": index.passages}
    for name, postings in (("latents", index.latents), ("letters", index.letters)):
        out |= {f"{name}_{part}": getattr(postings, part) for part in ("starts", "passages", "weights")}
    grams = index.grams
    return out | {"letters_alphabet": grams.alphabet, "letters_grams": grams.grams, "letters_idf": grams.weights}


def open_index(path: str | Path, model: str | None = None, sae: SAE | None = None, layer: int | None = None) -> Index:
    """Open an index; its arrays stay on disk.

    Args:
      model: identity of the model that it must be of.
      sae: the SAE that it must be of; None: any.
      layer: the layer that it must be of; None: any.

    Raises:
      InputError: no index, not whole, of another version, or of another model, SAE or layer.
    """
    folder = Path(path)
    again = "give another folder, or remove this one to have it built again"
    try:
        about = read_json(folder / "index.json")
        known = about["format"] == FORMAT and about["version"]
        of = {name: about[name] for name in ("model_sha256", "sae_sha256", "layer", "scale")}
        sizes = {name: int(about["sizes"][name]) for name in ("texts", *COLUMNS)}
        texts, captions = (list(map(str, read_json(folder / f"{name}.json"))) for name in ("texts", "captions"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: index.json must describe an index of passages, got {type(error).__name__}: {error}; {again}"
        ) from None
    require(
        known == VERSION, f"{folder}: must be of version {VERSION} of {FORMAT}, got {known or about['format']}; {again}"
    )
    given = (("model", model, "model_sha256"), ("SAE", None if sae is None else identity(sae), "sae_sha256"))
    for what, value, name in (*given, ("layer", layer, "layer")):
        got = str(of[name])[:12]
        same = value is None or value == of[name]
        require(same, f"{folder}: the index must be of the {what} given, {str(value)[:12]}, got {got}; {again}")
    found = {name: _array(folder / f"{name}.npy") for name in COLUMNS}
    for name, array in found.items():
        fits = array.dtype == COLUMNS[name] and array.shape == (sizes[name], 3)[: 2 if name == "passages" else 1]
        require(fits, f"{folder}: the sizes of an index must agree, {name}.npy has others; {again}")
    agree = (len(texts), len(captions)) == (sizes["texts"], sizes["latents_starts"] - 1)
    agree = agree and sizes["letters_grams"] == sizes["letters_idf"] == sizes["letters_starts"] - 1
    require(agree and _in_range(found, texts), f"{folder}: the numbers of an index must agree, and do not; {again}")
    latents, letters = (
        Postings(found[f"{of}_starts"], found[f"{of}_passages"], found[f"{of}_weights"], sizes["passages"])
        for of in ("latents", "letters")
    )
    grams = Letters(*(found[f"letters_{part}"] for part in ("alphabet", "grams", "idf")))
    return Index(about, texts, captions, found["passages"], latents, letters, grams)


def _array(path: Path) -> np.ndarray:
    try:
        small = path.stat().st_size < 4096  # an array of nothing cannot be mapped
        return np.load(path, mmap_mode=None if small else "r", allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python does, with all the kinds of errors that has
        message = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: must be a whole .npy file, got {message}; build the index again") from None


def _in_range(found: Mapping[str, np.ndarray], texts: Sequence[str]) -> bool:
    """Whether all numbers lead to what is there: others would lead out of the arrays' memory."""
    count = len(found["passages"])
    for name in ("latents", "letters"):
        starts, passages, weights = (found[f"{name}_{part}"] for part in ("starts", "passages", "weights"))
        ok = len(starts) > 0 and starts[0] == 0 and starts[-1] == len(passages) == len(weights)
        if not (ok and (np.diff(starts) >= 0).all() and ((passages >= 0) & (passages < count)).all()):
            return False
    text, start, end = found["passages"].T
    if not ((text >= 0) & (text < len(texts))).all() or count == 0:
        return False
    within = (start >= 0) & (start < end) & (end <= np.array([len(one) for one in texts])[text])
    return bool(within.all() and (np.diff(text) >= 0).all())
