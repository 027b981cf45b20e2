"""Copies of layers and models, and layers that are built without random numbers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_structsparse.copying import unset


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
