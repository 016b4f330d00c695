"""The SAE file, `sae_layer{L}_optimized.pt`: what the original scripts write and read.

    W_enc [d_in, d_sae]   b_enc [d_sae]   W_dec [d_sae, d_in]   b_dec [d_in]   losses: list of float   config: dict

`features = relu(x @ W_enc + b_enc)`; with `config["k"]`, of the k largest pre-activations only; with
`config["threshold"]` (one number, or one per latent), only where the pre-activation is above it. Every tensor and word
of a file is applied, known to say nothing of the features (`convert.config_keys`), or refused.
"""

import contextlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convert import config_keys, pt
from convert.fields import Fields
from jaxsae.config import ARCHITECTURES, SAEConfig, architecture_rules
from jaxsae.errors import InputError, listed, note, plain_number, require, whole_number
from jaxsae.models.hooks import HOOKS, hook_name, hook_point
from jaxsae.sae.autoencoder import SAE

TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
INSTEAD = "an sae_layer*_optimized.pt (a dict with W_enc, b_enc, W_dec, b_dec and config)"


@dataclass(frozen=True)
class SAEFile:
    """An SAE as its file has it."""

    sae: SAE
    config: SAEConfig
    losses: list[float] = field(default_factory=list)
    """Mean training loss of each epoch; empty where the file has none (`*_best.pt`)."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What else its config says, such as `layer`."""


def read_sae_pt(path: str | Path) -> SAEFile:
    """Read an SAE file of this project or of the original scripts, its older variants included.

    Raises:
      InputError: not such a file, shapes that do not fit, or something in it that is not understood: it might say that
        the features are others than the plain formula's.
    """
    content = pt.read_pt(path, INSTEAD)
    missing = [name for name in (*TENSORS, "config") if name not in content]
    require(
        not missing,
        f"{path}: must have {', '.join(TENSORS)} and config, got none of {', '.join(missing)}; give {INSTEAD}",
    )
    # Older files are float32 too; half precision is widened.
    arrays = [pt.floating(content.take(name), f"{path}: {name}").astype(np.float32) for name in TENSORS]
    config = content.inner("config")
    losses = _losses(path, content)
    said = {name: _said(str(path), name, (config, content)) for name in config_keys.APPLIED_KEYS}
    d_in, d_sae = (whole_number(said[name]) for name in ("d_in", "d_sae"))
    require(
        all(type(d) is int for d in (d_in, d_sae)),
        f"{path}: config must have whole d_in and d_sae, got {d_in!r} and {d_sae!r}",
    )
    expected = [(d_in, d_sae), (d_sae,), (d_sae, d_in), (d_in,)]
    got = [array.shape for array in arrays]
    require(got == expected, f"{path}: shapes must be {_shapes(expected)} (config), got {_shapes(got)}")
    numbers = {name: whole_number(said[name]) for name in ("k", "target_l0")}
    for name, value in numbers.items():
        require(value is None or type(value) is int, f"{path}: config.{name} must be a whole number, got {value!r}")
    l1_coef = plain_number(said["l1_coef"])
    l1_coef = 0.0 if l1_coef is None else l1_coef
    require(is_number(l1_coef), f"{path}: config.l1_coef must be a number, got {l1_coef!r}")
    threshold = _thresholds(path, said["threshold"], d_sae)
    architecture = _architecture(str(path), said, numbers["k"], threshold)
    if architecture == "relu":
        threshold = None  # of 0 each
    extra = layer_and_hook(path, said["layer"], said["hook_name"])
    for fields in (config, content):
        extra |= pass_over(fields)
    tensors: dict[str, Any] = dict(zip(TENSORS, map(jax.device_put, arrays), strict=True))
    tensors |= {} if threshold is None else {"threshold": jax.device_put(threshold)}
    sae = SAE(**tensors, architecture=architecture, k=numbers["k"])
    shape = SAEConfig(d_in, d_sae, float(l1_coef), numbers["k"], architecture, numbers["target_l0"])
    return SAEFile(sae, shape, losses, extra)


def _said(where: str, name: str, places: Sequence[Fields]) -> Any:
    """The value of one of `APPLIED_KEYS`, in any place of a file and under any of its words; None: there is none."""
    values = []
    for fields in places:
        for word in config_keys.APPLIED_KEYS[name]:
            if word in fields:
                value = fields.take(word)
                values += [] if value is None else [(word, value)]
    if not values:
        return None
    word, first = values[0]
    known = np.asarray(first)
    other = next((w for w, v in values if not _equal(np.asarray(v), known)), None)
    require(other is None, f"{where}: {word} and {other} must say the same, got different ones")
    return first


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal; truth values are equal to no numbers, although in Python True == 1."""
    return np.array_equal(a, b) and (a.dtype == np.bool_) == (b.dtype == np.bool_)


def _thresholds(path: str | Path, given: Any, d_sae: int) -> np.ndarray | None:
    """A threshold for each latent, float32 [d_sae], from a number, a list, or a tensor."""
    if given is None:
        return None
    what = f"{path}: config.threshold must be a number of at least 0, or {d_sae} (d_sae) of them"
    try:
        truth = np.asarray(given).dtype == np.bool_
        many = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what}, got {type(given).__name__}") from None
    ok = many.size in (1, d_sae) and many.ndim <= 1 and not truth
    require(ok, f"{what}, got {type(given).__name__} {list(many.shape) or ''}")
    require(bool(np.isfinite(many).all() and (many >= 0).all()), f"{what}, got {float(many.min()):g}")
    return np.broadcast_to(many.reshape(-1), d_sae).astype(np.float32)


def _architecture(where: str, said: Mapping[str, Any], k: int | None, threshold: np.ndarray | None) -> Any:
    """The architecture that everything in a file says it is; the words must agree."""
    with_thresholds = [name for name, rules in ARCHITECTURES.items() if rules.stores == "threshold"]
    named = {name: said[name] for name in ("architecture", "activation") if said[name] is not None}
    known = {name: config_keys.ARCHITECTURE_ALIASES.get(str(word).lower()) for name, word in named.items()}
    if threshold is not None and not threshold.any() and not {*known.values()} & {*with_thresholds}:
        threshold = None  # above 0 every latent fires that fires at all
    if known.get("activation") == "relu" and known.get("architecture", "relu") != "relu":
        del known["activation"]  # what the others do they do to a ReLU's values
    means = {*known.values()} or {"topk" if k is not None else "relu" if threshold is None else "jumprelu"}
    if means == {"relu"} and "architecture" not in known and k is not None:
        means = {"topk"}
    architecture = means.pop() if len(means) == 1 else None
    applied = [name for name, value in (("k", k), ("threshold", threshold)) if value is not None]
    stores = ARCHITECTURES[architecture].stores if architecture in ARCHITECTURES else ""
    needs = [stores] if stores else []
    got = [f"{name} {word!r}" for name, word in named.items()] + applied
    require(
        architecture is not None and applied == needs,
        f"{where}: config must describe relu, topk with k, or {', '.join(with_thresholds)} with threshold, "
        f"got {listed(got) or 'nothing'}",
    )
    return architecture


def pass_over(fields: Fields, more: Collection[str] = ()) -> dict[str, Any]:
    """Take the words that do not concern the features, or that ask for nothing; returns those that can be read.

    Args:
      more: words that do not concern the features in this format.

    Raises:
      InputError: there is another word; it is named.
    """
    kept = {}
    for word in fields:
        if word in config_keys.IGNORED_KEYS or word in more:
            with contextlib.suppress(InputError):  # of some class that is not known
                kept[word] = fields[word]
            fields.drop(word)
        elif word in config_keys.MUST_BE_OFF:
            value, neutral = fields.take(word), config_keys.MUST_BE_OFF[word]
            each = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else [value]
            ok = all(any(_same(one, n) for n in neutral) for one in each)
            got = repr(value) if isinstance(value, str | int | float | bool) else "others"
            must = "/".join(dict.fromkeys(str(n) for n in neutral if n != ""))
            require(ok, f"{fields.where}: {word} must be {must}, got {got}, which the plain formula does not apply")
    fields.finish("may have nothing that is not known here, for it might say something of the features")
    plain = {word: plain_number(value) for word, value in kept.items()}
    return {word: value for word, value in plain.items() if not isinstance(value, np.ndarray)}


def _same(value: Any, neutral: Any) -> bool:
    """Whether two values are equal; a bool is equal to no number, although in Python 0 == False."""
    return value is neutral or (type(value) is not bool and type(neutral) is not bool and bool(value == neutral))


def _losses(path: str | Path, content: Fields) -> list[float]:
    """The mean loss of each epoch; values that cannot be read are left out, as nothing depends on them."""
    name = "losses" if "losses" in content else "training_losses"
    try:
        given = content.take(name)
        values = np.asarray([] if given is None else given, np.float64)
        found = values.reshape(-1) if values.ndim <= 1 else values[:0]
        kept = [float(loss) for loss in found if math.isfinite(loss)]
        unread = values.size - len(kept)
    except (InputError, TypeError, ValueError):
        kept, unread = [], 1
    if unread:
        note(
            f"{path}: {name} must be a list of numbers to be read; what is not is left out, the features do not need it"
        )
    return kept


_OUTPUT = re.compile(r"(?:.*\.)?(?:layers?|h|blocks?)(?:\.(\d+)|\[(\d+)\])|resid(?:ual)?_post(?:_layer)?[._](\d+)")
_INPUT = re.compile(r"blocks\.(\d+)\.hook_resid_pre|resid(?:ual)?_pre(?:_layer)?[._](\d+)")
_OF_ANY_LAYER = ("resid_post", "hook_resid_post", "residual", "residual_stream", "resid")


def parse_hook(hook: Any) -> dict[str, Any]:
    """`hook_name` from a hook's name, and `layer` where it is known of which block.

    The input of a block is the output of the one before it; of the first it is the embedding.
    """
    if not isinstance(hook, str):
        return {}
    point, layer = hook_point(hook), None
    if point is not None and (point.hook != "resid_pre" or not point.layer):
        return {"layer": point.layer, "hook_name": hook}
    if output := _OUTPUT.fullmatch(hook):
        layer = int(next(n for n in output.groups() if n is not None))
    if layer is None and (of_input := input_of(hook)):
        layer = of_input - 1
    return {"hook_name": hook} if layer is None else {"layer": layer, "hook_name": hook_name(layer)}


def input_of(hook: Any) -> int | None:
    """The block of whose input this is the name; None: it is another name."""
    found = _INPUT.fullmatch(hook) if isinstance(hook, str) else None
    return int(next(n for n in found.groups() if n)) if found else None


def layer_and_hook(path: str | Path, layer: Any, hook: Any) -> dict[str, Any]:
    """`layer` and `hook_name`, where a file has them; the two must agree."""
    layer = whole_number(layer)
    layer = int(layer) if isinstance(layer, str) and layer.isdecimal() else layer
    require(layer is None or (type(layer) is int and layer >= 0), f"{path}: layer must be a number, got {layer!r}")
    require(isinstance(hook, str | None), f"{path}: hook_name must be a name, got {hook!r:.60}")
    by_hook = parse_hook(hook)
    require(
        None in (layer, by_hook.get("layer")) or layer == by_hook["layer"],
        f"{path}: layer and hook_name must say the same, got {layer} and {hook!r}",
    )
    return ({} if layer is None else {"layer": layer}) | by_hook


def layer_of(path: str | Path, file: SAEFile, given: int | None) -> int:
    """The layer that an SAE was trained on: its config has it, or its file's name; if not, it must be given.

    At which place of the layer's block, `hook_name_of` says.

    A file's name is read as the original scripts write it (`sae_layer8_optimized.pt`): they put the layer nowhere else.
    A folder's name is read only where no layer is given.

    Raises:
      InputError: the layer is not known, `given` is another, or the SAE is of something that no layer is known of.
    """
    hook = file.extra.get("hook_name")
    elsewhere = hook is not None and "layer" not in {**file.extra, **parse_hook(hook)} and hook not in _OF_ANY_LAYER
    places = ", ".join(f"blocks.N.hook_{one}" for one in HOOKS)
    require(not elsewhere, f"{path} must be of a place of a block ({places}), got an SAE of {str(hook)[:80]}")
    named = re.search(r"layer_?(\d+)", Path(path).name)
    is_folder = Path(path).is_dir()
    recorded = file.extra.get("layer", int(named[1]) if named and not (is_folder and given is not None) else None)
    if given is None:
        require(isinstance(recorded, int), f"{path} must say its layer, which it does not; give the layer")
        return int(recorded)  # type: ignore[arg-type]
    agree = recorded in (None, given)
    require(agree, f"layer must be the one that {path} was trained on, {recorded}, got {given}; leave the layer out")
    return given


def hook_name_of(file: SAEFile, layer: int) -> str:
    """The name of the place that an SAE of such a layer reads; where it is not said, the output of the block."""
    hook = file.extra.get("hook_name")
    return hook_name(layer) if hook is None or hook in _OF_ANY_LAYER else str(hook)


def check_model(
    path: str | Path, file: SAEFile, identity: str, sha256: str | None = None, other_model: bool = False
) -> None:
    """An SAE is of one model: where its file says of which, that must be the one given.

    Args:
      identity: the given model's `Checkpoint.identity`.
      sha256: that of its file, which older SAE files have.
      other_model: another model is meant; only note it.

    Raises:
      InputError: it is not.
    """
    said = file.extra.get("model_sha256")
    recorded, given = (said, identity) if said is not None else (file.extra.get("checkpoint_sha256"), sha256)
    if recorded is None or given is None or recorded == given:
        return
    what = f"{path} was trained on another model ({str(recorded)[:12]}...) than the one given ({given[:12]}...)"
    require(other_model, f"{what}; give its checkpoint, or other_model=True if that is meant")
    note(what)


def is_number(value: Any) -> bool:
    """Whether it is a number of any type, other than NaN."""
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in zip(TENSORS, shapes, strict=True))


def save_sae(
    path: str | Path, sae: SAE, config: SAEConfig, losses: Sequence[float] = (), extra: Mapping[str, Any] | None = None
) -> None:
    """Write an SAE file of plain tensors and Python numbers: `torch.load(weights_only=True)` reads it as it is.

    Args:
      sae: one SAE (no members axis), float32.
      losses: mean training loss of each epoch.
      extra: more entries for `config`, such as `layer`; what is not needed to compute the features.

    Raises:
      InputError: SAE and config do not say the same.
    """
    for name in ("d_in", "d_sae", "architecture", "k"):
        ours, said = getattr(sae, name), getattr(config, name)
        require(ours == said, f"{name} of an SAE and of its config must be the same, got {ours} and {said}")
    trained = (sae.threshold is not None) == (architecture_rules(sae.architecture).stores == "threshold")
    require(
        trained and not sae.training, f"an SAE that is written must be trained, got a {sae.architecture} that is not"
    )
    say: dict[str, Any] = {
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "l1_coef": config.l1_coef,
        "architecture": config.architecture,
    }
    for name in ("k", "target_l0"):
        if getattr(config, name) is not None:
            say[name] = getattr(config, name)
    if sae.threshold is not None:
        values = np.asarray(sae.threshold, np.float32).tolist()
        say["threshold"] = values[0] if len(set(values)) == 1 else values
    tensors = {name: np.asarray(getattr(sae, name), np.float32) for name in TENSORS}
    pt.write_pt(path, {**tensors, "losses": [float(loss) for loss in losses], "config": {**say, **(extra or {})}})
