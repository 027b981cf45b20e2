"""Latency: the shape of the answer and the order of the runs, not the speed of this machine."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_structsparse.errors import ModelError
from keras_structsparse.profiling.latency import (
    WARM_UP,
    compiled,
    latency,
    latency_row,
    random_inputs,
    timed_in_turns,
)


def network(shape: tuple[int | None, ...] = (8, 8, 3), width: int = 2) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, kl.Conv2D(width, 3)(inputs))


def test_rows_stand_in_the_order_of_sizes_and_models() -> None:
    rows = latency({"a": network(), "b": network(width=3)}, batch_sizes=(1, 4), repeats=5)
    assert [(row.batch_size, row.name) for row in rows] == [(1, "a"), (1, "b"), (4, "a"), (4, "b")]
    for row in rows:
        assert row.repeats == 5
        assert 0 < row.quartiles[0] <= row.median <= row.quartiles[1]


def test_runs_take_turns_and_the_warm_up_is_not_timed() -> None:
    log: list[str] = []

    def run(name: str) -> None:
        # The first runs are slow, as if they compiled.
        time.sleep(0.05 if log.count(name) < WARM_UP else 0.0)
        log.append(name)

    seconds = timed_in_turns([lambda: run("a"), lambda: run("b")], repeats=4)
    warm, timed = log[: 2 * WARM_UP], log[2 * WARM_UP :]
    assert sorted(warm) == ["a"] * 3 + ["b"] * 3
    assert timed == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert seconds.shape == (4, 2)
    assert (seconds < 0.05).all()


def test_medians_and_quartiles_are_milliseconds() -> None:
    row = latency_row("a", 1, np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert (row.median, row.quartiles) == (3000.0, (2000.0, 4000.0))


def test_the_slower_model_is_found_slower() -> None:
    inputs = keras.Input((64, 64, 16))
    x = inputs
    for _ in range(4):
        x = kl.Conv2D(32, 5, padding="same")(x)
    fast, slow = latency(
        {"fast": network(), "slow": keras.Model(inputs, x)}, batch_sizes=(4,), repeats=5
    )
    assert slow.median > 2 * fast.median


def test_what_is_timed_is_the_model_in_inference() -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, kl.Dropout(0.5)(kl.Dense(4)(inputs)))
    given = random_inputs("a", model, 3, None)
    output = compiled(model, given)()
    np.testing.assert_allclose(output, model(given, training=False), rtol=1e-5, atol=1e-6)
    assert not np.allclose(output, model(given, training=True))


def test_inputs_are_the_same_each_time_in_the_structure_of_the_model() -> None:
    left, right = keras.Input((4,), name="left"), keras.Input((2, 3), dtype="int32", name="right")
    parts = {"left": left, "right": right}
    model = keras.Model(parts, [kl.Flatten()(x) for x in parts.values()])
    first, again = (random_inputs("a", model, 5, None) for _ in range(2))
    assert {name: x.shape for name, x in first.items()} == {"left": (5, 4), "right": (5, 2, 3)}
    assert first["right"].dtype == np.int32
    np.testing.assert_array_equal(first["left"], again["left"])
    assert first["left"].std() > 0
    assert latency({"a": model}, batch_sizes=(2,), repeats=1)[0].median > 0


def test_sequential_models_and_those_of_several_outputs() -> None:
    sequential = keras.Sequential([keras.Input((4,)), kl.Dense(2)])
    inputs = keras.Input((4,))
    forked = keras.Model(inputs, {"a": kl.Dense(2)(inputs), "b": kl.Dense(3)(inputs)})
    assert len(latency({"s": sequential, "f": forked}, batch_sizes=(2,), repeats=1)) == 2


@pytest.mark.parametrize("backend", ["tensorflow", "numpy"])
def test_a_backend_without_a_compiler_runs_as_it_is(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    given = random_inputs("a", model, 2, None)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    output = compiled(model, given)()
    np.testing.assert_allclose(output, model(given), rtol=1e-5, atol=1e-6)


def test_an_open_size_is_given_by_hand() -> None:
    model = network((None, None, 3))
    assert latency({"a": model}, (1,), 1, input_shape=(9, 9, 3))[0].median > 0
    with pytest.raises(ModelError, match=r"models\['a'\].*pass input_shape="):
        latency({"a": model}, (1,), 1)


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 4), (9, None, 3)])
def test_an_input_shape_must_fit(shape: Any) -> None:
    with pytest.raises(ModelError, match=r"Received input_shape=\(9"):
        latency({"a": network((None, None, 3))}, (1,), 1, input_shape=shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, r"repeats: expected a whole number in \[1, 100000\]. Received: 0"),
        ({"repeats": 10**9}, "repeats: expected .* Received: 1000000000"),
        ({"batch_sizes": (10**15,)}, "batch_sizes: expected at most .* Received: 10{15} inputs"),
        ({"batch_sizes": (1, -2)}, "batch_sizes: expected .* Received: -2"),
        ({"batch_sizes": (1.5,)}, "batch_sizes: expected .* Received: 1.5"),
    ],
)
def test_numbers_must_be_whole_and_positive(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        latency({"a": network()}, **options)


def test_models_must_be_there_and_built() -> None:
    with pytest.raises(ValueError, match="models: expected at least one"):
        latency({})
    with pytest.raises(ModelError, match=r"models\['a'\]: expected a built model"):
        latency({"a": keras.Sequential([kl.Dense(2)])})
