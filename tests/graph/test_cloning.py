"""Copies of layers and models, and layers that are built without random numbers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from keras_structsparse.graph.cloning import clone, unset


class Composite(keras.layers.Layer):
    """Makes a layer of its own and says nothing of its type."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inner = keras.layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return self.inner(inputs)


def test_the_parts_of_a_copied_layer_have_its_type() -> None:
    twin = clone(Composite(), dtype="float64")
    assert twin.inner.dtype_policy.name == "float64"
    assert clone(twin).inner.dtype_policy.name == "float64"
    assert keras.config.dtype_policy().name == "float32", "it is set back"
    assert Composite(dtype="float64").inner.dtype_policy.name == "float32", "the control"


def test_a_layer_built_unset_has_zeros_and_keeps_its_initializers() -> None:
    layer = keras.layers.Conv2D(4, 3, kernel_initializer="he_uniform")
    with unset(layer):
        layer.build((None, 8, 8, 2))
    assert not np.any(layer.kernel)
    assert isinstance(layer.kernel_initializer, keras.initializers.HeUniform)
    other = keras.layers.Conv2D(4, 3, kernel_initializer="he_uniform")
    other.build((None, 8, 8, 2))
    assert np.any(other.kernel), "the control"


def test_a_failure_leaves_the_initializers_too() -> None:
    layer = keras.layers.Conv2D(4, 3, kernel_initializer="he_uniform")
    with pytest.raises(ZeroDivisionError), unset(layer):
        raise ZeroDivisionError
    assert isinstance(layer.kernel_initializer, keras.initializers.HeUniform)
