import json

import numpy as np
import pytest
from toy import Toy

from jaxsae.files import write_json
from jaxsae.restore.calibration import (
    Calibration,
    calibrate,
    calibration_error,
    fit_temperature,
    log_softmax,
    make_gaps,
)
from jaxsae.restore.kept import kept_calibration
from jaxsae.text.samples import Samples


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_characters_is_found(true_temperature):
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((4000, 30))).astype(np.float32)
    p = np.exp(log_softmax(logits / true_temperature))
    true = np.array([rng.choice(30, p=row / row.sum()) for row in p.astype(float)])
    found = fit_temperature(logits, true)
    assert found.temperature == pytest.approx(true_temperature, rel=0.05)
    assert found.places == 4000
    assert found.loss <= found.loss_before + 1e-6


@pytest.mark.parametrize("equal_width", [False, True])
def test_calibration_error_of_what_is_known(equal_width):
    rng = np.random.default_rng(1)
    p = rng.random(60_000)
    right = rng.random(60_000) < p
    assert calibration_error(p, right, equal_width=equal_width) < 0.01
    assert calibration_error(p, rng.random(60_000) < p / 2, equal_width=equal_width) == pytest.approx(0.25, abs=0.01)
    assert calibration_error(np.ones(30), np.zeros(30, bool), equal_width=equal_width) == 1
    assert calibration_error(np.full(30, 0.5), np.arange(30) % 2 == 0, equal_width=equal_width) < 0.3


def toy_samples(n=20, width=12):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 4, (n, width)).astype(np.int32)
    lengths = np.array([width, *rng.integers(1, width + 1, n - 1)])
    mask = (np.arange(width) < lengths[:, None]).astype(np.int8)
    labels = np.full((n, width), -100, np.int32)
    labels[0, 3], ids[0, 3] = ids[0, 3], 0
    return Samples(ids, labels, mask)


def test_gaps_hide_what_was_there_before_the_damage(monkeypatch):
    monkeypatch.setattr("jaxsae.restore.calibration.AROUND", 2)
    model, samples = Toy(0), toy_samples()
    made = make_gaps(model, samples, range(1, 4), 60)
    assert [len(gap.true) for gap in made] == [1, 2, 3] * 20
    whole = {model.tokenizer.decode(s[:n]) for s, n in zip(samples.true_ids, samples.lengths, strict=True)}
    for gap in made:
        assert model.tokenizer.decode(gap.whole) in whole
        hole = gap.hole()
        assert (hole.ids == 0).sum() == hole.end - hole.start == len(gap.true)
        wider = gap.hole(5)
        assert wider.end - wider.start == 5
        assert np.delete(wider.ids, range(wider.start, wider.end)).tolist() == [
            *gap.whole[: gap.start],
            *gap.whole[gap.end :],
        ]
    assert [g.start for g in make_gaps(model, samples, range(1, 4), 60)] == [gap.start for gap in made]


def test_short_texts_have_no_calibration(monkeypatch):
    assert calibrate(Toy(0), toy_samples()) is None
    monkeypatch.setattr("jaxsae.restore.calibration.AROUND", 2)
    found = calibrate(Toy(0), toy_samples(), 30)
    assert found.places > 20
    assert found.loss <= found.loss_before + 1e-6


def test_a_calibration_is_fitted_once_for_each_model_and_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxsae.restore.kept.cache_folder", lambda: tmp_path / "jaxsae")
    fitted = []

    def fit():
        fitted.append(1)
        return Calibration(1.5 + len(fitted), 10, 1.0, 2.0)

    first = kept_calibration("model", "data", fit)
    assert kept_calibration("model", "data", fit) == first
    assert len(fitted) == 1
    assert kept_calibration("other", "data", fit) != first
    assert kept_calibration("model", "other", fit) != first
    (path,) = [
        p for p in (tmp_path / "jaxsae" / "calibration").iterdir() if json.loads(p.read_text())["temperature"] == 2.5
    ]
    for broken in ({"temperature": 0, "places": 1, "loss": 1, "loss_before": 1}, {"temperature": 1}, [], None):
        write_json(path, broken)
        assert kept_calibration("model", "data", fit).temperature > 3
    path.write_text("{")
    assert kept_calibration("model", "data", fit) == kept_calibration("model", "data", fit)


def test_where_nothing_can_be_kept_it_is_fitted_each_time(tmp_path, monkeypatch):
    (tmp_path / "jaxsae").write_text("a file where the folder should be")
    monkeypatch.setattr("jaxsae.restore.kept.cache_folder", lambda: tmp_path / "jaxsae")
    assert kept_calibration("m", "d", lambda: Calibration(2.0, 1, 1.0, 1.0)).temperature == 2.0
    assert kept_calibration("m", "d", lambda: None) is None
