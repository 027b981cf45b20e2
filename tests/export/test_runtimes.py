"""Latency in the runtimes that networks are exported for."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_structsparse.errors import ModelError
from keras_structsparse.export.runtimes import RUNTIMES, Runtime, _as_exported
from keras_structsparse.profiling.latency import random_inputs

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="LiteRT files are written on TensorFlow"
)


def network(width: int = 4, side: int | None = 12, depth: int = 1) -> keras.Model:
    x = inputs = keras.Input((side, side, 3))
    for _ in range(depth):
        x = L.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = L.ReLU()(L.BatchNormalization()(x))
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(L.Dropout(0.5)(x))))


def two_inputs() -> keras.Model:
    """Inputs of different shapes, in an order that is not that of their names."""
    first, second = keras.Input((8, 8, 1), name="z"), keras.Input((5,), name="a")
    x = L.Concatenate()([L.Flatten()(L.Conv2D(2, 3)(first)), second])
    return keras.Model([first, second], L.Dense(2)(x))


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("make", [network, two_inputs])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_is_timed_is_the_network(name: str, make: Any, batch_size: int) -> None:
    model = make()
    inputs = random_inputs("model", model, batch_size)
    run = RUNTIMES[name](_as_exported(model), inputs, 1)
    (output,) = keras.tree.flatten(run())
    expected = keras.ops.convert_to_numpy(model(inputs, training=False))
    np.testing.assert_allclose(output, expected, atol=1e-5)
    other = keras.tree.map_structure(lambda x: x + 1, inputs)  # the control
    assert np.abs(np.asarray(model(other, training=False)) - output).max() > 1e-3


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_larger_network_takes_longer(name: str) -> None:
    small, large = network(), network(96, 64, depth=4)
    rows = Runtime(name).latency({"large": large, "small": small}, repeats=5)
    assert [row.name for row in rows] == ["large", "small"]
    assert rows[0].median > 2 * rows[1].median


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "tpu"}, "runtime: expected one of"),
        ({"threads": 0}, "threads: expected"),
        ({"threads": 1.5}, "threads: expected"),
        ({"threads": 10**9}, "threads: expected"),
        ({"batch_size": 0}, "batch_size: expected"),
    ],
)
def test_what_a_runtime_cannot_be(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Runtime(**change)


def test_errors_of_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="models: expected at least one"):
        Runtime().latency({})
    with pytest.raises(ValueError, match="repeats: expected"):
        Runtime().latency({"model": network()}, repeats=0)
    with pytest.raises(ModelError, match="expected inputs of known size"):
        Runtime("keras").latency({"model": network(side=None)})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="is not installed; pip install"):
        Runtime().latency({"model": network()})
