"""A whole training run: rows from a source, SAEs, their figures and their files, each as soon as it is trained."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp

from jaxsae.config import SAEConfig, TrainConfig
from jaxsae.files import atomic_path, exclusive, sha256, to_json
from jaxsae.models.hooks import file_stem, hook_names
from jaxsae.runtime import give_back_memory, peak_memory
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.metrics import Score, score
from jaxsae.sae.row_types import AnyRows
from jaxsae.train.checkpointer import Checkpointer
from jaxsae.train.events import Event, Finished, PartEnd, Resumable, StepEnd, Trained
from jaxsae.train.loop import train
from jaxsae.train.metrics_log import MetricsLog
from jaxsae.train.outputs import check_replaceable, drop_unfinished, finished, keep_older
from jaxsae.train.plan import Member
from jaxsae.train.sources import SCORED_ROWS, OnRows, RunRows, Say, Source

PACKAGES = ("jaxsae", "jax", "jaxlib", "flax", "optax", "numpy", "torch")


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
    stopped: bool
    """Whether it was stopped before its end; the state is saved."""


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
    stopping: Callable[[], bool] = lambda: False,
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
      stopping: asked again and again whether to save the state and stop.
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
    for member in members.values():
        member.config.sae(source.d_in)  # k and target L0 within d_sae
    files = {name: output / name for name in members}
    settings = {
        name: {"layer": member.layer, **member.config.settings(), **source.origin} for name, member in members.items()
    }
    by_file = {files[name]: its for name, its in settings.items()}
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(exclusive(output))
        if not overwrite:
            check_replaceable(by_file, resume=resume)
        if not resume:
            drop_unfinished(by_file)
        done = {file.name for file in finished(by_file)} if resume else set()
        results = {name: RunResult(files[name], _stored_report(files[name])) for name in done}
        if len(done) == len(members):
            return Run([results[name] for name in members], "", stopped=False)
        rows = source.load(output, cleanup, say, on_rows)
        give_back_memory()  # the model's
        on_loaded(rows)
        writer = _Writer(source, members, files, settings, rows, save, keep=not overwrite, command=command)
        metrics = cleanup.enter_context(contextlib.closing(MetricsLog(output, log, settings, writer.steps)))
        checkpointer = Checkpointer(files, settings, done, save_every, began)
        cleanup.callback(checkpointer.close)
        compiled, stop, steps, start = False, False, 0, time.monotonic()
        for event in train(rows.train, members, load=checkpointer.load, done=done):
            listen(event)
            metrics.listen(event)
            if isinstance(event, StepEnd):
                steps += 1
                if not compiled:
                    compiled = True  # once: what is given back costs to be asked for again
                    give_back_memory()  # the compiler's
            if isinstance(event, Finished):
                took = {"seconds": checkpointer.seconds, "steps_per_second": steps / (time.monotonic() - start)}
                result = writer.write(event.member, event.trained, took)
                results[event.member] = result
                metrics.scored(event.member, result.report)
            # asked once: a signal may come at any moment, and nothing ends here unsaved
            stop = isinstance(event, Resumable | PartEnd) and stopping()
            checkpointer.listen(event, stop)
            if stop:
                break
        return Run([results[name] for name in members if name in results], rows.scored_on, stop)


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
        give_back_memory()
        file, config = self.files[name], trained.config
        size = f"{config.d_sae:,} latents, L0 {result.l0:.1f}, FVU {result.fvu:.3g}"
        title = f"Layer {report['layer']}: {config.architecture}, {size}"
        extra: dict[str, Any] = {
            "layer": report["layer"],
            "hook_name": self.hook_names[report["layer"]],
        }
        extra |= {} if self.model_name is None else {"model_name": self.model_name}
        extra |= {key: report[key] for key in ("model_sha256", "checkpoint_sha256") if report[key] is not None}
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
            "versions": {package: version(package) for package in PACKAGES},
        }


def plain_l0(sae: SAE, rows: AnyRows, l0: float) -> float:
    """Latents a row that the plain formula gives, without what else the file says; `l0` is the SAE's own."""
    if sae.architecture == "relu":
        return l0
    plain = sae.replace(architecture="relu", threshold=None, k=None)
    return score(plain, jnp.asarray(rows[:SCORED_ROWS])).l0
