#!/usr/bin/env python3
"""Train a sparse autoencoder on the residual stream of one layer; write sae_layer{L}_optimized.pt, .json and .png."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsae import cli
from jaxsae.config import MODERN, THRESHOLDED, DataConfig, InputError, TrainConfig, require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Callable

    from jax import Array

    from convert.restoration import Checkpoint
    from jaxsae.data import Samples
    from jaxsae.metrics import Score
    from jaxsae.model import RestorationModel
    from jaxsae.train import Trained

HELD_OUT_SAMPLES = 20
"""Samples of the test split that the printed figures are measured on."""


def main(args: argparse.Namespace) -> int:
    """Load, cross-check, extract, train, score, write."""
    began = time.monotonic()
    data, config = check_flags(args)
    target = Path(args.output) / f"sae_layer{args.layer}_optimized.pt"
    cli.select_device(args.device)
    from convert import read_checkpoint
    from jaxsae import demo, load_samples, score, train_sae
    from jaxsae.files import sha256

    def say(line: str) -> None:
        if not args.quiet:
            print(line, flush=True)

    checkpoint = read_checkpoint(data.checkpoint)
    shape = checkpoint.config
    shape.check_layer(args.layer)
    sae_config = config.sae(shape.d_model)
    demo.ensure_demo(data.dataset)
    samples = load_samples(data.dataset, data.split, data.max_samples)
    settings = {
        "layer": args.layer,
        "split": data.split,
        "max_samples": len(samples),
        "padding": data.padding,
        **dataclasses.asdict(config),
        "checkpoint_sha256": checkpoint.sha256,
        "dataset_sha256": sha256(data.dataset),
    }
    check_overwrite(target, settings, args.overwrite)
    fewer = "" if data.max_samples in (None, len(samples)) else f" (all there are; {data.max_samples} asked for)"
    say(
        f"model    {data.checkpoint}: {shape.n_layers} layers, d_model {shape.d_model}, vocabulary {shape.vocab_size:,}"
    )
    say(f"text     {data.dataset}, {data.split}: {len(samples):,} samples{fewer}, {samples.mask.sum():,} characters")

    model = checkpoint.model()
    if args.verify and not passes_cross_check(model, checkpoint, samples[: args.verify], args.layer, data.padding, say):
        return 1
    del checkpoint
    rows, scored, rows_scored = make_rows(model, samples, args.layer, data, args.quiet, say)
    del model

    steps = config.epochs * (len(rows) // config.batch_size)
    with cli.Progress("train   ", steps, "steps", args.quiet).shown() as progress:
        trained = train_sae(
            rows,
            config,
            on_step=lambda done: progress.advance(),
            on_epoch=lambda e: progress.advance(0, f"epoch {e.number}  loss {e.loss:.5f}  L0 {e.l0:.1f}"),
        )
    result = score(trained.sae, sae_config.k, scored)
    seconds, memory = time.monotonic() - began, cli.peak_memory()
    report = {
        "layer": args.layer,
        "architecture": sae_config.architecture,
        "l0": result.l0,
        "fvu": result.fvu,
        "dead": result.dead,
        "rows_scored": f"{rows_scored} ({result.rows} rows)",
        "l1_coef": trained.config.l1_coef,
        "final_loss": trained.epochs[-1].loss,
        "epochs": len(trained.epochs),
        "losses": [epoch.loss for epoch in trained.epochs],
        "l0_of_epoch": [epoch.l0 for epoch in trained.epochs],
        "seconds": seconds,
        "steps_per_second": progress.rate,
        "peak_memory_bytes": memory,
        "rows": len(rows),
        "d_in": sae_config.d_in,
        "d_sae": sae_config.d_sae,
        "seed": config.seed,
        "checkpoint_sha256": settings["checkpoint_sha256"],
        "settings": settings,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {name: version(name) for name in ("jaxsae", "jax", "jaxlib", "flax", "optax", "numpy", "torch")},
    }
    write_results(target, trained, result, report, rows_scored)

    stopped = "" if len(trained.epochs) == config.epochs else f" (no new lowest loss for {config.patience})"
    print(
        f"trained  {report['epochs']} epochs{stopped}, {progress.rate:,.0f} steps/s, final loss {report['final_loss']:.5f}"
    )
    print(
        f"scored   L0 {result.l0:.1f} of {sae_config.d_sae:,}, FVU {result.fvu:.4f}, dead {result.dead:.1%} ({rows_scored})"
    )
    print(f"took     {seconds:.1f} s, peak memory {memory / 2**20:,.0f} MiB")
    print(f"wrote    {target}, .json, .png")
    if result.l0 > sae_config.d_sae / 10:
        print(
            "note     dense features: over a tenth of them fire on each row. Try --recipe modern --k-sparse 20, "
            "or --target-l0 20 with any architecture."
        )
    return 0


def check_flags(args: argparse.Namespace) -> tuple[DataConfig, TrainConfig]:
    """The configs that the flags describe; what can be wrong before anything is loaded is found here."""
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
    require(args.layer >= 0, f"layer must be at least 0, got {args.layer}")
    require(args.verify >= 0, f"verify must be at least 0, got {args.verify}")
    output = Path(args.output)
    require(not output.exists() or output.is_dir(), f"--output must be a folder, got the file {output}")
    return cli.config_from(args, DataConfig), cli.config_from(args, TrainConfig, **implied)


def passes_cross_check(
    model: RestorationModel,
    checkpoint: Checkpoint,
    samples: Samples,
    layer: int,
    padding: str,
    say: Callable[[str], None],
) -> bool:
    """Compare the layer with PyTorch; where it differs by more than rounding explains, say so on standard error."""
    from convert.verify import cross_check

    [check] = cross_check(model, checkpoint, samples, [layer], padding)
    difference = f"max |JAX - PyTorch| = {check.max_abs:.1e} over {check.positions:,} positions"
    limits = f"from float64, RMS: ours {check.ours_to_float64:.1e}, PyTorch {check.torch_to_float64:.1e}"
    say(f"check    layer {layer}: {difference} ({limits})")
    if not check.passed:
        print(
            f"failed: layer {layer} differs from PyTorch more than rounding explains; nothing trained", file=sys.stderr
        )
    return check.passed


def make_rows(
    model: RestorationModel, samples: Samples, layer: int, data: DataConfig, quiet: bool, say: Callable[[str], None]
) -> tuple[Array, Array, str]:
    """(rows to train on, rows to score on, what the latter are)."""
    from jaxsae import extract, load_samples
    from jaxsae.data import split_names

    total = int((samples.mask != 0).sum()) if data.padding == "drop" else samples.mask.size
    with cli.Progress("extract ", total, "rows", quiet).shown() as progress:
        rows = extract(model, samples, [layer], data.padding, on_rows=progress.advance).values[layer]
    say(f"rows     {len(rows):,} of width {rows.shape[1]}, padding {data.padding}, {progress.rate:,.0f} rows/s")
    if "test" not in split_names(data.dataset):
        return rows, rows, "training rows"
    held_out = load_samples(data.dataset, "test", HELD_OUT_SAMPLES)
    scored = extract(model, held_out, [layer], data.padding).values[layer]
    return rows, scored, f"test split, first {len(held_out)} samples"


def write_results(target: Path, trained: Trained, result: Score, report: dict, rows_scored: str) -> None:
    """The picture, the figures, and last the SAE itself."""
    from convert import save_sae
    from jaxsae.figures import training_figure
    from jaxsae.files import whole

    config, layer = trained.config, report["layer"]
    size = f"{config.d_sae:,} latents, L0 {result.l0:.1f}, FVU {result.fvu:.4f}"
    with whole(target.with_suffix(".png")) as png:
        title = f"Layer {layer}: {config.architecture}, {size}"
        training_figure(png, title, report["losses"], result.density, rows_scored)
    with whole(target.with_suffix(".json")) as text:
        text.write_text(json.dumps(report, indent=2))
    extra = {"layer": layer, "hook_name": f"blocks.{layer}.hook_resid_post"}
    extra["checkpoint_sha256"] = report["checkpoint_sha256"]
    save_sae(target, trained.sae, config, report["losses"], extra)


def check_overwrite(target: Path, settings: dict, overwrite: bool) -> None:
    """Refuse to replace what other settings made, unless told to."""
    if overwrite or not target.exists():
        return
    try:
        older = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{target} exists and what made it is not known; give --overwrite or another --output"
        ) from None
    differ = [name for name in settings if older.get(name) != settings[name]]
    require(not differ, f"{target} exists, made with another {', '.join(differ)}; give --overwrite or another --output")


if __name__ == "__main__":
    parser = cli.Parser(__doc__ or "")
    parser.add_argument("--layer", type=int, default=8, help="0-based: the residual stream after this block")
    parser.add_config(DataConfig)
    parser.add_config(TrainConfig)
    cli.add_device(parser)
    parser.add_argument(
        "--verify", type=int, default=1, metavar="N", help="samples cross-checked against PyTorch first; 0 = none"
    )
    parser.add_argument("--output", default="checkpoints/sae_results", metavar="DIR", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace a result made with other settings")
    parser.add_argument("--quiet", action="store_true", help="only the last lines")
    cli.run(main, parser)
