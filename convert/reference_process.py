"""The PyTorch reference in a process of its own: it leaves nothing behind in ours, and works while ours gets ready.

Ours sends one line of JSON, the ids and the mask, and the tensors one after another; back comes one
line of JSON, and the activations. Torch, which is large and slow to load, is loaded there alone.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from convert.families import Config, family_named, family_of
from jaxsae import runtime
from jaxsae.errors import InputError, require
from jaxsae.models.config_fields import settings
from jaxsae.text.samples import Samples

if TYPE_CHECKING:  # torch
    from convert.reference import Activations, Weights

CODE = "import sys; sys.path.insert(0, {!r}); from convert.reference_process import answer; answer()"


SETTINGS = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait take ten times as long where other work goes on
    "MALLOC_ARENA_MAX": "1",  # glibc: what is free goes back to the system, a fifth less at the peak
    "MALLOC_TRIM_THRESHOLD_": str(2**20),
}


class ReferenceProcess:
    """A process that loads torch from the start and answers one question; it ends with the `with` block.

    Its memory counts in `runtime.peak_memory`.
    """

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[1])
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        # -P: the folder that the command is run in may have a torch.py
        command = [sys.executable, "-P", "-c", CODE.format(root)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **SETTINGS},
        )
        self._thread = ThreadPoolExecutor(1)
        threading.Thread(target=self._watch, daemon=True).start()

    def ask(
        self,
        checkpoint: "Weights",
        samples: Samples,
        layers: Sequence[int],
        padding: str,
        file: str | Path | None = None,
        of: str = "resid_post",
    ) -> "Future[tuple[Activations, Activations]]":
        """What `reference.activations` finds, or with a `file` `reference.hooked`, once it is there.

        Args:
          of: the hook point of each layer's block.

        The future raises `InputError` where the file's model does not fit, or the process fails.
        """
        mask = samples.mask if padding == "drop" else None
        return self._thread.submit(self._ask, checkpoint, samples.ids, mask, layers, file, of)

    def _ask(
        self,
        checkpoint: "Weights",
        ids: np.ndarray,
        mask: np.ndarray | None,
        layers: Sequence[int],
        file: str | Path | None,
        of: str,
    ) -> "tuple[Activations, Activations]":
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        family = family_of(checkpoint.config)
        needed = {
            family.embedding,
            *(
                e.torch_name
                for e in family.entries(checkpoint.config.with_layers(max(layers) + 1))
                if e.path.startswith("layers.")
            ),
        }
        names = [name for name in checkpoint.tensors if file is not None or name in needed]
        head = {
            "family": family.name,
            "config": settings(checkpoint.config),
            "layers": list(layers),
            "names": names,
            "masked": mask is not None,
            "file": None if file is None else str(Path(file).absolute()),
            "of": of,
        }
        with contextlib.suppress(BrokenPipeError):  # it has failed: why, it says
            _write_line(to, head)
            for array in (ids, *([] if mask is None else [mask])):
                _write_array(to, array)
            for name in names:
                _write_array(to, np.asarray(checkpoint.tensors[name], np.float32))
                runtime.forget([checkpoint.tensors[name]])
            to.close()
        found: list[dict[int, np.ndarray]] = []
        try:
            error = json.loads(back.readline())["error"]
            if error is None:
                found = [{layer: _read_array(back) for layer in layers} for _ in range(2)]
        except (ValueError, EOFError):  # it has ended
            status = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().split("\n")[-1]
            raise InputError(
                f"the PyTorch reference must run, got status {status}: {said or 'it says nothing'}; see that `import torch` "
                "works here"
            ) from None
        require(error is None, str(error))
        self._process.wait()
        return found[0], found[1]

    def _watch(self) -> None:
        """Note what the two processes hold, until this one ends."""
        while self._process.poll() is None:
            runtime.note_together(self._process.pid)
            time.sleep(0.02)

    def __enter__(self) -> "ReferenceProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.shutdown()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):  # what was not sent
                if stream is not None:
                    stream.close()


def _write_line(to: IO[bytes], content: Mapping[str, Any]) -> None:
    to.write(json.dumps(content).encode() + b"\n")


def _write_array(to: IO[bytes], array: np.ndarray) -> None:
    array = np.ascontiguousarray(array)
    _write_line(to, {"dtype": array.dtype.str, "shape": array.shape})
    to.write(array.data)


def _read_array(come: IO[bytes]) -> np.ndarray:
    head = json.loads(come.readline())
    array = np.empty(head["shape"], head["dtype"])
    if come.readinto(memoryview(array).cast("B")) != array.nbytes:  # type: ignore[arg-type, attr-defined]
        raise EOFError
    return array


class _Arriving(Mapping[str, np.ndarray]):
    """Tensors that are read when they are asked for; in the order in which they come, nothing is held."""

    def __init__(self, names: Sequence[str], come: IO[bytes]) -> None:
        self.names, self.come, self.held, self.read = list(names), come, dict[str, np.ndarray](), 0

    def __getitem__(self, name: str) -> np.ndarray:
        while name not in self.held:
            if self.read == len(self.names):
                raise KeyError(name)
            self.held[self.names[self.read]] = _read_array(self.come)
            self.read += 1
        return self.held.pop(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class _Received(NamedTuple):
    config: Config
    tensors: Mapping[str, np.ndarray]


def answer() -> None:
    """The process: answer the question on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks ends this one
    back = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the user's file prints
    from convert import reference

    come = sys.stdin.buffer
    line = come.readline()
    if not line:
        return
    head = json.loads(line)
    ids = _read_array(come)
    mask = _read_array(come) if head["masked"] else None
    config = family_named(head["family"], "the question").config(**head["config"])
    received = _Received(config, _Arriving(head["names"], come))
    try:
        if head["file"] is None:
            found = reference.activations(received, ids, mask, head["layers"], head["of"])
        else:
            found = reference.hooked(received, head["file"], ids, mask, head["layers"], head["of"])
    except InputError as error:
        _write_line(back, {"error": str(error)})
    else:
        _write_line(back, {"error": None})
        for of_type in found:
            for layer in head["layers"]:
                _write_array(back, of_type[layer])
    back.flush()
    os._exit(0)  # nothing is left to do: taking torch down takes a while
