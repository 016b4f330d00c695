"""The map of latents on planted families, beside the principal axes and chance."""

import numpy as np
import pytest

from jaxsae.features.feature_map import _push, layout, neighbour_share, principal_axes

FAMILIES, OF_EACH, D = 20, 25, 48


def planted(spread: float = 0.8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of norm 1 around a direction of their family."""
    rng = np.random.default_rng(seed)
    family = np.repeat(np.arange(FAMILIES), OF_EACH)
    centres = rng.normal(size=(FAMILIES, D))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = centres[family] + spread * rng.normal(size=(len(family), D)) / np.sqrt(D)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), family


def test_families_lie_together():
    rows, family = planted()
    order = np.random.default_rng(1).permutation(len(rows))
    rows, family = rows[order], family[order]
    found = layout(rows)
    assert neighbour_share(found, family) > 0.95
    assert neighbour_share(principal_axes(rows), family) < 0.7
    chance = neighbour_share(np.random.default_rng(2).random((len(rows), 2)), family)
    assert chance == pytest.approx(1 / FAMILIES, abs=0.03)


def test_the_same_rows_give_the_same_map_within_the_unit_square():
    rows, _ = planted(seed=3)
    one = layout(rows)
    np.testing.assert_array_equal(one, layout(rows))
    assert one.shape == (len(rows), 2)
    np.testing.assert_allclose(one.min(axis=0), 0, atol=1e-6)
    assert one.max() == pytest.approx(1)
    assert one[:, 0].max() >= one[:, 1].max()


def test_the_push_is_that_of_every_pair():
    """On places so far apart that the grid is fine enough; the law holds for each pair of rows."""
    place = np.random.default_rng(0).normal(0, 25, (200, 2)).astype(np.float32)
    gap = place[:, None] - place[None]
    near = 1 / (1 + (gap**2).sum(axis=2))
    np.fill_diagonal(near, 0)
    exact = (gap * (near**2)[..., None]).sum(axis=1) / near.sum()
    found = _push(place)
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-3 * np.abs(found).sum())  # action and reaction
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 13])
@pytest.mark.parametrize("d", [1, 5])
def test_few_rows_have_places_too(n, d):
    rows = np.ones((n, d), np.float32) / np.sqrt(d)  # all alike
    found = layout(rows)
    assert found.shape == (n, 2)
    assert np.isfinite(found).all()


def test_of_no_family_are_not_counted():
    places = np.stack([np.arange(40), np.zeros(40)], axis=1)
    family = np.where(np.arange(40) % 2, -1, np.arange(40) // 20)
    assert neighbour_share(places, family, count=3) > 0.85
    assert np.isnan(neighbour_share(places, np.full(40, -1), count=3))
