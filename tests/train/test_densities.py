"""Latents counted by how often they fire."""

import numpy as np

from jaxsae.train.densities import DECADES, density_counts, edges_spanning


def test_latents_that_never_fire_are_not_counted():
    density = np.array([0.0, 1e-7, 5e-4, 0.02, 0.5, 1.0])
    assert density_counts(density, np.array(DECADES)).tolist() == [1, 0, 0, 1, 0, 1, 2]


def test_the_bins_reach_from_the_rarest_to_all_rows():
    density = np.array([0.0, 3e-3, 0.2, 1.0])
    for per_decade in (4, 8):
        edges = edges_spanning(density, per_decade)
        np.testing.assert_allclose((edges[0], edges[-1]), (1e-3, 1))
        assert len(edges) == 3 * per_decade + 1
        assert density_counts(density, edges).sum() == 3


def test_where_all_fire_always_or_none_ever_there_are_bins_too():
    assert density_counts(np.ones(3), edges_spanning(np.ones(3), 4)).tolist() == [3]
    assert density_counts(np.zeros(3), edges_spanning(np.zeros(3), 4)).sum() == 0
