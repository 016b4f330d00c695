"""A tiny random model of signs in its authors' format, its vocabulary, and a table of words that it reads."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jaxsae.models.config_fields import settings
from jaxsae.models.signs_config import SignConfig
from jaxsae.text.signs import SPECIAL

# Odd sizes, so that no two dimensions can be mixed up unseen; the heads together are not as wide as the stream.
CONFIG = SignConfig(vocab_size=19, d_model=21, d_ff=37, d_kv=6, num_heads=3, num_layers=3, max_seq_len=24)
SIGNS = (*SPECIAL, *["a", "ab", "an", "ba", "be", "du", "e", "gal", "ki", "lu", "na", "šu", "u", "zi"])

WORDS = {
    "fragment_id": ["B", "A", "A", "B", "A", "A", "C", "A", "A", None],
    "line_num": [0, 2, 1, 0, 1, 2, 0, None, 1, 0],
    "word_idx": [1, 0, 5, 0, 2, 0, 0, 0, 2, 0],
    "value_signs": ["lu gal", "šu", "an na", "e", " be  du ", "du", None, "ki", "zi", "u"],
    "source": ["y", "x", "x", "y", "x", "x", "z", "x", "x", "w"],
    "certainty": ["sure", "sure", "lost", None, "sure", "sure", "sure", "lost", "lost", "sure"],
    "value_raw": ["LU.GAL", "ŠU", "AN.NA", "E", "be-du", "DU", "x", "KI", "ZI", "U"],
    "place": [1] * 10,
}
"""Rows of words, not in order; two of them at one place, one without signs, one without a line, one of no fragment."""


def tensors(config: SignConfig = CONFIG, seed: int = 0) -> dict:
    """Random weights, with norms and biases that matter, in a stream with an offset."""
    import torch

    from convert.signs_reference import Model

    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, tensor in Model(config).state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("inv_freq"):
            out[name] = tensor * (1 + 0.01 * noise)  # the file's own, not what the base says
        elif name.endswith("embed.weight"):
            out[name] = 0.3 * noise + 0.1
        elif tensor.ndim == 2:
            out[name] = 0.2 * noise
        else:
            out[name] = 0.3 * noise + (1.0 if "norm" in name else 0.0)
    return out


def content(config: SignConfig = CONFIG, seed: int = 0) -> dict:
    """The dict of a `best_model.pt`."""
    state = {"step": 3, "param_groups": [{"lr": 1e-4}]}
    about = {"optimizer_state_dict": state, "epoch": 2, "val_loss": 1.5}
    return {"model_state_dict": tensors(config, seed), "config": settings(config), **about}


def vocabulary(signs: tuple[str, ...] = SIGNS) -> dict:
    """The content of a `vocab.json`."""
    return {
        "sign_to_id": {sign: number for number, sign in enumerate(signs)},
        "id_to_sign": {str(number): sign for number, sign in enumerate(signs)},
        "vocab_size": len(signs),
        "num_special_tokens": len(SPECIAL),
        "num_signs": len(signs) - len(SPECIAL),
    }


def write_vocabulary(path: Path, signs: tuple[str, ...] = SIGNS) -> Path:
    """A `vocab.json`."""
    path.write_text(json.dumps(vocabulary(signs), ensure_ascii=False), encoding="utf-8")
    return path


def write_words(path: Path, **changes: object) -> Path:
    """A Parquet file of `WORDS`; a column that is None is left out."""
    columns = {name: column for name, column in {**WORDS, **changes}.items() if column is not None}
    pq.write_table(pa.table(columns), path)
    return path


def write_texts(path: Path, texts: list[str | None], **columns: list[str]) -> Path:
    """A Parquet file with a row for each fragment."""
    pq.write_table(pa.table({"fragment_id": [f"f{i}" for i in range(len(texts))], "text": texts, **columns}), path)
    return path
