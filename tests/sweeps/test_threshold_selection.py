"""Thresholds chosen on a validation split."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers_models import randomize

import keras_structsparse as kss
from keras_structsparse.surgery.plans import masked, plan
from keras_structsparse.sweeps.threshold_selection import largest_threshold, masked_accuracy
from keras_structsparse.training.fit import accuracy

TAUS = (0.0, 0.5, 1.0, 100.0)


@pytest.fixture
def model() -> keras.Model:
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(6, 3, name="conv", kernel_regularizer=kss.KernelCount())(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return randomize(keras.Model(inputs, keras.layers.Dense(4, "softmax")(x)))


@pytest.fixture
def data(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """The model's own answers as labels: it is always right until something is removed."""
    x = np.random.default_rng(0).normal(size=(300, 6, 6, 1))
    return x, np.argmax(model(x), axis=-1)


def test_masked_accuracy_is_that_of_the_masked_model(
    model: keras.Model, data: tuple[np.ndarray, np.ndarray]
) -> None:
    before = model.get_weights()
    chosen = kss.Plan({"conv": (3, 0, 0, 2, 0, 0)})
    found = masked_accuracy(model, chosen, data)
    assert found == accuracy(masked(model, chosen), data) < accuracy(model, data)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("max_drop", [0.0, 0.3, 1.0])
def test_the_largest_threshold_that_costs_little(
    model: keras.Model, data: tuple[np.ndarray, np.ndarray], max_drop: float
) -> None:
    tau, chosen, value = largest_threshold(model, TAUS, data, max_drop)
    assert chosen == plan(model, tau)
    values = {t: masked_accuracy(model, plan(model, t), data) for t in TAUS}
    assert value == values[tau] >= 1 - max_drop
    assert all(values[t] < 1 - max_drop for t in TAUS if t > tau)


def test_thresholds_that_all_cost_too_much_give_the_smallest(
    model: keras.Model, data: tuple[np.ndarray, np.ndarray]
) -> None:
    assert largest_threshold(model, (50.0, 100.0), data, 0.0)[0] == 50.0
