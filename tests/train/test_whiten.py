"""Rows whitened in part before an SAE is trained on them: the coordinates, what they bring out, and the command."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_one_line_error

from convert import load_sae
from jaxsae.cli.train_results import say_narrow
from jaxsae.config import TrainConfig
from jaxsae.errors import InputError
from jaxsae.sae.architectures import encode
from jaxsae.sae.basis import directions, principal_basis, to_basis
from jaxsae.train.loop import train_sae

CONFIG = TrainConfig(recipe="modern", architecture="batchtopk", target_l0=4, epochs=15, batch_size=64, expansion=2)


@pytest.mark.parametrize("power", [0, 0.5, 0.75, 1])
def test_directions_are_divided_by_a_power_of_their_standard_deviation(power):
    deviations = np.array([30, 3, 1, 0.1])
    rows = np.random.default_rng(0).standard_normal((5000, 4)) * deviations + 7
    basis = principal_basis(jnp.asarray(rows, jnp.float32), whiten=power)
    found = np.asarray(to_basis(basis, jnp.asarray(rows, jnp.float32)), np.float64)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=2e-3)
    covariance = np.cov(found.T)
    np.testing.assert_allclose(covariance, np.diag(covariance.diagonal()), atol=0.02)
    expected = deviations ** (2 - 2 * power)
    np.testing.assert_allclose(covariance.diagonal(), 4 * expected / expected.sum(), rtol=0.1)
    assert power or (np.asarray(basis.stretch) == 1).all()


def test_directions_that_only_rounding_fills_stay_faint():
    rows = np.random.default_rng(0).standard_normal((500, 3)) @ np.ones((3, 3)).cumsum(0)  # rank 1
    basis = principal_basis(jnp.asarray(rows, jnp.float32), whiten=1.0)
    assert np.isfinite(basis.stretch).all()
    assert np.asarray(to_basis(basis, jnp.asarray(rows, jnp.float32)))[:, 1:].std() < 0.1


def test_directions_are_counted_by_their_variances():
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.standard_normal((12, 12)))[0][:3]
    rows = (rng.standard_normal((4000, 3)) * [3, 1, 1]) @ turned + 5
    assert directions(rows) == pytest.approx(11**2 / (81 + 1 + 1), rel=0.05)
    variances = np.linalg.eigvalsh(np.cov(rows[:8].T))  # fewer rows than they are wide
    assert directions(rows[:8]) == pytest.approx(variances.sum() ** 2 / (variances**2).sum())
    assert directions(np.full((9, 4), 2.5, np.float32)) == 0


def faint_values(n=8192, d=8):
    """(rows, which of d faint directions is in each) beside d strong ones that drown them."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.standard_normal((2 * d, 2 * d)))[0]
    which = rng.integers(0, d, n)
    rows = directions[which] * rng.uniform(1, 2, (n, 1)) + 30 * rng.standard_normal((n, d)) @ directions[d:]
    return rows.astype(np.float32), which


def test_more_is_told_of_faint_directions():
    rows, which = faint_values()

    def told(whiten):
        trained = train_sae(jnp.asarray(rows), dataclasses.replace(CONFIG, whiten=whiten))
        latents, found = np.asarray(encode(trained.sae, jnp.asarray(rows))) > 0, []
        np.testing.assert_allclose(np.linalg.norm(trained.sae.W_dec, axis=1), 1, atol=1e-5)
        assert latents.sum(axis=1).mean() == pytest.approx(4, rel=0.1)
        for value in np.unique(which):
            has = (which == value)[:, None]
            found.append(max(2 * (latents & has).sum(0) / np.maximum(latents.sum(0) + has.sum(), 1)))
        return np.mean(found)

    usual, whitened = told(0.0), told(1.0)
    assert whitened > usual + 0.2, (usual, whitened)


def test_the_setting_is_checked_and_older_settings_are_the_same():
    assert "whiten" not in CONFIG.settings()
    assert dataclasses.replace(CONFIG, whiten=0.5).settings()["whiten"] == 0.5
    with pytest.raises(InputError, match="whiten is not read by recipe guide"):
        TrainConfig(whiten=0.5)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"whiten must be a number of 0\.\.1"):
            dataclasses.replace(CONFIG, whiten=wrong)
    for how in ({"k_sparse": 4}, {"architecture": "topk"}):
        with pytest.raises(
            InputError, match="whiten needs architecture relu, batchtopk, jumprelu or matryoshka, got topk"
        ):
            TrainConfig(recipe="reading", whiten=0.5, **how)
    taken = {power: TrainConfig(recipe="reading", whiten=power).architecture for power in (None, 0, 0.5)}
    assert taken == {None: "topk", 0: "topk", 0.5: "batchtopk"}
    assert TrainConfig(recipe="reading", architecture="matryoshka", whiten=0.5).architecture == "matryoshka"


def test_the_command_trains_and_the_file_says_it(script, tmp_path):
    rows, _ = faint_values(n=512, d=4)
    np.save(tmp_path / "rows.npy", rows)
    flags = [
        "--dataset",
        tmp_path / "rows.npy",
        "--recipe",
        "reading",
        "--epochs",
        2,
        "--target-l0",
        3,
        "--expansion",
        4,
    ]
    how = ["--whiten", 0.75, "--batch-size", 32, "--output", tmp_path / "out"]
    ran = script("train", *flags, *how)
    assert ran.status == 0, ran.err
    (path,) = (tmp_path / "out").glob("*.pt")
    assert json.loads(path.with_suffix(".json").read_text())["settings"]["whiten"] == 0.75
    sae = load_sae(path).sae
    assert sae.architecture == "batchtopk"
    assert len(np.unique(np.asarray(sae.threshold))) > 1  # each latent has that of its decoder's norm
    assert np.asarray(encode(sae, jnp.asarray(rows)) > 0).sum(axis=1).mean() == pytest.approx(3, rel=0.1)
    assert_one_line_error(
        script("train", *flags, "--architecture", "topk", "--whiten", 0.5, "--output", tmp_path / "b"),
        "whiten needs architecture",
        "topk",
    )


def test_rows_that_vary_in_few_directions_are_said_to(script, tmp_path):
    rng = np.random.default_rng(0)
    narrow = rng.standard_normal((256, 64)) + 300 * rng.standard_normal((256, 1)) * rng.standard_normal(64)
    for name, rows in {"narrow": narrow, "even": rng.standard_normal((256, 64))}.items():
        np.save(tmp_path / f"{name}.npy", rows.astype(np.float32))
    says = "the variance of layer 8 lies in about 1 of 64 directions: --recipe reading --whiten 0.75 may bring"
    how = {
        "narrow": ["--recipe", "reading"],
        "even": ["--recipe", "reading"],
        "narrow, whitened": ["--recipe", "reading", "--whiten", 0.75],
        "narrow, not to be read": ["--recipe", "modern", "--architecture", "topk"],
    }
    for name, flags in how.items():
        few = ["--epochs", 1, "--target-l0", 3, "--expansion", 2, "--batch-size", 32]
        rows = tmp_path / f"{name.split(',')[0]}.npy"
        ran = script("train", "--dataset", rows, *flags, *few, "--output", tmp_path / name)
        assert ran.status == 0, ran.err
        assert (says in ran.out) == (name == "narrow"), ran.out


def test_nothing_is_said_of_narrow_rows_that_were_denoised(capsys):
    report = {"layer": 8, "d_in": 64, "directions": 1.5}
    for how, said in {"denoise": False, "whiten": False, "epochs": True}.items():
        say_narrow([report | {"settings": {"recipe": "reading", how: 0.5}}])
        assert bool(capsys.readouterr().out) == said
