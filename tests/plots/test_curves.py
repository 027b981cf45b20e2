"""The figure of a whole sweep: what it shows, in the numbers behind the artists."""

from __future__ import annotations

from typing import Any

import pytest
from helpers_curves import SWEEP, Swept, swept

pytest.importorskip("matplotlib")

from keras_structsparse.plots import curves_figure


def lines(figure: Any) -> dict[str, list[list[float]]]:
    return {
        line.get_label(): [[round(float(v), 6) for v in place] for place in line.get_xydata()]
        for line in figure.axes[0].lines
    }


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_curves_envelope_and_references_are_in_percent() -> None:
    drawn = lines(curves_figure(SWEEP, 0.93, [("LeNet", 1.5, 0.92), ("AlexNet", 3, 0.9)]))
    assert drawn["tau = 0"] == [[40, 91], [90, 87]]
    assert drawn["tau = 0.1"] == [[10, 79], [30, 88]]
    assert drawn["envelope (by validation)"] == [[10, 79], [30, 88], [90, 87]]
    assert drawn["dense network"] == [[100, 93]]
    assert drawn["other networks"] == [[150, 92], [300, 90]]
    assert "network" not in drawn, "all of them lie on curves"


def test_networks_that_are_no_medians_are_dots() -> None:
    """Three seeds: the curve goes through the one in the middle."""
    seeds = [Swept(1e-3, 0.0, 0.4, 0.9, accuracy) for accuracy in (0.89, 0.9, 0.92)]
    drawn = lines(curves_figure(seeds, 0.93))
    assert drawn["tau = 0"] == [[40, 90]]
    assert drawn["network"] == [[40, 89], [40, 92]]


def test_everything_shown_is_inside_the_axes() -> None:
    axes = curves_figure(SWEEP, 0.93, [("far", 40.0, 0.5)]).axes[0]
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    assert left < 10
    assert right > 4000
    assert low < 50
    assert high > 93


def test_references_and_the_envelope_have_their_names() -> None:
    figure = curves_figure(SWEEP, 0.93, [("LeNet", 1.5, 0.92)])
    assert sorted(texts(figure)) == ["LeNet", "α = 1e-2", "α = 1e-3", "α = 1e-4"]
    assert "other networks" not in lines(curves_figure(SWEEP, 0.93))


def test_an_envelope_of_many_has_no_alphas() -> None:
    many = [Swept(1e-3 * i, 0.0, 0.05 * i, 0.05 * i, 0.05 * i) for i in range(1, 15)]
    assert texts(curves_figure(many, 0.93)) == []
    assert len(texts(curves_figure(many[:12], 0.93))) == 12, "the control"


def test_what_fell_apart_stands_at_the_edge() -> None:
    figure = curves_figure([*SWEEP, Swept(1e-3, 0.3, 0.5, 0.1, 0.1)], 0.93)
    ((across, up),) = lines(figure)["network below the axis"]
    assert (across, up) == (50, round(figure.axes[0].get_ylim()[0], 6))
    assert up > 60


def test_many_thresholds_share_six_colours() -> None:
    figure = curves_figure(swept([i / 10 for i in range(20)]), 0.93)
    assert len([label for label in lines(figure) if label.startswith("tau")]) == 6


def test_a_sweep_without_networks_has_no_figure() -> None:
    with pytest.raises(ValueError, match="points: expected at least one network"):
        curves_figure([], 0.93)
