"""One pass through a PyTorch module with hooks: what they see, and what they put in its place."""

import contextlib
import inspect
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from convert.modules import Place, Seen, first_of, with_first
from jaxsae.errors import InputError, listed, require

Forward = Callable[[Any, Any, Any], Any]


class Put(NamedTuple):
    """What stands at a place instead of what the module puts there."""

    place: Place
    x: torch.Tensor


class _Enough(BaseException):
    """Ends a pass; no module is to catch it."""


class Call(NamedTuple):
    """How a module is called."""

    forward: Forward
    takes_mask: bool
    mask: str = ""
    """What the mask is passed as, and what it says, in words."""


def call_of(module: nn.Module, forward: Forward | None) -> Call:
    """The user's own way, or what the names of the module's parameters ask for.

    Raises:
      InputError: it must be given something else than ids and a mask.
    """
    if forward is not None:
        return Call(forward, True, "the mask that forward is given is 0")
    every = inspect.signature(module.forward).parameters
    names = [n for n, p in every.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    first = "input_ids" if "input_ids" in names else next(iter(names), None)
    mask = next((n for n in names if n in ("attention_mask", "mask", "padding_mask")), None)
    inverse = next((n for n in names if n.endswith("key_padding_mask")), None)
    needed = [n for n in names if every[n].default is inspect.Parameter.empty and n not in (first, mask, inverse)]
    require(
        first is not None and not needed,
        f"forward must take (ids, mask), got ({listed(names, 6)}); give TorchModel(forward=...), which calls it",
    )

    def by_names(module: nn.Module, ids: torch.Tensor, given: torch.Tensor | None) -> Any:
        more: dict[str, Any] = {}
        if mask is not None:
            more[mask] = given
        elif inverse is not None and given is not None:
            more[inverse] = given == 0
        if first == "input_ids":
            return module(input_ids=ids, **more)
        return module(ids, **more)

    return Call(by_names, mask is not None or inverse is not None, f"{mask} is 0" if mask else f"{inverse} is True")


class Runner:
    """Runs a module on ids, in groups of texts without padding where the module would attend to it.

    Args:
      padding_id: stands where the mask is 0.
      causal: padding, which comes behind a text, does not change what stands before it.
    """

    def __init__(self, module: nn.Module, forward: Forward | None, padding_id: int, causal: bool) -> None:
        self.module, self.padding_id = module, padding_id
        self.call = call_of(module, forward)
        self.mixes_padding = not (self.call.takes_mask or causal)

    def groups(
        self, ids: np.ndarray, mask: np.ndarray | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """(which texts, their ids, their mask): all at once, or those of one length each."""
        ids = np.array(ids, np.int64)
        if mask is None:
            yield np.arange(len(ids)), ids, None
            return
        mask = np.asarray(mask) != 0
        ids = np.where(mask, ids, self.padding_id)
        if not self.mixes_padding:
            yield np.arange(len(ids)), ids, mask.astype(np.int64)
            return
        lengths = np.where(mask, np.arange(1, mask.shape[1] + 1), 0).max(axis=1, initial=0)
        for length in np.unique(lengths[lengths > 0]):
            rows = np.flatnonzero(lengths == length)
            yield rows, ids[rows, :length], None

    def seen(self, ids: np.ndarray, mask: np.ndarray | None, places: Iterable[Place]) -> dict[Place, torch.Tensor]:
        """What stands at places, [texts, positions, width]; the pass ends when all was seen."""
        found: dict[Place, torch.Tensor] = {}
        wanted = set(places)
        for rows, group, its_mask in self.groups(ids, mask):
            got: dict[Place, torch.Tensor] = {}

            def see(place: Place, value: Any, got: dict[Place, torch.Tensor] = got) -> None:
                x = first_of(value)
                require(x is not None, f"{place.module} must {_verb(place)} a tensor first, got {type(value).__name__}")
                assert x is not None
                got[place] = x.detach().clone()  # what is added in place comes later
                if len(got) == len(wanted):
                    raise _Enough

            with torch.no_grad(), self._hooks(dict.fromkeys(wanted, see)):
                self._run(group, its_mask)
            missing = [place.module for place in wanted if place not in got]
            require(not missing, f"a module must run to be read, got {listed(missing)}, which did not")
            for place, x in got.items():
                ok = x.shape[:2] == group.shape and x.ndim == 3
                shape = f"[texts, positions, width] of {list(group.shape)} tokens"
                require(ok, f"{place.module} must {_verb(place)} {shape}, got {list(x.shape)}")
                if len(rows) == len(ids) and group.shape == ids.shape:
                    found[place] = x
                    continue
                whole = found.setdefault(place, torch.zeros(*ids.shape, x.shape[-1], dtype=x.dtype))
                whole[torch.from_numpy(rows), : group.shape[1]] = x
        return found

    def logits(self, ids: np.ndarray, mask: np.ndarray | None, put: Put | None = None) -> torch.Tensor:
        """[texts, positions, vocabulary], with a gradient where what is put has one."""
        parts: list[tuple[np.ndarray, torch.Tensor]] = []
        for rows, group, its_mask in self.groups(ids, mask):
            changes = {}
            if put is not None:
                x = put.x[torch.from_numpy(rows), : group.shape[1]]
                changes[put.place] = lambda place, value, x=x: with_first(
                    value, x.to(_like(place, value).dtype).clone()
                )
            with self._hooks(changes):
                parts.append((rows, self._logits(self._run(group, its_mask), group.shape)))
        (rows, first), *more = parts
        if not more and first.shape[:2] == ids.shape:
            return first
        found = first.new_zeros(*ids.shape, first.shape[-1])
        for rows, part in parts:
            at = torch.from_numpy(rows)[:, None], torch.arange(part.shape[1])[None]
            found = found.index_put(at, part)
        return found

    def probe(self, ids: np.ndarray) -> tuple[dict[str, Seen], dict[str, int], Any]:
        """(what every module is given and gives, how often it runs, what comes out) for some ids."""
        found: dict[str, Seen] = {}
        times: dict[str, int] = {}
        handles = []
        for name, one in self.module.named_modules():

            def before(_: nn.Module, args: tuple, kwargs: dict, name: str = name) -> None:
                found[name] = Seen(_copied(first_of(args or kwargs)), None)

            def behind(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                found[name] = found[name]._replace(gave=_copied(first_of(output)))
                times[name] = times.get(name, 0) + 1

            handles += [
                one.register_forward_pre_hook(before, with_kwargs=True),
                one.register_forward_hook(behind),
            ]
        try:
            with torch.no_grad():
                out = self._run(np.array(ids, np.int64), None)
        finally:
            for handle in handles:
                handle.remove()
        return found, times, out

    @torch.no_grad()
    def first(self, ids: np.ndarray, mask: np.ndarray | None) -> torch.Tensor | None:
        """What comes out first, logits where there are some; None: no tensor."""
        out = self._run(np.array(ids, np.int64), mask)
        found = logits_of(out)
        return first_of(out) if found is None else found

    def _run(self, ids: np.ndarray, mask: np.ndarray | None) -> Any:
        try:
            with contextlib.suppress(_Enough), contextlib.redirect_stdout(io.StringIO()):
                given = torch.from_numpy(ids)
                return self.call.forward(self.module, given, None if mask is None else torch.from_numpy(mask))
        except InputError:
            raise
        except Exception as error:  # the user's own code
            shape = list(ids.shape)
            raise InputError(f"the module must run on ids {shape}, got {type(error).__name__}: {error}") from error
        return None

    def _logits(self, output: Any, shape: tuple[int, ...]) -> torch.Tensor:
        found = logits_of(output)
        got = type(output).__name__ if found is None else list(found.shape)
        ok = found is not None and found.ndim == 3 and found.shape[:2] == shape
        require(ok, f"the module must give logits [texts, positions, vocab_size] of {list(shape)} tokens, got {got}")
        assert found is not None
        return found

    @contextlib.contextmanager
    def _hooks(self, at: Mapping[Place, Callable[[Place, Any], Any]]) -> Iterator[None]:
        """Within the block, functions are called with what stands at places; what one gives is put there instead."""
        handles = []
        for place, function in at.items():
            module = self.module.get_submodule(place.module)
            if place.side == "output":
                hook = lambda _, __, output, place=place, function=function: function(place, output)  # noqa: E731
                handles.append(module.register_forward_hook(hook))
                continue

            def before(_: nn.Module, args: tuple, kwargs: dict, place: Place = place, function: Any = function) -> Any:
                changed = function(place, args or kwargs)
                if changed is None:
                    return None
                return (changed, kwargs) if args else (args, changed)

            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def logits_of(output: Any) -> torch.Tensor | None:
    """`.logits`, or the tensor, or the first of several; None: there is none."""
    found = getattr(output, "logits", None)
    if found is None and not hasattr(output, "last_hidden_state"):
        found = first_of(output)
    return found if isinstance(found, torch.Tensor) else None


def _copied(x: torch.Tensor | None) -> torch.Tensor | None:
    """As it is now, whatever is added to it in place."""
    return None if x is None else x.detach().clone()


def _like(place: Place, value: Any) -> torch.Tensor:
    x = first_of(value)
    require(x is not None, f"{place.module} must {_verb(place)} a tensor first, got {type(value).__name__}")
    assert x is not None
    return x


def _verb(place: Place) -> str:
    return "give" if place.side == "output" else "be given"
