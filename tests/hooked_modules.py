"""Files of a user's own, with PyTorch modules that are read by hooks."""

from pathlib import Path

CAUSAL = """
import torch
from torch import nn
from jaxsae import TorchModel


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).flatten(-2))
        return x + self.mlp(self.norm2(x)), "what else it gives"


class Model(nn.Module):
    def __init__(self, vocab=40, positions=24, d=18, layers=3):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, d), nn.Embedding(positions, d)
        self.blocks = nn.ModuleList(Block(d, 3) for _ in range(layers))
        self.others = nn.ModuleList([nn.Identity()])
        self.norm, self.out = nn.LayerNorm(d), nn.Linear(d, vocab, bias=False)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x, _ = block(x)
        return self.out(self.norm(self.others[0](x)))


LETTERS = "_ abcdefghijklmnopqrstuvwxyzāēīūšṣṭ"


def load():
    print("this is not shown")
    torch.manual_seed(0)
    encode = lambda text: [LETTERS.index(letter) for letter in text]
    pieces = lambda ids: [LETTERS[i] if i < len(LETTERS) else "" for i in ids]
    return TorchModel(Model(), encode, pieces, max_position=24, causal=True)


def as_tuple():
    model = load()
    return model.module, model.encode, model.pieces
"""

MASKED = '''
import torch
from torch import nn
from jaxsae import TorchModel


class Model(nn.Module):
    """PyTorch's own encoder."""

    def __init__(self, vocab=40, d=16, layers=3, norm_first=False):
        super().__init__()
        self.embed, self.positions = nn.Embedding(vocab, d), nn.Embedding(30, d)
        layer = nn.TransformerEncoderLayer(d, 2, 20, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(d, vocab)

    def forward(self, src, src_key_padding_mask=None):
        x = self.embed(src) + self.positions.weight[: src.shape[1]]
        return self.head(self.encoder(x, src_key_padding_mask=src_key_padding_mask))


class Unmasked(Model):
    def forward(self, src):
        return super().forward(src)


LETTERS = "_ abcdefghijklmnopqrstuvwxyzāēīūšṣṭ"


def made(kind, **how):
    torch.manual_seed(0)
    module = kind(**how)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    encode = lambda text: [LETTERS.index(letter) for letter in text]
    pieces = lambda ids: [LETTERS[i] if i < len(LETTERS) else "*<>"[i - 37] if i > 36 else "" for i in ids]
    return TorchModel(module, encode, pieces, max_position=24, mask_id=37, frame=((38,), (39,)))


def load():
    return made(Model)


def norm_first():
    return made(Model, norm_first=True)


def unmasked():
    return made(Unmasked)
'''

RESTORATION = """
from convert.checkpoints import read_checkpoint
from convert.reference import build
from jaxsae import TorchModel


def load():
    module = build(read_checkpoint({path!r}))
    encode = lambda text: [ord(letter) for letter in text]
    pieces = lambda ids: [chr(i) for i in ids]
    return TorchModel(
        module, encode, pieces, max_position={most}, mask_id=ord("#"), padding_id=32, unit="character"
    )
"""
TEXTS = ["ana šarri bēliya", "umma mār šipri", "ina bīt ilim", "tuppum annûm".replace("û", "ū"), "kasap awīlim"] * 12
TEXTS = [f"{text[i % 5 :]} {text[: i % 7]}".strip() for i, text in enumerate(TEXTS)]


def write(folder: Path, content: str, name: str = "mine.py") -> Path:
    """A file with a text in it."""
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path
