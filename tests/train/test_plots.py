"""Axes of the pictures: labelled with plain numbers, where the points are."""

import pytest
from matplotlib.figure import Figure

from jaxsae.train import plots


@pytest.mark.parametrize(
    ("span", "shown"),
    [
        ((0.021, 0.09), ["0.05"]),
        ((0.9, 6.0), ["1", "2", "5"]),
        ((8.0, 120.0), ["10", "20", "50", "100"]),
        ((1e-6, 1.0), ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1", "1"]),
    ],
)
def test_a_logarithmic_axis_has_a_few_plain_numbers(span, shown):
    axes = Figure().subplots()
    axes.plot(span, span)
    axes.set(yscale="log", ylim=span)
    plots.label_log_axis(axes.yaxis)
    ticks = [value for value in axes.yaxis.get_major_locator()() if span[0] <= value <= span[1]]
    labels = [axes.yaxis.get_major_formatter()(value, 0) for value in ticks]
    assert set(shown) <= set(labels)
    assert len(labels) <= 8
    assert not len(axes.yaxis.get_minor_locator()())


def test_the_pareto_picture_has_ticks_at_the_l0s_that_were_run(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots.Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    points = [(8, 16.2, 0.01), (8, 32.1, 0.006), (2, 16.4, 0.008), (2, 31.9, 0.004), (2, 64.3, 0.002)]
    plots.pareto_plot(tmp_path / "p.png", points, "20 samples")
    (axes,) = figures[0].axes
    assert axes.xaxis.get_major_locator()().tolist() == [16.2, 31.9, 64.3]
    assert [axes.xaxis.get_major_formatter()(v, 0) for v in (16.2, 31.9, 64.3)] == ["16.2", "31.9", "64.3"]


def test_ticks_too_close_for_their_labels_are_left_out():
    assert plots.apart([0.0, 100.0, 10.0, 10.5, 99.0, 20.0]) == [10.0, 20.0, 99.0]
