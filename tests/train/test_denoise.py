"""Latents that tell the row of the undamaged text as well: the loss, the rows beside rows, and what it is good for."""

import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import assert_one_line_error

from convert import read_checkpoint, save_sae
from jaxsae.activations.extraction import extract_on_host
from jaxsae.config import TrainConfig
from jaxsae.errors import InputError
from jaxsae.sae.architectures import Aim, encode
from jaxsae.sae.autoencoder import SAE, UNDAMAGED
from jaxsae.sae.loss import loss
from jaxsae.text.loading import load_samples
from jaxsae.train.loop import train_sae
from jaxsae.train.run import train_run
from jaxsae.train.sources import TextSource

D_IN, D_SAE, K, WEIGHT = 7, 60, 4, 0.7
READING = TrainConfig(recipe="reading", expansion=2, epochs=2, batch_size=16, target_l0=5)


@pytest.mark.parametrize("sparse", [False, True])
def test_loss_and_gradients_are_pytorchs(sparse):
    rng = np.random.default_rng(0)
    shapes = {"W_enc": (D_IN, D_SAE), "b_enc": D_SAE, "W_dec": (D_SAE, D_IN), "b_dec": D_IN, UNDAMAGED: (D_SAE, D_IN)}
    weights = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    x, undamaged = rng.standard_normal((2, 64, D_IN))
    with jax.enable_x64(True):
        given = {name: jnp.asarray(array) for name, array in weights.items()}
        sae = SAE(**{n: given[n] for n in weights if n != UNDAMAGED}, architecture="topk", k=K)
        sae = sae.replace(training={UNDAMAGED: given[UNDAMAGED]})

        def ours(sae):
            both = {"undamaged": jnp.asarray(undamaged), "denoise": WEIGHT}
            return loss(sae, jnp.asarray(x), Aim(jnp.float64(0), 0.0, 1.0), sparse=sparse, **both)

        (value, seen), grads = jax.jit(jax.value_and_grad(ours, has_aux=True))(sae)
    theirs = {name: torch.tensor(array, requires_grad=True) for name, array in weights.items()}
    top = torch.topk(torch.tensor(x) @ theirs["W_enc"] + theirs["b_enc"], K, dim=-1)
    latents = torch.zeros(64, D_SAE, dtype=torch.float64).scatter(1, top.indices, torch.relu(top.values))
    error = ((latents @ theirs["W_dec"] + theirs["b_dec"] - torch.tensor(x)) ** 2).mean()
    told = ((latents @ theirs[UNDAMAGED] + theirs["b_dec"] - torch.tensor(undamaged)) ** 2).mean()
    (error + WEIGHT * told).backward()
    np.testing.assert_allclose(value, (error + WEIGHT * told).item(), rtol=1e-12)
    np.testing.assert_allclose(seen.loss, error.item(), rtol=1e-12)  # what compares with a run without it
    found = {name: grads.training[UNDAMAGED] if name == UNDAMAGED else getattr(grads, name) for name in weights}
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, theirs[name].grad.numpy(), rtol=0, atol=1e-12, err_msg=name)


def hidden_values(n=4096, d=8):
    """(rows, those undamaged, which of d directions is in each): damage takes most of it and adds much else."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.standard_normal((2 * d, 2 * d)))[0].astype(np.float32)
    which, damaged = rng.integers(0, d, n), rng.random(n) < 0.5
    own = directions[which] * rng.uniform(1, 2, (n, 1))
    noise = rng.standard_normal((n, d)) @ directions[d:]
    rows = np.where(damaged[:, None], 0.35 * own + noise, own)
    return rows.astype(np.float32), own.astype(np.float32), which, damaged


def test_more_is_told_of_what_damage_hides():
    rows, undamaged, which, damaged = hidden_values()
    config = TrainConfig(recipe="modern", k_sparse=4, epochs=15, batch_size=64, expansion=2)

    def told(sae):
        latents, found = np.asarray(encode(sae, jnp.asarray(rows[damaged]))) > 0, []
        for value in np.unique(which):
            has = (which[damaged] == value)[:, None]
            found.append(max(2 * (latents & has).sum(0) / np.maximum(latents.sum(0) + has.sum(), 1)))
        return np.mean(found)

    usual = train_sae(jnp.asarray(rows), config).sae
    denoising = train_sae(
        jnp.asarray(np.concatenate([rows, undamaged], axis=1)), dataclasses.replace(config, denoise=1.0)
    )
    assert denoising.sae.training == {}
    assert denoising.config == config.sae(rows.shape[1])
    np.testing.assert_allclose(np.linalg.norm(denoising.sae.W_dec, axis=1), 1, atol=1e-5)
    assert told(denoising.sae) > told(usual) + 0.2  # 0.67 and 0.27


def test_the_setting_is_checked_and_older_settings_are_the_same():
    assert "denoise" not in READING.settings()
    assert dataclasses.replace(READING, denoise=0.5).settings()["denoise"] == 0.5
    with pytest.raises(InputError, match="denoise is not read by recipe guide"):
        TrainConfig(denoise=1.0)
    with pytest.raises(InputError, match="denoise must be a number of at least 0, got -1"):
        TrainConfig(recipe="reading", denoise=-1)


@pytest.fixture(scope="module")
def text(tiny_pt, tiny_dataset):
    return read_checkpoint(tiny_pt), load_samples(tiny_dataset, "train")


def run(source, config, folder):
    return train_run(source, config, folder, save=save_sae).results[0].report["settings"].get("denoise")


def test_beside_each_row_stands_that_of_the_undamaged_text(text, tmp_path):
    checkpoint, samples = text
    source = TextSource(checkpoint, samples, [1, 2], denoise=True)
    assert source.paired
    undamaged = dataclasses.replace(
        samples, ids=np.where(samples.labels == -100, samples.ids, samples.labels), labels=0 * samples.labels - 100
    )
    model = checkpoint.model()
    found = source.load(tmp_path, contextlib.ExitStack(), lambda line: None, lambda rows: None)
    for layer, rows in found.train.items():
        both = [extract_on_host(model, some, [layer])[layer][:] for some in (samples, undamaged)]
        np.testing.assert_array_equal(np.asarray(rows), np.concatenate(both, axis=1))
        assert (both[0] != both[1]).any()
        assert found.scored[layer].shape[1] == both[0].shape[1]


def test_the_reading_recipe_denoises_where_text_is_damaged_and_fits(text, tmp_path):
    checkpoint, samples = text
    assert run(TextSource(checkpoint, samples, [1], denoise=True), READING, tmp_path / "damaged") == 1.0
    for name, source in {
        "undamaged": TextSource(checkpoint, samples.undamaged, [1], denoise=True),
        "no room": TextSource(checkpoint, samples, [1], denoise=True, memory_limit=10_000),
        "not asked for": TextSource(checkpoint, samples, [1]),
    }.items():
        assert not source.paired
        assert run(source, READING, tmp_path / name) is None
        with pytest.raises(InputError, match="denoise=1 needs rows of the undamaged text"):
            run(source, dataclasses.replace(READING, denoise=1.0), tmp_path / f"{name}, but it is asked for")
    with pytest.raises(InputError, match="got an SAE without it"):
        run(TextSource(checkpoint, samples, [1], denoise=True), TrainConfig(), tmp_path / "the guide's")


def test_the_command_says_what_it_does(script, tiny_pt, tiny_dataset, tmp_path):
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--layer", 1, "--epochs", 1, "--verify", 0]
    reading = ["--recipe", "reading", "--expansion", 2, "--target-l0", 5, "--batch-size", 16]
    ran = script("train", *flags, *reading, "--output", tmp_path / "a")
    assert ran.status == 0, ran.err
    assert "beside each that of the undamaged text" in ran.out
    assert json.loads((tmp_path / "a" / "sae_layer1_optimized.json").read_text())["settings"]["denoise"] == 1
    ran = script("train", *flags, *reading[:2], *reading[4:], "--denoise", 0, "--output", tmp_path / "b")
    assert ran.status == 0, ran.err
    assert "undamaged" not in ran.out
    report = json.loads((tmp_path / "b" / "sae_layer1_optimized.json").read_text())
    assert (
        report["settings"]["expansion"] == 32
    )  # what the recipe takes for rows so narrow is told as if it had been asked for
    assert report["d_sae"] == 32 * report["d_in"]
    assert_one_line_error(script("train", *flags, "--denoise", 1, "--output", tmp_path / "c"), "recipe guide")
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).standard_normal((64, 30)).astype(np.float32))
    of_rows = ["--dataset", tmp_path / "rows.npy", *reading, "--denoise", 1, "--epochs", 1, "--output", tmp_path / "d"]
    assert_one_line_error(script("train", *of_rows), "--denoise 1 needs rows of the undamaged text", "stored rows")
