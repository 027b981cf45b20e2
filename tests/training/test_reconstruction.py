"""Kept entries take over what removed ones computed."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import randomize
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L

from keras_structsparse.graph.batch_norm_statistics import reestimate_batch_norm
from keras_structsparse.graph.kernel_axes import kernel_of, plain_kernel, stored
from keras_structsparse.graph.nested_groups import masked_kernel
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.inner_layers import inner_layers
from keras_structsparse.training import reconstruction
from keras_structsparse.training.compensation import Compensation
from keras_structsparse.training.grouped_kernels import grouped_kernels
from keras_structsparse.training.reconstruction import Moments, taken_over

Array = Any
RNG = np.random.default_rng(4)


@pytest.fixture
def no_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were data without end: what can be predicted is taken over whole."""
    monkeypatch.setattr(reconstruction, "RIDGE", 1e-6)


@given(st.integers(0, 2**32 - 1))
def test_the_change_is_the_ridge_regression_of_what_is_lost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    entries, kernels = rng.integers(2, 9), rng.integers(1, 5)
    data = rng.standard_normal((50, entries)) @ rng.standard_normal((entries, entries))
    data -= data.mean(0)
    gone, kept = rng.random((2, entries, kernels)) < 0.5
    lost, kept = rng.standard_normal((entries, kernels)) * gone, kept & ~gone
    change = taken_over(Moments(np.zeros(entries), data.T @ data / 50), lost, kept)
    assert not change[~kept].any()
    for j in range(kernels):
        own = data[:, kept[:, j]]
        if own.shape[1]:
            ridge = reconstruction.RIDGE * np.square(own).sum() / own.shape[1]
            root = np.sqrt(ridge) * np.eye(own.shape[1])
            wanted = np.concatenate([data @ lost[:, j], np.zeros(own.shape[1])])
            best = np.linalg.lstsq(np.concatenate([own, root]), wanted, rcond=None)[0]
            np.testing.assert_allclose(change[kept[:, j], j], best, rtol=1e-6, atol=1e-9)


def twins(kind: str) -> keras.Model:
    """A network in whose first layer kernels 0 and 1 are equal."""
    inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(4, 3, padding="same", activation="relu", name="twins")(inputs)
    if kind == "norm":
        x = L.Conv2D(5, 3, use_bias=False, name="reader")(x)
        x = L.ReLU()(L.BatchNormalization()(x))
    elif kind == "concatenation":
        other = L.Conv2D(3, 1, activation="relu", name="other")(inputs)
        x = L.Conv2D(5, 2, strides=2, activation="relu", name="reader")(L.Concatenate()([other, x]))
    else:
        x = L.Conv2D(5, 3, activation="relu", name="reader")(L.MaxPooling2D(2)(x))
    x = L.Dense(2, name="values")(L.GlobalAveragePooling2D()(x))
    model = randomize(keras.Model(inputs, x), 5)
    layer = model.get_layer("twins")
    for variable in layer.weights:
        value = keras.ops.convert_to_numpy(variable).copy()
        value[..., 1] = value[..., 0]
        variable.assign(value)
    return model


def whole(model: keras.Model) -> dict[str, Array]:
    """The sizes of the kernels of a network of which nothing was removed."""
    layers = PrunableLayers.of(model).layers
    shapes = {name: plain_kernel(layer).shape for name, layer in layers.items()}
    return {n: np.full(shape[-1], max(shape[:-2], default=1)) for n, shape in shapes.items()}


def remove(
    model: keras.Model, sizes: dict[str, Array], data: Array, *, corrected: bool = True
) -> Compensation:
    """Remove entries as GradualPruning does."""
    found = PrunableLayers.of(model)
    compensation = Compensation.of(found, grouped_kernels(found, inner_layers(found), "half_ring"))
    compensation.measure([(data,)])
    kernels = {name: plain_kernel(layer).copy() for name, layer in found.layers.items()}
    for name, own in sizes.items():
        kept = masked_kernel(kernels[name], own.tolist())
        compensation.shifts.move(name, kernels[name] - kept)
        kernel_of(found.layers[name]).assign(stored(found.layers[name], kept))
    if corrected:
        compensation.reconstruction.correct(kernels, whole(model), {**whole(model), **sizes})
    return compensation


@pytest.mark.usefixtures("no_ridge")
@pytest.mark.parametrize("kind", ["pooling", "concatenation", "norm"])
def test_the_readers_of_a_removed_kernel_read_its_twin_in_its_place(kind: str) -> None:
    data = RNG.standard_normal((32, 8, 8, 2)).astype("float32")
    errors = {}
    for corrected in (True, False):
        model = reestimate_batch_norm(twins(kind), data)
        before = model.predict(data, verbose=0)
        sizes = {"twins": np.array([3, 0, 3, 3])}
        remove(model, sizes, data, corrected=corrected)
        assert not plain_kernel(model.get_layer("twins"))[..., 1].any()
        errors[corrected] = np.abs(model.predict(data, verbose=0) - before).max()
    assert errors[True] < 2e-3 * errors[False]


@pytest.mark.usefixtures("no_ridge")
def test_the_middle_of_a_kernel_takes_over_its_ring_on_even_images() -> None:
    inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(3, 3, activation="relu", name="conv")(inputs)
    model = randomize(keras.Model(inputs, L.Dense(1)(L.GlobalAveragePooling2D()(x))), 6)
    even = np.broadcast_to(RNG.standard_normal((32, 1, 1, 2)), (32, 6, 6, 2)).astype("float32")
    before, kernel = model.predict(even, verbose=0), plain_kernel(model.get_layer("conv")).copy()
    remove(model, {"conv": np.array([1, 2, 3])}, even)
    now = plain_kernel(model.get_layer("conv"))
    np.testing.assert_array_equal(now != 0, masked_kernel(np.ones(now.shape), [1, 2, 3]) != 0)
    np.testing.assert_array_equal(now[..., 2], kernel[..., 2])
    np.testing.assert_allclose(now.sum((0, 1)), kernel.sum((0, 1)), rtol=1e-3)
    np.testing.assert_allclose(model.predict(even, verbose=0), before, rtol=1e-3, atol=1e-4)


def test_what_was_lost_before_is_not_taken_over_again() -> None:
    data = RNG.standard_normal((32, 8, 8, 2)).astype("float32")
    model, sizes = twins("pooling"), {"twins": np.array([3, 0, 3, 3])}
    compensation = remove(model, sizes, data)
    weights, now = model.get_weights(), {**whole(model), **sizes}
    compensation.measure([(data,)])
    compensation.reconstruction.correct({}, now, now)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    compensation.reconstruction.correct({}, whole(model), now)  # the control
    reader = model.get_layer("reader")
    assert not np.array_equal(plain_kernel(reader), weights[2])


def test_layers_that_cannot_be_corrected_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconstruction, "LARGEST", 40)
    inputs = keras.Input((8, 8, 4))
    x = L.Conv2D(4, 1, activation="relu", name="first")(inputs)
    frozen = L.Conv2D(4, 1, name="frozen")
    shared = L.Conv2D(4, 1, name="shared")
    for layer in (
        L.Conv2D(4, 3, groups=2, name="groups"),
        L.DepthwiseConv2D(3, name="depthwise"),
        L.Conv2D(4, 2, use_bias=False, name="without_bias"),
        frozen,
        shared,
        shared,
        L.Conv2DTranspose(5, 3, name="transposed"),
        L.Conv2D(4, 3, name="large"),
    ):
        x = layer(x)
    x = L.Dense(2, name="values")(L.GlobalAveragePooling2D()(x))
    model = randomize(keras.Model(inputs, x), 7)
    frozen.trainable = False
    data = RNG.standard_normal((32, 8, 8, 4)).astype("float32")
    before = {layer.name: layer.get_weights() for layer in model.layers}
    remove(model, {"first": np.array([1, 0, 1, 1]), "large": np.array([3, 3, 0, 3])}, data)
    changed = {
        layer.name
        for layer in model.layers
        if any(
            not np.array_equal(a, b)
            for a, b in zip(before[layer.name], layer.get_weights(), strict=True)
        )
    }
    assert changed == {"first", "large", "values"}
    large = plain_kernel(model.get_layer("large"))
    np.testing.assert_array_equal(large[..., [0, 1, 3]], before["large"][0][..., [0, 1, 3]])
