"""AUROC and the linear probe."""

import numpy as np
import pytest
from scipy.stats import rankdata

from jaxsae.features import probe


def test_auroc_is_the_share_of_pairs_ranked_right():
    rng = np.random.default_rng(0)
    scores, has = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.3  # with ties
    pairs = np.sign(scores[has][:, None] - scores[~has][None])
    np.testing.assert_allclose(probe.auroc(scores, has), ((pairs + 1) / 2).mean(), rtol=1e-12)
    assert probe.auroc(has.astype(float), has) == 1
    assert probe.auroc(-has.astype(float), has) == 0
    assert np.isnan(probe.auroc(scores, np.ones(60, bool)))
    assert np.isnan(probe.auroc(scores, np.zeros(60, bool)))


def test_the_three_ways_to_auroc_agree():
    """Of one column, of many columns for many properties, and of counts in bins; `rankdata` as the reference."""
    rng = np.random.default_rng(2)
    values, properties = rng.integers(0, 9, (300, 4)).astype(float), rng.random((3, 300)) < 0.4
    found = probe.aurocs(values, properties)
    for p, has in enumerate(properties):
        n, m = has.sum(), (~has).sum()
        for column, scores in enumerate(values.T):
            assert found[p, column] == probe.auroc(scores, has)
            np.testing.assert_allclose(found[p, column], (rankdata(scores)[has].sum() - n * (n + 1) / 2) / (n * m))
        bins = np.arange(10)
        counts = [np.stack([np.histogram(v[rows], bins)[0] for v in values.T]).astype(float) for rows in (has, ~has)]
        np.testing.assert_array_equal(probe.auroc_of_counts(*counts), found[p])


@pytest.fixture
def planted():
    """Rows of very unequal scales, and a property that is a noisy linear function of them."""
    rng = np.random.default_rng(1)
    rows = (rng.standard_normal((4000, 6)) * [1, 100, 0.01, 1, 1, 1] + 50).astype(np.float32)
    direction = np.array([1.0, 0.02, 0, 0, -1, 0])
    has = (rows - 50) @ direction + 0.5 * rng.standard_normal(4000) > 2
    return rows, has, direction


def test_the_probe_finds_the_direction(planted):
    rows, has, direction = planted
    found = probe.fit(rows, has)
    scale = rows.std(axis=0)
    cosine = (found * scale) @ (direction * scale)
    assert cosine / np.linalg.norm(found * scale) / np.linalg.norm(direction * scale) > 0.99
    assert probe.auroc(rows @ found, has) > probe.auroc(rows @ direction, has) - 1e-3


def test_it_is_the_minimum_of_its_objective(planted):
    """PyTorch's L-BFGS in float64 on the same objective ends at the same direction."""
    torch = pytest.importorskip("torch")
    rows, has, _ = planted
    x = torch.from_numpy((rows - rows.mean(axis=0, dtype=np.float64)) / rows.std(axis=0, dtype=np.float64))
    y = torch.from_numpy(has.astype(np.float64))
    w = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def objective():
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ w[:6] + w[6], y) + 5e-4 * (w[:6] ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    expected = w[:6].detach().numpy() / rows.std(axis=0, dtype=np.float64)
    np.testing.assert_allclose(probe.fit(rows, has), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_separable_rows_are_no_trouble():
    rows = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    assert probe.auroc(rows @ probe.fit(rows, rows[:, 0] > 0), rows[:, 0] > 0) == 1
