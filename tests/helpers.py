"""What several tests share and is no fixture."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxsae.config import ARCHITECTURES
from jaxsae.features.firings import FiringLog, Firings
from jaxsae.features.judged_text import JudgedText
from jaxsae.text import preparation
from jaxsae.text.samples import Samples
from jaxsae.text.stored_tokenizer import StoredTokenizer
from jaxsae.text.tokenizer import UNICODE

THRESHOLDED = [name for name, rules in ARCHITECTURES.items() if rules.stores == "threshold"]
"""Architectures whose files hold thresholds."""


def changed_state(folder: Path, change: Callable[[dict], object], split: str = "validation") -> None:
    """Change the state.json of a split of a dataset."""
    file = folder / split / "state.json"
    state = json.loads(file.read_text())
    change(state)
    file.write_text(json.dumps(state))


def odd_lines(rng: random.Random, n: int) -> list[str]:
    """Lines of what transliterations are made of, put together without sense."""
    parts = [
        *"aušx₂ₓ12--..:|?!*##…[[]](){}⸢⸣×/+@&$ʾ\n\t\u2028",
        *[" "] * 12,
        "\r\n",
        "LUGAL",
        "xx",
        "xxx",
        "x-x",
        "...",
    ]
    parts += ["##", "{d}", "{ki}", "x x", "[...]", "[x x]", "[a-na]", "[(x)]", "(a # b)", "[... a x]", "#lem: x"]
    return ["".join(rng.choices(parts, k=rng.randrange(0, 25))) for _ in range(n)]


def sample(true: str, damage: dict[int, str] | None = None, width: int = 40) -> Samples:
    """One text, damaged at some positions."""
    ids = np.full((1, width), preparation.PADDING_ID, np.int32)
    ids[0, : len(true)] = UNICODE.encode(true)
    labels = np.full((1, width), preparation.NO_LABEL, np.int32)
    for position, becomes in (damage or {}).items():
        labels[0, position], ids[0, position] = ids[0, position], ord(becomes)
    return Samples(ids, labels, (np.arange(width)[None] < len(true)).astype(np.int8))


def firings_of(text: JudgedText, values: np.ndarray) -> Firings:
    """The firings of latents [characters, latents] on a text."""
    log = FiringLog(text, values.shape[1])
    row, column = np.nonzero(values)
    log.add(row, column, values[row, column])
    return log.firings()


def narrowed(splits: dict[str, dict[str, np.ndarray]], width: int) -> dict[str, dict[str, np.ndarray]]:
    """Prepared splits as a model of so few positions takes them; columns of one value a text as they are."""
    return {
        split: {name: column[:, :width] if column.ndim == 2 else column for name, column in columns.items()}
        for split, columns in splits.items()
    }


def saved(folder: Path, content: object, name: str = "m.pt") -> Path:
    """A file of `torch.save`."""
    import torch

    torch.save(content, folder / name)
    return folder / name


USER_FILE = """
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class RestorationConfig:
    vocab_size: int = 11812
    max_position: int = 768
    d_model: int = 384
    n_heads: int = 8
    d_ff: int = 1536
    n_layers: int = 16
    dropout: float = 0.1
    rotary_base: int = 10000

class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.h = c.n_heads
        self.ln1, self.ln2 = nn.LayerNorm(c.d_model), nn.LayerNorm(c.d_model)
        self.attn = nn.ModuleDict({f"{n}_proj": nn.Linear(c.d_model, c.d_model) for n in ("q", "k", "v", "out")})
        self.ff = nn.Sequential(nn.Linear(c.d_model, c.d_ff), nn.GELU(), nn.Linear(c.d_ff, c.d_model))

    def forward(self, x, cos, sin, bias):
        B, S, D = x.shape
        d = D // self.h
        q, k, v = (self.attn[f"{n}_proj"](self.ln1(x)).view(B, S, self.h, d).transpose(1, 2) for n in "qkv")
        rot = lambda t: t * cos + torch.cat([-t[..., d // 2:], t[..., :d // 2]], -1) * sin
        s = rot(q) @ rot(k).transpose(-1, -2) * d ** -0.5 + bias
        x = x + self.attn["out_proj"]((s.softmax(-1) @ v).transpose(1, 2).reshape(B, S, D))
        return x + SCALE * self.ff(self.ln2(x))

class RestorationModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.embed = nn.Embedding(c.vocab_size, c.d_model)
        self.layers = nn.ModuleList([Layer(c) for _ in range(c.n_layers)])
        self.final_ln, self.head = nn.LayerNorm(c.d_model), nn.Linear(c.d_model, c.vocab_size)
        d = c.d_model // c.n_heads
        angle = torch.outer(torch.arange(c.max_position).float(), 1.0 / c.rotary_base ** (torch.arange(0, d, 2).float() / d))
        self.cos, self.sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)

    def forward(self, input_ids, attention_mask=None):
        assert input_ids.shape[1] == self.config.max_position, "only whole windows"
        print("chatter", input_ids.shape)
        x = self.embed(input_ids)
        bias = 0.0 if attention_mask is None else (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -1e9
        for layer in self.layers:
            x = layer(x, self.cos, self.sin, bias)
        return self.head(self.final_ln(x))
"""


def of_words(texts, vocabulary=tuple("abcdefgh"), **how):
    """Framed samples of words, with what is known of texts and of tokens, of a tokenizer that is not characters'."""
    ids = {word: 4 + number for number, word in enumerate(vocabulary)}
    known = {0: "", 1: "<s>", 2: "</s>", 3: "<mask>"} | {number: f" {word}" for word, number in ids.items()}
    tokenizer = StoredTokenizer(known, 45, unit="word", padding_id=0, damaged_id=3, frame=((1,), (2,)))
    with_frame = [[1, *(ids[word] for word in text.split()), 2] for text in texts]
    shape = len(texts), max(map(len, with_frame))
    found = np.zeros(shape, np.int32)
    mask, special = np.zeros(shape, np.int8), np.zeros(shape, bool)
    for row, one in enumerate(with_frame):
        found[row, : len(one)], mask[row, : len(one)] = one, 1
        special[row, [0, len(one) - 1]] = True
    labels = np.full(shape, -100, np.int32)
    labels[:, 1], found[:, 1] = found[:, 1], 3
    place = np.where((mask != 0) & ~special, (np.arange(shape[1]) % 2).astype(str)[None], "").astype(object)
    columns = {"genre": np.array([f"g{len(text) % 2}" for text in texts], object), "parity": place}
    return Samples(found, labels, mask, special=special, tokenizer=tokenizer, columns=columns, **how)


def without_packing(model):
    """A model that is not known to read several texts in one row."""

    class Plain:
        """The model without `stream_packed`."""

        def __getattr__(self, name):
            if name == "stream_packed":
                raise AttributeError(name)
            return getattr(model, name)

        n_layers, d_model, dtype, max_position = model.n_layers, model.d_model, model.dtype, model.max_position
        tokenizer, check_layer, stream = model.tokenizer, model.check_layer, model.stream
        hook, activations, logits = model.hook, model.activations, model.logits

    return Plain()
