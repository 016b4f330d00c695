"""What distinguishes architectures: a record each, of which everything else asks.

    latents  = relu(pre_acts)                      relu
               relu(the k largest of a row)        topk                 (Gao et al. 2024, arXiv 2406.04093)
               relu(pre_acts) above a threshold    jumprelu             (Rajamanoharan et al. 2024, arXiv 2407.14435)
                                                   batchtopk            (Bussmann et al. 2024, arXiv 2412.06410)
                                                   matryoshka batchtopk (Bussmann et al. 2025, arXiv 2503.17547)

In training a BatchTopK has no threshold yet: it keeps the batch_size * k largest of a batch.

A new architecture is an entry of `RECORDS` here and of `jaxsae.config.ARCHITECTURES`. Readers and writers of files go
by what those rules say that it stores: nothing, `k`, or thresholds.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, Num

from jaxsae.config import ARCHITECTURES, SAEConfig, architecture_rules
from jaxsae.mesh import parts
from jaxsae.models.products import total
from jaxsae.sae.autoencoder import SAE, pre_activations

RowBatch = Float[Array, "n d_in"]
PreActs = Float[Array, "n d_sae"]
Latents = Float[Array, "n d_sae"]


class Aim(NamedTuple):
    """What sparsity a training step aims at."""

    penalty: Float[Array, ""]
    """Weight of what the architecture adds to the loss."""
    l0: Float[Array, ""] | float
    """Latents per row, on average over the batch."""
    bandwidth: Float[Array, ""] | float
    """Width of the kernel that stands for the derivative of a threshold's step, in the units of the rows."""


def relu(sae: SAE, pre_acts: PreActs) -> Latents:
    """relu(pre_acts)."""
    return jax.nn.relu(pre_acts)


def train_relu(sae: SAE, x: RowBatch, pre_acts: PreActs, aim: Aim) -> tuple[Latents, Float[Array, ""]]:
    """ReLU, and the penalty on the mean of the latents, which are never negative."""
    latents = jax.nn.relu(pre_acts)
    return latents, aim.penalty * total(latents) / latents.size


def top_k(sae: SAE, pre_acts: PreActs) -> Latents:
    """ReLU of each row's k largest (ties: the lower index; over several devices, all of them), 0 elsewhere."""
    assert sae.k is not None
    if parts("rows") > 1:  # there `lax.top_k` would gather all latents of all rows on each device
        return jnp.where(pre_acts >= kth_of_each_row(pre_acts, sae.k)[:, None], jax.nn.relu(pre_acts), 0)
    values, indices = jax.lax.top_k(pre_acts, sae.k)
    return jnp.put_along_axis(jnp.zeros_like(pre_acts), indices, jax.nn.relu(values), axis=-1, inplace=False)


def train_top_k(sae: SAE, x: RowBatch, pre_acts: PreActs, aim: Aim) -> tuple[Latents, Float[Array, ""]]:
    """As `top_k`; the loss has nothing more."""
    return top_k(sae, pre_acts), jnp.zeros((), pre_acts.dtype)


def above_threshold(sae: SAE, pre_acts: PreActs) -> Latents:
    """relu(pre_acts) where they are above their latent's threshold, 0 elsewhere."""
    assert sae.threshold is not None
    return jnp.where(pre_acts > sae.threshold[None, :], jax.nn.relu(pre_acts), 0)


def kth_largest(values: Float[Array, "..."], k: int | float | Num[Array, ""]) -> Float[Array, ""]:
    """The k-th largest of all `values`, 0 where fewer than k are positive. Has no gradient.

    On CPU counting is faster than `lax.top_k`, which sorts on one thread; and of a batch that is divided over devices
    only the counts are exchanged.
    """
    pieces = parts("batch") if values.shape[0] % parts("batch") == 0 else 1
    # what is counted may not fit into 32 bits: then in two parts, of which the higher stops at 2^30
    low = 31 if values.size < 2**31 else 8

    def count(above: Bool[Array, "..."]) -> Array:
        # over its own rows first on each device, so that one number crosses
        counts = above.astype(jnp.int32).reshape(pieces, -1, *above.shape[1:]).sum(axis=1)
        counts = jax.lax.optimization_barrier(counts)
        if low == 31:
            return counts.sum(dtype=jnp.int32)
        high, rest = (counts >> low).sum(dtype=jnp.int32), (counts & (2**low - 1)).sum(dtype=jnp.int32)
        return (jnp.minimum(high, 2 ** (30 - low)) << low) + rest

    return _by_counting(values, lambda above: count(above) >= k, ())


def kth_of_each_row(values: Float[Array, "n d"], k: int) -> Float[Array, " n"]:
    """As `kth_largest`, of each row."""
    return _by_counting(values, lambda above: above.sum(axis=1, dtype=jnp.int32) >= k, (len(values),))


def _by_counting(values: Array, enough: Callable[[Array], Array], shape: tuple[int, ...]) -> Array:
    """The largest numbers of `shape` of which `enough(values >= them)` holds, at least 0; they are among the values.

    The bits of positive numbers are ordered as the numbers are: the answer's bits are found from the highest down.
    """
    bits = jnp.finfo(values.dtype).bits
    integer = jnp.int32 if bits == 32 else jnp.int64
    ordered = jax.lax.bitcast_convert_type(jax.nn.relu(jax.lax.stop_gradient(values)), integer)

    def lower(i: Array, found: Array) -> Array:
        trial = found | (jnp.ones((), integer) << (bits - 2 - i).astype(integer))
        is_above = ordered >= trial.reshape(*shape, *(1,) * (ordered.ndim - len(shape)))
        return jnp.where(enough(is_above), trial, found)

    found = jax.lax.fori_loop(0, bits - 1, lower, jnp.zeros(shape, integer))
    return jax.lax.bitcast_convert_type(found, values.dtype)


def train_batch_top_k(sae: SAE, x: RowBatch, pre_acts: PreActs, aim: Aim) -> tuple[Latents, Float[Array, ""]]:
    """ReLU of the largest pre-activations of the whole batch, as many as `aim.l0` per row."""
    least = kth_largest(pre_acts, pre_acts.shape[0] * aim.l0)
    return jnp.where(pre_acts >= least, jax.nn.relu(pre_acts), 0), jnp.zeros((), pre_acts.dtype)


@jax.custom_vjp
def jump(
    pre_acts: Float[Array, "n d_sae"], threshold: Float[Array, " d_sae"], bandwidth: Float[Array, ""]
) -> tuple[Float[Array, "n d_sae"], Float[Array, "n d_sae"]]:
    """(JumpReLU's latents, 1 where they fire), with the straight-through gradients of its paper for the threshold.

    Both jump at the threshold; there the rectangle kernel of width `bandwidth` stands for their derivative:
    d latents = -threshold / bandwidth, d fires = -1 / bandwidth, where |pre_act - threshold| < bandwidth / 2. To the
    pre-activations the latents' gradient goes where they fire, and none of the firing's.
    """
    fires = pre_acts > threshold[None, :]
    return jnp.where(fires, jax.nn.relu(pre_acts), 0), fires.astype(pre_acts.dtype)


def _jump_fwd(pre_acts: Array, threshold: Array, bandwidth: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    return jump(pre_acts, threshold, bandwidth), (pre_acts, threshold, bandwidth)


def _jump_bwd(kept: tuple[Array, ...], grads: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    pre_acts, threshold, bandwidth = kept
    d_latents, d_fires = grads
    above = (pre_acts > threshold[None, :]) & (pre_acts > 0)
    near = jnp.abs(pre_acts - threshold[None, :]) < bandwidth / 2
    d_threshold = -jnp.where(near, threshold[None, :] * d_latents + d_fires, 0).sum(axis=0) / bandwidth
    return jnp.where(above, d_latents, 0), d_threshold, jnp.zeros_like(bandwidth)


jump.defvjp(_jump_fwd, _jump_bwd)


def train_jumprelu(sae: SAE, x: RowBatch, pre_acts: PreActs, aim: Aim) -> tuple[Latents, Float[Array, ""]]:
    """`jump`, and the penalty on the squared relative distance of the L0 from `aim.l0`."""
    latents, fires = jump(pre_acts, sae.threshold, jnp.asarray(aim.bandwidth, pre_acts.dtype))
    return latents, aim.penalty * (fires.sum(axis=1).mean() / aim.l0 - 1) ** 2


LIFT = 0.01
"""What the bias of a latent that is to be revived gains a step at most, where the rows' elements have variance 1."""
LIFT_TO_THRESHOLD, LOWER = 0.003, 0.97
"""The same where it trains a threshold, and what that is multiplied by."""


def raise_bias(sae: SAE, lift: Float[Array, " d_sae"]) -> SAE:
    """Raise the bias of latents that are to be revived, a little; `lift` is 0 for the others, and at most 1."""
    return sae.replace(b_enc=sae.b_enc + LIFT * lift)


def raise_bias_and_lower_threshold(sae: SAE, lift: Float[Array, " d_sae"]) -> SAE:
    """Raise the bias of latents that are to be revived, and lower their threshold, a little."""
    assert sae.threshold is not None
    return sae.replace(b_enc=sae.b_enc + LIFT_TO_THRESHOLD * lift, threshold=sae.threshold * LOWER**lift)


def positive_threshold(sae: SAE) -> SAE:
    """Thresholds are at least 0."""
    assert sae.threshold is not None
    return sae.replace(threshold=jax.nn.relu(sae.threshold))


def scale_threshold(sae: SAE, x: Float[Array, "n d_in"], target_l0: int) -> SAE:
    """The trained SAE with thresholds above which `target_l0` pre-activations per row of `x` are, on average.

    One threshold for all latents; or, where the SAE has thresholds, those multiplied by one factor.
    """
    unit = jnp.ones_like(sae.b_enc) if sae.threshold is None else jnp.maximum(sae.threshold, 1e-6)
    return sae.replace(threshold=unit * _threshold_factor(sae, x, unit, target_l0))


@jax.jit
def _threshold_factor(sae: SAE, x: Array, unit: Array, target_l0: Array) -> Array:
    ratios = pre_activations(sae, x) / unit[None, :]
    # a latent fires where it is above: the next ratio below is the threshold
    return kth_largest(ratios, x.shape[0] * target_l0 + 1)


def nested(d_sae: int) -> list[int]:
    """How many latents each nested SAE of a Matryoshka has: a sixteenth, an eighth, ... all of them."""
    return sorted({max(1, d_sae // 2**i) for i in range(5)})


class PenaltyStart(NamedTuple):
    """Where a penalty begins that brings about a target L0."""

    weight: float
    """In the units of the rows, or of none where it is relative."""
    in_units_of_rows: bool
    moves: bool
    """Whether the weight moves with the L0 reached; else the L0 aimed at alone moves."""
    l0: Callable[[SAEConfig], float]
    """The L0 aimed at first; it falls to the target in half of the run. Once as many latents fire as there are
    dimensions, nothing is left to learn: above, thresholds alone would move."""


L1_START = 1e-3
"""The guide's."""
L0_WEIGHT = 1.0
"""Of JumpReLU's penalty (L0 / aim - 1)^2 beside an error that, of scaled rows, is their FVU; dictionary_learning's, in
the same units. A latent that fires at its threshold t takes t^2 / d_in off the error: the run settles at an L0 of
1 + aim t^2 / (2 weight d_in) times what is aimed at, and the factor that then makes it exact silences latents. With
0.03 that was 1.8 times where the FVU is 0.1 (64 dimensions, L0 16); with 3 the FVU of wide streams was worse."""
DEAD_SHARE = 130
"""How often a latent would have fired, if all fired alike, in the steps of silence after which it is to be revived.
With fewer, runs with an L0 of 16 of 1,536 ran away: what was revived silenced the rest."""


class Architecture(NamedTuple):
    """An architecture: what it computes, and how it is trained."""

    activate: Callable[[SAE, PreActs], Latents]
    """The latents, as every reader of the file computes them."""
    train: Callable[[SAE, RowBatch, PreActs, Aim], tuple[Latents, Float[Array, ""]]]
    """(SAE, rows, their pre-activations, aim) -> (the latents of a training step, what is added to the loss)."""
    begin: Callable[[SAE], SAE] = lambda sae: sae
    """Adds the parameters that training starts with to the four tensors."""
    constrain: Callable[[SAE], SAE] = lambda sae: sae
    """Brings parameters back to where they may be, after a step."""
    revive: Callable[[SAE, Float[Array, " d_sae"]], SAE] = raise_bias
    """Brings latents that have been silent for long closer to firing, by so much of a whole lift for each."""
    lift_falls: bool = False
    """Whether lifts become smaller with the learning rate. What is lifted in the last steps no gradient brings down; a
    ReLU, without a k or a threshold that is chosen at the end, would have it fire on every row, a little."""
    finish: Callable[[SAE, Float[Array, "n d_in"], int], SAE] | None = None
    """(the SAE, a sample of the rows, the target L0) -> the SAE that is stored, with its thresholds. None: it is."""
    prefixes: Callable[[int], list[int]] = lambda d_sae: [d_sae]
    """d_sae -> how many of the first latents each nested SAE has, of whose losses the mean is taken."""
    penalty: PenaltyStart | None = None
    """How a target L0 is brought about where it is by a penalty."""
    dead_share: float = DEAD_SHARE
    """As `DEAD_SHARE`."""


RECORDS = {
    "relu": Architecture(
        relu, train_relu, penalty=PenaltyStart(L1_START, True, True, lambda c: c.d_sae / 3), lift_falls=True
    ),
    "topk": Architecture(top_k, train_top_k),
    "batchtopk": Architecture(above_threshold, train_batch_top_k, finish=scale_threshold),
    "jumprelu": Architecture(
        above_threshold,
        train_jumprelu,
        begin=lambda sae: sae.replace(threshold=jnp.zeros_like(sae.b_enc)),
        constrain=positive_threshold,
        revive=raise_bias_and_lower_threshold,
        finish=scale_threshold,
        penalty=PenaltyStart(L0_WEIGHT, False, False, lambda c: c.d_in / 2),
    ),
    # every prefix of a Matryoshka leans on its first latents: it runs away sooner
    "matryoshka": Architecture(
        above_threshold, train_batch_top_k, finish=scale_threshold, prefixes=nested, dead_share=1.5 * DEAD_SHARE
    ),
}
assert RECORDS.keys() == ARCHITECTURES.keys()


def architecture(name: str) -> Architecture:
    """The record of an architecture.

    Raises:
      InputError: there is none of that name.
    """
    architecture_rules(name)
    return RECORDS[name]


def encode(sae: SAE, x: Float[Array, "n d_in"], *, dtype: str | None = None) -> Float[Array, "n d_sae"]:
    """Latents of rows `x`, as every reader of the SAE's file computes them."""
    return architecture(sae.architecture).activate(sae, pre_activations(sae, x, dtype))


def init(key: Key[Array, ""], config: SAEConfig) -> SAE:
    """The guide's start: W_enc ~ N(0, 0.01^2), rows of W_dec Gaussian then unit norm, biases and thresholds 0."""
    enc, dec = jax.random.split(key)
    alone = jax.lax.optimization_barrier  # nothing is fused: the bits are the same in any program, on any devices
    W_enc, W_dec = (
        alone(jax.random.normal(of, shape, jnp.float32))
        for of, shape in ((enc, (config.d_in, config.d_sae)), (dec, (config.d_sae, config.d_in)))
    )
    norms = alone(jnp.linalg.norm(W_dec, axis=1, keepdims=True))
    sae = SAE(
        W_enc=alone(0.01 * W_enc),
        b_enc=jnp.zeros(config.d_sae, jnp.float32),
        W_dec=alone(W_dec / norms),
        b_dec=jnp.zeros(config.d_in, jnp.float32),
        architecture=config.architecture,
        k=config.k,
    )
    return architecture(config.architecture).begin(sae)


def init_tied(key: Key[Array, ""], config: SAEConfig) -> SAE:
    """The modern recipe's start: as `init`, but that W_enc is the transpose of W_dec: a latent reads what it writes."""
    sae = init(key, config)
    return sae.replace(W_enc=sae.W_dec.T)
