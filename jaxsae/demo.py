"""The embedded demo's text on disk: the generated corpus as a dataset, and beside it the truth about every character.

DIR/dataset/            as `prepare_dataset.py` writes it: damaged text, labels, attention mask
DIR/truth/              the same splits and rows; a column per field of `jaxsae.corpus.LABELS`, and `position`
                        (0-based in the word): int8 [n, 768], -1 where there is no text
DIR/truth/labels.json   field -> names of its codes; genre and language of each sample, by split
"""

import json
import shutil
from pathlib import Path

import numpy as np

from jaxsae import corpus, data, text
from jaxsae.config import DEMO
from jaxsae.files import whole

N_SAMPLES, SEED = 4000, 0


def write_demo(folder: Path, n_samples: int = N_SAMPLES, seed: int = SEED) -> None:
    """Write `dataset` and `truth` into `folder`; the same seed gives the same bytes."""
    texts = corpus.generate(n_samples, seed)
    rows_of = text.split_indices(n_samples, data.DEFAULT_SEED)
    fields = list(texts[0].truth)
    truth = {field: np.full((n_samples, text.MAX_LENGTH), -1, np.int8) for field in fields}
    for row, one in enumerate(texts):
        for field in fields:
            truth[field][row, : len(one.text)] = one.truth[field]
    labels = {
        "fields": {field: list(names) for field, names in corpus.LABELS.items()},
        "genre": {split: [texts[i].genre for i in rows] for split, rows in rows_of.items()},
        "language": {split: [texts[i].language for i in rows] for split, rows in rows_of.items()},
    }
    shutil.rmtree(folder / "truth", ignore_errors=True)  # left by a run that was killed before it wrote the dataset
    with whole(folder / "truth") as aside:
        aside.mkdir()
        data.save_splits(aside, {split: {f: c[rows] for f, c in truth.items()} for split, rows in rows_of.items()})
        (aside / "labels.json").write_text(json.dumps(labels))
    with whole(folder / "dataset") as aside:
        aside.mkdir()
        data.save_splits(aside, data.prepare_fragments([one.text for one in texts], data.DEFAULT_SEED))


def ensure_demo(dataset: str | Path) -> None:
    """Write the demo's text if `dataset` is the demo's and is not there yet (three seconds)."""
    if Path(dataset) == DEMO / "dataset" and not Path(dataset).exists():
        write_demo(DEMO)
