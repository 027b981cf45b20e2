"""The means of removed entries: measured, kept in the outputs, and taken off the saliency."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import randomize
from helpers_shrinking import Batches
from keras import layers as L

from keras_structsparse.graph.kernel_axes import plain_kernel, stored
from keras_structsparse.graph.nested_groups import masked_kernel
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.inner_layers import inner_layers
from keras_structsparse.training.compensation import Compensation
from keras_structsparse.training.grouped_kernels import grouped_kernels
from keras_structsparse.training.mean_shifts import MeanShifts
from keras_structsparse.training.measured_inputs import input_means
from keras_structsparse.training.measured_saliency import Measurement
from keras_structsparse.training.training_data import TrainingData

Array = Any
RNG = np.random.default_rng(8)
X = RNG.random((16, 6, 6, 2)).astype("float32")
Y = RNG.random((16, 1)).astype("float32")


def network(*middle: keras.Layer) -> keras.Model:
    """Layers between a first one and a mean over the positions, with random weights."""
    x = inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(4, 1, activation="relu", name="first")(x)
    for layer in middle:
        x = layer(x)
    x = L.Dense(1, name="value")(L.GlobalAveragePooling2D()(x))
    return randomize(keras.Model(inputs, x), 3)


def shifts_of(model: keras.Model, groups: str = "half_ring") -> MeanShifts:
    found = PrunableLayers.of(model)
    shifts = MeanShifts(found, grouped_kernels(found, inner_layers(found), groups))
    shifts.measure([(X[:8],), (X[8:],)])
    return shifts


PLACES: dict[str, list[Any]] = {
    "bias": [lambda: L.Conv2D(5, 3, name="c")],
    "bias, then norm": [lambda: L.Conv2D(5, 3, name="c"), L.BatchNormalization],
    "norm": [lambda: L.Conv2D(5, 3, use_bias=False, name="c"), L.BatchNormalization],
    "norm without scale": [
        lambda: L.Conv2D(5, 3, use_bias=False, name="c"),
        lambda: L.BatchNormalization(scale=False),
    ],
    "depthwise": [lambda: L.DepthwiseConv2D(3, depth_multiplier=2, name="c")],
    "dense": [lambda: L.Dense(5, name="c")],
}


@pytest.mark.parametrize("place", PLACES)
def test_the_mean_of_a_linear_layer_is_kept_when_entries_are_removed(place: str) -> None:
    model = network(*(make() for make in PLACES[place]))
    shifts, layer = shifts_of(model), model.get_layer("c")
    kernel = plain_kernel(layer)
    sizes = [0, 1, *(2 for _ in range(kernel.shape[-1] - 2))]
    kept = masked_kernel(kernel, [min(s, max(kernel.shape[:-2], default=1)) for s in sizes])
    before = np.mean(model.predict(X, verbose=0))
    layer.kernel.assign(stored(layer, kept))
    control = np.mean(model.predict(X, verbose=0))
    shifts.move("c", kernel - kept)
    after = np.mean(model.predict(X, verbose=0))
    assert abs(control - before) > 1e-2 * abs(before)
    # Windows see the positions of a map unequally often, so of a 3x3 kernel about the mean is kept.
    allowed = 1e-4 if place == "dense" else 0.5
    assert abs(after - before) < allowed * abs(control - before)


def test_where_no_constant_can_be_added_nothing_is_moved() -> None:
    frozen = L.Conv2D(4, 1, name="frozen")
    behind = [L.Conv2D(4, 1, use_bias=False, activation="relu", name="behind")]
    behind += [L.BatchNormalization(), L.Conv2D(4, 1, activation="relu", name="biased")]
    behind += [L.BatchNormalization(), L.Conv2DTranspose(4, 2, name="up")]
    shared = L.Conv2D(4, 1, name="shared")
    separable = L.SeparableConv2D(4, 3, name="separable")
    model = network(frozen, *behind, separable, shared, shared, L.Conv2D(4, 1, use_bias=False))
    frozen.bias.trainable = False
    shifts = shifts_of(model)
    assert list(shifts.offsets) == ["first"]
    before = [np.array(w) for w in model.get_weights()]
    shifts.move("up", plain_kernel(model.get_layer("up")))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_means_of_nested_models_of_names_and_of_whole_numbers() -> None:
    image, number = keras.Input((4, 4, 1), name="image"), keras.Input((1,), name="number")
    part_in = keras.Input((4, 4, 1))
    part = keras.Model(part_in, L.Conv2D(2, 1, name="inside")(part_in), name="part")
    x = L.GlobalAveragePooling2D()(part(image))
    x = L.Dense(3, name="d")(L.Concatenate()([x, number]))
    model = randomize(keras.Model({"image": image, "number": number}, x), 1)
    images, numbers = RNG.integers(0, 9, (8, 4, 4, 1)).astype("uint8"), RNG.random(8)
    found = input_means(PrunableLayers.of(model), ["part/inside", "d"]).predict_on_batch(
        {"number": numbers, "image": images}
    )
    np.testing.assert_allclose(found["part/inside"], [images.mean()], rtol=1e-5)
    inside = part.predict(images, verbose=0).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(found["d"], [*inside, numbers.mean()], rtol=1e-5)


@pytest.mark.parametrize("place", ["bias", "norm", "norm without scale", "depthwise"])
def test_the_saliency_is_the_slope_while_the_mean_is_moved(place: str) -> None:
    model = network(*(make() for make in PLACES[place]))
    found = PrunableLayers.of(model)
    kernels = grouped_kernels(found, inner_layers(found), "half_ring")
    compensation, layer = Compensation.of(found, kernels), model.get_layer("c")
    shifts = compensation.shifts
    data = TrainingData.of(Batches([(X, Y)]), 16)
    options = {"loss": "mean_squared_error"}
    measurement = Measurement(model, kernels, options, compensation)
    moved = measurement.on(data, 1, 16, "half_ring").saliency.first["c"]
    plain = Measurement(model, kernels, options).on(data, 1, 16, "half_ring").saliency.first["c"]
    value, weights = plain_kernel(layer).copy(), model.get_weights()
    slopes = []
    for kernel in range(value.shape[-1]):
        losses = []
        for step in (1e-2, -1e-2):
            change = np.zeros_like(value)
            change[..., kernel] = step * value[..., kernel]
            layer.kernel.assign(stored(layer, value + change))
            shifts.move("c", -change)
            losses.append(np.square(model.predict(X, verbose=0) - Y).mean())
            model.set_weights(weights)
        slopes.append(abs(losses[0] - losses[1]) / 2e-2)
    scale = max(slopes)
    np.testing.assert_allclose(moved[-1], slopes, atol=0.02 * scale)
    assert np.abs(plain[-1] - slopes).max() > 0.1 * scale  # the control
