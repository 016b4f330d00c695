import numpy as np
import pytest

from jaxsae.features import detection, probe
from jaxsae.features.detection import Half, best_columns, best_threshold, detection_score, linear_probe


def made(n=400, seed=0):
    """Ten columns of noise, sparse; 3 detects property 0, 7 detects property 1 by silence, 4 and 5 share property 2."""
    rng = np.random.default_rng(seed)
    properties = rng.random((3, n)) < np.array([0.3, 0.5, 0.2])[:, None]
    values = np.maximum(rng.standard_normal((n, 10)), 0)
    values[:, 3] = np.where(properties[0], rng.uniform(1, 2, n), np.where(rng.random(n) < 0.1, 1.5, 0))
    values[:, 7] = np.where(properties[1], 0, rng.uniform(0.1, 1, n))
    half = rng.random(n) < 0.5
    values[:, 4], values[:, 5] = 2.0 * (properties[2] & half), 2.0 * (properties[2] & ~half)
    return Half(values, properties)


def test_the_best_threshold_has_the_highest_f1_of_all():
    values, properties = made(60)
    scores, has = np.round(values[:, 3], 1), properties[0]  # with ties
    f1s = {t: detection_score(scores, has, t).f1 for t in np.unique(scores)}
    assert detection_score(scores, has, best_threshold(scores, has)).f1 == max(f1s.values())


def test_a_threshold_takes_or_leaves_all_rows_of_one_score():
    """As if the first of the ties alone could be taken: that would be right twice, but so are four wrong."""
    scores, has = np.array([5.0, 4, 4, 4, 4, 4]), np.array([True, True, False, False, False, False])
    assert best_threshold(scores, has) == 5


def test_precision_recall_and_f1_at_a_threshold():
    scores, has = np.array([3.0, 2, 2, 1, 0]), np.array([True, False, True, True, False])
    found = detection_score(scores, has, 2)
    assert (found.precision, found.recall) == (2 / 3, 2 / 3)
    np.testing.assert_allclose(found.f1, 2 / 3)
    assert detection_score(scores, has, 9)[1:4] == (0, 0, 0)


def test_the_best_columns_are_found_and_scored_on_other_rows():
    choose, score = made(seed=0), made(seed=1)
    one = best_columns(choose, score, 1)
    assert [found.columns[0] for found in one[:2]] == [3, 7]
    assert one[0].auroc == probe.auroc(score.values[:, 3], score.properties[0])
    assert one[1].auroc > 0.99
    assert one[1].f1 > 0.99
    assert one[2].columns[0] in (4, 5)
    two = best_columns(choose, score, 2)
    assert set(two[2].columns) == {4, 5}
    assert one[2].auroc < 0.85 < 0.99 < two[2].auroc
    assert all(found.auroc > 0.95 for found in linear_probe(choose, score))


def test_chance_is_chance():
    """The best of many columns of noise looks good where it was chosen; where it is scored it does not."""
    rng = np.random.default_rng(3)
    choose, score = (Half(rng.standard_normal((300, 500)), rng.random((1, 300)) < 0.5) for _ in range(2))
    [found] = best_columns(choose, score, 1)
    assert np.nanmax(np.abs(probe.aurocs(*choose) - 0.5)) > 0.08
    assert abs(found.auroc - 0.5) < 0.1


@pytest.mark.parametrize("count", [1, 5])
def test_a_property_that_no_row_of_a_half_has_is_nan(count):
    choose = made()
    nobody = Half(choose.values, np.zeros_like(choose.properties))
    assert all(np.isnan(found.auroc) for found in detection.best_columns(choose, nobody, count))


def test_direct_logits_are_what_the_decoder_row_adds(tiny_pt):
    """The change of the head's logits for a small step along the decoder row, but for the last norm's factor."""
    import jax
    from conftest import TINY

    from convert import load_restoration_model
    from jaxsae.config import SAEConfig
    from jaxsae.sae.architectures import init

    model = load_restoration_model(tiny_pt)
    sae = init(jax.random.key(0), SAEConfig(TINY.d_model, 7))
    ids = np.array([40, 97, 353, 7000])
    effect = detection.direct_logits(model, sae, ids)
    x = np.random.default_rng(0).standard_normal(TINY.d_model).astype(np.float32)
    # final_ln without its division: centred, scaled; as if the stream had variance 1
    w, scale = np.asarray(model.head.kernel[...], np.float64)[:, ids], np.asarray(model.final_ln.scale[...], np.float64)
    for latent in range(7):
        row = np.asarray(sae.W_dec[latent], np.float64)
        step = ((row - row.mean()) * scale) @ w
        np.testing.assert_allclose(effect[latent], step - step.mean(), atol=1e-5)
    # and it is what the model does: the same order of changes to first order in a tiny step that keeps the variance
    before = np.asarray(model.unembed(jax.numpy.asarray(x[None, None] * 1e3)))[0, 0, ids]
    after = np.asarray(model.unembed(jax.numpy.asarray((x * 1e3 + 50 * np.asarray(sae.W_dec[2]))[None, None])))[
        0, 0, ids
    ]
    moved = (after - before) - (after - before).mean()
    assert np.corrcoef(moved, effect[2])[0, 1] > 0.98


def test_nearest_by_decoder_row_and_by_firing():
    import jax.numpy as jnp

    from jaxsae.features.statistics import LatentStatistics
    from jaxsae.sae.autoencoder import SAE

    W_dec = jnp.array([[1.0, 0], [0.9, 0.1], [0, 2.0], [-1, 0]])
    sae = SAE(W_dec.T, jnp.zeros(4), W_dec, jnp.zeros(2))
    latents, cosines = detection.nearest(sae, count=2)
    assert latents[:, 0].tolist()[:3] == [1, 0, 1]
    np.testing.assert_allclose(cosines[2, 0], 0.1 / np.hypot(0.9, 0.1), rtol=1e-6)
    same, ones = detection.nearest(sae, sae, count=1)
    assert same[:, 0].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(ones, 1, rtol=1e-6)

    fires = np.array([[1, 1, 0, 0]] * 30 + [[1, 0, 1, 0]] * 5 + [[0, 0, 1, 0]] * 65, np.float32)
    statistics = LatentStatistics(4, np.array([97]), 0)
    statistics.rows, statistics.fired, statistics.cofiring = 100, fires.sum(0).astype(int), fires.T @ fires
    found = detection.fires_with(statistics, 0)
    assert found[0] == (1, 30 / 35, 30 * 100 / (35 * 30))
    assert [other for other, *_ in found] == [1, 2]  # 3 never fires
