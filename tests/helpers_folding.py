"""What the tests of folding share: the equality check and a small graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from helpers_models import TOLERANCE, difference, random_batch, randomize, types
from keras import layers as L

from keras_structsparse.graph.batch_norm_folding import folded

BACKEND = keras.backend.backend()
FIRST = BACKEND != "tensorflow"
"""TensorFlow has no convolutions with the channels first on a CPU."""

ALLOWED = TOLERANCE if BACKEND == "tensorflow" else 1e-5
"""Elsewhere Keras normalises in float32, whatever the policy."""


def norms(model: keras.Model) -> int:
    return sum(isinstance(layer, L.BatchNormalization) for layer in model.layers)


def assert_same_function(left: keras.Model, right: keras.Model, inputs: Any) -> None:
    found = difference(left, right, inputs)
    assert found <= ALLOWED, f"relative difference {found:.2e}, allowed {ALLOWED:.0e}"


def assert_folded(model: keras.Model, left: int = 0) -> keras.Model:
    """Fail unless the folded network is equal, and what was folded makes a difference."""
    result, inputs = folded(model), random_batch(model)
    assert_same_function(model, result, inputs)
    assert norms(result) == left
    if types(result) != types(model):
        broken = folded(model)
        for weight in broken.weights:
            weight.assign(weight + 0.1 * np.sign(np.asarray(weight)) * (weight.path[-4:] == "bias"))
        assert difference(model, broken, inputs) > 1e2 * ALLOWED, "the control does not fail"
    return result


Graph = Callable[[Any, Any, Any], Any]
"""From an input, a convolution and a normalisation to outputs."""


def graph(make: Graph) -> keras.Model:
    inputs = keras.Input((6, 6, 4))
    conv, norm = L.Conv2D(4, 3, padding="same", name="conv"), L.BatchNormalization(name="norm")
    return randomize(keras.Model(inputs, make(inputs, conv, norm)))
