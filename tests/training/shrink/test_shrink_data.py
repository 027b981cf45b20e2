"""All kinds of data and of losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_shrink import randomize
from helpers_shrinking import CROSS, Batches, easy, ready, shrunk
from keras import layers as L

Array = Any


def with_weights(x: Array, y: Array) -> list[tuple[Array, ...]]:
    weights = np.where(y > 0, 1.0, 0.1).astype("float32")
    return [(x[i::2], y[i::2], weights[i::2]) for i in (0, 1)]


def tf_data(x: Array, y: Array) -> Any:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("where TensorFlow may be missing")
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(24)


KINDS: dict[str, Callable[[Array, Array], Any]] = {
    "list": lambda x, y: [x, y],
    "tf.data": tf_data,
    "PyDataset": lambda x, y: Batches([(x[:24], y[:24]), (x[24:], y[24:])]),
    "sample weights": lambda x, y: Batches(with_weights(x, y)),
}


@pytest.mark.filterwarnings("ignore:shrink. accuracy changed:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_data_of_every_kind(kind: str) -> None:
    model, (x, y) = ready("series")
    data = KINDS[kind](x, y)
    result = shrunk(model, data, data)
    assert result.comparison.multiply_adds_fraction <= 0.5
    assert set(result.after) == {"loss", "accuracy"}
    assert len(result.history["val_loss"]) == 2


def head(loss: str) -> tuple[keras.Model, Any, Any]:
    """A network with convolutions, its targets, and the arguments of compile."""
    inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(6, 3, activation="relu", name="a", kernel_regularizer="l2")(inputs)
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu", name="b")(x))
    classes, value = L.Dense(3, activation="softmax", name="z")(x), L.Dense(1, name="v")(x)
    model = randomize(keras.Model(inputs, {"two": [classes, value], "one": value}[loss]))
    data, labels = easy(keras.Model(inputs, value))
    values = labels[:, None].astype("float32")
    return model, data, (labels, values) if loss == "two" else values


def test_regression_with_a_regularizer() -> None:
    model, x, y = head("one")
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=True)
    result = shrunk(model, (x, y), (x, y), params=0.6)
    assert result.comparison.params_fraction <= 0.6
    assert result.judge is not None
    assert (result.judge.metric, result.judge.rises) == ("mae", False)
    assert result.drop == pytest.approx(result.after["mae"] - result.before["mae"])


@pytest.mark.parametrize("named", [False, True])
def test_two_outputs_with_weights(named: bool) -> None:
    model, x, (labels, values) = head("two")
    losses, weights = [CROSS, "mse"], [1.0, 0.5]
    given: Any = (dict(zip("zv", losses, strict=True)), dict(zip("zv", weights, strict=True)))
    model.compile("adam", *(given if named else (losses, weights)), run_eagerly=True)
    y: Any = {"z": labels, "v": values} if named else (labels, values)
    result = shrunk(model, (x, y), (x, y))
    assert result.comparison.multiply_adds_fraction <= 0.5
    assert result.judge is not None
    assert result.judge.metric == "loss"
    both = {name for name in result.after if name != "loss"}
    assert both == {"z_loss", "v_loss"}
    assert len(result.model.outputs) == 2


def test_named_inputs() -> None:
    image, number = keras.Input((6, 6, 2), name="image"), keras.Input((3,), name="number")
    x = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, activation="relu", name="a")(image))
    x = L.Dense(8, activation="relu", name="b")(L.Concatenate()([x, number]))
    model = randomize(keras.Model({"image": image, "number": number}, L.Dense(1)(x)))
    model.compile("adam", "mse", run_eagerly=True)
    rng = np.random.default_rng(0)
    inputs = {"image": rng.normal(size=(48, 6, 6, 2)), "number": rng.normal(size=(48, 3))}
    data = inputs, rng.normal(size=(48, 1))
    result = shrunk(model, data, data)
    assert result.comparison.multiply_adds_fraction <= 0.5
    assert set(result.plan.sizes) >= {"a", "b"}
