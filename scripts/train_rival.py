#!/usr/bin/env python3
"""Train one SAE with another library on given rows; write it in the format of this project, for evaluate.py to rate.

Runs in an environment that has the library: pip install '.[rivals]'. The rows are those of compare_rivals.py, which
starts this.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxsae import cli

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


def saelens(args: argparse.Namespace, rows: np.ndarray) -> dict:
    """SAELens as its documentation trains: rows scaled to a mean norm of sqrt(d_in), Adam at a constant 3e-4.

    Its JumpReLU in the default mode, by a penalty.
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
    sae = SAETrainer(config, sae, batches(rows, args.batch_size, args.seed)).fit()
    tensors = {name: tensor.detach() for name, tensor in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(tensors)
    return tensors | {"subtract": True, "lr": lr}


def dictionary_learning(args: argparse.Namespace, rows: np.ndarray) -> dict:
    """dictionary_learning as its demo trains: rows scaled to a mean square norm of 1, each trainer's own defaults."""
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
    ae = {name: tensor.detach() for name, tensor in trainer.ae.state_dict().items()}
    if args.architecture == "jumprelu":
        return ae | {"subtract": False, "lr": lr}
    tensors = {"W_enc": ae["encoder.weight"].T, "b_enc": ae["encoder.bias"], "W_dec": ae["decoder.weight"].T}
    if args.architecture == "batchtopk":
        tensors["threshold"] = ae["threshold"].repeat(args.d_sae)
    return tensors | {"b_dec": ae["b_dec"], "subtract": True, "lr": lr}


def main(args: argparse.Namespace) -> None:
    """Train, bring into the plain formula (nothing subtracted from x, unit decoder rows), write."""
    import numpy as np
    import torch

    rows = np.load(args.rows, mmap_mode="r")
    began = time.perf_counter()
    got = {"saelens": saelens, "dictionary_learning": dictionary_learning}[args.library](args, rows)
    seconds = time.perf_counter() - began
    W_enc, b_enc, W_dec, b_dec = (got[name].double() for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    if got["subtract"]:
        b_enc = b_enc - b_dec @ W_enc
    norm = W_dec.norm(dim=1)
    config = {
        "d_in": rows.shape[1],
        "d_sae": args.d_sae,
        "l1_coef": 0.0,
        "architecture": args.architecture,
        "library": args.library,
        "seconds": seconds,
        "lr": got["lr"],
    }
    if args.architecture == "topk":
        config["k"] = args.l0
    else:
        config["threshold"] = (got["threshold"].double().clamp(min=0) * norm).tolist()
    tensors = {"W_enc": W_enc * norm, "b_enc": b_enc * norm, "W_dec": W_dec / norm[:, None], "b_dec": b_dec}
    tensors = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    torch.save({**tensors, "losses": [], "config": config}, args.output)
    print(json.dumps({key: config[key] for key in ("library", "architecture", "seconds", "lr")}))


if __name__ == "__main__":
    parser = cli.Parser(__doc__ or "")
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
    cli.run(main, parser)
