"""What the loss loses without a channel that others can replace."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import chain, randomize
from helpers_prox import examples
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L

from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.inner_layers import inner_layers
from keras_structsparse.training.channel_regressions import (
    ChannelRegression,
    entries_of,
    places_of_kernels,
)
from keras_structsparse.training.compensation import Compensation
from keras_structsparse.training.grouped_kernels import grouped_kernels
from keras_structsparse.training.measured_saliency import Measurement
from keras_structsparse.training.reconstruction import RIDGE, Moments, Reconstruction
from keras_structsparse.training.training_data import TrainingData

Array = Any


@examples(30)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_all_channels_at_once_are_regressions_one_by_one(
    channels: int, positions: int, kernels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    entries = channels * positions
    data = rng.standard_normal((40, entries)) @ rng.standard_normal((entries, entries))
    moments = Moments(data.mean(0), np.cov(data.T, bias=True).reshape(entries, entries))
    kernel, gradient = rng.standard_normal((2, entries, kernels))
    kernel[rng.random(kernel.shape) < 0.2] = 0
    constant = rng.standard_normal(kernels)
    regression = ChannelRegression.of(moments, channels)
    found = regression.changes(*map(keras.ops.convert_to_tensor, (kernel, gradient, constant)))
    centred = (gradient - np.outer(moments.mean, constant)) * (kernel != 0)
    ridge = RIDGE * np.trace(moments.covariance) / entries
    for channel, own in enumerate(entries_of(channels, entries)):
        rest = np.setdiff1d(np.arange(entries), own)
        within = moments.covariance[np.ix_(rest, rest)] + ridge * np.eye(len(rest))
        coefficients = np.linalg.solve(within, moments.covariance[np.ix_(rest, own)])
        wanted = np.sum(kernel[own] * (centred[own] - coefficients.T @ centred[rest]))
        assert float(found[channel]) == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def test_inputs_that_do_not_vary_are_no_trouble() -> None:
    flat = ChannelRegression.of(Moments(np.ones(4), np.zeros((4, 4))), 2)
    ones = np.ones((4, 3))
    assert np.isfinite(flat.changes(ones, ones, np.ones(3))).all()


def places(model: keras.Model) -> dict[str, dict[str, list[int]]]:
    """The kernels of each layer that have a place at each reader."""
    found = PrunableLayers.of(model)
    written = Reconstruction(found).written
    own = places_of_kernels(found, written, [name for name in found.layers if name != "values"])
    return {
        name: {reader: np.flatnonzero(m.any(axis=0)).tolist() for reader, m in maps.items()}
        for name, maps in own.items()
    }


def branches(join: Any, other: Any = None) -> keras.Model:
    inputs = keras.Input((8, 8, 2))
    first = L.Conv2D(3, 3, padding="same", activation="relu", name="first")(inputs)
    second = L.Conv2D(3, 3, padding="same", activation="relu", name="second")(inputs)
    x = L.Conv2D(4, 1, activation="relu", name="reader")(join([first, second]))
    x = L.GlobalAveragePooling2D()(x)
    if other is not None:
        x = L.Concatenate()([x, L.GlobalAveragePooling2D()(other(first))])
    return keras.Model(inputs, L.Dense(2, name="values")(x))


def test_a_channel_has_a_place_at_each_of_its_readers() -> None:
    joined = branches(L.Concatenate(), L.Conv2D(2, 1, name="also"))
    assert places(joined)["first"] == {"reader": [0, 1, 2], "also": [0, 1, 2]}
    assert places(joined)["second"] == {"reader": [0, 1, 2]}


def test_no_place_where_others_write_the_channel_or_read_it() -> None:
    assert not places(branches(L.Add()))["first"]
    depthwise = branches(L.Concatenate(), L.DepthwiseConv2D(3, name="also"))
    assert places(depthwise)["first"] == {"reader": []}
    assert places(depthwise)["second"] == {"reader": [0, 1, 2]}


@pytest.mark.parametrize("compensated", [True, False])
def test_a_kernel_with_a_twin_is_needed_less(compensated: bool) -> None:
    """The control is a measurement in which nothing makes up for a kernel."""
    model = randomize(
        chain(
            L.Conv2D(6, 3, activation="relu", name="twins"),
            L.Conv2D(5, 3, activation="relu", name="reader"),
            L.GlobalAveragePooling2D(),
            L.Dense(2, name="values"),
        ),
        3,
    )
    layer = model.get_layer("twins")
    data = np.random.default_rng(0).standard_normal((64, 9, 9, 2)).astype("float32")
    targets = np.random.default_rng(1).standard_normal((64, 2)).astype("float32")

    def measured() -> Array:
        found = PrunableLayers.of(model)
        kernels = grouped_kernels(found, inner_layers(found), "kernel")
        own = Compensation.of(found, kernels) if compensated else None
        measurement = Measurement(model, kernels, {"loss": "mse"}, own)
        train = TrainingData.of((data, targets), 32)
        rng = np.random.default_rng(2)
        return measurement.on(train, 2, 32, "kernel", rng).second["twins"][-1]

    alone = measured()
    for variable in layer.weights:
        value = keras.ops.convert_to_numpy(variable).copy()
        value[..., 1] = value[..., 0]
        variable.assign(value)
    together = measured()
    share = together[0] / together.sum() / (alone[0] / alone.sum())
    assert (share < 0.7) == compensated, share
