#!/usr/bin/env python3
"""Train one SAE with another library on given rows; what it saves is read and written as this project's .pt.

Runs in an environment that has the library: pip install '.[rivals]'. The rows are those of compare_rivals.py, which
starts this.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsae.cli import arguments, process

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    import numpy as np
    import torch


def batches(rows: np.ndarray, size: int, seed: int) -> Iterator[torch.Tensor]:
    """The batches of `jaxsae.train.batches`, without end: every epoch a new permutation fixed by (seed, epoch)."""
    import numpy as np
    import torch

    epoch = 0
    while True:
        epoch += 1
        order = np.random.default_rng((seed, epoch)).permutation(len(rows))
        for start in range(0, len(rows) - size + 1, size):
            yield torch.from_numpy(rows[order[start : start + size]])


def saelens(args: argparse.Namespace, rows: np.ndarray, folder: Path) -> float:
    """SAELens as its documentation trains: rows scaled to a mean norm of sqrt(d_in), Adam at a constant 3e-4.

    Its JumpReLU in the default mode, by a penalty. Saves to `folder`; returns the learning rate.
    """
    import torch
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(args.seed)
    shape = {"d_in": rows.shape[1], "d_sae": args.d_sae, "normalize_activations": "expected_average_only_in"}
    if args.architecture == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**shape, k=args.l0))
    elif args.architecture == "batchtopk":
        sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**shape, k=args.l0))
    else:
        sae = JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**shape, l0_coefficient=args.l0_coef))
    lr = args.lr_factor * SAETrainerConfig.lr
    config = SAETrainerConfig(
        total_training_samples=args.steps * args.batch_size,
        train_batch_size_samples=args.batch_size,
        lr=lr,
        lr_end=lr,
    )
    SAETrainer(config, sae, batches(rows, args.batch_size, args.seed)).fit().save_inference_model(folder)
    return lr


def dictionary_learning(args: argparse.Namespace, rows: np.ndarray, folder: Path) -> float:
    """dictionary_learning as its demo trains: rows scaled to a mean square norm of 1, each trainer's own defaults.

    Saves to `folder`; returns the learning rate.
    """
    import torch
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer
    from dictionary_learning.training import get_norm_factor

    kind = {"topk": TopKTrainer, "batchtopk": BatchTopKTrainer, "jumprelu": JumpReluTrainer}[args.architecture]
    sparsity = {"target_l0": args.l0} if args.architecture == "jumprelu" else {"k": args.l0}
    common = {"steps": args.steps, "activation_dim": rows.shape[1], "dict_size": args.d_sae, "layer": 0, "lm_name": ""}
    torch.manual_seed(args.seed)  # its JumpReLU trainer does not use its seed
    trainer = kind(**common, **sparsity, seed=args.seed, device="cpu")
    lr = args.lr_factor * trainer.lr
    torch.manual_seed(args.seed)
    trainer = kind(**common, **sparsity, seed=args.seed, device="cpu", lr=lr)
    scale = get_norm_factor(batches(rows, args.batch_size, args.seed), steps=100)
    for step, batch in zip(range(args.steps), batches(rows, args.batch_size, args.seed), strict=False):
        trainer.update(step, batch / scale)
    trainer.ae.scale_biases(scale)
    folder.mkdir()
    torch.save(trainer.ae.state_dict(), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": trainer.config, "buffer": None}, default=str))
    return lr


def main(args: argparse.Namespace) -> None:
    """Train, save as the library does, convert."""
    import numpy as np

    from convert import load_sae, save_sae

    rows, train = np.load(args.rows, mmap_mode="r"), {"saelens": saelens, "dictionary_learning": dictionary_learning}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        lr = train[args.library](args, rows, Path(folder) / "sae")
        told = {"library": args.library, "seconds": time.perf_counter() - began, "lr": lr}
        file = load_sae(Path(folder) / "sae")
        save_sae(args.output, file.sae, file.config, extra=told)
    print(json.dumps({**told, "architecture": file.config.architecture}))


if __name__ == "__main__":
    parser = arguments.Parser(__doc__ or "")
    parser.add_argument("--library", choices=("saelens", "dictionary_learning"), required=True)
    parser.add_argument("--architecture", choices=("topk", "batchtopk", "jumprelu"), required=True)
    parser.add_argument("--rows", required=True, metavar="FILE.npy", help="float32 [rows, d_in]")
    parser.add_argument("--l0", type=int, help="k, or the target L0")
    parser.add_argument("--l0-coef", type=float, help="SAELens's JumpReLU: its penalty")
    parser.add_argument(
        "--lr-factor", type=float, default=1.0, help="times the learning rate that the library recommends"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--d-sae", type=int, default=1536)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3907)
    parser.add_argument("--output", required=True, metavar="FILE.pt")
    process.run(main, parser)
