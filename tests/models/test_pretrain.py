"""Training a restoration model: it learns, it goes on where it was, and what it writes is the original's format."""

import contextlib
import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import assert_one_line_error, forget_compiled, tiny_splits

from convert import load_restoration_model, read_checkpoint
from jaxsae import load_samples
from jaxsae.cli import process
from jaxsae.config import PretrainConfig
from jaxsae.errors import InputError
from jaxsae.models import pretrain, pretrain_data
from jaxsae.models.restoration import RestorationModel
from jaxsae.models.restoration_config import ModelConfig
from jaxsae.models.transformer import params_of
from jaxsae.text import arrow, preparation
from jaxsae.text.samples import Samples

pytestmark = pytest.mark.usefixtures("quick_compiles")

CONFIG = ModelConfig(vocab_size=8000, max_position=45, d_model=16, n_heads=2, d_ff=24, n_layers=3, dropout=0.1)
EVERY = pretrain_data.CharacterSet(np.arange(8000), np.arange(8000))
"""As if every token id occurred."""


@pytest.fixture(autouse=True)
def bounded_memory_of_each():
    """A step takes hundreds of megabytes to compile."""
    yield
    forget_compiled()


@pytest.fixture(scope="module")
def samples():
    columns = tiny_splits(seed=4, n=40)["train"]
    return Samples(columns["input_ids"], columns["labels"], columns["attention_mask"])


@pytest.fixture(scope="module")
def parts():
    parts = pretrain.init_parts(CONFIG, seed=0)
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape), parts)


def test_the_stacked_model_is_the_librarys_model(parts, samples):
    """Cross-entropy and hits at damaged positions, from the logits of the model that users load."""
    model = RestorationModel.from_params(CONFIG, pretrain.to_params(parts, CONFIG, EVERY))
    logits = np.asarray(model(samples.ids, samples.mask), np.float64)
    where = samples.labels != -100
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    true = samples.labels[where]
    expected = -log_p[where][np.arange(len(true)), true]
    sums = pretrain.figures(parts, CONFIG, *(jnp.asarray(a) for a in (samples.ids, samples.labels, samples.mask)))
    np.testing.assert_allclose(sums.loss, expected.sum(), rtol=1e-5)
    assert int(sums.positions) == where.sum()
    assert int(sums.correct) == (log_p[where].argmax(-1) == true).sum()
    loss, top1 = pretrain.make_evaluate(CONFIG, 100, EVERY)(parts, samples)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(top1, int(sums.correct) / where.sum(), rtol=1e-6)


def test_gradients_agree_with_float64(parts, samples):
    def loss(parts, ids, labels, mask):
        sums = pretrain.figures(parts, CONFIG, ids, labels, mask)
        return sums.loss / sums.positions

    batch = [np.asarray(a[:6]) for a in (samples.ids, samples.labels, samples.mask)]
    grads = jax.jit(jax.grad(loss))(parts, *map(jnp.asarray, batch))
    flat, spread = jax.flatten_util.ravel_pytree(parts)
    direction = np.random.default_rng(0).standard_normal(flat.shape)
    slope = float(np.asarray(jax.flatten_util.ravel_pytree(grads)[0], np.float64) @ direction)
    # a central difference of the same loss, computed by PyTorch in float64
    ends = [torch_loss(spread(jnp.asarray(flat + step * direction, jnp.float32)), batch) for step in (1e-3, -1e-3)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-3, rtol=1e-3)


def torch_loss(parts, batch):
    """The mean cross-entropy at damaged positions by the PyTorch reference in float64."""
    from convert.families import to_torch
    from convert.restoration_reference import Model

    module = Model(CONFIG).double()
    tensors = to_torch(pretrain.to_params(parts, CONFIG, EVERY), CONFIG)
    module.load_state_dict({name: torch.from_numpy(np.array(a)).double() for name, a in tensors.items()})
    ids, labels, mask = (torch.from_numpy(a).long() for a in batch)
    with torch.no_grad():
        logits = module(ids, mask)
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100))


def test_new_damage_keeps_the_truth(samples):
    truth = np.where(samples.labels == -100, samples.ids, samples.labels)
    first, again, other = (pretrain_data.redamage(samples, 0, epoch) for epoch in (1, 1, 2))
    np.testing.assert_array_equal(first.ids, again.ids)
    assert (first.ids != other.ids).any()
    for damaged in (first, other):
        np.testing.assert_array_equal(np.where(damaged.labels == -100, damaged.ids, damaged.labels), truth)
        assert (damaged.labels[samples.mask == 0] == -100).all()
        assert set(damaged.ids[damaged.labels != -100].tolist()) <= {ord("#"), ord("-")}


def test_every_text_is_in_an_epoch_once(samples):
    for epoch in (1, 2):
        batches = pretrain_data.epoch_batches(samples.lengths, 150, 0, epoch)
        assert sorted(np.concatenate([b.samples for b in batches]).tolist()) == list(range(40))
        assert all((samples.lengths[b.samples] <= b.length).all() for b in batches)
    one, two = (pretrain_data.epoch_batches(samples.lengths, 150, 0, epoch) for epoch in (1, 2))
    assert any(
        (a.samples.shape != b.samples.shape) or (a.samples != b.samples).any() for a, b in zip(one, two, strict=True)
    )


def test_pieces_are_the_texts_cut(samples):
    """Put together again they are the texts; none is longer than asked; other epochs cut elsewhere."""
    pieces, again, other = (pretrain_data.cut(samples.lengths, 16, 0, epoch) for epoch in (1, 1, 2))
    assert pieces.lengths.min() >= 1
    assert pieces.lengths.max() == 16
    np.testing.assert_array_equal(pieces.start, again.start)
    assert len(other.start) != len(pieces.start) or (other.start != pieces.start).any()
    short = pieces.of(samples)
    assert short.ids.shape == (len(pieces.row), 16)
    for name in ("ids", "labels"):
        of, whole = getattr(short, name), getattr(samples, name)
        for row, n in enumerate(samples.lengths):
            mine = np.flatnonzero(pieces.row == row)
            np.testing.assert_array_equal(np.concatenate([of[i, : short.lengths[i]] for i in mine]), whole[row, :n])
    assert (short.labels[short.mask == 0] == -100).all()
    uncut = pretrain_data.cut(samples.lengths, None, 0, 1).of(samples)
    np.testing.assert_array_equal(uncut.labels, samples.labels[:, : samples.lengths.max()])


def test_the_plan_of_a_run(samples):
    """Pieces, then whole texts in the last sixteenth; a quarter of the layers, half of them, all."""
    recipe = PretrainConfig(epochs=32, crop=16, batch_chars=150, grow=True)
    assert [recipe.crop_of(epoch) for epoch in (1, 30, 31, 32)] == [16, 16, None, None]
    assert [recipe.layers_of(epoch, 16) for epoch in (1, 16, 17, 24, 25, 32)] == [4, 4, 8, 8, 16, 16]
    widest = [int(pretrain_data.epoch_plan(samples.lengths, recipe, epoch)[0].lengths.max()) for epoch in (30, 31)]
    assert widest == [16, int(samples.lengths.max())]
    steps = [len(pretrain_data.epoch_plan(samples.lengths, recipe, epoch)[1]) for epoch in range(1, 33)]
    assert pretrain_data.total_steps(samples.lengths, recipe) == sum(steps)
    assert PretrainConfig(epochs=4).crop_of(1) is None
    assert PretrainConfig(epochs=4).layers_of(1, 5) == 5


def test_growing_keeps_the_function(parts, samples):
    """Three layers and six: the same logits; the new ones write nothing yet, but a gradient reaches them."""
    grown = pretrain.grow(parts, 6)
    batch = [jnp.asarray(a) for a in (samples.ids, samples.labels, samples.mask)]
    np.testing.assert_allclose(
        pretrain.figures(grown, CONFIG, *batch).loss, pretrain.figures(parts, CONFIG, *batch).loss, rtol=1e-6
    )
    grads = jax.grad(lambda parts: pretrain.figures(parts, CONFIG, *batch).loss)(grown).blocks
    assert (np.abs(np.asarray(grads.ff.down.kernel)).max(axis=(1, 2)) > 0).all()
    assert (np.asarray(grown.blocks.attn.q_proj.kernel)[0::2] == np.asarray(parts.blocks.attn.q_proj.kernel)).all()
    moments = pretrain.grow(parts, 6, moments=True).blocks.attn.q_proj.kernel
    assert (np.asarray(moments)[1::2] == 0).all()


def test_characters_that_do_not_occur_have_no_probability(samples):
    """Trained on those that occur; in the whole vocabulary the cross-entropy is the same."""
    few = Samples(33 + samples.ids % 50, np.where(samples.labels == -100, -100, 33 + samples.labels % 50), samples.mask)
    characters = pretrain_data.CharacterSet.of(few)
    assert len(characters.ids) < 60
    parts = pretrain.init_parts(dataclasses.replace(CONFIG, vocab_size=len(characters.ids)), seed=0)
    loss, _ = pretrain.make_evaluate(CONFIG, 100, characters)(parts, few)
    model = RestorationModel.from_params(CONFIG, pretrain.to_params(parts, CONFIG, characters))
    whole = model(few.ids, few.mask)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(np.array(whole)).flatten(0, 1), torch.from_numpy(few.labels).long().flatten()
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    never = np.setdiff1d(np.arange(CONFIG.vocab_size), characters.ids)
    assert np.asarray(jax.nn.softmax(whole))[..., never].sum(axis=-1).max() < 1e-30


def test_damage_beyond_the_room_is_refused(parts, samples):
    ruined = Samples(samples.ids, np.where(samples.mask != 0, samples.ids, -100), samples.mask)
    with pytest.raises(InputError, match="at most a third"):
        pretrain.make_evaluate(CONFIG, 150, EVERY)(parts, ruined)


def test_it_learns_a_text_by_heart():
    """Four texts over and over: the loss falls far below that of guessing by frequency."""
    columns = preparation.prepare(["a-na be-li-ia qi-bi-ma um-ma", "lugal kala-ga lugal uri-ma"] * 2, seed=0)
    short = Samples(*(columns[name][:, :45] for name in ("input_ids", "labels", "attention_mask")))
    config = dataclasses.replace(CONFIG, vocab_size=200, dropout=0.0, d_model=32, d_ff=64)
    recipe = PretrainConfig(epochs=500, batch_chars=180, lr=3e-3, warmup=20)
    *_, (_, last) = pretrain.pretrain(config, recipe, short, short, pretrain_data.CharacterSet.of(short))
    assert last.loss < 0.5
    assert last.top1 > 0.85


def test_dropout_is_drawn_from_the_key(parts, samples):
    batch = [jnp.asarray(a[:4]) for a in (samples.ids, samples.labels, samples.mask)]
    losses = [
        float(pretrain.figures(parts, CONFIG, *batch, key).loss)
        for key in (None, jax.random.key(0), jax.random.key(0), jax.random.key(1))
    ]
    assert losses[1] == losses[2]
    assert len(set(losses)) == 3


SHAPE = ["--d-model", 16, "--n-heads", 2, "--d-ff", 24, "--n-layers", 4]


def test_an_interrupted_run_ends_with_the_same_bits(script, tmp_path, monkeypatch):
    """Stopped within its first and third epoch of four, then resumed: the files are those of a run never stopped."""
    splits = tiny_splits(n=12)
    for columns in splits.values():  # of one length, so that there are few shapes to compile for
        columns["attention_mask"] = (np.arange(45) < np.full((12, 1), 30)).astype(np.int8)
        columns["labels"] = np.where(columns["attention_mask"], columns["labels"], -100).astype(np.int32)
    (tmp_path / "dataset").mkdir()
    arrow.save_splits(tmp_path / "dataset", splits)
    recipe = ["--epochs", 4, "--batch-chars", 60, "--warmup", 2, "--grow"]
    flags = ["--dataset", tmp_path / "dataset", *SHAPE, *recipe]
    assert script("train_model", *flags, "--output", tmp_path / "whole").status == 0
    per_epoch = json.loads((tmp_path / "whole/training.json").read_text())["epochs"]
    assert len(per_epoch) == 4

    def stopped_after(asked):
        """Ctrl-C, noticed when it is asked for the n-th time."""
        left = [asked]

        @contextlib.contextmanager
        def stop_later():
            def stopping():
                left[0] -= 1
                return left[0] <= 0

            yield stopping
            raise KeyboardInterrupt

        return stop_later

    for asked, says in ((2, "text"), (14, "resuming in epoch 1, after 2 steps")):
        with monkeypatch.context() as patch:
            patch.setattr(process, "stop_later", stopped_after(asked))
            ran = script("train_model", *flags, "--output", tmp_path / "parts", "--resume")
        assert ran.status == 130, ran
        assert says in ran.out
        assert "stopped  the state is saved" in ran.err
    again = script("train_model", *flags, "--output", tmp_path / "parts", "--resume")
    assert again.status == 0, again
    assert re.search(r"resuming in epoch [23], after \d+ steps", again.out)
    figures = json.loads((tmp_path / "parts/training.json").read_text())["epochs"]
    assert [{**row, "seconds": 0} for row in figures] == [{**row, "seconds": 0} for row in per_epoch]
    for name in ("best_model.pt", "last_model.pt"):
        ours, theirs = (
            torch.load(tmp_path / run / name, weights_only=True)["model_state_dict"] for run in ("parts", "whole")
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert_one_line_error(script("train_model", *flags, "--output", tmp_path / "parts"), "give --resume")
    other = script("train_model", *flags, "--output", tmp_path / "parts", "--resume", "--lr", "0.5")
    assert_one_line_error(other, "a run with another recipe")


def test_what_it_writes_is_the_original_format(script, tiny_dataset, tmp_path):
    flags = ["--dataset", tiny_dataset, *SHAPE, "--epochs", 1, "--batch-chars", 300]
    assert script("train_model", *flags, "--output", tmp_path / "m").status == 0
    assert script("train_model", *flags, "--output", tmp_path / "half", "--half").status == 0
    content = torch.load(tmp_path / "m" / "best_model.pt", weights_only=True)
    samples = load_samples(tiny_dataset, "train")
    assert content["vocab_size"] == content["config"]["vocab_size"] >= samples.ids.max() + 1
    assert content["config"]["max_position"] == 45
    # the training run's own validation loss, from the file
    figures = json.loads((tmp_path / "m" / "training.json").read_text())["epochs"][0]
    model, validation = (
        load_restoration_model(tmp_path / "m" / "best_model.pt"),
        load_samples(tiny_dataset, "validation"),
    )
    logits = torch.from_numpy(np.array(model(validation.ids, validation.mask)))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(validation.labels).long().flatten())
    np.testing.assert_allclose(figures["loss"], loss, rtol=1e-5)
    half = read_checkpoint(tmp_path / "half" / "best_model.pt")
    assert {t.dtype for t in half.tensors.values()} == {np.dtype("float16")}
    for path, parameter in params_of(half.model()).items():
        np.testing.assert_allclose(parameter, params_of(model)[path], rtol=1e-3, atol=1e-6, err_msg=path)


def test_each_step_drops_other_units(samples, monkeypatch):
    """The same batch, next to no learning: from one epoch to the next only dropout changes the loss."""
    monkeypatch.setattr(pretrain, "redamage", lambda samples, seed, epoch: samples)
    batches = pretrain_data.epoch_batches(samples.lengths, 10_000, 0, 1)
    monkeypatch.setattr(pretrain_data, "epoch_batches", lambda *args: batches)
    recipe = PretrainConfig(epochs=2, batch_chars=10_000, lr=1e-12)
    for dropout, differ in ((0.1, True), (0.0, False)):
        config = dataclasses.replace(CONFIG, dropout=dropout)
        epochs = pretrain.pretrain(config, recipe, samples, samples, EVERY)
        first, second = (result.train_loss for _, result in epochs)
        assert (abs(first - second) > 1e-6 * first) is differ
