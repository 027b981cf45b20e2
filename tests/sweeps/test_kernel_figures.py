"""Kernels before and after: what is drawn, and which layers it is read off."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import randomize
from helpers_sweeps import build

pytest.importorskip("matplotlib")

import keras_structsparse as kss
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.plots import strips_figure
from keras_structsparse.sweeps.report.kernel_figures import shades


def test_kernels_lie_where_a_crop_takes_them_from() -> None:
    before, after = [np.full((5, 5), 2.0)] * 3, [np.full((2, 2), 4.0), np.full((3, 3), 1.0)]
    axes = strips_figure({"conv": (before, after)}, ("dense", "pruned")).axes[0]
    image = axes.images[0].get_array()
    assert image.shape == (11, 17)
    assert (image[:5, :5] == 1.0).all()
    assert np.ma.getmaskarray(image[:, 5]).all()
    # Of 5 entries 2 are those from the third on, and 3 those from the second on.
    small, middle = image[6:, :5], image[6:, 6:11]
    assert (small[2:4, 2:4] == 1.0).all()
    assert (middle[1:4, 1:4] == 0.25).all()
    assert (small.count(), middle.count(), image[6:, 12:].count()) == (4, 9, 0)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dense", "pruned"]


def test_layers_without_kernels_are_refused() -> None:
    nothing: list[dict[str, Any]] = [{}, {"conv": ([], [])}]
    for layers in nothing:
        with pytest.raises(ValueError, match=re.escape("layers: expected at least one")):
            strips_figure(layers)


@pytest.mark.parametrize("realize", ["crop", "split"])
def test_kernels_are_found_in_layers_that_surgery_has_split(realize: str) -> None:
    model = randomize(build())
    plan = kss.Plan({"conv1": (3, 1, 1, 1, 3, 2), "conv2": (0, 3, 3, 3, 3, 0)})
    pruned = kss.prune(model, plan, realize=realize)
    assert [each.shape for each in shades(model, "conv1")] == [(3, 3)] * 6
    sizes = sorted(max(each.shape) for each in shades(pruned, "conv1"))
    assert sizes == {"crop": [3] * 6, "split": [1, 1, 1, 2, 3, 3]}[realize]
    kernel = pruned.get_layer("conv2").kernel.numpy()
    norms = [float(np.sqrt((each**2).sum())) for each in shades(pruned, "conv2")]
    np.testing.assert_allclose(norms, np.sqrt((kernel**2).sum((0, 1, 2))), rtol=1e-6)
    assert shades(pruned, "conv") == shades(model, "head") == []


def test_kernels_of_a_loaded_network_are_found_by_its_record(tmp_path: Path) -> None:
    """After two cuts too, and where the base has a layer that is called like a part."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", name="conv")(inputs)
    x = keras.layers.Conv2D(3, 1, name="conv_part_0")(x)
    model = randomize(keras.Model(inputs, keras.layers.Conv2D(2, 1, name="last")(x)))
    first = kss.prune(model, kss.Plan({"conv": (3, 1, 1, 1, 3, 2)}), realize="split")
    kss.prune(first, kss.Plan({}), realize="none").save(tmp_path / "pruned.keras")
    pruned = keras.models.load_model(tmp_path / "pruned.keras")
    assert sorted(max(each.shape) for each in shades(pruned, "conv")) == [1, 1, 1, 2, 3, 3]
    assert len(shades(pruned, "conv_part_0")) == len(shades(model, "conv_part_0")) == 3
    assert len(shades(copy_model(pruned), "conv")) == 0, "the control has no record"
