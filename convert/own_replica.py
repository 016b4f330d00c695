"""A transformer in JAX that a function of the user's own file returns, as a stored model; its parity with PyTorch."""

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from flax import nnx

from convert.verify import LayerCheck, compare
from jaxsae.activations.extraction import extract
from jaxsae.errors import InputError, listed, note, require
from jaxsae.models.hooks import HOOKS, Hook
from jaxsae.models.own import Shape
from jaxsae.models.transformer import Transformer, params_of
from jaxsae.text.samples import Samples

if TYPE_CHECKING:  # torch
    from convert.hooked import HookedCheckpoint


@dataclass(frozen=True)
class OwnReplica:
    """See `jaxsae.models.protocol.StoredModel`."""

    replica: Transformer
    source: str
    """What it is called in errors."""
    code: str
    """Digest of the text of the user's files that made it, which may change while the model is the same."""

    def __post_init__(self) -> None:
        got = type(self.replica.config).__name__
        ok = isinstance(self.replica.config, Shape)
        require(ok, f"{self.source}: the replica's config must be a jaxsae.models.own.Shape, got {got}")
        probe(self.replica, self.source)

    @property
    def config(self) -> Shape:
        """Its shape."""
        return self.replica.config

    @property
    def name(self) -> str:
        """What its class is called."""
        return type(self.replica).__name__

    @property
    def about(self) -> str:
        """What is read of it, in words."""
        says = "predicts the next token" if self.config.causal else "restores hidden tokens"
        return f"{self.name}: {self.config.n_layers} blocks in JAX; {says}"

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of its parameters and of the name of its class."""
        digest = hashlib.sha256(self.name.encode())
        for name, parameter in params_of(self.replica).items():
            value = np.ascontiguousarray(parameter)
            digest.update(f"{name} {value.dtype} {value.shape}".encode())
            digest.update(value.data)
        return digest.hexdigest()

    @property
    def sha256(self) -> str:
        """Its identity: it is in no file of its own."""
        return self.identity

    def model(self, *, n_layers: int | None = None, hook: Hook = HOOKS[0]) -> Transformer:
        """The replica, read at a hook point; blocks that are not asked for do not run."""
        return self.replica.hooked_at(hook)


def probe(replica: Transformer, source: str) -> None:
    """Run activations, logits and neurons on two tokens.

    Args:
      source: what the replica is called in errors.

    Raises:
      InputError: one of them fails, or has another shape than the config says.
    """
    shape = replica.config
    ids = np.full((1, min(2, shape.max_position)), 0 if shape.tokenizer.padding_id else 1)

    def expect(what: str, advice: str, run: Callable[[], Any], width: int | None = None) -> Any:
        try:
            found = run()
        except Exception as error:  # the user's own code
            got = " ".join(f"{type(error).__name__}: {error}".split())[:110]
            raise InputError(f"{source}: {what} must run on two tokens, got {got}; {advice}") from error
        wanted = [*ids.shape, width]
        ok = width is None or list(found.shape) == wanted
        require(ok, f"{source}: {what} must be {wanted}, got {list(getattr(found, 'shape', []))}; {advice}")
        return found

    n = len(replica.layers)
    require(n == shape.n_layers, f"{source}: layers must be {shape.n_layers} blocks (config.n_layers), got {n}")
    first = expect(
        "activations", "see embedded, around, attn_out, hidden", lambda: list(replica.stream(ids))[-1], shape.d_model
    )
    pair = expect("norm_and_head", "return two Flax modules", lambda: replica.norm_and_head)
    ok = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, nnx.Module) for part in pair)
    got = listed(type(part).__name__ for part in pair) if isinstance(pair, tuple) else type(pair).__name__
    why = "a function fails under jit; tied embeddings want a small nnx.Module around self.embed"
    require(ok, f"{source}: norm_and_head must be two Flax modules, got {got}; {why}")
    expect("logits", "see norm_and_head", lambda: replica.unembed(first), shape.tokenizer.vocab_size)
    expect("neurons", "see the block's hidden", lambda: replica.neurons(ids, layer=0))


def check_same(ours: Shape, theirs: "HookedCheckpoint") -> None:
    """Raise `InputError` unless the replica reads text as the PyTorch module does, by what both say of it."""
    config, own = theirs.config, ours.tokenizer
    pairs = {
        "n_layers": (ours.n_layers, config.n_layers),
        "frame": (own.frame, config.tokenizer.frame),
        "padding_id": (own.padding_id, config.tokenizer.padding_id),
        "damaged_id (mask_id)": (own.damaged_id, theirs.given.mask_id),
        "causal": (ours.causal, config.causal),
        "vocab_size": (own.vocab_size, config.tokenizer.vocab_size),
        "max_position": (ours.max_position, config.max_position),
    }
    for field, (one, other) in pairs.items():
        ok = one == other
        require(ok, f"{field} must be the same in both, got {one} of the replica and {other} of the PyTorch module")


def check_same_texts(ours: Samples, theirs: Samples) -> None:
    """Raise `InputError` unless texts have the same ids and pieces for both.

    Args:
      ours: the texts as the replica reads them.
      theirs: the same as the PyTorch module does.
    """
    for text in range(max(len(ours), len(theirs))):
        one, other = (
            some.true_ids[text][some.mask[text] != 0].tolist() if text < len(some) else [] for some in (ours, theirs)
        )
        for at, (a, b) in enumerate(itertools.zip_longest(one, other, fillvalue="nothing")):
            both = f"{a} of the replica and {b} of the PyTorch module"
            require(a == b, f"encode must give the same ids in both, got {both} at token {at} of text {text}")
    ids = np.unique(ours.true_ids[ours.real])
    for number, one, other in zip(ids, ours.tokenizer.pieces(ids), theirs.tokenizer.pieces(ids), strict=True):
        both = f"{one!r} of the replica and {other!r} of the PyTorch module"
        require(one == other, f"pieces must be the same in both, got {both} for id {number}")


class Parity(NamedTuple):
    """How a replica compares with its PyTorch module."""

    layers: list[LayerCheck]
    logits: LayerCheck | None
    """Of the logits, by the number of the last block; None: the PyTorch module gives none."""


def parity(
    ours: OwnReplica,
    theirs: "HookedCheckpoint",
    samples: Samples,
    layers: Sequence[int],
    padding: str,
    hook: Hook = HOOKS[0],
) -> Parity:
    """The replica's activations and logits beside those of a PyTorch module, both beside the module's in float64.

    The module is left in float64.

    Raises:
      InputError: the two do not read text alike.
    """
    check_same(ours.config, theirs)
    mask = samples.mask if padding == "drop" else None
    rows = extract(ours.model(hook=hook), samples, layers, padding)
    wanted = samples.real[rows.sample, rows.position]
    has_logits = theirs.config.gives_logits
    if not has_logits:
        note("the PyTorch module gives no logits: the replica's norm_and_head is not compared")
    seen = [theirs.outputs(samples.ids, mask, layers, hook)]
    logits = [_their_logits(theirs, samples, mask, text) for text in range(len(samples))] if has_logits else []
    seen.append(theirs.double().outputs(samples.ids, mask, layers, hook))
    real, heads = samples.real, []
    checks = [
        compare(layer, np.asarray(rows.values[layer])[wanted], *(of_type[layer][real] for of_type in seen))
        for layer in layers
    ]
    for text, found in enumerate(logits):  # one by one, as those of all in float64 are large
        one = slice(text, text + 1)
        own = np.asarray(ours.replica(samples.ids[one], None if mask is None else mask[one]))[real[one]]
        exact = _their_logits(theirs, samples, mask, text)
        heads.append(compare(ours.config.n_layers - 1, own, found, exact))
    return Parity(checks, _together(heads) if heads else None)


def _their_logits(theirs: "HookedCheckpoint", samples: Samples, mask: np.ndarray | None, text: int) -> np.ndarray:
    one = slice(text, text + 1)
    found = theirs.runner.logits(samples.ids[one], None if mask is None else mask[one])
    return found.detach().numpy()[samples.real[one]]


def _together(checks: Sequence[LayerCheck]) -> LayerCheck:
    """One check of what several are of parts of."""
    n = [check.positions for check in checks]

    def most(name: str) -> float:
        return float(np.max([getattr(check, name) for check in checks]))  # NaN stays

    def rms(name: str) -> float:
        return float(np.sqrt(np.average(np.square([getattr(check, name) for check in checks]), weights=n)))

    return LayerCheck(
        layer=checks[0].layer,
        max_abs=most("max_abs"),
        rms=rms("rms"),
        ours_to_float64=rms("ours_to_float64"),
        torch_to_float64=rms("torch_to_float64"),
        ours_to_float64_max=most("ours_to_float64_max"),
        torch_to_float64_max=most("torch_to_float64_max"),
        layer_rms=rms("layer_rms"),
        positions=sum(n),
    )
