#!/usr/bin/env python3
"""Train a sparse autoencoder on the residual stream of one layer; write sae_layer{L}_optimized.pt, .json and .png."""

import argparse

from jaxsae import cli
from jaxsae.config import DataConfig, InputError, TrainConfig, require

HELD_OUT_SAMPLES = 20
"""Samples of the test split that the printed figures are measured on."""


def main(args: argparse.Namespace) -> int:
    """Load, cross-check, extract, train, score, write."""
    import dataclasses
    import json
    import sys
    import time
    from importlib.metadata import version
    from pathlib import Path

    began = time.monotonic()
    data = cli.config_from(args, DataConfig)
    given = vars(args)
    require(
        not {"l1_coef", "k_sparse"} <= given.keys(),
        "give either --l1-coef or --k-sparse, got both: a TopK has no L1 penalty",
    )
    config = cli.config_from(args, TrainConfig, **({"architecture": "topk"} if "k_sparse" in given else {}))
    require(args.layer >= 0, f"layer must be at least 0, got {args.layer}")
    require(args.verify >= 0, f"verify must be at least 0, got {args.verify}")
    output = Path(args.output)
    require(not output.exists() or output.is_dir(), f"--output must be a folder, got the file {output}")

    cli.select_device(args.device)
    from convert import read_checkpoint, save_sae
    from jaxsae import demo, extract, load_samples, score, train_sae
    from jaxsae.files import sha256, whole

    def say(line: str) -> None:
        if not args.quiet:
            print(line, flush=True)

    checkpoint = read_checkpoint(data.checkpoint)
    checkpoint.config.check_layer(args.layer)
    d_in = checkpoint.config.d_model
    sae_config = config.sae(d_in)
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
    target = output / f"sae_layer{args.layer}_optimized.pt"
    check_overwrite(target, settings, args.overwrite)

    shape = checkpoint.config
    say(
        f"model    {data.checkpoint}: {shape.n_layers} layers, d_model {shape.d_model}, vocabulary {shape.vocab_size:,}"
    )
    fewer = (
        ""
        if data.max_samples is None or len(samples) == data.max_samples
        else f" (all there are; {data.max_samples} asked for)"
    )
    say(
        f"text     {data.dataset}, {data.split}: {len(samples):,} samples{fewer}, {int(samples.mask.sum()):,} characters"
    )

    model = checkpoint.model()
    if args.verify:
        from convert.verify import cross_check

        [check] = cross_check(model, checkpoint, samples[: args.verify], [args.layer], data.padding)
        limits = f"float64: ours {check.ours_to_float64:.1e} away (RMS), PyTorch {check.torch_to_float64:.1e}"
        say(
            f"check    layer {check.layer}: max |JAX - PyTorch| = {check.max_abs:.1e} over {check.positions:,} positions ({limits})"
        )
        if not check.passed:
            print(
                f"failed: layer {args.layer} of the replica differs from PyTorch more than rounding explains; nothing trained",
                file=sys.stderr,
            )
            return 1
    del checkpoint

    total = int((samples.mask != 0).sum()) if data.padding == "drop" else samples.mask.size
    with cli.Progress("extract ", total, "rows", args.quiet).shown() as progress:
        rows = extract(model, samples, [args.layer], data.padding, on_rows=progress.advance).values[args.layer]
    say(f"rows     {len(rows):,} of width {d_in}, padding {data.padding}, {progress.rate:,.0f} rows/s")
    try:
        held_out = load_samples(data.dataset, "test", HELD_OUT_SAMPLES)
    except InputError:
        scored_rows, rows_scored = rows, "training rows"
    else:
        scored_rows = extract(model, held_out, [args.layer], data.padding).values[args.layer]
        rows_scored = f"test split, first {len(held_out)} samples"
    del model

    steps = len(rows) // config.batch_size
    with cli.Progress("train   ", config.epochs * steps, "steps", args.quiet).shown() as progress:
        trained = train_sae(
            rows,
            config,
            on_step=lambda done: progress.advance(),
            on_epoch=lambda e: progress.advance(0, f"epoch {e.number}  loss {e.loss:.5f}  L0 {e.l0:.1f}"),
        )
    losses = [epoch.loss for epoch in trained.epochs]
    result = score(trained.sae, sae_config.k, scored_rows)
    seconds = time.monotonic() - began

    report = {
        "layer": args.layer,
        "architecture": sae_config.architecture,
        "l0": result.l0,
        "fvu": result.fvu,
        "dead": result.dead,
        "rows_scored": f"{rows_scored} ({result.rows} rows)",
        "final_loss": losses[-1],
        "epochs": len(losses),
        "losses": losses,
        "l0_of_epoch": [epoch.l0 for epoch in trained.epochs],
        "seconds": seconds,
        "steps_per_second": progress.rate,
        "peak_memory_bytes": cli.peak_memory(),
        "rows": len(rows),
        "d_in": d_in,
        "d_sae": sae_config.d_sae,
        "seed": config.seed,
        "checkpoint_sha256": settings["checkpoint_sha256"],
        "settings": settings,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {name: version(name) for name in ("jaxsae", "jax", "jaxlib", "flax", "optax", "numpy", "torch")},
    }
    extra = {
        "layer": args.layer,
        "hook_name": f"blocks.{args.layer}.hook_resid_post",
        "checkpoint_sha256": settings["checkpoint_sha256"],
    }
    from jaxsae.figures import training_figure

    with whole(target.with_suffix(".png")) as png:
        title = f"Layer {args.layer}: {sae_config.architecture}, {sae_config.d_sae:,} latents, L0 {result.l0:.1f}, FVU {result.fvu:.4f}"
        training_figure(png, title, losses, result.density, rows_scored)
    with whole(target.with_suffix(".json")) as text:
        text.write_text(json.dumps(report, indent=2))
    save_sae(target, trained.sae, sae_config, losses, extra)

    stopped = "" if len(losses) == config.epochs else f" (no new lowest loss for {config.patience})"
    print(f"trained  {len(losses)} epochs{stopped}, {progress.rate:,.0f} steps/s, final loss {losses[-1]:.5f}")
    print(
        f"scored   L0 {result.l0:.1f} of {sae_config.d_sae:,}, FVU {result.fvu:.4f}, dead {result.dead:.1%}  ({rows_scored})"
    )
    print(f"took     {seconds:.1f} s, peak memory {report['peak_memory_bytes'] / 2**20:,.0f} MiB")
    print(f"wrote    {target}, .json, .png")
    if result.l0 > sae_config.d_sae / 10:
        print(
            "note     the features are dense: over a tenth of them fire on each row. Try --k-sparse 20, or a higher --l1-coef."
        )
    return 0


def check_overwrite(target, settings: dict, overwrite: bool) -> None:  # type: ignore[no-untyped-def]
    """Refuse to replace what other settings made, unless told to."""
    import json

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
