"""What can be set, with its meaning, unit and default: frozen dataclasses that import neither JAX nor torch.

The command line is made from these (`jaxsae.cli`), so that a default stands in one place only.
"""

import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxsae.errors import require


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
    """A dataclass field with a default and its help text.

    Args:
      more: for the command line: `choices`, `metavar`, `type`; `shown`, the default in words; `also`, other flags.
    """
    return field(default=default, metadata={"help": help, **more})


class MeshShape(NamedTuple):
    """Over how many devices the training of one SAE is divided, along each axis."""

    data: int = 1
    """Parts of a batch: each device has some of its rows."""
    latents: int = 1
    """Parts of the SAE: each device has some of its latents."""

    @property
    def size(self) -> int:
        """The devices that it takes."""
        return self.data * self.latents

    @classmethod
    def parse(cls, text: str) -> "MeshShape":
        """`data=4,latents=2`; an axis that is not named is not divided.

        Raises:
          InputError: anything else.
        """
        pairs = [part.strip().partition("=") for part in text.split(",")]
        sizes = {name: int(size) for name, _, size in pairs if name in cls._fields and size.isdecimal()}
        ok = len(sizes) == len(pairs) and all(sizes.values())
        require(ok, f"mesh must be like data=4,latents=2, each at least 1, got {text!r}")
        return cls(**sizes)

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in self._asdict().items() if size > 1) or "one device"


class ArchitectureRules(NamedTuple):
    """What an architecture's settings and files may say; what it computes is in `jaxsae.sae.architectures`."""

    stores: Literal["", "k", "threshold"]
    """What its file says besides the four tensors: nothing, where latents are relu(pre_acts); `k`; or a threshold for
    each latent."""
    sparsity: tuple[str, ...]
    """Settings of `TrainConfig` that determine how sparse it is, of which one is given; the first has a default."""
    recipes: tuple[str, ...]
    """Recipes that can train it; the first is the default."""


ARCHITECTURES = {
    "relu": ArchitectureRules("", ("l1_coef", "target_l0"), ("guide", "modern", "reading")),
    "topk": ArchitectureRules("k", ("k_sparse", "target_l0"), ("guide", "modern", "reading")),
    "batchtopk": ArchitectureRules("threshold", ("target_l0",), ("modern", "reading")),
    "jumprelu": ArchitectureRules("threshold", ("target_l0",), ("modern", "reading")),
    "matryoshka": ArchitectureRules("threshold", ("target_l0",), ("modern", "reading")),
}


def architecture_rules(name: Any) -> ArchitectureRules:
    """The rules of an architecture.

    Raises:
      InputError: there is none of that name.
    """
    known = isinstance(name, str) and name in ARCHITECTURES
    require(known, f"architecture must be one of {', '.join(ARCHITECTURES)}, got {name!r}")
    return ARCHITECTURES[name]


@dataclass(frozen=True)
class SAEConfig:
    """What an SAE file says of itself: its shape, how it was trained, and what to apply besides the plain formula."""

    d_in: int
    d_sae: int
    l1_coef: float = 0.0
    """Weight of the mean absolute latent at the end of training, in the units of the rows."""
    k: int | None = None
    """TopK: at most this many latents fire per row."""
    architecture: str = "relu"
    """One of `ARCHITECTURES`."""
    target_l0: int | None = None
    """Latents per row that training aimed at."""

    def __post_init__(self) -> None:
        require(
            self.d_in >= 1 and self.d_sae >= 1, f"d_in and d_sae must be at least 1, got {self.d_in} and {self.d_sae}"
        )
        stores_k = architecture_rules(self.architecture).stores == "k"
        require(stores_k == (self.k is not None), f"k goes with topk, got {self.architecture} and k {self.k}")
        for name in ("k", "target_l0"):
            value = getattr(self, name)
            ok = value is None or 1 <= value <= self.d_sae
            require(ok, f"{name} must be in 1..{self.d_sae} (d_sae), got {value}")


@dataclass(frozen=True)
class PretrainConfig:
    """How a model is trained to restore damaged text."""

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
    """Which model, and which text or stored rows, a command reads."""

    checkpoint: str = flag(
        str(DEMO / "best_model.pt"),
        "the model: a PyTorch .pt, or the folder that one was converted to; or any PyTorch module, which is read by hooks: a "
        "folder of Hugging Face's, or FILE.py:FUNCTION, which returns it (this RUNS the file)",
        also=("--torch",),
    )
    vocab: str | None = flag(
        None,
        "for a model of signs, the vocab.json that says what its ids stand for",
        metavar="FILE",
        shown="beside the checkpoint, or beside the dataset",
    )
    dataset: str = flag(
        str(DEMO_TEXT / "dataset"),
        "a save_to_disk folder, or a file of fragments: .json, .jsonl, .parquet (as prepared with seed 42); of signs: a "
        ".parquet, or a folder of one for each split; for other PyTorch models: texts, .txt, .json, .jsonl, .parquet, or a "
        "folder of one for each split",
        also=("--texts",),
    )
    split: str = flag("validation", "which part of the dataset")
    max_samples: int | None = flag(
        200, "the first N samples, in order, or `all`", type=sample_count, metavar="N", also=("--num-samples",)
    )
    padding: Literal["drop", "keep"] = flag(
        "drop", "drop: attention mask on, padded positions left out; keep: no mask, every position, as the original"
    )

    def __post_init__(self) -> None:
        if self.max_samples is not None:
            require(self.max_samples >= 1, f"max-samples must be at least 1 or `all`, got {self.max_samples}")
        require(self.padding in ("drop", "keep"), f"padding must be drop or keep, got {self.padding!r}")


LOGGERS = {"tensorboard": "tensorboardX", "wandb": "wandb"}
"""What takes a run's metrics besides `metrics.jsonl` -> the package that it needs."""

FILE_TAGS = {
    "l1_coef": "l1-",
    "k_sparse": "k-",
    "target_l0": "l0-",
    "seed": "seed",
    "max_samples": "samples-",
    "batch_size": "batch-",
    "architecture": "",
    "recipe": "",
    "precision": "",
    "denoise": "denoise-",
    "whiten": "whiten-",
}
"""Setting -> what stands before its value in the name of an SAE file that differs in it."""

RECIPES: dict[str, dict[str, Any]] = {
    "guide": {"epochs": 50, "patience": 5, "batch_size": 256, "lr": 1e-4, "expansion": 4},
    "modern": {"epochs": 10, "decay": 1 / 3, "batch_size": 256, "lr": 8e-3, "expansion": 4},
    "reading": {"epochs": 10, "decay": 1 / 3, "batch_size": 256, "lr": 8e-3},
}
"""Recipe -> the settings that only some recipes read or that differ between them, with their defaults."""
READING = {"architecture": "topk", "whitened": "batchtopk", "target_l0": 16}
"""What the reading recipe takes where no architecture or sparsity is given, its rows whitened or not; it trains as the
modern one does."""
READING_LATENTS, READING_EXPANSION = 2048, (2, 32)
"""Its latents, as near as such multiples of d_in come: how many can be read depends on the text, not on the width."""
L1_COEF = 1e-3
"""The guide's penalty, where neither a penalty nor a target L0 is given."""


def _of_recipes(name: str) -> str:
    """The defaults of a setting, for its help."""
    values = {recipe: settings[name] for recipe, settings in RECIPES.items() if name in settings}
    if len(values) == len(RECIPES) and len(set(values.values())) == 1:
        return f"{values['guide']:g}"
    return ", ".join(f"{recipe}: {value:.4g}" for recipe, value in values.items())


@dataclass(frozen=True)
class TrainConfig:
    """How an SAE is trained. `TrainConfig()` is the guide's recipe, `TrainConfig(recipe="modern")` the modern one.

    A setting that is left out takes the recipe's default, and stays None where recipe and architecture do not read it.
    One that is given and not read is refused.
    """

    recipe: Literal["guide", "modern", "reading"] = flag(
        None,
        "guide: as the original script; modern: scaled rows, tied start, warm-up and decay, dead latents revived; "
        "reading: the same, wide and sparse, for features that say something",
        shown="guide; modern for architectures that it alone trains",
    )
    epochs: int = flag(None, "passes over the rows, at most; modern: all of them", shown=_of_recipes("epochs"))
    patience: int | None = flag(
        None, "stop after this many epochs in a row without a new lowest loss", shown=_of_recipes("patience")
    )
    batch_size: int = flag(
        None, "rows in a step; the last partial batch of an epoch is dropped", shown=_of_recipes("batch_size")
    )
    lr: float = flag(None, "Adam's learning rate; modern: of rows scaled to variance 1", shown=_of_recipes("lr"))
    decay: float | None = flag(
        None,
        "share of the steps in which the learning rate falls to 0; dense SAEs want more",
        shown=_of_recipes("decay"),
    )
    expansion: int | None = flag(
        None,
        "d_sae / d_in",
        shown=f"{_of_recipes('expansion')}, reading: what makes {READING_LATENTS:,} latents, 2 to 32",
    )
    l1_coef: float | None = flag(None, "relu: weight of the mean absolute latent in the loss", shown=f"{L1_COEF:g}")
    k_sparse: int | None = flag(None, "TopK: at most this many latents per row, and no L1 penalty", metavar="K")
    target_l0: int | None = flag(
        None,
        "latents per row that the run shall end with, in place of a penalty",
        metavar="N",
        shown="off; reading: 16",
    )
    architecture: str = flag(
        None,
        "topk: implied by a k; batchtopk, jumprelu and matryoshka need a target L0, and the modern recipe trains them",
        choices=tuple(ARCHITECTURES),
        shown="relu; reading: topk, batchtopk of whitened rows",
    )
    denoise: float | None = flag(
        None,
        "weight of telling from the latents, by a decoder that is not kept, the row of the undamaged text as well: more is "
        "found at damaged characters; 0: off",
        shown="reading: 1 where the text is damaged and its rows fit into memory; else 0",
    )
    whiten: float | None = flag(
        None,
        "0 to 1: power of its standard deviation that each principal direction of the rows is divided by; of a stream that "
        "varies in few directions more features can then be named, at a larger error; not with a k",
        metavar="P",
        shown="off",
    )
    precision: Literal["float32", "bfloat16"] = flag(
        "float32", "operands of the SAE's matrix products; sums are float32"
    )
    seed: int = flag(0, "same seed, same machine: the same weights, bit for bit")

    def __post_init__(self) -> None:
        def take(name: str, value: Any) -> None:
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

        if self.recipe == "reading" and self.k_sparse is None:
            take("architecture", READING["whitened" if self.whiten else "architecture"])
            if self.l1_coef is None:
                take("target_l0", READING["target_l0"])
        take("architecture", "relu" if self.k_sparse is None else "topk")
        rules = architecture_rules(self.architecture)
        take("recipe", rules.recipes[0])
        self._check_choices(rules)
        for name, value in RECIPES[self.recipe].items():
            take(name, value)
        for name in ("epochs", "patience", "batch_size", "expansion"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, got {value}")
        require(self.lr > 0 and math.isfinite(self.lr), f"lr must be a number above 0, got {self.lr}")
        require(self.decay is None or 0 < self.decay <= 1, f"decay must be above 0 and at most 1, got {self.decay}")
        ok = self.denoise is None or (self.denoise >= 0 and math.isfinite(self.denoise))
        require(ok, f"denoise must be a number of at least 0, got {self.denoise}")
        ok = self.whiten is None or 0 <= self.whiten <= 1
        require(ok, f"whiten must be a number of 0..1, got {self.whiten}")
        for name in ("denoise", "whiten"):
            ok = not getattr(self, name) or self.recipe != "guide"
            require(ok, f"{name} is not read by recipe guide; leave it out")
        thresholds = [name for name, of in ARCHITECTURES.items() if of.stores != "k"]
        require(
            not self.whiten or rules.stores != "k",
            f"whiten needs architecture {', '.join(thresholds[:-1])} or {thresholds[-1]}, got {self.architecture}: in the "
            "units of the rows other latents would be the k largest",
        )
        l1_ok = self.l1_coef is None or (self.l1_coef >= 0 and math.isfinite(self.l1_coef))
        require(l1_ok, f"l1_coef must be a number of at least 0, got {self.l1_coef}")
        require(0 <= self.seed < 2**32, f"seed must be in 0..{2**32 - 1}, got {self.seed}")

    def _check_choices(self, rules: ArchitectureRules) -> None:
        """Raise `InputError` where a choice is not known, or a setting is given that would not be read."""
        for name, known in (("recipe", tuple(RECIPES)), ("precision", ("float32", "bfloat16"))):
            value = getattr(self, name)
            require(value in known, f"{name} must be one of {', '.join(known)}, got {value!r}")
        given = [name for name in ("l1_coef", "k_sparse", "target_l0") if getattr(self, name) is not None]
        for name in given:
            require(
                name in rules.sparsity,
                f"{name} goes with architecture {' and '.join(a for a, r in ARCHITECTURES.items() if name in r.sparsity)}, "
                f"got {self.architecture}; leave it out",
            )
        why = {"l1_coef": "the target determines the penalty", "k_sparse": "they say the same of a TopK"}
        require(len(given) < 2, f"give either {' or '.join(given)}, got both: {why.get(given[0] if given else '')}")
        require(
            self.recipe in rules.recipes,
            f"architecture {self.architecture} needs recipe {' or '.join(rules.recipes)}, got {self.recipe}",
        )
        needed = given or self.architecture == "relu"
        require(bool(needed), f"architecture {self.architecture} needs {' or '.join(rules.sparsity)}, got none")
        for name in ("patience", "decay"):
            read = name in RECIPES[self.recipe] or getattr(self, name) is None
            require(read, f"{name} is not read by recipe {self.recipe}; leave it out")

    def expansion_of(self, d_in: int) -> int:
        """d_sae / d_in for rows of width `d_in`; by itself the reading recipe makes about `READING_LATENTS`."""
        least, most = READING_EXPANSION
        return self.expansion or min(max(round(READING_LATENTS / d_in), least), most)

    def d_in(self, width: int) -> int:
        """Width of the rows that an SAE reads, of arrays so wide: half, where undamaged rows stand beside them."""
        return width // 2 if self.denoise else width

    @property
    def denoises_by_itself(self) -> bool:
        """Whether undamaged rows are asked for where it was not said: for features to be read."""
        return self.denoise is None and self.recipe == "reading"

    @property
    def penalty(self) -> float | None:
        """Weight of the L1 penalty; None where there is none, or where it follows from the target L0."""
        has_one = self.architecture == "relu" and self.target_l0 is None
        return (L1_COEF if self.l1_coef is None else self.l1_coef) if has_one else None

    def settings(self) -> dict[str, Any]:
        """All settings with their values, by which a run is known again."""
        found = asdict(self) | {"l1_coef": self.penalty}
        for name in ("denoise", "whiten"):  # which older runs do not say
            if not found[name]:
                del found[name]
        return found

    def sae(self, d_in: int) -> SAEConfig:
        """The SAE this trains on rows of width `d_in`; only a ReLU SAE has an L1 penalty."""
        stores_k = architecture_rules(self.architecture).stores == "k"
        return SAEConfig(
            d_in=d_in,
            d_sae=self.expansion_of(d_in) * d_in,
            l1_coef=self.penalty or 0.0,
            k=(self.target_l0 if self.k_sparse is None else self.k_sparse) if stores_k else None,
            architecture=self.architecture,
            target_l0=self.target_l0,
        )
