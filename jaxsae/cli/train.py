"""Train sparse autoencoders on the residual stream of one or more layers; write sae_layer{L}_optimized.pt, .json, .png.

Several layers, penalties, ks, target L0s or seeds: one pass through the model, and one batched step for all of them.
--dataset may name several, separated by commas; or folders of extracted rows and .npy files of rows.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsae import runtime
from jaxsae.cli import arguments, inputs, launch, process, terminal
from jaxsae.cli.train_results import is_dense, say_all, say_one
from jaxsae.config import FILE_TAGS, LOGGERS, DataConfig, MeshShape, TrainConfig
from jaxsae.errors import require
from jaxsae.models.hooks import hook_names, hook_of, hook_point

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from convert.reference_process import ReferenceProcess
    from jaxsae.models.protocol import ResidualModel
    from jaxsae.train.events import Event
    from jaxsae.train.plan import Part
    from jaxsae.train.sources import RunRows, Say, StoreSource, TextSource

LISTS = ("l1_coef", "k_sparse", "target_l0", "seed")
"""Settings whose flags take several values."""
HELD_OUT_SAMPLES = 20
"""Samples of the test split that the printed figures are measured on."""


def main(args: argparse.Namespace) -> int:
    """Train all SAEs in one pass through the model; `train_run` compares it with PyTorch first."""
    from jaxsae import processes

    began = time.monotonic()
    configs = configs_by_file_suffix(args)
    data = inputs.data_config(args)
    check_flags(args)

    def say(line: str) -> None:
        if not args.quiet:
            print(line, flush=True)

    is_rows = inputs.is_rows(data.dataset)
    with contextlib.ExitStack() as stack:
        runtime.lean_memory()  # before there are threads
        first = processes.is_first()
        compares = first and args.verify and not is_rows and not inputs.is_foreign(data)
        if compares and inputs.has_torch():  # which takes as long to load as all that follows
            from convert.reference_process import ReferenceProcess

            process = stack.enter_context(ReferenceProcess())
        else:
            process = None
        args.quiet |= not first
        runtime.select_device(args.device)
        from convert import save_sae
        from jaxsae.train.run import train_run

        source = rows_source(args, data) if is_rows else text_source(args, data, configs.values(), say, process)
        shown = Shown(source, stack, args.quiet, say)
        run = train_run(
            source,
            configs,
            args.output,
            save=save_sae,
            resume=args.resume,
            overwrite=args.overwrite,
            save_every=args.save_every,
            log=args.log,
            mesh=args.mesh,
            stopping=lambda: shown.stop.signal,
            say=say,
            on_rows=shown.rows_made,
            on_loaded=shown.loaded,
            listen=shown.listen,
            command=[Path(sys.argv[0]).name, *sys.argv[1:]],
            began=began,
        )
        if run.stopped:
            shown.stop.signal = run.stopped  # which may have come to another process
            print("stopped  the state is saved; the same command with --resume goes on", file=sys.stderr)
            return 0  # the signal is raised now
    if not processes.is_first() or not run.results:
        return 0
    if not any(result.trained for result in run.results):
        there = ", ".join(str(result.file) for result in run.results)
        print(f"complete {there}: nothing is left to do; without --resume it is trained anew")
        return 0
    for file, kept in ((result.file, result.kept) for result in run.results if result.kept):
        print(f"kept     the older {file.name}, of other settings, as {kept.name}")
    if len(run.results) == 1:
        say_one(run.results[0], run.scored_on)
    else:
        say_all(run.results, run.scored_on)
    if not is_rows:
        inputs.note_whose(args, data)
    if not is_rows and not is_dense(run.results[0].report):  # whose features cannot be read
        print(f"next     {arguments.typed(args, 'inspect', '--sae', run.results[0].file)}")
    return 0


def configs_by_file_suffix(args: argparse.Namespace) -> dict[str, TrainConfig]:
    """A config for each combination of listed values, by the suffix of its SAE's file name; one alone has none."""
    given = vars(args)
    lists = {name: given[name] for name in LISTS if name in given}
    configs = {}
    for chosen in itertools.product(*lists.values()):
        values = dict(zip(lists, chosen, strict=True))
        tag = "".join(f"_{FILE_TAGS[name]}{typed}" for name, (typed, _) in values.items() if len(lists[name]) > 1)
        flags = argparse.Namespace(**given | {name: value for name, (_, value) in values.items()})
        configs[tag] = arguments.config_from(flags, TrainConfig)
    return configs


def check_flags(args: argparse.Namespace) -> None:
    """Raise `InputError` for what can be wrong before anything is loaded."""
    if getattr(args, "layer", "") != "all":
        arguments.points_of(args, [])
    require(args.verify >= 0, f"verify must be at least 0, got {args.verify}")
    require(0 <= args.save_every < float("inf"), f"save_every must be at least 0 seconds, got {args.save_every:g}")
    output = Path(args.output)
    require(not output.exists() or output.is_dir(), f"--output must be a folder, got the file {output}")
    if args.log:
        package = LOGGERS[args.log]
        installed = importlib.util.find_spec(package) is not None
        require(
            installed, f"--log {args.log} needs the package {package}, which is not installed; pip install {package}"
        )


SMALL_MODEL = 2**25
"""Bytes of a model that gets ready while PyTorch still loads: what it takes is little beside that."""
BESIDE = 8
"""Samples that are packed together with those that are cross-checked."""


def text_source(
    args: argparse.Namespace,
    data: DataConfig,
    configs: Collection[TrainConfig],
    say: Say,
    process: ReferenceProcess | None,
) -> TextSource:
    """A model, and the text that it reads; PyTorch reads the samples to check in its process, if there is one."""
    from convert.checkpoints import Checkpoint
    from convert.own_replica import OwnReplica
    from jaxsae.train.sources import TextSource

    checkpoint, paths = inputs.checkpoint(data, say), inputs.paths_of(data.dataset)
    shape = checkpoint.config
    samples, datasets = inputs.text(data, shape), shape.datasets
    layers, hook = arguments.points_of(args, range(shape.n_layers))
    checkpoint, hook = inputs.read_at(checkpoint, hook, layers)
    has_test = datasets.has_samples(paths[0], "test")
    held_out = datasets.load_several(paths[:1], "test", HELD_OUT_SAMPLES) if has_test else None
    asked = None if data.max_samples is None else data.max_samples * len(paths)
    fewer = "" if asked in (None, len(samples)) else f" (all there are; {asked} asked for)"
    size = f"{shape.n_layers} layers, d_model {shape.d_model}, vocabulary {shape.tokenizer.vocab_size:,}"
    checked, is_own = samples[: args.verify], isinstance(checkpoint, OwnReplica)
    beside = samples[args.verify : args.verify + BESIDE] if data.padding == "drop" else None

    def check(build: Callable[[], ResidualModel]) -> ResidualModel:
        stored = checkpoint.tensors.values() if isinstance(checkpoint, Checkpoint) else ()
        if pytorch is not None and sum(tensor.nbytes for tensor in stored) > SMALL_MODEL:
            with terminal.working("check   ", args.quiet):
                pytorch.result()  # first, so that the two do not hold memory at the same time
        model = build()
        say(f"model    {data.checkpoint}: {size}")
        characters = f"{samples.real.sum():,} {shape.tokenizer.unit}s"
        say(f"text     {data.dataset}, {data.split}: {len(samples):,} samples{fewer}, {characters}")
        if not isinstance(checkpoint, Checkpoint):
            how = (
                "your own replica; jaxsae verify --reference compares it" if is_own else "PyTorch itself runs the model"
            )
            say(f"check    none: {how}")
        elif args.verify and not inputs.has_torch():
            say(f"check    not checked: torch is not here; {inputs.GET_TORCH}")
        elif pytorch is not None:
            from convert.verify import cross_check, require_parity

            with terminal.working("check   ", args.quiet):
                checks = cross_check(model, checkpoint, checked, layers, data.padding, asked=pytorch, beside=beside)
            for one in checks:
                difference = f"max |JAX - PyTorch| = {one.max_abs:.1e} over {one.positions:,} positions"
                limits = f"from float64, RMS: ours {one.ours_to_float64:.1e}, PyTorch {one.torch_to_float64:.1e}"
                say(f"check    layer {one.layer}: {difference} ({limits})")
            require_parity(checks)
        return model

    wishes = [config.denoise or config.denoises_by_itself for config in configs]
    source = TextSource(
        checkpoint,
        samples,
        layers,
        hook=hook,
        held_out=held_out,
        padding=data.padding,
        split=data.split,
        dataset_sha256=",".join(map(datasets.fingerprint, paths)),
        check=check,
        memory_limit=args.memory_limit,
        denoise=any(wishes),
    )
    if any(wishes) and not source.paired:
        say("denoise  off: no text is damaged, or twice the rows do not fit into the memory of one process")
    # after what can be wrong with the text is found
    pytorch = None
    if process is not None and isinstance(checkpoint, Checkpoint):
        pytorch = process.ask(checkpoint, checked, layers, data.padding, of=str(hook))
    return source


def rows_source(args: argparse.Namespace, data: DataConfig) -> StoreSource:
    """Rows that were extracted before, or come from elsewhere."""
    from jaxsae.activations.store import fingerprint
    from jaxsae.train.sources import StoreSource

    paths = inputs.paths_of(data.dataset)
    # `all`, or a layer that is not there, is said after what there is
    every = getattr(args, "layer", "") == "all"
    found = inputs.open_stored_rows(args, data, 0 if every else arguments.points_of(args, [])[0][0])
    if len(found.layers) == 1 and not hasattr(args, "layer") and not hasattr(args, "hook"):
        args.layer = str(next(iter(found.layers)))
    layers, hook = arguments.points_of(args, sorted(found.layers))
    asked = hasattr(args, "hook") or any(hook_point(part.strip()) for part in getattr(args, "layer", "").split(","))
    require(
        not asked or found.hook_names(layers) == hook_names(hook, layers),
        f"--hook must be that of the stored rows, {', '.join(found.hook_names(layers).values())}; leave it out",
    )
    checkpoint = inputs.checkpoint(data) if hasattr(args, "checkpoint") else None
    if checkpoint is not None:
        checkpoint, _ = inputs.read_at(checkpoint, hook_of(found.hook_names(layers)), layers)
    if checkpoint is not None and checkpoint.config.d_model != found.d_in:
        width = checkpoint.config.d_model
        print(
            f"note     rows of width {found.d_in} are not of {data.checkpoint}, whose d_model is {width}: "
            "of no known model"
        )
        checkpoint = None
    return StoreSource(
        found.only(layers),
        name=", ".join(paths),
        dataset_sha256=",".join(fingerprint(path, layers) for path in paths),
        checkpoint=checkpoint,
        memory_limit=args.memory_limit,
    )


def forget_compiled() -> None:
    """Let go of the programs that were compiled so far: what comes next has others. Not for a process of other work."""
    import jax

    jax.clear_caches()
    runtime.give_back_memory()


class Shown:
    """What is seen of a run while it goes on: lines, and the progress of extraction and training."""

    def __init__(self, source: TextSource | StoreSource, stack: contextlib.ExitStack, quiet: bool, say: Say) -> None:
        self.source, self.stack, self.quiet, self.say = source, stack, quiet, say
        self.phase = stack.enter_context(contextlib.ExitStack())
        self.progress: terminal.Progress | None = None
        self.stop = process.Stop()
        self.epoch_steps, self.done_of = 0, Counter[Any]()

    def _begin(self, title: str, total: int, unit: str) -> terminal.Progress:
        self.phase.close()
        return self.phase.enter_context(terminal.Progress(title, total, unit, self.quiet).shown())

    def rows_made(self, rows: int) -> None:
        """Rows were extracted."""
        if self.progress is None:
            total = getattr(self.source, "total", 0) * (2 if self.source.paired else 1)
            self.progress = self._begin("extract ", total, "rows")
        self.progress.advance(rows)

    def loaded(self, rows: RunRows) -> None:
        """All rows are there: training begins, and from now on a signal waits until the state is saved."""
        forget_compiled()
        of = f" of {len(self.source.layers)} layers" if len(self.source.layers) > 1 else ""
        if self.progress is not None:
            n, padding, rate = len(next(iter(rows.train.values()))), self.source.origin["padding"], self.progress.rate
            self.phase.close()
            beside = ", beside each that of the undamaged text" if self.source.paired else ""
            self.say(f"rows     {n:,}{of}, of width {self.source.d_in}, padding {padding}, {rate:,.0f} rows/s{beside}")
        self.stack.enter_context(process.stop_later(self.stop))

    def listen(self, event: Event) -> None:
        """Print a line, or move the progress bar, for an event of training."""
        from jaxsae.train.events import Begin, EpochEnd, Finished, PartEnd, Resumed, StepEnd

        if isinstance(event, Begin):
            self.epoch_steps = event.epoch_steps
            self.progress = self._begin("train   ", sum(part.steps for part in event.parts), "steps")
        assert self.progress is not None
        if isinstance(event, Resumed):
            self.say(f"resumed  epoch {event.position.epoch}, step {event.position.done + 1}")
            self._skip(event.part, (event.position.epoch - 1) * self.epoch_steps + event.position.done)
        elif isinstance(event, StepEnd):
            self.done_of[event.part] += 1
            self.progress.advance()
        elif isinstance(event, EpochEnd):
            number, loss, l0 = event.epoch
            self.progress.advance(0, f"epoch {number}  loss {loss:.5f}  L0 {l0:.1f}")
        elif isinstance(event, Finished):
            forget_compiled()
        elif isinstance(event, PartEnd):
            # what was trained before, or has stopped early
            self._skip(event.part, event.part.steps - self.done_of[event.part])

    def _skip(self, part: Part, steps: int) -> None:
        assert self.progress is not None
        self.done_of[part] += steps
        self.progress.skip(steps)


def size(text: str) -> int:
    """`2GB`, `500MB` -> bytes."""
    units = {"GB": 2**30, "MB": 2**20}
    number, unit = (text[:-2], text[-2:].upper()) if text[-2:].upper() in units else (text, "")
    if not unit or not number.replace(".", "", 1).isdigit():
        raise argparse.ArgumentTypeError(f"must be like 2GB or 500MB, got {text}")
    return int(float(number) * units[unit])


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    arguments.add_layers(parser)
    parser.add_config(DataConfig)
    parser.add_config(TrainConfig, lists=LISTS)
    parser.add_argument(
        "--memory-limit",
        type=size,
        metavar="SIZE",
        help="rows that take more, such as 2GB, stay on disk; default: half of what there is for each process here",
    )
    arguments.add_device(parser)
    parser.add_argument(
        "--mesh",
        type=arguments.checked(MeshShape.parse),
        metavar="data=N,latents=M",
        help="divide the training of each SAE over N x M devices: batches by rows, the SAE by latents; default: what there "
        "is, several SAEs first",
    )
    launch.add_flags(parser)
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
