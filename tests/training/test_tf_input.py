"""Batches for several calls of fit."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import pytest

from keras_structsparse.training.tf_input import are_arrays, fed

X, Y = np.arange(20, dtype="float32").reshape(10, 2), np.arange(10)

only_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="others get their arrays"
)


@pytest.fixture
def model() -> keras.Model:
    found = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    found.compile("sgd", "mse")
    return found


def labels(batches: Any) -> list[list[int]]:
    return [y.numpy().tolist() for _, y in batches]


@only_tensorflow
def test_every_example_comes_once_with_its_label_in_a_new_order(model: keras.Model) -> None:
    batches, none, options = fed(model, X, Y, {"batch_size": 4, "verbose": 0})
    assert none is None
    assert options == {"verbose": 0, "shuffle": False}
    first, second = labels(batches), labels(batches)
    assert [len(batch) for batch in first] == [4, 4, 2]
    for batch in (first, second):
        assert sorted(np.concatenate(batch)) == Y.tolist()
    assert first != second
    for x, y in batches:
        np.testing.assert_array_equal(x, X[y.numpy()])
    assert batches.options().autotune.enabled is False


@only_tensorflow
def test_a_batch_size_beyond_all_examples_takes_no_time(model: keras.Model) -> None:
    begin = time.monotonic()
    batches = fed(model, X, Y, {"batch_size": 10**9})[0]  # Minutes if TensorFlow is told so.
    assert sorted(np.concatenate(labels(batches))) == Y.tolist()
    assert time.monotonic() - begin < 30


@only_tensorflow
def test_the_seed_decides_the_order(model: keras.Model) -> None:
    orders = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        orders.append(labels(fed(model, X, Y, {})[0]))
    assert orders[0] == orders[1] != orders[2]


@only_tensorflow
def test_the_order_of_the_arrays_if_asked_for(model: keras.Model) -> None:
    batches, _, options = fed(model, X, Y, {"batch_size": 4, "shuffle": False})
    assert np.concatenate(labels(batches)).tolist() == Y.tolist()
    assert options == {"shuffle": False}


@only_tensorflow
def test_structures_and_types_stay(model: keras.Model) -> None:
    batches, _, _ = fed(model, {"a": X.astype("float64"), "b": Y}, [Y, Y], {"batch_size": None})
    x, y = next(iter(batches))
    assert {name: part.dtype.name for name, part in x.items()} == {"a": "float32", "b": "int64"}
    assert len(y) == 2


@pytest.mark.parametrize(
    ("x", "y", "options"),
    [
        (X, None, {}),
        (iter([X]), None, {}),
        (X, Y, {"sample_weight": np.ones(10)}),
        (X, Y, {"validation_split": 0.5}),
        (X, Y, {"steps_per_epoch": 2}),
    ],
)
def test_all_else_is_left_to_keras(
    model: keras.Model, x: Any, y: Any, options: dict[str, Any]
) -> None:
    assert fed(model, x, y, options) == (x, y, options)


def test_arrays() -> None:
    assert are_arrays({"a": X, "b": [Y]})
    assert not are_arrays([])
    assert not are_arrays(np.zeros(()))
    assert not are_arrays(np.zeros((0, 2)))
