"""Copies of layers and models, and layers that are built without random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import assert_same_function, random_batch

from keras_structsparse.graph.cloning import clone, unset
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan


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


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0, 4.0], np.arange(4.0), 0.5, [0.5]])
def test_initializers_that_hold_arrays_are_left_out_where_the_width_may_change(values: Any) -> None:
    initializer = keras.initializers.Constant(values)
    layer = keras.layers.Dense(3, bias_initializer=initializer, kernel_initializer="ones")
    with unset(layer):
        layer.build((None, 2))
    assert isinstance(layer.kernel_initializer, keras.initializers.Ones)
    assert (layer.bias_initializer is initializer) == (np.size(values) == 1)
    keras.layers.Dense.from_config(layer.get_config()).build((None, 2))


@pytest.mark.parametrize("realize", ["crop", "split"])
def test_pruned_layers_with_such_initializers_load(realize: str, tmp_path: Path) -> None:
    constant = keras.initializers.Constant([1.0, 2.0, 3.0, 4.0])
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="c", bias_initializer=constant)(inputs)
    x = keras.layers.BatchNormalization(beta_initializer=constant)(x)
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(x))
    pruned = prune(model, Plan({"c": (0, 3, 1, 3)}), realize=realize)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_function(pruned, loaded, random_batch(model), tolerance=0.0)
    assert model.get_layer("c").bias_initializer is constant
