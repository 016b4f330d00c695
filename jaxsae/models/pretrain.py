"""Training a restoration model: damaged text in, the true characters at its damaged positions out.

For the embedded demo, and for any model of this shape. The blocks' weights are stacked and the forward pass scans over
them, so that one block is compiled for all; `jaxsae.models.restoration` is made from the result.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jaxsae.config import PretrainConfig
from jaxsae.errors import require
from jaxsae.models.pretrain_data import CharacterSet, arrays, epoch_plan, redamage, total_steps
from jaxsae.models.restoration import LayerNorm, RestorationBlock, RestorationModel
from jaxsae.models.restoration_config import ModelConfig
from jaxsae.models.rotary import rotary_table
from jaxsae.models.transformer import params_of
from jaxsae.text import preparation
from jaxsae.text.batching import plan_batches
from jaxsae.text.samples import Samples


class Parts(NamedTuple):
    """The model, its blocks stacked into one whose arrays have a leading axis of layers."""

    embed: nnx.Embed
    blocks: RestorationBlock
    final_ln: LayerNorm
    head: nnx.Linear


class PretrainState(NamedTuple):
    """Everything a step changes."""

    parts: Parts
    opt_state: optax.OptState
    step: Int[Array, ""]
    key: Key[Array, ""]


def init_parts(config: ModelConfig, seed: int) -> Parts:
    """Fresh weights: normal, with deviation 1 / sqrt(d_in) in the blocks and 0.02 in embedding and head.

    What writes into the stream is scaled by 1 / sqrt(2 n_layers) besides, so that its size does not grow with depth.
    """
    model = RestorationModel(config, rngs=nnx.Rngs(seed))
    parts = Parts(
        model.embed, jax.tree.map(lambda *leaves: jnp.stack(leaves), *model.layers), model.final_ln, model.head
    )
    keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(parts))))

    def draw(path: tuple, leaf: Array) -> Array:
        key, name = next(keys), jax.tree_util.keystr(path)
        if not ("kernel" in name or "embedding" in name):
            return leaf
        deviation = leaf.shape[-2] ** -0.5 if ".blocks" in name else 0.02
        if ".out_proj.kernel" in name or ".down.kernel" in name:
            deviation *= (2 * config.n_layers) ** -0.5
        return deviation * jax.random.normal(key, leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, parts)


def grow(parts: Parts, n_layers: int, *, moments: bool = False) -> Parts:
    """Twice the blocks, and twice again until there are `n_layers`; the function computed stays the same.

    Behind each block a copy of it that writes nothing into the stream yet (Gong et al. 2019, "Efficient training of
    BERT by progressively stacking", whose copies do write). `moments`: an optimizer's, which are 0 for a new block.
    """

    def double(path: tuple, leaf: Array) -> Array:
        name = jax.tree_util.keystr(path)
        silent = moments or ".out_proj." in name or ".down." in name
        return jnp.stack([leaf, jnp.zeros_like(leaf) if silent else leaf], axis=1).reshape(-1, *leaf.shape[1:])

    while parts.blocks.ln1.scale.shape[0] < n_layers:
        parts = parts._replace(blocks=jax.tree_util.tree_map_with_path(double, parts.blocks))
    return parts


NEVER = -100.0
"""The head's bias for a character that does not occur in the text: its probability is 0 in float32."""


def to_params(parts: Parts, config: ModelConfig, characters: CharacterSet) -> dict[str, np.ndarray]:
    """Dotted path -> parameter, as `transformer.params_of` gives them: all layers, all token ids."""
    parts = grow(parts, config.n_layers)
    model = RestorationModel(dataclasses.replace(config, vocab_size=len(characters.ids)), rngs=nnx.Rngs(0))
    model.embed, model.final_ln, model.head = parts.embed, parts.final_ln, parts.head
    model.layers = nnx.List([jax.tree.map(lambda leaf, i=i: leaf[i], parts.blocks) for i in range(config.n_layers)])
    params = {path: np.asarray(leaf) for path, leaf in params_of(model).items()}
    for path, axis, fill in (("embed.embedding", 0, 0.0), ("head.kernel", 1, 0.0), ("head.bias", 0, NEVER)):
        shape = list(params[path].shape)
        shape[axis] = config.vocab_size
        wide = np.full(shape, fill, np.float32)
        wide[(slice(None),) * axis + (characters.ids,)] = params[path]
        params[path] = wide
    return params


def residual(
    parts: Parts,
    config: ModelConfig,
    ids: Int[Array, "batch position"],
    mask: Int[Array, "batch position"],
    key: Key[Array, ""] | None,
) -> Float[Array, "batch position d_model"]:
    """The last block's output; with a key, dropout on what each sublayer writes into the stream."""
    cos, sin = (
        jnp.asarray(t)[None, None] for t in rotary_table(ids.shape[1], config.d_head, float(config.rotary_base))
    )
    bias = (1 - mask[:, None, None, :].astype(jnp.float32)) * -1e9

    def dropout(y: Array, key: Array) -> Array:
        kept = jax.random.bernoulli(key, 1 - config.dropout, y.shape)
        return jnp.where(kept, y / (1 - config.dropout), 0)

    def block_step(x: Array, block_and_key: tuple[RestorationBlock, Array]) -> tuple[Array, None]:
        block, key_ = block_and_key
        if key is None or config.dropout == 0:
            return block(x, cos, sin, bias), None
        attn_key, ff_key = jax.random.split(key_)
        x = x + dropout(block.attn(block.ln1(x), cos, sin, bias), attn_key)
        return x + dropout(block.ff(block.ln2(x)), ff_key), None

    keys = jax.random.split(jax.random.key(0) if key is None else key, parts.blocks.ln1.scale.shape[0])
    x, _ = jax.lax.scan(jax.checkpoint(block_step), parts.embed(ids), (parts.blocks, keys))
    return x


class LossSums(NamedTuple):
    """Sums over damaged positions."""

    loss: Float[Array, ""]
    """Cross-entropy in nats."""
    correct: Float[Array, ""]
    """Positions whose most probable character is the true one."""
    positions: Float[Array, ""]


def figures(
    parts: Parts,
    config: ModelConfig,
    ids: Int[Array, "batch position"],
    labels: Int[Array, "batch position"],
    mask: Int[Array, "batch position"],
    key: Key[Array, ""] | None = None,
) -> LossSums:
    """Loss and hits at the damaged positions, to which alone the head is applied: room for a third of all is kept.

    Damage is a quarter of a text at most, and a last span of ten may overshoot. Positions beyond the room are left out.
    """
    x = residual(parts, config, ids, mask, key)
    flat = labels.reshape(-1)
    room = flat.size // 3 + 10 * ids.shape[0]
    (where,) = jnp.nonzero(flat != preparation.NO_LABEL, size=room, fill_value=flat.size)
    real = where < flat.size
    true_ids = jnp.where(real, flat.at[where].get(mode="fill", fill_value=0), 0)
    stream = x.reshape(-1, x.shape[-1]).at[where].get(mode="fill", fill_value=0.0)
    logits = parts.head(parts.final_ln(stream[None]))[0]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, true_ids)
    hits = logits.argmax(axis=-1) == true_ids
    return LossSums((losses * real).sum(), (hits & real).sum().astype(x.dtype), real.sum().astype(x.dtype))


def optimizer(config: PretrainConfig, total_steps: int) -> optax.GradientTransformation:
    """AdamW, clipped to norm 1: linear warm-up, then a cosine down to a hundredth; norms and biases do not decay."""
    warmup = min(config.warmup, max(1, total_steps // 2))
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.lr, warmup, total_steps, config.lr / 100)

    def decays(params: Parts) -> Parts:
        is_matrix = lambda path, leaf: "kernel" in jax.tree_util.keystr(path)  # noqa: E731
        return jax.tree_util.tree_map_with_path(is_matrix, params)

    adamw = optax.adamw(schedule, b1=0.9, b2=0.98, weight_decay=config.weight_decay, mask=decays)
    return optax.chain(optax.clip_by_global_norm(1.0), adamw)


class Result(NamedTuple):
    """How an epoch ended: means over damaged positions of the training text, then of the validation text."""

    epoch: int
    train_loss: float
    loss: float
    top1: float


class TrainingPlace(NamedTuple):
    """Where in its training a model is: with its state, all there is to go on from."""

    epoch: int
    """The one under way, 1 for the first."""
    figures: list[list[float]]
    """`Figures` of each of its steps so far."""


BEGIN = TrainingPlace(1, [])

Evaluate = Callable[[Parts, Samples], tuple[float, float]]


def make_evaluate(config: ModelConfig, tokens: int, characters: CharacterSet) -> Evaluate:
    """`evaluate(parts, samples)` -> (cross-entropy in nats, top-1) over damaged positions."""
    compiled = jax.jit(lambda parts, ids, labels, mask: figures(parts, config, ids, labels, mask))

    def evaluate(parts: Parts, samples: Samples) -> tuple[float, float]:
        batches = plan_batches(samples.lengths, samples.ids.shape[1], tokens)
        sums = np.array([compiled(parts, *arrays(samples, batch, characters)) for batch in batches], np.float64)
        loss, correct, positions = sums.sum(axis=0).tolist()
        damaged = int(samples.damaged.sum())
        require(
            positions == damaged,
            f"at most a third of a text may be damaged, got {damaged - int(positions)} characters more",
        )
        return loss / positions, correct / positions

    return evaluate


def pretrain(
    config: ModelConfig,
    recipe: PretrainConfig,
    train: Samples,
    validation: Samples,
    characters: CharacterSet,
    state: PretrainState | None = None,
    at: TrainingPlace = BEGIN,
    pause: Callable[[], bool] = lambda: False,
    on_step: Callable[[int], None] = lambda chars: None,
) -> Iterator[tuple[PretrainState, Result | TrainingPlace]]:
    """Train; after each epoch gives the state and how it did, so that the caller can save both.

    Args:
      characters: those of both texts; the state's embedding and head know no others.
      state, at: where to go on from; a fresh start without.
      pause: asked after each step of an epoch but its last: whether to give the state and its place then as well.
      on_step: called with the number of characters of each batch handed to the device.
    """
    transform = optimizer(recipe, total_steps(train.lengths, recipe))
    if state is None:
        state = initial_state(config, recipe, train.lengths, characters)
    evaluate = make_evaluate(config, recipe.batch_chars, characters)

    def step(state: PretrainState, ids: Array, labels: Array, mask: Array) -> tuple[PretrainState, LossSums]:
        key = jax.random.fold_in(state.key, state.step)

        def loss(parts: Parts) -> tuple[Array, LossSums]:
            sums = figures(parts, config, ids, labels, mask, key)
            return sums.loss / jnp.maximum(sums.positions, 1), sums

        grads, sums = jax.grad(loss, has_aux=True)(state.parts)
        updates, opt_state = transform.update(grads, state.opt_state, state.parts)
        return PretrainState(optax.apply_updates(state.parts, updates), opt_state, state.step + 1, state.key), sums

    compiled = jax.jit(step, donate_argnums=0)
    for epoch in range(at.epoch, recipe.epochs + 1):
        state = grow_state(state, recipe.layers_of(epoch, config.n_layers))
        pieces, batches = epoch_plan(train.lengths, recipe, epoch)
        damaged = pieces.of(redamage(train, recipe.seed, epoch))
        sums: list = list(at.figures) if epoch == at.epoch else []
        for batch in batches[len(sums) :]:
            state, got = compiled(state, *arrays(damaged, batch, characters))
            sums.append(got)  # read when the epoch ends: nothing in it waits for the device
            on_step(int(pieces.lengths[batch.samples].sum()))
            if len(sums) < len(batches) and pause():
                yield state, TrainingPlace(epoch, np.array(sums, np.float64).tolist())
        loss, top1 = evaluate(state.parts, validation)
        train_loss, _, positions = np.array(sums, np.float64).sum(axis=0).tolist()
        yield state, Result(epoch, train_loss / positions, loss, top1)


def initial_state(
    config: ModelConfig, recipe: PretrainConfig, lengths: np.ndarray, characters: CharacterSet, epoch: int = 1
) -> PretrainState:
    """Fresh weights and optimizer, for training texts of these lengths; as large as they are in `epoch`."""
    n_layers = recipe.layers_of(1, config.n_layers)
    parts = init_parts(dataclasses.replace(config, n_layers=n_layers, vocab_size=len(characters.ids)), recipe.seed)
    opt_state = optimizer(recipe, total_steps(lengths, recipe)).init(parts)
    state = PretrainState(parts, opt_state, jnp.zeros((), jnp.int32), jax.random.key(recipe.seed))
    return grow_state(state, recipe.layers_of(epoch, config.n_layers))


def grow_state(state: PretrainState, n_layers: int) -> PretrainState:
    """The state with its blocks doubled until there are `n_layers`."""
    moments = jax.tree.map(
        lambda node: grow(node, n_layers, moments=True) if isinstance(node, Parts) else node,
        state.opt_state,
        is_leaf=lambda node: isinstance(node, Parts),
    )
    return state._replace(parts=grow(state.parts, n_layers), opt_state=moments)
