"""The figure of correlations over epochs or alphas."""

from __future__ import annotations

import math

import pytest

from keras_structsparse.plots import correlation_figure, svg

NAN = math.nan


def test_every_layer_is_a_line_without_what_is_not_a_number() -> None:
    values = {
        "conv1": {0.0: 0.2, 1.0: 0.3, 2.0: NAN},
        "conv2": {1.0: 0.1, 0.0: 0.4},
        "gone": {0.0: NAN},
    }
    axes = correlation_figure(values).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {"conv1": [[0, 0.2], [1, 0.3]], "conv2": [[0, 0.4], [1, 0.1]]}
    assert axes.get_xlabel() == "epoch"
    axes.figure.draw_without_rendering()
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert {"0", "1"} <= set(shown)
    assert not [text for text in shown if "." in text], "there are no halves of epochs"


def test_over_alpha_the_dense_network_has_its_place() -> None:
    values = {"conv1": {0.0: 0.1, 1e-4: 0.2, 1e-2: 0.4}}
    axes = correlation_figure(values, over="alpha").axes[0]
    assert axes.get_xscale() == "symlog"
    assert axes.get_xlabel() == "alpha"
    figures = [svg(correlation_figure(values, over=over)) for over in ("alpha", "alpha", "epoch")]
    assert figures[0] == figures[1]
    assert figures[0] != figures[2], "the control"


@pytest.mark.parametrize("values", [{}, {"conv1": {}}, {"conv1": {0: NAN}}])
def test_nothing_to_draw_is_refused(values: dict[str, dict[float, float]]) -> None:
    with pytest.raises(ValueError, match="values: expected a layer with a value"):
        correlation_figure(values)
