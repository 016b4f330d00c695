"""The embedded demo: its text and truth on disk, and its checkpoint."""

import json

import numpy as np
import pytest

from jaxsae import corpus, data, load_samples
from jaxsae.demo import write_demo
from jaxsae.files import sha256


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, n_samples=200, seed=3)
    return folder


def test_the_truth_lies_beside_the_text(folder):
    """Row for row and character for character: what the labels and the visible characters spell is the corpus."""
    texts = {one.text: one for one in corpus.generate(200, 3)}
    labels = json.loads((folder / "truth" / "labels.json").read_text())
    assert labels["fields"] == {field: list(names) for field, names in corpus.LABELS.items()}
    seen = 0
    for split in ("train", "validation", "test"):
        samples = load_samples(folder / "dataset", split)
        truth = data.load_columns(folder / "truth", split)
        ids = np.where(samples.labels == -100, samples.ids, samples.labels)
        for row, n in enumerate(samples.lengths):
            one = texts["".join(map(chr, ids[row, :n]))]
            for field, codes in one.truth.items():
                np.testing.assert_array_equal(truth[field][row, :n], codes)
                assert (truth[field][row, n:] == -1).all()
            assert (labels["genre"][split][row], labels["language"][split][row]) == (one.genre, one.language)
            seen += 1
    assert seen == 200


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    write_demo(tmp_path, n_samples=200, seed=3)
    for part in ("dataset", "truth"):
        assert sha256(tmp_path / part) == sha256(folder / part)


def test_a_killed_run_leaves_nothing_in_the_way(tmp_path):
    """The truth was written and the dataset was not: writing again gives both."""
    (tmp_path / "truth").mkdir()
    write_demo(tmp_path, n_samples=20, seed=3)
    assert len(load_samples(tmp_path / "dataset", "train")) == len(
        data.load_columns(tmp_path / "truth", "train")["language"]
    )
