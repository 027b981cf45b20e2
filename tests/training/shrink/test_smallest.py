"""Comparing two networks example by example, and the choice of the smallest one within a drop."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from helpers_shrinking import CROSS, Batches, easy, ready

import keras_structsparse as kss
from keras_structsparse.training.shrink.budget import Budget
from keras_structsparse.training.shrink.drop_bound import DropBound
from keras_structsparse.training.shrink.metrics import Judge
from keras_structsparse.training.shrink.paired import Judged, drops_of
from keras_structsparse.training.shrink.result import ShrinkResult
from keras_structsparse.training.shrink.smallest import chosen

Array = Any


@keras.saving.register_keras_serializable("tests")
def closeness(targets: Any, outputs: Any) -> Any:
    """Of each example, in a metric of one's own."""
    return -keras.ops.mean(keras.ops.square(targets - outputs), axis=-1)


def networks(metric: Any, loss: str = CROSS) -> tuple[Any, Any, tuple[Array, Array]]:
    """Two networks that answer differently, and data."""
    pair = []
    for seed in range(2):
        model, _ = ready("dense", metrics=[metric], loss=loss)
        keras.utils.set_random_seed(seed)
        for weight in model.trainable_weights:
            weight.assign(np.random.default_rng(seed).normal(size=weight.shape))
        pair.append(model)
    x, y = easy(pair[0], 100)
    return *pair, (x, y if loss == CROSS else keras.ops.convert_to_numpy(keras.ops.one_hot(y, 3)))


def judged(model: keras.Model, judge: Judge, data: Any) -> Judged:
    x, y = data if isinstance(data, tuple) else (data, None)
    return Judged(model, model.evaluate(x, y, verbose=0, return_dict=True)[judge.metric])


def compared(pair: Any, judge: Judge, data: Any) -> tuple[Array, str, float]:
    """The drops with their unit, and the difference of the metrics."""
    both = [judged(each, judge, data) for each in pair]
    drops, unit = drops_of(both[0], both[1], judge, data, 32)
    change = both[0].value - both[1].value
    return drops, unit, change if judge.rises else -change


def test_answers_are_compared_one_by_one() -> None:
    *pair, data = networks("accuracy")
    drops, unit, expected = compared(pair, Judge("accuracy", True), data)
    right = [np.argmax(each.predict(data[0], verbose=0), axis=1) == data[1] for each in pair]
    np.testing.assert_array_equal(drops, right[0].astype(int) - right[1])
    assert (unit, len(drops)) == ("examples", 100)
    assert drops.mean() == pytest.approx(expected, abs=1e-6)
    assert drops.any()


@pytest.mark.parametrize(
    ("metric", "judge"),
    [(closeness, Judge("closeness", True)), ("mae", Judge("mae", False))],
)
def test_means_of_any_function_are_compared_one_by_one(metric: Any, judge: Judge) -> None:
    *pair, data = networks(metric, "mse")
    drops, unit, expected = compared(pair, judge, data)
    assert (unit, len(drops)) == ("examples", 100)
    assert drops.mean() == pytest.approx(expected, abs=1e-5)


def test_other_metrics_are_compared_batch_by_batch() -> None:
    *pair, data = networks(keras.metrics.AUC(name="auc"), "mse")
    for judge in (Judge("auc", True), Judge("loss", False)):
        drops, unit, expected = compared(pair, judge, data)
        assert (unit, len(drops)) == ("batches", 20)  # of five examples each
        assert np.sign(drops.mean()) == np.sign(expected)
    assert drops.mean() == pytest.approx(expected, rel=1e-4)


def test_data_sets_keep_their_batches_and_their_weights() -> None:
    *pair, (x, y) = networks("accuracy")
    parts = [slice(i, i + 25) for i in range(0, 100, 25)]
    judge = Judge("accuracy", True)
    plain = Batches([(x[own], y[own]) for own in parts])
    drops, unit, _ = compared(pair, judge, plain)
    assert unit == "examples"
    np.testing.assert_array_equal(drops, compared(pair, judge, (x, y))[0])
    weighted = Batches([(x[own], y[own], np.ones(25)) for own in parts])
    assert compared(pair, judge, weighted)[1:2] == ("batches",)


def result(drop: float, bound: float) -> ShrinkResult:
    judge = Judge("accuracy", True)
    values = {"accuracy": 0.9}, {"accuracy": 0.9 - drop}
    empty: Any = None
    return ShrinkResult(
        empty, empty, empty, {}, *values, judge, None, drop_bound=DropBound(bound, 0.975, 500)
    )


def choice(tried: Mapping[float, ShrinkResult]) -> ShrinkResult:
    model = keras.Sequential(name="net")
    return chosen(types.SimpleNamespace(model=model, budget=Budget(max_drop=0.01)), tried)  # type: ignore[arg-type]


def test_the_smallest_network_that_is_surely_within_the_limit_is_chosen() -> None:
    tried = {0.2: result(0.005, 0.02), 0.5: result(-0.01, 0.001), 0.4: result(0.0, 0.009)}
    assert choice(tried) is tried[0.4]


def test_without_one_the_surest_is_returned_with_a_warning() -> None:
    tried = {0.2: result(0.005, 0.02), 0.5: result(0.002, 0.012), 0.7: result(0.011, 0.011)}
    found = choice(tried)
    assert found.drop == tried[0.5].drop
    (said,) = found.warnings
    assert "loses at most 0.01 of accuracy" in said
    assert "The one with 50% of the multiply-adds loses 0.002 there" in said
    assert "at most 0.012 with a confidence of 97.5 % (500 examples)" in said


def test_without_any_within_the_limit_on_validation_data_it_is_an_error() -> None:
    with pytest.raises(kss.ModelError, match=r"'net': expected .* at most 0.01 of accuracy.*80%"):
        choice({0.5: result(0.02, 0.03), 0.8: result(0.015, 0.02)})


def test_the_confidence_is_checked() -> None:
    assert kss.ShrinkMethod(confidence=0.5).confidence == 0.5
    for value in (0.4, 1, "sure"):
        with pytest.raises(ValueError, match="confidence: expected a number in"):
            kss.ShrinkMethod(confidence=value)  # type: ignore[arg-type]
