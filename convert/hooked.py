"""Any PyTorch module by hooks, through the protocol that the replicas in JAX speak.

What stands at a hook point is the module's own, bit for bit; what is put there goes through the rest of the module, and
its gradient comes back through torch's.
"""

import functools
import hashlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float, Int
from torch import nn

from convert import modules
from convert.modules import Blocks, Place
from convert.torch_run import Put, Runner, logits_of
from jaxsae.errors import InputError, listed, require
from jaxsae.models import config_fields
from jaxsae.models.hooks import HOOKS, Hook, hook_name, hook_names
from jaxsae.models.protocol import Ids, Mask, ResidualStream
from jaxsae.models.torch_model import TorchModel
from jaxsae.text.piece_tokenizer import PieceTokenizer
from jaxsae.text.plain_texts import PlainTexts

PROBE = 6
"""Tokens of the text that a module is first tried on."""


PADDED = 2
"""Tokens of padding that it is tried with."""
MOST_OF_PADDING = 1e-3
"""Of the root mean square of what comes out, by which padding may change it."""
FRAME = "frame must be the ids put before a text and those put behind it, such as ([1], [2])"


@dataclass(frozen=True)
class HookedShape:
    """What is known of a module without running it on text."""

    n_layers: int
    """Blocks; 0: it has no ModuleList of them."""
    d_model: int
    max_position: int
    tokenizer: PieceTokenizer
    causal: bool = False
    gives_logits: bool = True
    numbers: tuple[int, ...] | None = None
    """The layers where modules are read by their names; None: every block."""

    @property
    def datasets(self) -> PlainTexts:
        """How its texts are read."""
        return PlainTexts(self.tokenizer, self.max_position, causal=self.causal, predicts=self.gives_logits)

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` unless the module has such a block, or is read at a module of that number."""
        if self.numbers is not None:
            require(layer in self.numbers, f"layer must be one of {listed(self.numbers)} (the modules), got {layer}")
            return
        require(
            self.n_layers > 0, "a module without a ModuleList of blocks has no layers, got none; name modules by hook"
        )
        config_fields.check_layer(layer, self.n_layers)


class HookedModel:
    """A module that is read and changed at its hook points; see `jaxsae.models.protocol.ResidualModel`."""

    dtype = jnp.dtype("float32")

    def __init__(self, shape: HookedShape, runner: Runner, places: Mapping[int, Place], hook: Hook) -> None:
        self.shape, self.runner, self.places, self.hook = shape, runner, places, hook
        self.n_layers, self.d_model, self.max_position = shape.n_layers, shape.d_model, shape.max_position
        self.tokenizer = shape.tokenizer

    def check_layer(self, layer: int) -> None:
        """Raise `InputError` unless there is such a layer."""
        self.shape.check_layer(layer)

    def activations_of(self, ids: Ids, mask: Mask | None = None, *, layers: Sequence[int]) -> dict[int, ResidualStream]:
        """What stands at the hook point of each layer, from one pass that ends at the last of them."""
        for layer in layers:
            self.check_layer(layer)
        at = {layer: self.places[layer] for layer in layers}
        found = self.runner.seen(np.asarray(ids), _array(mask), at.values())
        return {layer: jnp.asarray(found[place].numpy()) for layer, place in at.items()}

    def stream(self, ids: Ids, mask: Mask | None = None) -> Iterator[ResidualStream]:
        """What stands at the hook points in the order of their numbers, from one pass."""
        yield from self.activations_of(ids, mask, layers=sorted(self.places)).values()

    def activations(self, ids: Ids, mask: Mask | None = None, *, layer: int) -> ResidualStream:
        """What stands at the hook point of a layer; modules that run behind it do not run."""
        return self.activations_of(ids, mask, layers=[layer])[layer]

    def logits(
        self,
        ids: Ids,
        mask: Mask | None = None,
        *,
        places: Int[Array | np.ndarray, " n"],
        layer: int | None = None,
        x: ResidualStream | None = None,
    ) -> Float[Array, "n vocab"]:
        """Logits at some places of the batch; see the protocol. Can be derived by `x`."""
        vocab = self.tokenizer.vocab_size
        require(
            self.shape.gives_logits,
            f"the module must give logits [texts, positions, {vocab}] (vocab_size), and gives none: there is nothing to predict",
        )
        given, its_mask, at = np.asarray(ids), _array(mask), torch.from_numpy(np.asarray(places, np.int64))

        def taken(put: Put | None) -> torch.Tensor:
            found = self.runner.logits(given, its_mask, put)
            return found.reshape(-1, found.shape[-1])[at].float()

        if layer is None or x is None:
            with torch.no_grad():
                return jnp.asarray(taken(None).numpy())
        self.check_layer(layer)
        place = self.places[layer]

        def forward(x: Any) -> np.ndarray:
            with torch.no_grad():
                return taken(Put(place, _tensor(x))).numpy()

        def backward(x: Any, grad: Any) -> np.ndarray:
            put = _tensor(x).requires_grad_()
            try:
                # a module may add in place to what the gradient needs
                with torch.enable_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
                    (found,) = torch.autograd.grad(taken(Put(place, put)), put, _tensor(grad))
            except RuntimeError as error:  # torch's own
                got = " ".join(str(error).split())[:200]
                raise InputError(
                    f"logits must have a gradient by {place.module}, got {got}; take detach() and no_grad() out of forward"
                ) from error
            return found.numpy()

        shape = jax.ShapeDtypeStruct((len(at), vocab), jnp.float32)

        @jax.custom_vjp
        def changed(x: ResidualStream) -> Float[Array, "n vocab"]:
            return _called(forward, shape, x)

        def back(x: ResidualStream, grad: Float[Array, "n vocab"]) -> tuple[ResidualStream]:
            return (_called(backward, jax.ShapeDtypeStruct(x.shape, x.dtype), x, grad),)

        changed.defvjp(lambda x: (changed(x), x), back)
        return changed(jnp.asarray(x))


def _called(function: Any, shape: jax.ShapeDtypeStruct, *given: Any) -> Any:
    """What a function of NumPy gives; outside `jit` it is called as it is, so that its errors are its own."""
    if any(isinstance(one, jax.core.Tracer) for one in given):
        return jax.pure_callback(function, shape, *given)
    return jnp.asarray(function(*given), shape.dtype)


def _array(mask: Mask | None) -> np.ndarray | None:
    return None if mask is None else np.asarray(mask)


def _tensor(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(x, np.float32))


@dataclass(frozen=True)
class HookedCheckpoint:
    """A user's module as a stored model; see `jaxsae.models.protocol.StoredModel`."""

    given: TorchModel
    source: str
    """What it is called in errors."""
    code: str = ""
    """SHA-256 of the files that made it: what was computed with it is kept by this, too."""
    settings: str = ""
    """What is part of what it computes besides the weights and what its module says of itself."""
    file_sha256: str | None = None
    """Of the file that its weights are in, where there is one."""
    config: HookedShape = field(init=False)

    def __post_init__(self) -> None:
        require(
            isinstance(self.given.module, nn.Module),
            f"{self.source}: the module must be a torch.nn.Module, got {type(self.given.module).__name__}",
        )
        require(_is_frame(self.given.frame), f"{self.source}: {FRAME}, got {self.given.frame!s:.60}")
        torch.backends.mha.set_fastpath_enabled(False)  # it passes by the modules that it computes for
        self.module.to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
        object.__setattr__(self, "config", self._shape())

    @property
    def module(self) -> nn.Module:
        """The module itself."""
        return self.given.module

    @property
    def name(self) -> str:
        """What its class is called."""
        return type(self.module).__name__

    @property
    def about(self) -> str:
        """What is read of it, in words."""
        blocks = (
            "no ModuleList of blocks: modules by their names"
            if self.blocks is None
            else f"{self.blocks.n} blocks, {self.blocks.name}"
        )
        if not self.config.gives_logits:
            says = "gives no logits"
        elif self.given.causal:
            says = "predicts the next token"
        else:
            hides = self.given.mask_id is not None
            says = "restores hidden tokens" if hides else "hides nothing: give mask_id, or causal=True"
        return f"{self.name}: {blocks}; {says}"

    @functools.cached_property
    def runner(self) -> Runner:
        """Runs it."""
        return Runner(self.module, self.given.forward, self.given.padding_id, self.given.causal)

    @functools.cached_property
    def blocks(self) -> Blocks | None:
        """Its blocks; None: it has none."""
        return modules.blocks_of(self.module, self.given.blocks)

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of its weights, as float32, of what the module says of itself, and of its settings.

        A comment in its file changes nothing, nor do other pieces; what its code does besides is not seen.
        """
        digest = hashlib.sha256(f"{self.module!r} {self.settings}".encode())
        for name, tensor in self.module.state_dict().items():
            if isinstance(tensor, torch.Tensor):
                value = np.ascontiguousarray(tensor.detach().numpy())
                digest.update(f"{name} {value.dtype} {value.shape}".encode())
                digest.update(value.data if value.size else b"")
        return digest.hexdigest()

    @property
    def sha256(self) -> str:
        """Of the file of its weights; where that is not known, its identity."""
        return self.file_sha256 or self.identity

    def canonical(self, hook: Hook) -> Hook:
        """The same hook, blocks by their place (`blocks.8.hook_resid_post`) rather than their modules' names.

        So an SAE's file is read. `resid_post` where all are blocks by their numbers.
        """
        if isinstance(hook, str) or self.blocks is None:
            return hook
        blocks = {self.blocks.block(layer): hook_name(layer) for layer in range(self.blocks.n)}
        named = {layer: blocks.get(name, name) for layer, name in hook.items()}
        return HOOKS[0] if named == hook_names(HOOKS[0], named) else named

    def at(self, hook: Hook, layers: Sequence[int]) -> "HookedCheckpoint":
        """The same, its config being that of what stands at the hook points of these layers.

        Raises:
          InputError: there are no such hook points, or they differ in width.
        """
        places = self._places(hook, layers)
        found = self.runner.seen(self._probe_ids, None, places.values())
        widths = {layer: found[place].shape[-1] for layer, place in places.items()}
        same = len(set(widths.values())) == 1
        require(same, f"hook points that are read together must be of one width, got {listed(widths.values())}")
        numbers = None if isinstance(hook, str) else tuple(sorted(hook))
        read = replace(self.config, d_model=next(iter(widths.values())), numbers=numbers)
        other = HookedCheckpoint.__new__(HookedCheckpoint)
        other.__dict__.update(self.__dict__ | {"config": read})  # and what was found out
        return other

    def model(self, *, n_layers: int | None = None, hook: Hook = HOOKS[0]) -> HookedModel:
        """The model, read at `hook`: one of `jaxsae.models.hooks.HOOKS`, or names of modules by number."""
        if not isinstance(hook, str):
            places = self._places(hook, list(hook))
            return HookedModel(self.at(hook, list(hook)).config, self.runner, places, hook)
        n = self.config.n_layers if n_layers is None else n_layers
        self.config.check_layer(n - 1)
        places = self._places(hook, range(n))
        model = HookedModel(replace(self.at(hook, [n - 1]).config, n_layers=n), self.runner, places, hook)
        from convert.hooked_head import HookedLanguageModel, is_position_wise  # which stands on this module

        last = modules.block_place(self.blocks, self.config.n_layers - 1, HOOKS[0])
        has_head = self.config.gives_logits and is_position_wise(model, last)
        return HookedLanguageModel(model, last) if has_head else model

    def double(self) -> "HookedCheckpoint":
        """The same in float64: the module itself is changed."""
        self.module.to(torch.float64)
        return self

    def outputs(
        self, ids: np.ndarray, mask: np.ndarray | None, layers: Sequence[int], hook: Hook
    ) -> dict[int, np.ndarray]:
        """What stands at the hook points, layer -> [texts, positions, width], in the module's type; text by text."""
        places = self._places(hook, layers)
        found: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
        for row in range(len(ids)):
            seen = self.runner.seen(ids[row : row + 1], None if mask is None else mask[row : row + 1], places.values())
            for layer, place in places.items():
                found[layer].append(seen[place].numpy())
        return {layer: np.concatenate(parts) for layer, parts in found.items()}

    @functools.cached_property
    def _probe_ids(self) -> np.ndarray:
        before, behind = self.given.frame
        some = 0 if self.given.padding_id else 1
        return np.array([[*before, *[some] * min(PROBE, self.given.max_position), *behind]])

    @functools.cached_property
    def _probed(self) -> tuple[dict[str, modules.Seen], dict[str, int], Any]:
        try:
            return self.runner.probe(self._probe_ids)
        except InputError as error:
            raise InputError(f"{self.source}: {error}") from error

    def _check_mask(self) -> None:
        """Raise `InputError` where padding changes what comes out before it, though the module is given a mask."""
        given, (before, behind) = self.given, self.given.frame
        n = min(PROBE, given.max_position - len(before) - len(behind) - PADDED)
        if not self.runner.call.takes_mask or n < 1:
            return
        text = self._probe_ids[:, : len(before) + n + len(behind)]
        ids = np.pad(text, ((0, 0), (0, PADDED)), constant_values=given.padding_id)
        mask = (np.arange(ids.shape[1]) < text.shape[1]).astype(np.int64)[None]
        what = f"padding must change nothing where {self.runner.call.mask}"
        instead = "give TorchModel(forward=...), which passes it on as the module takes it"
        try:
            alone, padded = (self.runner.first(*one) for one in ((text, None), (ids, mask)))
        except InputError as error:
            raise InputError(f"{self.source}: {what}: {error}; {instead}") from error
        if alone is None or padded is None or alone.shape[:2] != text.shape or padded.shape[:2] != ids.shape:
            return
        size = float(alone.square().mean().sqrt())
        differs = float((padded[:, : text.shape[1]] - alone).abs().max())
        require(
            differs <= MOST_OF_PADDING * size, f"{self.source}: {what}, got {differs:.2g} beside {size:.2g}; {instead}"
        )

    def _shape(self) -> HookedShape:
        given = self.given
        seen, _, output = self._probed
        logits = logits_of(output)
        vocab = given.vocab_size
        if vocab is None:
            tables = [m.num_embeddings for m in self.module.modules() if isinstance(m, nn.Embedding)]
            wide = logits.shape[-1] if logits is not None and logits.ndim == 3 else None
            vocab = tables[0] if tables else wide
        require(vocab is not None, f"{self.source}: vocab_size must be given, as the module has no embedding")
        assert vocab is not None
        before, behind = (tuple(map(operator.index, part)) for part in given.frame)
        named = [*before, *behind, given.padding_id, *([] if given.mask_id is None else [given.mask_id])]
        outside = [number for number in named if not 0 <= number < vocab]
        require(
            not outside,
            f"{self.source}: frame, padding_id and mask_id must be in 0..{vocab - 1} (vocab_size), got {listed(outside)}",
        )
        has_head = logits is not None and logits.ndim == 3 and logits.shape[-1] == vocab
        self._check_mask()
        n, width = 0, 1
        if self.blocks is not None and self.blocks.n:
            last = seen.get(self.blocks.block(self.blocks.n - 1))
            n = self.blocks.n
            width = last.gave.shape[-1] if last is not None and last.gave is not None else width
        hiding = given.mask_id if has_head else None
        functions = given.unit, given.encode, given.pieces
        try:
            tokenizer = PieceTokenizer.named(*functions, vocab, given.padding_id, hiding, (before, behind))
        except InputError as error:
            known = f"the embedding has {vocab} rows" if given.vocab_size is None else f"vocab_size is {vocab}"
            raise InputError(f"{self.source}: {error}; {known}, so ids up to {vocab - 1} are asked for") from error
        return HookedShape(n, width, given.max_position, tokenizer, given.causal, has_head)

    def _places(self, hook: Hook, layers: Sequence[int]) -> dict[int, Place]:
        modules.check_kind(hook)
        if not isinstance(hook, str):
            places = {layer: modules.module_place(self.module, self.blocks, hook[layer]) for layer in layers}
        elif hook in ("resid_post", "resid_pre"):
            places = {layer: modules.block_place(self.blocks, layer, hook) for layer in layers}
        else:
            places = {layer: self._adding(layer, hook) for layer in layers}
        _, times, _ = self._probed
        for place in places.values():
            n = times.get(place.module, 0)
            require(n == 1, f"a module must run once in a pass to be read, got {place.module}, which runs {n} times")
        return places

    def _adding(self, layer: int, hook: str) -> Place:
        modules.block_place(self.blocks, layer, hook)
        assert self.blocks is not None
        block = self.blocks.block(layer)
        found = modules.adding_parts(block, self._probed[0])
        if found is None:
            inside = [name for name, _ in self.module.get_submodule(block).named_modules() if name]
            raise InputError(
                f"{hook} must be what a part of {block} adds to the stream, which none of the usual names does; name a "
                f"module by its name: {block}. with {listed(inside, 12)}"
            )
        return Place(found[0] if hook == "attn_out" else found[1])


def _is_frame(given: Any) -> bool:
    try:
        before, behind = given
        return all(isinstance(operator.index(number), int) for part in (before, behind) for number in part)
    except (TypeError, ValueError):
        return False


def as_hooked(given: Any, source: str, code: str) -> HookedCheckpoint:
    """What a function of the user's own file has returned, as a stored model.

    Args:
      source: what the function is called in errors.
      code: SHA-256 of the files that made it.

    Raises:
      InputError: it is something else than a `TorchModel` or (module, encode, pieces); or the module does not run.
    """
    if isinstance(given, tuple) and len(given) == 3:
        given = TorchModel(*given)
    ok = isinstance(given, TorchModel)
    what = "a TorchModel, (module, encode, pieces), or a jaxsae.models.transformer.Transformer"
    require(ok, f"{source} must return {what}, got {type(given).__name__}")
    return HookedCheckpoint(given, source, code)
