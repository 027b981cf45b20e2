"""Depth, widths and sizes, read off networks."""

from __future__ import annotations

import keras
import pytest
from keras import layers as L

from keras_structsparse.errors import ModelError
from keras_structsparse.models import build
from keras_structsparse.profiling.architecture import architecture


def network(branch: int) -> keras.Model:
    """A convolution, two branches, a sum and a classifier."""
    inputs = keras.Input((8, 8, 2))
    x = L.BatchNormalization()(L.Conv2D(4, 5, padding="same")(inputs))
    y = x
    for _ in range(branch):
        y = L.Conv2D(4, (1, 3), padding="same")(y)
    x = L.Add()([L.Conv2D(4, 1)(x), y])
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))


@pytest.mark.parametrize(("branch", "depth"), [(0, 3), (1, 3), (2, 4), (5, 7)])
def test_the_depth_is_that_of_the_longest_path(branch: int, depth: int) -> None:
    assert architecture(network(branch)).depth == depth


def test_widths_and_sizes_are_sets_without_the_classifier() -> None:
    found = architecture(network(2))
    assert (found.widths, found.sizes) == ((4,), (1, 3, 5))
    assert architecture(network(0)).sizes == (1, 5)


def test_params_are_those_that_keras_counts() -> None:
    model = network(0)
    kernels = 5 * 5 * 2 * 4 + 4 + 4 * 4 + 4 + 64 * 4 * 3 + 3
    assert architecture(model).params == kernels + 4 * 4 == model.count_params()
    model.trainable = False
    assert architecture(model).params == model.count_params()


def test_a_layer_called_twice_is_twice_as_deep() -> None:
    inputs, layer = keras.Input((8, 8, 2)), L.Conv2D(2, 3, padding="same")
    assert architecture(keras.Model(inputs, layer(inputs))).depth == 1
    assert architecture(keras.Model(inputs, layer(layer(inputs)))).depth == 2


def test_open_sizes_are_asked_for() -> None:
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, L.Conv2D(2, 3, padding="same")(inputs))
    with pytest.raises(ModelError, match="input_shape"):
        architecture(model)
    assert architecture(model, (4, 4, 3)).multiply_adds == 16 * 27 * 2


def test_the_base_of_depth_20() -> None:
    found = architecture(build("cifar10-resnet20"))
    assert (found.depth, found.widths, found.sizes) == (20, (16, 32, 64), (1, 3))
