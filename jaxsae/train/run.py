"""A whole training run: rows from a source, SAEs, their figures and their files, each as soon as it is trained."""

import contextlib
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsae import processes
from jaxsae.config import MeshShape, SAEConfig, TrainConfig
from jaxsae.errors import require
from jaxsae.files import atomic_path, exclusive, remove_left, sha256, to_json
from jaxsae.mesh import Arrangement, arrange
from jaxsae.models.hooks import file_stem, hook_names
from jaxsae.runtime import give_back_memory, peak_memory
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.basis import directions
from jaxsae.sae.metrics import Score, score
from jaxsae.sae.row_types import AnyRows
from jaxsae.train.checkpointer import Checkpointer
from jaxsae.train.events import Event, Finished, PartEnd, Resumable, StepEnd, Trained
from jaxsae.train.loop import train
from jaxsae.train.memory import check_memory
from jaxsae.train.metrics_log import MetricsLog
from jaxsae.train.outputs import check_replaceable, drop_unfinished, finished, keep_older
from jaxsae.train.plan import Member
from jaxsae.train.sources import ROWS, SCORED_ROWS, OnRows, RunRows, Say, Source
from jaxsae.train.step import check_latents, divisor_of_latents

DIRECTIONS_OF = 2048
"""Rows of which it is said in how many directions they vary."""
PACKAGES = ("jaxsae", "jax", "jaxlib", "flax", "optax", "numpy", "torch")

ORIGIN = ("model_sha256", "checkpoint_sha256", "split", "dataset_sha256")
"""What an SAE file says of the model and the text that it was trained on."""


@runtime_checkable
class SaveSAE(Protocol):
    """Writes an SAE file; `convert.save_sae`."""

    def __call__(
        self, path: Path, sae: SAE, config: SAEConfig, losses: Sequence[float], extra: Mapping[str, Any]
    ) -> None:
        """Write it to `path`; `extra` are more entries of its config."""


class RunResult(NamedTuple):
    """One SAE of a run."""

    file: Path
    """The `.pt`; figures and picture are beside it."""
    report: dict[str, Any]
    """What its `.json` holds; of an SAE that an earlier run has made, what it held."""
    trained: Trained | None = None
    """None where an earlier run has made it."""
    kept: Path | None = None
    """The name that an older SAE of other settings has now."""


class Run(NamedTuple):
    """What a run has made."""

    results: list[RunResult]
    """In the order of layers and settings; those that a stopped run has not reached are missing."""
    scored_on: str
    """What the figures were measured on; empty where everything was there."""
    stopped: int
    """The signal that stopped it before its end, the state saved; 0: nothing did."""


def train_run(
    source: Source,
    configs: TrainConfig | Mapping[str, TrainConfig],
    output: str | Path,
    *,
    save: SaveSAE,
    resume: bool = False,
    overwrite: bool = False,
    save_every: float = 10.0,
    log: str | None = None,
    mesh: MeshShape | None = None,
    stopping: Callable[[], int] = lambda: 0,
    say: Say = lambda line: None,
    on_rows: OnRows = lambda rows: None,
    on_loaded: Callable[[RunRows], None] = lambda rows: None,
    listen: Callable[[Event], None] = lambda event: None,
    command: Sequence[str] = (),
    began: float | None = None,
) -> Run:
    """Train SAEs on each layer of the source; write `sae_layer{L}_optimized{tag}.pt`, and beside it `.json` and `.png`.

    The run can be stopped or killed at any time, and goes on where it was with `resume`. `metrics.jsonl` in the folder
    has every epoch.

    Args:
      source: where the rows come from.
      configs: what to train on each layer: one, or several by what tells them apart in their files' names.
      output: the folder. One run at a time may write to it.
      save: writes the `.pt`.
      resume: go on with an unfinished run of the same settings; what is finished is left as it is.
      overwrite: replace SAEs made with other settings, which otherwise get another name; drop an unfinished run.
      save_every: seconds between saves of the state; 0: at the end of every epoch.
      log: `tensorboard` or `wandb`: gets the metrics as well.
      mesh: over how many devices the training of each SAE is divided; None: what there is, several SAEs first.
      stopping: asked again and again whether to save the state and stop: the number of the signal that says so, or 0.
      say: called with lines that tell what is done.
      on_rows: called with the number of rows extracted since the last call.
      on_loaded: called with the rows, before training begins.
      listen: called with every event of training.
      command: for the record.
      began: when the run did, by `time.monotonic`, in seconds; now, if not given.

    Raises:
      InputError: settings that do not fit the rows, or files in the folder that are not to be replaced.
    """
    began = time.monotonic() if began is None else began
    output, configs = Path(output), {"": configs} if isinstance(configs, TrainConfig) else configs
    members = {
        f"{file_stem(layer, source.hook)}{tag}.pt": Member(layer, config)
        for layer in source.layers
        for tag, config in configs.items()
    }
    members = {
        name: member._replace(config=_settled(member.config, source.d_in, source.paired))
        for name, member in members.items()
    }
    for member in members.values():
        member.config.sae(source.d_in)  # k and target L0 within d_sae
    streamed = source.origin["streamed"] = processes.told(source.origin["streamed"])
    processes.agree(source.origin, "all processes must read the same")
    files = {name: output / name for name in members}
    settings = {
        name: {"layer": member.layer, **member.config.settings(), **source.origin} for name, member in members.items()
    }
    by_file = {files[name]: its for name, its in settings.items()}
    with contextlib.ExitStack() as claim, contextlib.ExitStack() as cleanup:

        def begin() -> list[str]:
            claim.enter_context(exclusive(output))
            if not overwrite:
                check_replaceable(by_file, resume=resume)
            if not resume:
                drop_unfinished(by_file)
            remove_left(output / ROWS)
            done = [file.name for file in finished(by_file)] if resume else []
            if len(done) == len(members):  # what a kill between the last file and the end has left
                drop_unfinished(by_file)
            return done

        done = set(processes.from_first(begin))
        results = {name: RunResult(files[name], _stored_report(files[name])) for name in done}
        if len(done) == len(members):
            return Run([results[name] for name in members], "", stopped=0)
        checkpointer = Checkpointer(files, settings, done, save_every, began)

        def close(kind: type[BaseException] | None, *about: Any) -> None:
            if kind is None or not processes.together():  # else it would wait for others, and they for this one's end
                checkpointer.close()

        cleanup.push(close)
        saved = processes.from_first(checkpointer.saved_together)
        meshes, apart = _arranged(mesh, [members[name].config for name in members if name not in done], source.d_in)
        say_devices(meshes, say)
        index, count = processes.share() if apart else (0, 1)
        dealt = _dealt(members, done, saved, count)
        layers = [[layer for layer in source.layers if layer in {members[n].layer for n in names}] for names in dealt]
        memory = _check_memory(members, dealt, layers, source, meshes, streamed)
        if memory:
            say(f"memory   {memory}")
        spread = sum(one.size for one in meshes) > 1
        rows = source.load(output, cleanup, say, on_rows, layers[index] if apart else None, spread)
        if apart:  # from here on each process is for itself
            members = {name: member for name, member in members.items() if name in dealt[index]}
            claim.enter_context(processes.claimed_by_all(output))  # another run begins when the last has ended
            processes.part()
            if not members:  # others have what was saved together
                return Run([], rows.scored_on, stopped=0)
            meshes, _ = _arranged(mesh, [member.config for member in members.values()], source.d_in)
        give_back_memory()  # the model's
        on_loaded(rows)
        writer = _Writer(source, members, files, settings, rows, save, keep=not overwrite, command=command)
        metrics = cleanup.enter_context(contextlib.closing(MetricsLog(output, log, settings, writer.steps)))
        compiled, stop, steps, start = False, 0, 0, time.monotonic()
        agreement = _Agreement(stopping, checkpointer)
        events = train(
            rows.train, members, load=checkpointer.load, done=done, together=saved, meshes=meshes, streamed=streamed
        )
        for event in events:
            listen(event)
            metrics.listen(event)
            if isinstance(event, StepEnd):
                steps += 1
                if not compiled:
                    compiled = True  # once: what is given back costs to be asked for again
                    give_back_memory()  # the compiler's
            if isinstance(event, Finished):
                took = {"seconds": checkpointer.seconds, "steps_per_second": steps / (time.monotonic() - start)}
                if processes.is_first():
                    results[event.member] = writer.write(event.member, event.trained, took)
                    metrics.scored(event.member, results[event.member].report)
                else:
                    results[event.member] = RunResult(files[event.member], {}, event.trained)
            # asked once: a signal may come at any moment, and nothing ends here unsaved
            stop = agreement.after(event)
            checkpointer.listen(event, save=stop != 0)
            if stop > 0:
                break
        return Run([results[name] for name in members if name in results], rows.scored_on, max(stop, 0))


def _settled(config: TrainConfig, d_in: int, paired: bool) -> TrainConfig:
    """The settings with what the rows decide: how many latents, and whether undamaged rows stand beside them.

    Raises:
      InputError: they are asked for and are not there, or the other way round.
    """
    config = dataclasses.replace(config, expansion=config.expansion_of(d_in))
    if config.denoises_by_itself and paired:
        return dataclasses.replace(config, denoise=1.0)
    require(
        paired or not config.denoise,
        f"denoise={config.denoise or 0:g} needs rows of the undamaged text, of damaged text and in the memory of one process; got "
        "stored rows, undamaged text or not so much memory: leave it out",
    )
    require(
        not paired or bool(config.denoise), "rows beside undamaged ones need denoise above 0, got an SAE without it"
    )
    return config


def _arranged(mesh: MeshShape | None, configs: Sequence[TrainConfig], d_in: int) -> Arrangement:
    """The devices for SAEs of these settings.

    Raises:
      InputError: they cannot be divided so.
    """
    saes = [config.sae(d_in) for config in configs]
    latents, batch_size = math.gcd(*map(divisor_of_latents, saes)), math.gcd(*(config.batch_size for config in configs))
    found = arrange(mesh, len(saes), latents, batch_size)
    for sae in saes:
        check_latents(sae, MeshShape(**found.meshes[0].shape))
    return found


def _check_memory(
    members: Mapping[str, Member],
    dealt: Sequence[Collection[str]],
    layers: Sequence[Sequence[int]],
    source: Source,
    meshes: list[Mesh],
    streamed: bool,
) -> str | None:
    """As `check_memory`, of the process that trains most; the same in all."""
    largest = max(
        (members[name].config for names in dealt for name in names), key=lambda one: one.sae(source.d_in).d_sae
    )
    matrices = 3 if largest.denoise else 2
    rows = 0 if streamed else source.size * max(map(len, layers)) // len(source.layers)
    return check_memory(largest.sae(source.d_in), largest.batch_size, max(map(len, dealt)), meshes, rows, matrices)


def say_devices(meshes: Sequence[Mesh], say: Say) -> None:
    """Tell how the work is divided, where it is."""
    count = processes.place().of
    if len(meshes) * meshes[0].size * count == 1:
        return
    shape = MeshShape(**meshes[0].shape)
    side = f"{len(meshes)} SAEs side by side, each on " if len(meshes) > 1 else ""
    of = f", {count} processes" if count > 1 else ""
    say(f"devices  {side}{shape}{of}")


SAVE = -1
"""In place of a signal: save, and go on."""
ASK_WITHIN, ASK_EVERY = 1.0, 1000
"""Seconds, about, and steps at most, after which processes ask each other whether to save or to stop."""


class _Agreement:
    """What all processes do after an event: a signal may have come to any of them, and the clock is the first one's.

    They ask each other at the end of an epoch, and within it after as many steps as the first one said the last time,
    by how long those before it took.
    """

    def __init__(self, stopping: Callable[[], int], checkpointer: Checkpointer) -> None:
        self.stopping, self.checkpointer = stopping, checkpointer
        self.asked, self.steps, self.ask_after = time.monotonic(), 0, 1

    def after(self, event: Event) -> int:
        """The signal by which to stop after this event, or `SAVE`, or 0; the same in all processes."""
        if not isinstance(event, Resumable | PartEnd):
            return 0
        self.steps += 1
        within = isinstance(event, Resumable) and event.position.done > 0  # at an epoch's end a save may be due
        if processes.together() and within and self.steps < self.ask_after:
            return 0
        due = isinstance(event, Resumable) and processes.is_first() and self.checkpointer.is_due(event.position)
        wanted, now = self.stopping(), time.monotonic()
        rate = self.steps / max(now - self.asked, 1e-9)
        every = processes.each((2 * int(wanted) if wanted else int(due), min(ASK_EVERY, int(rate * ASK_WITHIN) + 1)))
        self.asked, self.steps, self.ask_after = now, 0, every[0][1]
        agreed = max(wish for wish, _ in every)  # a signal is above what is due
        return SAVE if agreed == 1 else agreed // 2


def _dealt(
    members: Mapping[str, Member], done: Collection[str], saved: Sequence[Sequence[str]], count: int
) -> list[list[str]]:
    """The members that each of so many processes trains: what was saved together stays together.

    Neighbours go to one process, as far as each has as many: so it needs the rows of few layers.
    """
    left = [[name] for name in members if name not in done and not any(name in some for some in saved)]
    order = {name: number for number, name in enumerate(members)}
    units = sorted([*saved, *left], key=lambda unit: order[unit[0]])
    ends = [-(-len(units) * number // count) for number in range(count + 1)]
    return [[name for unit in units[a:b] for name in unit] for a, b in itertools.pairwise(ends)]


def _stored_report(file: Path) -> dict[str, Any]:
    return json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))


class _Writer:
    """Scores trained SAEs and writes their files."""

    def __init__(
        self,
        source: Source,
        members: Mapping[str, Member],
        files: Mapping[str, Path],
        settings: Mapping[str, Mapping[str, Any]],
        rows: RunRows,
        save: SaveSAE,
        *,
        keep: bool,
        command: Sequence[str],
    ) -> None:
        self.checkpoint_sha256 = source.checkpoint_sha256
        self.hook_names, self.model_name = hook_names(source.hook, source.layers), source.model_name
        self.members, self.files, self.settings = members, files, settings
        self.rows, self.save, self.keep, self.command = rows, save, keep, list(command)
        first = next(iter(members.values()))
        self.n = len(rows.train[first.layer])
        self.steps = self.n // first.config.batch_size
        """Steps of an epoch."""

    def write(self, name: str, trained: Trained, took: Mapping[str, float]) -> RunResult:
        """The SAE, its figures and its picture, all or none."""
        from jaxsae.train.plots import training_plot

        give_back_memory()  # the training's, then the scoring's
        scored = self.rows.scored[self.members[name].layer]
        result = score(trained.sae, scored)
        report = self._report(name, trained, result, took)
        report["l0_of_relu_alone"] = plain_l0(trained.sae, scored, result.l0)
        report["directions"] = directions(np.asarray(scored[:DIRECTIONS_OF]))
        give_back_memory()
        file, config = self.files[name], trained.config
        size = f"{config.d_sae:,} latents, L0 {result.l0:.1f}, FVU {result.fvu:.3g}"
        title = f"Layer {report['layer']}: {config.architecture}, {size}"
        extra: dict[str, Any] = {
            "layer": report["layer"],
            "hook_name": self.hook_names[report["layer"]],
        }
        extra |= {} if self.model_name is None else {"model_name": self.model_name}
        origin = {**self.settings[name], "checkpoint_sha256": self.checkpoint_sha256}
        extra |= {key: origin[key] for key in ORIGIN if origin[key] is not None}
        # all are written before the first takes its name, the SAE the last
        with (
            atomic_path(file) as pt,
            atomic_path(file.with_suffix(".json")) as text,
            atomic_path(file.with_suffix(".png")) as png,
        ):
            self.save(pt, trained.sae, config, report["losses"], extra)
            training_plot(png, title, report["losses"], result.density, self.rows.scored_on)
            # by its fingerprint the figures are known to be of this very SAE
            text.write_text(to_json(report | {"sae_sha256": sha256(pt)}, indent=2))
            # only now that nothing more can fail: until then the older one stays as it was
            kept = keep_older(file, self.settings[name]) if self.keep else None
        return RunResult(file, report, trained, kept)

    def _report(self, name: str, trained: Trained, result: Score, took: Mapping[str, float]) -> dict[str, Any]:
        config, settings = trained.config, self.settings[name]
        return {
            "layer": self.members[name].layer,
            "architecture": config.architecture,
            "l0": result.l0,
            "fvu": result.fvu,
            "dead": result.dead,
            "rows_scored": f"{self.rows.scored_on} ({result.rows} rows)",
            "l1_coef": config.l1_coef,
            "final_loss": trained.epochs[-1].loss,
            "epochs": len(trained.epochs),
            "losses": [epoch.loss for epoch in trained.epochs],
            "l0_of_epoch": [epoch.l0 for epoch in trained.epochs],
            **took,
            "peak_memory_bytes": peak_memory(),
            "rows": self.n,
            "d_in": config.d_in,
            "d_sae": config.d_sae,
            "seed": self.members[name].config.seed,
            "model_sha256": settings["model_sha256"],
            "checkpoint_sha256": self.checkpoint_sha256,
            "settings": settings,
            "command": self.command,
            "versions": {package: _version(package) for package in PACKAGES},
        }


def _version(package: str) -> str | None:
    """None: it is not installed, as torch need not be."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def plain_l0(sae: SAE, rows: AnyRows, l0: float) -> float:
    """Latents a row that the plain formula gives, without what else the file says; `l0` is the SAE's own."""
    if sae.architecture == "relu":
        return l0
    plain = sae.replace(architecture="relu", threshold=None, k=None)
    return score(plain, jnp.asarray(rows[:SCORED_ROWS])).l0
