"""Train sparse autoencoders on the residual stream of one or more layers; write sae_layer{L}_optimized.pt, .json, .png.

Several layers, penalties, ks, target L0s or seeds: one pass through the model, and one batched step for all of them.
--dataset may name several, parted by commas; or folders of extract_activations.py and .npy files of rows.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, process, terminal
from jaxsae.config import LOGGERS, MODERN, THRESHOLDED, DataConfig, TrainConfig
from jaxsae.errors import require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Callable, Mapping

    from convert.restoration import Checkpoint
    from jaxsae.models.restoration import RestorationModel
    from jaxsae.sae.metrics import Score
    from jaxsae.sae.rows import AnyRows
    from jaxsae.text.samples import Samples
    from jaxsae.train.loop import Trained

    Loaded = tuple[Mapping[int, AnyRows], Mapping[int, AnyRows], str]
    """(each layer's rows to train on, its rows to score on, what the latter are)."""

PACKAGES = ("jaxsae", "jax", "jaxlib", "flax", "optax", "numpy", "torch")
LISTS = {"l1_coef": "l1-", "k_sparse": "k-", "target_l0": "l0-", "seed": "seed"}
"""Flags that take several values; what stands before a value in the names of files, where there are several."""
SHORT = LISTS | {"max_samples": "samples-", "batch_size": "batch-", "architecture": "", "recipe": "", "precision": ""}
"""What stands before a setting in the name of an older file that differs in it."""
HELD_OUT_SAMPLES = 20
"""Samples of the test split that the printed figures are measured on."""


SCORED_ROWS = 2**15
"""Rows that they are measured on where there is no held-out text."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One SAE to train, and where it goes."""

    layer: int
    config: TrainConfig
    target: Path


def main(args: argparse.Namespace) -> int:
    """Load, cross-check, extract, train, score, write; one pass through the model for all SAEs."""
    began = time.monotonic()
    tags = check_flags(args)
    data = inputs.data_config(args)
    if args.log:
        package = LOGGERS[args.log]
        installed = importlib.util.find_spec(package) is not None
        require(
            installed, f"--log {args.log} needs the package {package}, which is not installed; pip install {package}"
        )
    runtime.lean_memory()
    runtime.select_device(args.device)
    from jaxsae.files import exclusive

    def say(line: str) -> None:
        if not args.quiet:
            print(line, flush=True)

    paths = inputs.paths_of(data.dataset)
    source = FromStores(args, data, paths) if inputs.is_rows(data.dataset) else FromText(args, data, paths)
    runs = [
        Run(layer, config, Path(args.output) / f"sae_layer{layer}_optimized{tag}.pt")
        for layer in source.layers
        for tag, config in tags.items()
    ]
    for run in runs:
        run.config.sae(source.d_in)  # k and target L0 within d_sae
    settings = {run.target: {"layer": run.layer, **dataclasses.asdict(run.config), **source.origin} for run in runs}
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(exclusive(args.output))
        done = ready(args, settings)
        if len(done) == len(runs):
            there = ", ".join(str(run.target) for run in runs)
            print(f"complete {there}: nothing is left to do; without --resume it is trained anew")
            return 0
        loaded = source.load(say, cleanup)
        if loaded is None:
            return 1
        made_from = source.checkpoint_sha256
        del source
        runtime.give_back_memory()  # the model's
        status = train_and_write(args, runs, settings, done, loaded, made_from, say, began)
        unasked = not hasattr(args, "checkpoint") and not inputs.is_rows(data.dataset)
        if status == 0 and unasked and inputs.is_demo(data.checkpoint, "best_model.pt"):
            print(
                "note     these are features of the embedded demo; --checkpoint and --dataset name your model and text"
            )
        return status


def ready(args: argparse.Namespace, settings: dict[Path, dict]) -> set[Path]:
    """Those of the files that an earlier run has made of the same settings, with --resume; else none.

    Raises:
      InputError: what is there is of another model or text, with --resume of other settings, or of a run not through.
    """
    from jaxsae.files import remove_folder
    from jaxsae.train.checkpointer import state_folder

    for target, its in settings.items():
        older = made_of(target)
        if target.exists() and not args.overwrite:
            check_same_run(target, older, its, args.resume)
        state = state_folder(target)
        if state.exists() and not args.resume:
            require(
                args.overwrite,
                f"an unfinished run left its state in {state}; give --resume to go on with it, or --overwrite to drop it",
            )
            remove_folder(state)
    return {target for target, its in settings.items() if args.resume and made_of(target) == its}


def check_same_run(target: Path, older: dict | None, settings: dict, resume: bool) -> None:
    """Of an SAE that is there: whether this run may go on with it, or take its name and keep it under another.

    Another model or another text is another project's; and --resume goes on with the same settings or not at all.

    Raises:
      InputError: it is not the same.
    """
    instead = "give --overwrite or another --output"
    require(older is not None or not resume, f"{target} exists and what made it is not known; {instead}")
    if older is None:
        return
    differ = [name for name in settings if name in older and older[name] != settings[name]]
    names = {"model_sha256": "model", "dataset_sha256": "dataset"}
    if not resume:
        differ = [name for name in differ if name in names]
    named = ", ".join(names.get(name, name) for name in differ)
    require(not differ, f"{target} exists, made with another {named}; {instead}")


def keep_older(target: Path, settings: dict) -> None:
    """Give an SAE that other settings made another name, which says in what it differs, with its figures and picture.

    Nothing is renamed where the same settings made it: it is replaced by the same.
    """
    older = made_of(target)
    if not target.exists() or older == settings:
        return
    differ = [] if older is None else [name for name in settings if older.get(name) != settings[name]]
    words = [
        f"{SHORT.get(name, name.replace('_', '-') + '-')}{older[name]}"
        for name in differ
        if older and older.get(name) is not None
    ]
    tag = "_".join(words)[:100] or "older"
    kept = target.with_name(f"{target.stem}_{tag}.pt")
    number = 2
    while kept.exists():
        kept, number = target.with_name(f"{target.stem}_{tag}_{number}.pt"), number + 1
    for kind in (".png", ".json", ".pt"):  # the SAE last: with it the others are known to be its
        if target.with_suffix(kind).exists():
            os.replace(target.with_suffix(kind), kept.with_suffix(kind))
    print(f"kept     the older {target.name}, of other settings, as {kept.name}", flush=True)


def train_and_write(
    args: argparse.Namespace,
    runs: list[Run],
    settings: dict[Path, dict],
    done: set[Path],
    loaded: Loaded,
    made_from: str | None,
    say: Callable[[str], None],
    began: float,
) -> int:
    """All SAEs, their figures and their files, each as soon as it is trained."""
    from jaxsae.sae.metrics import score
    from jaxsae.train.checkpointer import FolderCheckpointer
    from jaxsae.train.loop import Epoch, Member, Part, Position, plan_parts, training
    from jaxsae.train.metrics_log import MetricsLog

    rows, scored, rows_scored = loaded
    config, n = runs[0].config, len(rows[runs[0].layer])
    members = [Member(run.layer, run.config) for run in runs]
    steps = n // config.batch_size
    total = sum(part.steps for parts in plan_parts(rows, members) for part in parts)
    progress = terminal.Progress("train   ", total, "steps", args.quiet)
    reports = {}
    behind = 0  # steps of the parts that are trained, had none of their members stopped early

    def taken_up(at: Position) -> None:
        say(f"resumed  epoch {at.epoch}, step {at.done + 1}")
        progress.skip((at.epoch - 1) * steps + at.done)

    journal = MetricsLog(Path(args.output), args.log, settings)

    compiled = iter([True])  # once: what is given back costs to be asked for again

    def stepped(done: int) -> None:
        progress.advance()
        if next(compiled, False):
            runtime.give_back_memory()  # the compiler's

    def epoch_ended(number: int, epoch: Epoch) -> None:
        progress.advance(0, f"epoch {epoch.number}  loss {epoch.loss:.5f}  L0 {epoch.l0:.1f}")
        journal.epoch(runs[number].target, epoch, epoch.number * steps)

    def part_ended(part: Part) -> None:
        nonlocal behind
        behind += part.steps
        progress.skip(behind - progress.done)  # what was through, or has stopped early

    with contextlib.closing(journal), process.stop_later() as stopping, progress.shown():
        keeper = FolderCheckpointer(settings, done, args.save_every, stopping, taken_up, began)
        try:
            for number, one in training(
                rows,
                members,
                keeper=keeper,
                on_step=stepped,
                on_epoch=epoch_ended,
                on_part=part_ended,
            ):
                run = runs[number]
                runtime.give_back_memory()  # the training's, then the scoring's
                result = score(one.sae, one.config.k, scored[run.layer])
                reports[number] = {
                    "layer": run.layer,
                    "architecture": one.config.architecture,
                    "l0": result.l0,
                    "fvu": result.fvu,
                    "dead": result.dead,
                    "rows_scored": f"{rows_scored} ({result.rows} rows)",
                    "l1_coef": one.config.l1_coef,
                    "final_loss": one.epochs[-1].loss,
                    "epochs": len(one.epochs),
                    "losses": [epoch.loss for epoch in one.epochs],
                    "l0_of_epoch": [epoch.l0 for epoch in one.epochs],
                    "seconds": keeper.seconds,
                    "steps_per_second": progress.rate,
                    "peak_memory_bytes": runtime.peak_memory(),
                    "rows": n,
                    "d_in": one.config.d_in,
                    "d_sae": one.config.d_sae,
                    "seed": run.config.seed,
                    "model_sha256": settings[run.target]["model_sha256"],
                    "checkpoint_sha256": made_from,
                    "settings": settings[run.target],
                    "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
                    "versions": {name: version(name) for name in PACKAGES},
                }
                reports[number]["l0_of_relu_alone"] = plain_l0(one, scored[run.layer], result.l0)
                runtime.give_back_memory()
                write_results(run.target, one, result, reports[number], rows_scored, keep=not args.overwrite)
                found = {"scored_l0": result.l0, "scored_fvu": result.fvu, "scored_dead": result.dead}
                journal.scored(run.target, found, len(one.epochs) * steps)
        finally:
            keeper.close()
        if stopping():
            print("stopped  the state is saved; the same command with --resume goes on", file=sys.stderr)
            return 0  # the signal is raised now
    every = [reports.get(i) or json.loads(run.target.with_suffix(".json").read_text()) for i, run in enumerate(runs)]
    if len(runs) == 1:
        say_one(runs[0], every[0], progress.rate, rows_scored)
    else:
        say_all(runs, every, progress.rate, rows_scored)
    return 0


def say_one(run: Run, report: dict, rate: float, rows_scored: str) -> None:
    """The last lines of a run of one."""
    stopped = "" if report["epochs"] == run.config.epochs else f" (no new lowest loss for {run.config.patience})"
    print(f"trained  {report['epochs']} epochs{stopped}, {rate:,.0f} steps/s, final loss {report['final_loss']:.5f}")
    print(
        f"scored   L0 {report['l0']:.1f} of {report['d_sae']:,}, FVU {report['fvu']:.3g}, dead {report['dead']:.1%} "
        f"({rows_scored})"
    )
    print(f"took     {report['seconds']:.1f} s, peak memory {report['peak_memory_bytes'] / 2**20:,.0f} MiB")
    print(f"wrote    {run.target}, .json, .png; metrics.jsonl has every epoch")
    if report["l0"] > report["d_sae"] / 10:
        print(
            "note     dense features: over a tenth of them fire on each row. Try --recipe modern --k-sparse 20, "
            "or --target-l0 20 with any architecture."
        )
    if report["dead"] > 0.5:
        instead = "more text, or a smaller --expansion" if run.config.recipe == "modern" else "--recipe modern as well"
        print(f"note     dead latents: {report['dead']:.1%} of them fire on none of these rows. Try {instead}.")
    say_unaware([report])


def say_unaware(reports: list[dict]) -> None:
    """Which files programs misread that know only the plain formula."""
    worst = max(reports, key=lambda report: report["l0_of_relu_alone"] / max(report["l0"], 1e-9))
    if worst["l0_of_relu_alone"] > 1.01 * worst["l0"]:
        print(
            f"note     a program that applies relu alone, as the original's inspector does, sees "
            f"{worst['l0_of_relu_alone']:.1f} latents a row in such a file, not {worst['l0']:.1f}: "
            f"config says what else to apply ({'k' if worst['architecture'] == 'topk' else 'threshold'})."
        )


def plain_l0(trained: Trained, rows: AnyRows, l0: float) -> float:
    """Latents a row that the plain formula gives, without what else the file says; `l0` is the SAE's own."""
    import jax.numpy as jnp

    from jaxsae.sae.metrics import score

    if trained.config.architecture == "relu":
        return l0
    return score(trained.sae._replace(threshold=None), None, jnp.asarray(rows[:SCORED_ROWS])).l0


def say_all(runs: list[Run], reports: list[dict], rate: float, rows_scored: str) -> None:
    """The last lines of a run of several: a table, and a picture of error over sparsity."""
    from jaxsae.files import atomic_path
    from jaxsae.train.figures import pareto_figure

    columns = ("SAE", "epochs", "final loss", "L0", "FVU", "dead")
    rows = []
    for run, r in zip(runs, reports, strict=True):
        figures = (f"{r['final_loss']:.5f}", f"{r['l0']:.1f}", f"{r['fvu']:.5f}", f"{r['dead']:.1%}")
        rows.append((run.target.name, r["epochs"], *figures))
    terminal.print_table(f"Scored on: {rows_scored}", columns, rows)
    picture = runs[0].target.parent / "sae_pareto.png"
    with atomic_path(picture) as png:
        pareto_figure(png, [(r["layer"], r["l0"], r["fvu"]) for r in reports], rows_scored)
    last = reports[-1]
    print(f"trained  {len(runs)} SAEs, {rate:,.0f} steps/s")
    print(f"took     {last['seconds']:.1f} s, peak memory {last['peak_memory_bytes'] / 2**20:,.0f} MiB")
    print(f"wrote    {len(runs)} x .pt, .json, .png in {picture.parent}, and {picture.name}")
    say_unaware(reports)


def check_flags(args: argparse.Namespace) -> dict[str, TrainConfig]:
    """What is to be trained on each layer, by what its file's name tells of it.

    What can be wrong before anything is loaded is found here.
    """
    given = vars(args)
    implied: dict = {"architecture": "topk"} if "k_sparse" in given else {}
    if given.get("recipe", "modern" if given.get("architecture") in THRESHOLDED else "guide") == "modern":
        implied |= MODERN
    if "l1_coef" in given:
        for other, why in (
            ("k_sparse", "a TopK has no L1 penalty"),
            ("target_l0", "the target determines the penalty"),
        ):
            name = other.replace("_", "-")
            require(other not in given, f"give either --l1-coef or --{name}, got both: {why}")
        architecture = given.get("architecture", "relu")
        require(architecture == "relu", f"--l1-coef goes with architecture relu, got {architecture}")
    if args.layer != "all":
        arguments.layers_of(args.layer, [])
    require(args.verify >= 0, f"verify must be at least 0, got {args.verify}")
    require(0 <= args.save_every < float("inf"), f"save-every must be at least 0 seconds, got {args.save_every:g}")
    output = Path(args.output)
    require(not output.exists() or output.is_dir(), f"--output must be a folder, got the file {output}")
    lists = {name: given[name] for name in LISTS if name in given}
    configs = {}
    for chosen in itertools.product(*lists.values()):
        values = dict(zip(lists, chosen, strict=True))
        tag = "".join(f"_{LISTS[name]}{typed}" for name, (typed, _) in values.items() if len(lists[name]) > 1)
        flags = argparse.Namespace(**given | {name: value for name, (_, value) in values.items()})
        configs[tag] = arguments.config_from(flags, TrainConfig, **implied)
    return configs


def passes_cross_check(
    model: RestorationModel,
    checkpoint: Checkpoint,
    samples: Samples,
    layers: list[int],
    padding: str,
    say: Callable[[str], None],
) -> bool:
    """Compare the layers with PyTorch; where one differs by more than rounding explains, say so on standard error."""
    from convert.verify import cross_check

    passed = True
    for layer, check in zip(layers, cross_check(model, checkpoint, samples, layers, padding), strict=True):
        difference = f"max |JAX - PyTorch| = {check.max_abs:.1e} over {check.positions:,} positions"
        limits = f"from float64, RMS: ours {check.ours_to_float64:.1e}, PyTorch {check.torch_to_float64:.1e}"
        say(f"check    layer {layer}: {difference} ({limits})")
        if not check.passed:
            why = "differs from PyTorch more than rounding explains; nothing trained"
            print(f"failed: layer {layer} {why}", file=sys.stderr)
        passed = passed and check.passed
    return passed


class FromText:
    """Rows that a model makes of text."""

    def __init__(self, args: argparse.Namespace, data: DataConfig, paths: list[str]) -> None:
        from convert import read_checkpoint
        from jaxsae.text.loading import fingerprint, has_samples, load_samples
        from jaxsae.text.samples import check_samples, kept_positions

        self.args, self.data, self.paths = args, data, paths
        self.checkpoint = read_checkpoint(data.checkpoint)
        shape = self.checkpoint.config
        self.checkpoint_sha256: str | None = self.checkpoint.sha256
        self.d_in, self.layers = shape.d_model, arguments.layers_of(args.layer, list(range(shape.n_layers)))
        for layer in self.layers:
            shape.check_layer(layer)
        self.samples = inputs.text(data)
        # what can be wrong with the text that figures are measured on is found before the work
        self.held_out = load_samples(paths[0], "test", HELD_OUT_SAMPLES) if has_samples(paths[0], "test") else None
        for samples in (self.samples, self.held_out or self.samples):
            check_samples(samples, shape.vocab_size, shape.max_position)
        self.origin = {
            "split": data.split,
            "max_samples": len(self.samples),
            "padding": data.padding,
            "model_sha256": self.checkpoint.identity,
            "dataset_sha256": ",".join(map(fingerprint, paths)),
        }
        self.total = int(kept_positions(self.samples, data.padding).sum())
        self.needed = 4 * self.total * self.d_in * len(self.layers)
        self.origin["streamed"] = self.needed > args.memory_limit

    def load(self, say: Callable[[str], None], cleanup: contextlib.ExitStack) -> Loaded | None:
        """Cross-check and extract; None where the check fails."""
        data, shape, samples = self.data, self.checkpoint.config, self.samples
        asked = None if data.max_samples is None else data.max_samples * len(self.paths)
        fewer = "" if asked in (None, len(samples)) else f" (all there are; {asked} asked for)"
        size = f"{shape.n_layers} layers, d_model {shape.d_model}, vocabulary {shape.vocab_size:,}"
        say(f"model    {data.checkpoint}: {size}")
        say(
            f"text     {data.dataset}, {data.split}: {len(samples):,} samples{fewer}, {samples.mask.sum():,} characters"
        )
        model, verified = self.checkpoint.model(n_layers=max(self.layers) + 1), samples[: self.args.verify]
        if self.args.verify and not passes_cross_check(
            model, self.checkpoint, verified, self.layers, data.padding, say
        ):
            return None
        del self.checkpoint
        runtime.give_back_memory()  # PyTorch's
        return self._extract(model, say, cleanup)

    def _extract(self, model: RestorationModel, say: Callable[[str], None], cleanup: contextlib.ExitStack) -> Loaded:
        from jaxsae.activations import store
        from jaxsae.activations.extraction import extract
        from jaxsae.files import temporary_beside

        args, data, layers, total, needed = self.args, self.data, self.layers, self.total, self.needed
        with terminal.Progress("extract ", total, "rows", args.quiet).shown() as progress:
            if not self.origin["streamed"]:
                given = (model, self.samples, layers, data.padding)
                rows: Mapping[int, AnyRows] = extract(*given, on_rows=progress.advance).values
            else:
                say(f"rows     {memory(needed)} is above --memory-limit {memory(args.memory_limit)}: they go to disk")
                folder = cleanup.enter_context(temporary_beside(Path(args.output) / "rows")) / "store"
                store.write(folder, model, self.samples, layers, data.padding, {}, on_rows=progress.advance)
                rows = store.open_stores([str(folder)], layers[0]).layers
        of = f" of {len(layers)} layers" if len(layers) > 1 else ""
        say(f"rows     {total:,}{of}, of width {self.d_in}, padding {data.padding}, {progress.rate:,.0f} rows/s")
        if self.held_out is None:
            return rows, rows, "training rows"
        scored = extract(model, self.held_out, layers, data.padding).values
        return rows, scored, f"test split, first {len(self.held_out)} samples"


class FromStores:
    """Rows that were extracted before, or come from elsewhere."""

    def __init__(self, args: argparse.Namespace, data: DataConfig, paths: list[str]) -> None:
        from jaxsae.activations.store import fingerprint, model_of

        self.args, self.paths = args, paths
        # `all`, or a layer that is not there, is told after what there is
        named = [0] if args.layer == "all" else arguments.layers_of(args.layer, [])
        found = inputs.rows(args, data, named[0])
        self.layers = arguments.layers_of(args.layer, sorted(found.layers))
        self.found, self.d_in = found.only(self.layers).layers, found.d_in
        self.origin = {key: found.about.get(key) for key in ("split", "max_samples", "padding")}
        if found.max_samples is not None:
            self.origin["max_samples"] = found.max_samples
        self.origin["model_sha256"] = model_of(found.about)
        self.checkpoint_sha256 = found.about.get("checkpoint_sha256")
        if hasattr(args, "checkpoint"):
            self._of(data.checkpoint)
        self.origin["dataset_sha256"] = ",".join(fingerprint(path, self.layers) for path in paths)
        self.needed = sum(rows.nbytes for rows in self.found.values())
        self.origin["streamed"] = self.needed > args.memory_limit

    def _of(self, path: str) -> None:
        """Take it that the rows are of this checkpoint, where they do not say another."""
        from convert import read_checkpoint

        checkpoint, said = read_checkpoint(path), self.origin["model_sha256"]
        ok = said in (None, checkpoint.identity, checkpoint.sha256)
        require(
            ok,
            f"--checkpoint must be the one that the rows are of ({str(said)[:12]}...), got {path} "
            f"({checkpoint.identity[:12]}...); leave it out, or give theirs",
        )
        width = checkpoint.config.d_model
        if self.d_in != width:
            print(f"note     rows of width {self.d_in} are not of {path}, whose d_model is {width}: of no known model")
            return
        self.origin["model_sha256"], self.checkpoint_sha256 = checkpoint.identity, checkpoint.sha256

    def load(self, say: Callable[[str], None], cleanup: contextlib.ExitStack) -> Loaded:
        """Into memory where they fit."""
        import jax.numpy as jnp

        n, limit = len(self.found[self.layers[0]]), self.args.memory_limit
        of = f" of {len(self.layers)} layers" if len(self.layers) > 1 else ""
        say(f"stored   {', '.join(self.paths)}: {n:,} rows{of}, of width {self.d_in}, not cross-checked")
        rows: Mapping[int, AnyRows] = self.found
        if not self.origin["streamed"]:
            rows = {layer: jnp.asarray(of_layer[:]) for layer, of_layer in self.found.items()}
        else:
            say(
                f"rows     {memory(self.needed)} is above --memory-limit {memory(limit)}: they are read as they are used"
            )
        if n <= SCORED_ROWS:
            return rows, rows, "training rows"
        scored = {layer: jnp.asarray(of_layer[:SCORED_ROWS]) for layer, of_layer in self.found.items()}
        return rows, scored, f"first {SCORED_ROWS:,} training rows"


def memory(size: float) -> str:
    """Bytes as people say them."""
    return f"{size / 2**30:.1f} GB" if size >= 2**29 else f"{size / 2**20:.0f} MB"


def size(text: str) -> int:
    """`2GB`, `500MB` -> bytes."""
    units = {"GB": 2**30, "MB": 2**20}
    number, unit = (text[:-2], text[-2:].upper()) if text[-2:].upper() in units else (text, "")
    if not unit or not number.replace(".", "", 1).isdigit():
        raise argparse.ArgumentTypeError(f"must be like 2GB or 500MB, got {text}")
    return int(float(number) * units[unit])


def write_results(target: Path, trained: Trained, result: Score, report: dict, rows_scored: str, *, keep: bool) -> None:
    """The SAE, its figures and its picture; an older SAE of other settings is kept under another name, if asked to."""
    from convert import save_sae
    from jaxsae.files import atomic_path, sha256, to_json
    from jaxsae.train.figures import training_figure

    config, layer = trained.config, report["layer"]
    size = f"{config.d_sae:,} latents, L0 {result.l0:.1f}, FVU {result.fvu:.3g}"
    title = f"Layer {layer}: {config.architecture}, {size}"
    extra: dict[str, object] = {"layer": layer, "hook_name": f"blocks.{layer}.hook_resid_post"}
    extra |= {name: report[name] for name in ("model_sha256", "checkpoint_sha256") if report[name] is not None}
    # all are written before the first takes its name, the SAE the last
    with (
        atomic_path(target) as pt,
        atomic_path(target.with_suffix(".json")) as text,
        atomic_path(target.with_suffix(".png")) as png,
    ):
        save_sae(pt, trained.sae, config, report["losses"], extra)
        training_figure(png, title, report["losses"], result.density, rows_scored)
        # by its fingerprint the figures are known to be of this very SAE
        text.write_text(to_json(report | {"sae_sha256": sha256(pt)}, indent=2))
        if keep:  # only now that nothing more can fail: until then the older one stays as it was
            keep_older(target, report["settings"])


def made_of(target: Path) -> dict | None:
    """The settings that a file was made with; None where it is not there, or not known what it is."""
    from jaxsae.files import sha256

    try:
        report = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        return report["settings"] if report["sae_sha256"] == sha256(target) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--layer",
        default="8",
        metavar="L[,L...]",
        help="0-based: the residual stream after this block; several, or all",
    )
    parser.add_config(DataConfig)
    parser.add_config(TrainConfig, lists=tuple(LISTS))
    parser.add_argument(
        "--memory-limit",
        type=size,
        default=runtime.memory_of_machine() // 2,
        metavar="SIZE",
        help="rows that take more, such as 2GB, stay on disk; default: half of what there is for this process",
    )
    arguments.add_device(parser)
    parser.add_argument(
        "--verify", type=int, default=1, metavar="N", help="samples cross-checked against PyTorch first; 0 = none"
    )
    parser.add_argument("--output", default="checkpoints/sae_results", metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a result made with other settings, and drop an unfinished run"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with an unfinished run of the same settings; begin where there is none",
    )
    parser.add_argument(
        "--save-every",
        type=float,
        default=10.0,
        metavar="S",
        help="save the state at the end of an epoch once so many seconds have passed; 0: of every epoch",
    )
    parser.add_argument(
        "--log", choices=tuple(LOGGERS), help="tell the metrics to this as well; metrics.jsonl has them always"
    )
    parser.add_argument("--quiet", action="store_true", help="only the last lines")
