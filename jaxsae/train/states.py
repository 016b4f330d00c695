"""Saved states of a run that may be stopped: Orbax steps in a folder."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsae import processes
from jaxsae.errors import InputError, require
from jaxsae.files import check_room, remove_folder

STATE_FORMAT = 3
"""Since 3: rows on disk are read in another order. Since 2: matrices as an SAE has them, whatever the device; members
by their file's name."""

SAVED_WITHIN, SLOWEST_DISK = 60, 20e6
"""Seconds that a save may take, and as many more as its bytes take at so many a second: so long processes wait for one
that cannot write its part and cannot say so."""


class States:
    """A run's saved states: Orbax steps in a folder, of which the two newest are kept.

    Args:
      folder: need not exist.
      run: which run it is, as JSON; the states of another are refused.
    """

    def __init__(self, folder: str | Path, run: Mapping[str, Any]) -> None:
        self.folder, self.run = Path(folder).resolve(), json.loads(json.dumps(run))
        self._checkpointer: Any = None
        self._saving: Any = None
        self._limit = SAVED_WITHIN

    def _open(self) -> Any:
        """Orbax's checkpointer; it is large, and a short run needs none."""
        if self._checkpointer is None:
            from orbax.checkpoint import v1 as ocp

            keep = ocp.training.preservation_policies.LatestN(2)
            limit = ocp.options.AsyncOptions(timeout_secs=self._limit)
            with ocp.Context(async_options=limit):
                self._checkpointer = ocp.training.Checkpointer(
                    self.folder, preservation_policy=keep, cleanup_tmp_directories=True
                )
        return self._checkpointer

    def save(self, step: int, state: Any, position: Mapping[str, Any]) -> None:
        """Save a pytree of arrays as `step`, and where in the run that is; written while the caller goes on.

        Of several processes each writes its part. Arrays are copied first: the caller may give their buffers away.

        Raises:
          OSError: the save before this one failed.
        """
        self.wait()
        about = {"format": STATE_FORMAT, "run": self.run, "position": position}
        leaves = jax.tree.leaves(state)
        limit = SAVED_WITHIN + int(sum(leaf.nbytes for leaf in leaves) / SLOWEST_DISK)  # the same on all processes
        if limit > self._limit:
            self.close()
            self._limit = limit
        with self._told():
            # a disk that is full is better found here: TensorStore tells of it in hundreds of lines
            check_room(self.folder.parent, sum(map(_bytes_here, leaves)) + 2**16)
            self._saving = self._open().save_async(step, _by_name(state), custom_metadata=about, overwrite=True)

    def wait(self) -> None:
        """Until what is being saved is there."""
        saving, self._saving = self._saving, None
        if saving is not None:
            with self._told():
                saving.result()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # TensorStore's full disk is a ValueError, a folder gone may be anything
            reason = str(error).strip().split("\n")[0]
            raise OSError(f"the state could not be saved in {self.folder}: {reason}") from error

    def load(self, like: Callable[[dict[str, Any]], Any]) -> tuple[dict[str, Any], Any] | None:
        """(position, state) of the newest whole state; None where there is none.

        Args:
          like: position -> any state of the structure and shapes that it had there.

        Raises:
          InputError: states of another run, or of another version; what differs is named. Or none of them is whole.
        """
        self.wait()
        if not processes.told(self.folder.is_dir()):
            return None
        problems = []
        # all processes load the same one, and take the one before it if any of them cannot
        for step in processes.told([int(saved.step) for saved in reversed(self._open().checkpoints)]):
            found = None
            try:
                about = self._open().metadata(step).custom_metadata or {}
                self._check(about)
                shaped = like(about["position"])
                loaded = self._open().load(step, _by_name(shaped))
                leaves = [loaded[name] for name in _by_name(shaped)]
                found = about["position"], jax.tree.unflatten(jax.tree.structure(shaped), leaves)
            except InputError:
                raise
            except Exception as error:  # Orbax and TensorStore raise many kinds
                problems.append(str(error).strip().split("\n")[0])
            if processes.highest(int(found is None)) == 0:
                return found
        require(not problems, f"{self.folder}: a saved state must be whole, got: {(problems or [''])[0]}")
        return None

    def check(self) -> None:
        """Raise `InputError` where there are states of another run."""
        for saved in self._open().checkpoints if self.folder.is_dir() else []:
            self._check(self._open().metadata(saved.step).custom_metadata or {})

    def _check(self, about: Mapping[str, Any]) -> None:
        version, theirs = about.get("format"), about.get("run") or {}
        require(
            version == STATE_FORMAT,
            f"{self.folder} holds a state of format {version!r}, and must be of {STATE_FORMAT}; finish it with the version of jaxsae that began it, or start anew",
        )
        differ = [name for name in {**self.run, **theirs} if theirs.get(name) != self.run.get(name)]
        named = ", ".join(differ)
        require(not differ, f"{self.folder} holds a run with another {named}; resume with the same, or start anew")

    def close(self) -> None:
        """Wait for what is being saved, and let go of the folder until it is used again."""
        checkpointer, self._checkpointer = self._checkpointer, None
        with contextlib.ExitStack() as last:
            if checkpointer is not None:
                last.enter_context(self._told())
                last.callback(checkpointer.close)
            self.wait()

    def discard(self) -> None:
        """Remove the folder: the run is through."""
        self.close()
        processes.wait("the states are closed")
        if processes.is_first():
            remove_folder(self.folder)


def files_of(folder: Path) -> list[str]:
    """The names of the files whose states were saved together in a folder of states; empty where that is not said."""
    from orbax.checkpoint import v1 as ocp

    steps = sorted((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    for step in reversed(steps):
        with contextlib.suppress(Exception):  # not whole: as `States.load`, which says what is wrong
            return list(ocp.metadata(step).custom_metadata["run"]["files"])
    return []


def _bytes_here(leaf: jax.Array | np.ndarray) -> int:
    """What this process writes of an array."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return sum(shard.data.nbytes for shard in leaf.addressable_shards if shard.replica_id == 0)
    return leaf.nbytes


def _by_name(tree: Any) -> dict[str, Any]:
    """Path -> leaf: a form that Orbax gives back as it was."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
