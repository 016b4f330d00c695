"""Places from intervals of activation, and firings over whole texts."""

import re

import numpy as np
import pytest
from planted import LENGTH, TEXTS, inspections, planted

from jaxsae.features.intervals import INTERVALS, OF_EACH, PlacedFirings, encoded


def stream() -> np.ndarray:
    """Latent 0 has values from 1 to 12 on its characters, 1 is dense, the others are as planted."""
    x = planted()
    x[:, 0, 0] = 1 + np.arange(TEXTS) % 12
    x[:, :, 1] = 1 + (np.arange(TEXTS)[:, None] * LENGTH + np.arange(LENGTH)) % 16
    return x


@pytest.fixture(scope="module")
def inspection():
    return inspections({1: stream()})[0]


@pytest.mark.parametrize("latent", [0, 1, 8])
def test_each_interval_has_its_firings_and_places_of_different_texts(inspection, latent):
    values, placed = np.maximum(stream()[:, :, latent], 0), PlacedFirings(inspection.statistics)
    peak = values.max()
    of = placed.of(latent)
    found = placed.intervals(latent, of)
    assert len(found) == INTERVALS
    assert sum(one.fired for one in found) == (values > 0).sum()
    for number, one in enumerate(found):
        low, high = peak * (INTERVALS - 1 - number) / INTERVALS, peak * (INTERVALS - number) / INTERVALS
        inside = (values >= low) & (values < high) if number else values >= low
        assert one.fired == (inside & (values > 0)).sum()
        assert len(one.places) == min(OF_EACH, one.fired)
        assert len({place.sample for place in one.places}) == len(one.places)  # there are texts enough
        for place in one.places:
            assert inside[place.sample, place.position]
            assert place.value == pytest.approx(values[place.sample, place.position], rel=0.01)
        assert [place.value for place in one.places] == sorted((p.value for p in one.places), reverse=True)
    assert found == placed.intervals(latent, of)  # always the same
    taken = [(place.sample, place.position) for one in found for place in one.places]
    assert not set(taken) & {
        (place.sample, place.position) for one in placed.intervals(latent, of, taken) for place in one.places
    }


def test_a_latent_that_never_fires_has_none(inspection):
    placed = PlacedFirings(inspection.statistics)
    assert [one.fired for one in placed.intervals(29, placed.of(29))] == [0] * INTERVALS


def test_firings_on_a_text_are_all_there(inspection):
    placed, values = PlacedFirings(inspection.statistics), stream()
    of = placed.of(6)
    for sample in range(0, TEXTS, 37):
        assert placed.knows(sample)
        here = of.sample == sample
        np.testing.assert_array_equal(of.position[here], np.flatnonzero(values[sample, :, 6] > 0))


def decoded(text: str) -> list[int]:
    out: list[int] = []
    for one in re.findall(".", text):
        if one.isdigit():
            out.append(int(one))
        else:
            out += [0] * (ord(one) - 96 if one.islower() else 26 * (ord(one) - 64))
    return out


@pytest.mark.parametrize("length", [1, 26, 27, 52, 53, 700, 703, 3000])
def test_what_is_encoded_can_be_read(length):
    rng = np.random.default_rng(length)
    levels = np.where(rng.random(length) < 3 / length, rng.integers(1, 10, length), 0)
    levels[-1] = 5
    at = np.flatnonzero(levels)
    assert decoded(encoded(at.tolist(), levels[at].tolist())) == levels.tolist()
    assert encoded([], []) == ""
