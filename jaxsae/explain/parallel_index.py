"""An index of passages on disk: which latents fire in each, and which letters it has; memory mapped.

    index.json           format, version, the model, SAE and layer that it is of, the corpus, counts
    texts.json           the texts; captions.json: what each latent fires on, in words
    passages.npy         int32 [passages, 3]: text, start, end
    latents_*.npy        the passages that each latent fires in: starts [d_sae + 1], passages and weights [entries]
    letters_*.npy        the same of each n-gram of characters; alphabet, grams and idf: see `letters.Letters`

Weights are such that a passage is a vector of length 1 in both.
"""

import hashlib
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
from jaxsae.sae.autoencoder import SAE

FORMAT, VERSION = "jaxsae-parallels", 1


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
        return np.asarray((queries @ matrix).toarray(), np.float32)

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


def identity(sae: SAE) -> str:
    """SHA-256 of what an SAE computes: the same for one SAE in any file."""
    digest = hashlib.sha256(f"{sae.architecture} {sae.k}".encode())
    for array in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, sae.threshold):
        if array is not None:
            values = np.ascontiguousarray(array, np.float32)
            digest.update(f" {values.shape}".encode() + values.tobytes())
    return digest.hexdigest()


def write_index(path: str | Path, index: Index) -> None:
    """Write an index to a folder, which appears whole.

    Raises:
      InputError: the folder is there, with something in it.
    """
    path = Path(path)
    free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    require(free, f"the index must not exist, got {path}; give another folder or remove it")
    head = {"format": FORMAT, "version": VERSION, **index.about, "texts": len(index.texts)}
    head |= {"passages": len(index.passages), "d_sae": index.latents.features, "grams": index.letters.features}
    head |= {"entries": [len(index.latents.passages), len(index.letters.passages)]}
    with atomic_path(path) as folder:
        folder.mkdir()
        for name, array in _arrays(index).items():
            np.save(folder / f"{name}.npy", array)
        for name, content in (("texts", index.texts), ("captions", index.captions), ("index", head)):
            (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _arrays(index: Index) -> dict[str, np.ndarray]:
    out = {"passages": index.passages}
    for name, postings in (("latents", index.latents), ("letters", index.letters)):
        out |= {f"{name}_{part}": getattr(postings, part) for part in ("starts", "passages", "weights")}
    grams = index.grams
    return out | {"letters_alphabet": grams.alphabet, "letters_grams": grams.grams, "letters_idf": grams.weights}


def open_index(path: str | Path, model: str | None = None, sae: SAE | None = None, layer: int | None = None) -> Index:
    """Open an index; its arrays stay on disk.

    Args:
      model: identity of the model that it must be of.
      sae, layer: the SAE that it must be of; None: any.

    Raises:
      InputError: no index, not whole, of another version, or of another model, SAE or layer.
    """
    folder = Path(path)
    try:
        about = read_json(folder / "index.json")
        known = about["format"] == FORMAT and about["version"]
        texts, captions = (read_json(folder / f"{name}.json") for name in ("texts", "captions"))
        of = {name: about[name] for name in ("model_sha256", "sae_sha256", "layer")}
        passages, features, grams, entries = (about[name] for name in ("passages", "d_sae", "grams", "entries"))
        counts = [len(texts), len(captions), *map(int, (passages, features, grams)), *map(int, entries)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: index.json must describe an index of passages, got {type(error).__name__}: {error}"
        ) from None
    again = "give another folder, or remove this one to have it built again"
    require(
        known == VERSION, f"{folder}: must be of version {VERSION} of {FORMAT}, got {known or about['format']}; {again}"
    )
    given = {"model_sha256": model, "sae_sha256": None if sae is None else identity(sae), "layer": layer}
    for name, value in given.items():
        what = name.removesuffix("_sha256").upper() if name == "sae_sha256" else name.removesuffix("_sha256")
        same = value is None or value == of[name]
        require(
            same,
            f"{folder}: the index must be of the {what} given, {str(value)[:12]}, got {str(of[name])[:12]}; {again}",
        )
    sizes_agree = counts[:2] == [about.get("texts"), features] and len(entries) == 2
    index = _index(folder, about, texts, captions) if sizes_agree else None
    require(index is not None and _is_whole(index, counts), f"{folder}: the sizes of an index must agree; {again}")
    assert index is not None
    return index


def _index(folder: Path, about: Mapping[str, Any], texts: Sequence[str], captions: Sequence[str]) -> Index:
    def array(name: str) -> np.ndarray:
        path = folder / f"{name}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # NumPy parses the header as Python does, with all the kinds of errors that has
            message = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: must be a whole .npy file, got {message}; build the index again") from None

    def postings(name: str) -> Postings:
        starts, numbers, weights = (array(f"{name}_{part}") for part in ("starts", "passages", "weights"))
        return Postings(starts, numbers, weights, int(about["passages"]))

    grams = Letters(*(array(f"letters_{part}") for part in ("alphabet", "grams", "idf")))
    rest = list(texts), list(captions), array("passages"), postings("latents"), postings("letters"), grams
    return Index(dict(about), *rest)


def _is_whole(index: Index, counts: Sequence[int]) -> bool:
    """Whether shapes, types and numbers agree: what does not would lead out of the arrays' memory."""
    texts, _, passages, features, grams, *entries = counts
    ok = index.passages.shape == (passages, 3) and index.passages.dtype == np.int32
    ok = ok and index.grams.grams.shape == index.grams.weights.shape == (grams,)
    for postings, rows, count in zip((index.latents, index.letters), (features, grams), entries, strict=True):
        ok = (
            ok
            and postings.starts.shape == (rows + 1,)
            and postings.passages.shape == postings.weights.shape == (count,)
        )
        ok = (
            ok and postings.starts.dtype == postings.passages.dtype == np.int32 and postings.weights.dtype == np.float32
        )
        ok = (
            ok
            and postings.starts[0] == 0
            and postings.starts[-1] == count
            and bool((np.diff(postings.starts) >= 0).all())
        )
        ok = ok and count > 0 and postings.passages.min() >= 0 and postings.passages.max() < passages
    if not ok:
        return False
    text, start, end = index.passages.T
    lengths = np.array([len(one) for one in index.texts])
    return bool((text >= 0).all() and (text < texts).all() and (np.diff(text) >= 0).all()) and bool(
        (start >= 0).all() and (start < end).all() and (end <= lengths[text]).all()
    )
