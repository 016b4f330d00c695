"""Rows, SAEs and settings that the tests of training share."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsae.config import SAEConfig, TrainConfig
from jaxsae.sae.architectures import init

D_IN, D_SAE, BATCH, LR = 24, 96, 32, 1e-3


def some_rows(n=640, d_in=D_IN, seed=0):
    """Sparse combinations of fixed directions, large enough that the first gradients are clipped."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((2 * d_in, d_in))
    return (rng.exponential(0.6, (n, 2 * d_in)) * (rng.random((n, 2 * d_in)) < 0.1)) @ directions


def ensemble_of_one(config, seed=0, dtype=jnp.float32):
    sae = init(jax.random.key(seed), config)
    return jax.tree.map(lambda a: a.astype(dtype)[None], sae)


def config_of(l1_coef, k):
    return SAEConfig(D_IN, D_SAE, l1_coef, k, "topk" if k else "relu")


CONFIG = TrainConfig(epochs=4, batch_size=BATCH, lr=LR, expansion=2)


def many_rows():
    """Enough for a modern run, with a mean far from zero and directions of unlike strength."""
    return jnp.asarray(3 * some_rows(4096, seed=5) * np.linspace(0.2, 2, D_IN) + 7, jnp.float32)
