"""Train a restoration model on damaged text; write best_model.pt and last_model.pt in the original format."""

import argparse
import dataclasses
import json
import sys
import time
from functools import partial
from pathlib import Path

from jaxsae import runtime
from jaxsae.cli import arguments, process, terminal
from jaxsae.config import DataConfig, PretrainConfig
from jaxsae.errors import require
from jaxsae.models.restoration_config import ModelConfig

SAVE_EVERY = 60.0
"""Seconds: so long after a save the next is made within the epoch."""
SHAPE = ("d_model", "n_heads", "d_ff", "n_layers", "dropout")


def main(args: argparse.Namespace) -> None:
    """Train in a folder that no other run writes to."""
    recipe, dataset = arguments.config_from(args, PretrainConfig), arguments.config_from(args, DataConfig).dataset
    output = Path(args.output)
    from jaxsae.files import exclusive

    with exclusive(output):
        anew = args.resume or not any(output.iterdir())
        require(anew, f"--output must be empty, got {output}; give --resume to go on there, or another folder")
        runtime.select_device(args.device)
        train(args, recipe, dataset, output)


def train(args: argparse.Namespace, recipe: PretrainConfig, dataset: str, output: Path) -> None:
    """Train, saving after each epoch; the best by validation loss stays."""
    import numpy as np

    from convert.checkpoints import write_checkpoint
    from convert.families import to_torch
    from jaxsae.demo.dataset import ensure_demo
    from jaxsae.files import write_json
    from jaxsae.models import pretrain, pretrain_data
    from jaxsae.text.loading import fingerprint, load_samples
    from jaxsae.train.states import States

    ensure_demo(dataset)
    train, validation = (load_samples(dataset, split) for split in ("train", "validation"))
    highest = max(int(part.max()) for samples in (train, validation) for part in (samples.ids, samples.labels))
    shape = {name: vars(args)[name] for name in SHAPE if name in vars(args)}
    config = ModelConfig(vocab_size=highest + 1, max_position=train.ids.shape[1], **shape)
    dtype = np.float16 if args.half else np.float32
    meta = {
        "config": dataclasses.asdict(config),
        "recipe": dataclasses.asdict(recipe),
        "dataset_sha256": fingerprint(dataset),
    }

    characters = pretrain_data.CharacterSet.of(train, validation)
    start, at = None, pretrain.BEGIN
    best = float("inf")
    history: list[dict] = []
    states = States(output / "state", meta)
    if args.resume:
        like = partial(pretrain.initial_state, config, recipe, train.lengths, characters)
        found = states.load(lambda position: like(position["layers_of_epoch"]))
        if found is not None:
            position, start = found
            at = pretrain.TrainingPlace(*position["at"])
            told = output / "training.json"
            history = json.loads(told.read_text())["epochs"][: at.epoch - 1] if told.exists() else []
            best = min((row["loss"] for row in history), default=best)
            print(f"resuming in epoch {at.epoch}, after {len(at.figures)} steps")
        elif output.exists() and any(path for path in output.iterdir() if not path.name.startswith(".")):
            ours = made_by(output / "training.json", meta)
            require(ours, f"to resume there must be a saved state, got none in {output}, and files of something else")
    chars = int(train.lengths.sum())
    print(f"model    {config.n_layers} layers, d_model {config.d_model}, vocabulary {config.vocab_size:,}")
    print(
        f"text     {dataset}: {len(train):,} samples, {chars:,} characters; {len(validation):,} for validation",
        flush=True,
    )

    began = saved = time.monotonic()

    def save(state: pretrain.PretrainState, layers_of_epoch: int, at: pretrain.TrainingPlace) -> None:
        nonlocal saved
        states.save(int(state.step), state, {"layers_of_epoch": layers_of_epoch, "at": at})
        states.wait()
        saved = time.monotonic()

    left = chars * (recipe.epochs - at.epoch + 1)
    with process.stop_later() as stopping, terminal.Progress("train   ", left, "chars", args.quiet).shown() as progress:

        def pause() -> bool:
            return stopping() > 0 or time.monotonic() - saved > SAVE_EVERY

        given = (config, recipe, train, validation, characters, start, at, pause, progress.advance)
        for state, result in pretrain.pretrain(*given):
            if isinstance(result, pretrain.TrainingPlace):
                save(state, result.epoch, result)
            else:
                # first whose the folder is, last the state: killed in between, the epoch is done again
                history.append({**result._asdict(), "seconds": time.monotonic() - began})
                write_json(output / "training.json", {**meta, "epochs": history})
                params = pretrain.to_params(state.parts, config, characters)
                tensors = to_torch({path: p.astype(dtype) for path, p in params.items()}, config)
                write_checkpoint(output / "last_model.pt", config, tensors)
                if result.loss < best:
                    best = result.loss
                    write_checkpoint(output / "best_model.pt", config, tensors)
                save(state, result.epoch, pretrain.TrainingPlace(result.epoch + 1, []))
                losses = f"train {result.train_loss:.4f}  validation {result.loss:.4f}"
                note = f"epoch {result.epoch}  {losses}  top-1 {result.top1:.1%}"
                progress.advance(0, note)
                if not args.quiet:
                    progress.console.print(note)
            if stopping():
                print("stopped  the state is saved; the same command with --resume goes on", file=sys.stderr)
                return  # the signal is raised now
    print(f"trained  {len(history)} epochs, best validation loss {best:.4f}, {progress.rate:,.0f} characters/s")
    print(f"wrote    {output / 'best_model.pt'}, last_model.pt, training.json")


def made_by(record: Path, meta: dict) -> bool:
    """Whether a training.json is of that run."""
    try:
        told = json.loads(record.read_text(encoding="utf-8"))
        return all(told[name] == value for name, value in json.loads(json.dumps(meta)).items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
    parser.add_config(DataConfig, only=("dataset",))
    parser.add_config(PretrainConfig)
    defaults = {field: ModelConfig.__dataclass_fields__[field].default for field in SHAPE}
    for name, default in defaults.items():
        kind = float if name == "dropout" else int
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=argparse.SUPPRESS, help=f"of the model (default: {default})")
    arguments.add_device(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the checkpoints")
    parser.add_argument("--half", action="store_true", help="write float16 weights: half the size")
    parser.add_argument("--resume", action="store_true", help="go on after the last epoch saved in the output folder")
    parser.add_argument("--quiet", action="store_true", help="only the last lines")
