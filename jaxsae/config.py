"""What can be set, with its meaning, unit and default: frozen dataclasses that import neither JAX nor torch.

The command line is made from these (`jaxsae.cli`), so that a default stands in one place only.
"""

import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from jaxsae.errors import listed, plain_number, require, whole_number


def _demo() -> tuple[Path, Path]:
    """The folders of the embedded demo's model and of its text."""
    package = Path(__file__).resolve().parent
    packaged, clone = package / "demo", package.parent / "checkpoints" / "demo"
    installed = (packaged / "best_model.pt").is_file()
    if not installed and ((clone / "dataset").is_dir() or os.access(clone, os.W_OK)):
        return clone, clone
    from importlib.metadata import version

    from platformdirs import user_cache_dir

    # the version: another release may generate other text
    return packaged if installed else clone, Path(user_cache_dir("jaxsae")) / f"demo-{version('jaxsae')}"


DEMO, DEMO_TEXT = _demo()
"""The embedded demo: in a clone `checkpoints/demo`, in an installed wheel data of the package `jaxsae.demo`.

Its text (`dataset` and `truth`) is generated: in a clone beside the model, and in the user's cache where that cannot be
written or a wheel is installed, as what is written among a package's files would outlive the package.
"""


def flag(default: Any, help: str, **more: Any) -> Any:
    """A dataclass field with a default and its help text; `more` goes to argparse (`choices`, `metavar`, `type`)."""
    return field(default=default, metadata={"help": help, **more})


MOST = {
    "vocab_size": 2**24,
    "max_position": 2**20,
    "d_model": 2**17,
    "n_heads": 2**12,
    "d_ff": 2**20,
    "n_layers": 2**10,
}
"""Beyond reason: what a file declares is compared with its tensors only after tables of that size are made."""


@dataclass(frozen=True)
class ModelConfig:
    """The restoration transformer's shape, as its checkpoint's `config` gives it; the defaults are the original's."""

    vocab_size: int
    """Number of token ids; ids are Unicode code points."""
    max_position: int = 768
    """Longest text, in characters."""
    d_model: int = 384
    n_heads: int = 8
    d_ff: int = 1536
    n_layers: int = 16
    dropout: float = 0.1
    """Probability, in training only."""
    rotary_base: float = 10000

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value = getattr(self, name)
            ok = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
            require(ok, f"the model's {name} must be a whole number in 1..{most}, got {value!r}")
        require(
            self.d_model % self.n_heads == 0,
            f"d_model must be divisible by n_heads, got {self.d_model} and {self.n_heads}",
        )
        require(self.d_head % 2 == 0, f"d_model / n_heads must be even (rotary pairs), got {self.d_head}")
        dropout_ok = isinstance(self.dropout, (int, float)) and 0 <= self.dropout < 1
        require(dropout_ok, f"the model's dropout must be in [0, 1), got {self.dropout!r}")
        base_ok = (
            isinstance(self.rotary_base, (int, float)) and self.rotary_base > 1 and math.isfinite(self.rotary_base)
        )
        require(base_ok, f"the model's rotary_base must be a number above 1, got {self.rotary_base!r}")

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` unless the model has such a layer."""
        require(0 <= layer < self.n_layers, f"layer must be in 0..{self.n_layers - 1}, got {layer}")

    @classmethod
    def from_dict(cls, given: Any, source: str) -> "ModelConfig":
        """Read a checkpoint's `config`; `source` names the file in errors. A field this replica lacks is refused."""
        require(isinstance(given, dict), f"{source}: config must be a dict, got {type(given).__name__}")
        unknown = sorted(map(str, set(given) - {f.name for f in fields(cls)}))
        require(not unknown, f"{source}: config has fields this replica does not know: {listed(unknown)}")
        require("vocab_size" in given, f"{source}: config must have vocab_size, got {listed(given) or 'nothing'}")
        return cls(
            **{name: whole_number(value) if name in MOST else plain_number(value) for name, value in given.items()}
        )


Architecture = Literal["relu", "topk", "batchtopk", "jumprelu", "matryoshka"]
THRESHOLDED = ("batchtopk", "jumprelu", "matryoshka")
"""Architectures whose latents fire where their pre-activation is above a threshold."""


@dataclass(frozen=True)
class SAEConfig:
    """What an SAE file says of itself: its shape, how it was trained, and what to apply besides the plain formula."""

    d_in: int
    d_sae: int
    l1_coef: float = 0.0
    """Weight of the mean absolute latent at the end of training, in the units of the rows."""
    k: int | None = None
    """TopK: at most this many latents fire per row."""
    architecture: Architecture = "relu"
    target_l0: int | None = None
    """Latents per row that training aimed at."""

    def __post_init__(self) -> None:
        require(
            self.d_in >= 1 and self.d_sae >= 1, f"d_in and d_sae must be at least 1, got {self.d_in} and {self.d_sae}"
        )
        known = get_args(Architecture)
        require(self.architecture in known, f"architecture must be {', '.join(known)}, got {self.architecture!r}")
        topk = self.architecture == "topk"
        require(topk == (self.k is not None), f"k goes with topk, got {self.architecture} and k {self.k}")
        for name in ("k", "target_l0"):
            value = getattr(self, name)
            ok = value is None or 1 <= value <= self.d_sae
            require(ok, f"{name.replace('_', '-')} must be in 1..{self.d_sae} (d_sae), got {value}")

    @property
    def penalised(self) -> bool:
        """Whether a penalty, moved while training, brings about the target L0."""
        return self.architecture in ("relu", "jumprelu") and self.target_l0 is not None


@dataclass(frozen=True)
class PretrainConfig:
    """How a restoration model is trained."""

    epochs: int = flag(20, "passes over the training text, each with new damage")
    batch_chars: int = flag(4096, "characters in a step, about; samples of like length run together")
    crop: int | None = flag(
        None, "cut texts into pieces of at most N characters, but for the last sixteenth of the epochs", metavar="N"
    )
    grow: bool = flag(
        False, "begin with a quarter of the layers; double them after a half and after three quarters of the epochs"
    )
    lr: float = flag(2e-3, "AdamW's highest learning rate, reached after the warm-up; then a cosine down")
    warmup: int = flag(200, "steps until the highest learning rate")
    weight_decay: float = flag(0.01, "of matrices; norms, biases and the embedding do not decay")
    seed: int = flag(0, "of weights, order, damage and dropout")

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_chars", "warmup"):
            value = getattr(self, name)
            require(value >= 1, f"{name.replace('_', '-')} must be at least 1, got {value}")
        require(self.crop is None or self.crop >= 8, f"crop must be at least 8, got {self.crop}")
        require(self.lr > 0 and math.isfinite(self.lr), f"lr must be a number above 0, got {self.lr}")
        ok = self.weight_decay >= 0 and math.isfinite(self.weight_decay)
        require(ok, f"weight-decay must be a number of at least 0, got {self.weight_decay}")
        require(0 <= self.seed < 2**32, f"seed must be in 0..{2**32 - 1}, got {self.seed}")

    def layers_of(self, epoch: int, n_layers: int) -> int:
        """How many layers are trained in this epoch (1-based)."""
        stage = 4 * (epoch - 1) // self.epochs  # quarters of the run
        return n_layers // {0: 4, 1: 4, 2: 2, 3: 1}[stage] if self.grow else n_layers

    def crop_of(self, epoch: int) -> int | None:
        """How long the pieces of this epoch (1-based) are; None: whole texts."""
        return self.crop if epoch <= self.epochs - math.ceil(self.epochs / 16) else None


def sample_count(text: str) -> int | None:
    """`all` -> None, else a number."""
    return None if text == "all" else int(text)


@dataclass(frozen=True)
class DataConfig:
    """Which rows of which model."""

    checkpoint: str = flag(
        str(DEMO / "best_model.pt"), "the model: a PyTorch .pt, or the folder that one was converted to"
    )
    dataset: str = flag(
        str(DEMO_TEXT / "dataset"),
        "a save_to_disk folder, or a file of fragments: .json, .jsonl, .parquet (as prepared with seed 42)",
    )
    split: str = flag("validation", "which part of the dataset")
    max_samples: int | None = flag(200, "the first N samples, in order, or `all`", type=sample_count, metavar="N")
    padding: Literal["drop", "keep"] = flag(
        "drop", "drop: attention mask on, padded positions left out; keep: no mask, every position, as the original"
    )

    def __post_init__(self) -> None:
        if self.max_samples is not None:
            require(self.max_samples >= 1, f"max-samples must be at least 1 or `all`, got {self.max_samples}")
        require(self.padding in ("drop", "keep"), f"padding must be drop or keep, got {self.padding!r}")


LOGGERS = {"tensorboard": "tensorboardX", "wandb": "wandb"}
"""What takes a run's metrics besides `metrics.jsonl` -> the package that it needs."""

MODERN: dict[str, Any] = {"recipe": "modern", "epochs": 10, "lr": 8e-3}
"""What the modern recipe takes unless told otherwise."""


@dataclass(frozen=True)
class TrainConfig:
    """How an SAE is trained; the defaults are the guide's recipe. `TrainConfig.modern()` has the other's."""

    recipe: Literal["guide", "modern"] = flag(
        "guide",
        "guide: as the original script; modern: scaled rows, tied start, warm-up and decay, dead latents revived",
    )
    epochs: int = flag(50, f"passes over the rows, at most; modern: {MODERN['epochs']}, all of them")
    patience: int = flag(5, "guide: stop after this many epochs in a row without a new lowest loss")
    batch_size: int = flag(256, "rows in a step; the last partial batch of an epoch is dropped")
    lr: float = flag(1e-4, f"Adam's learning rate; modern: {MODERN['lr']:g}, of rows scaled to variance 1")
    decay: float = flag(1 / 3, "modern: share of the steps in which the learning rate falls to 0; dense SAEs want more")
    expansion: int = flag(4, "d_sae / d_in")
    l1_coef: float = flag(1e-3, "relu: weight of the mean absolute latent in the loss")
    k_sparse: int | None = flag(None, "TopK: at most this many latents per row, and no L1 penalty", metavar="K")
    target_l0: int | None = flag(
        None, "latents per row that the run shall end with, in place of a penalty", metavar="N"
    )
    architecture: Architecture = flag(
        "relu", "topk: implied by --k-sparse; all but relu and topk need --target-l0, and imply --recipe modern"
    )
    precision: Literal["float32", "bfloat16"] = flag(
        "float32", "operands of the SAE's matrix products; sums are float32"
    )
    seed: int = flag(0, "same seed, same machine: the same weights, bit for bit")

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size", "expansion"):
            value = getattr(self, name)
            require(value >= 1, f"{name.replace('_', '-')} must be at least 1, got {value}")
        require(self.lr > 0 and math.isfinite(self.lr), f"lr must be a number above 0, got {self.lr}")
        require(0 < self.decay <= 1, f"decay must be above 0 and at most 1, got {self.decay}")
        require(
            self.l1_coef >= 0 and math.isfinite(self.l1_coef),
            f"l1-coef must be a number of at least 0, got {self.l1_coef}",
        )
        require(0 <= self.seed < 2**32, f"seed must be in 0..{2**32 - 1}, got {self.seed}")
        for name, known in (
            ("recipe", ("guide", "modern")),
            ("architecture", get_args(Architecture)),
            ("precision", ("float32", "bfloat16")),
        ):
            value = getattr(self, name)
            require(value in known, f"{name} must be one of {', '.join(known)}, got {value!r}")
        both = self.k_sparse is not None and self.target_l0 is not None
        require(not both, "give either --k-sparse or --target-l0, got both: they say the same of a TopK")
        if self.architecture == "topk":
            require(
                self.k_sparse is not None or self.target_l0 is not None,
                "architecture topk needs --k-sparse K (or --target-l0), got neither",
            )
        else:
            require(self.k_sparse is None, f"--k-sparse goes with architecture topk, got {self.architecture}")
        if self.architecture in THRESHOLDED:
            modern = self.recipe == "modern"
            require(modern, f"architecture {self.architecture} needs --recipe modern: the guide's is of relu and topk")
            require(self.target_l0 is not None, f"architecture {self.architecture} needs --target-l0 N, got none")

    @classmethod
    def modern(cls, **settings: Any) -> "TrainConfig":
        """The modern recipe's defaults, with other `settings`."""
        return cls(**MODERN | settings)

    def sae(self, d_in: int) -> SAEConfig:
        """The SAE this trains on rows of width `d_in`; only a ReLU SAE has an L1 penalty."""
        return SAEConfig(
            d_in=d_in,
            d_sae=self.expansion * d_in,
            l1_coef=self.l1_coef if self.architecture == "relu" else 0.0,
            k=(self.target_l0 if self.k_sparse is None else self.k_sparse) if self.architecture == "topk" else None,
            architecture=self.architecture,
            target_l0=self.target_l0,
        )
