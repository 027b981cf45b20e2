"""Searches of keras-tuner that are judged by pruned and by shrunk networks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
from helpers_shrinking import CROSS

import keras_structsparse as kss
from keras_structsparse.data import datasets

pytestmark = [
    pytest.mark.filterwarnings("ignore:shrink. accuracy changed:UserWarning"),
    # keras-tuner loads files of trained networks into new ones, whose optimizers have no state yet
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

ONE = {"max_trials": 2, "seed": 0, "overwrite": True}


def build(hp: Any) -> keras.Model:
    """A small network for the digits."""
    stack = [
        keras.layers.Conv2D(hp.Choice("width", [6, 10]), 3, activation="relu"),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *stack])
    model.compile(keras.optimizers.Adam(3e-3), CROSS, metrics=["accuracy"])
    return model


class Networks(kss.ShrinkAfterFit, keras_tuner.HyperModel):
    def build(self, hp: Any) -> keras.Model:
        return build(hp)


@pytest.fixture(scope="module")
def digits() -> Any:
    data = datasets.load("digits")
    return data.train.x[:512], data.train.y[:512], (data.validation.x, data.validation.y)


def values_of(tuner: Any, name: str) -> list[float]:
    trials = tuner.oracle.trials.values()
    assert [trial.status for trial in trials] == ["COMPLETED"] * 2
    return [trial.metrics.get_best_value(name) for trial in trials]


def test_a_search_by_the_accuracy_after_pruning(digits: Any, tmp_path: Path) -> None:
    x, y, validation = digits
    tuner = keras_tuner.RandomSearch(
        build, keras_tuner.Objective("pruned_accuracy", "max"), directory=tmp_path, **ONE
    )
    callback = kss.PrunedMetrics(validation, multiply_adds=0.5, batch_size=128)
    tuner.search(
        x, y, validation_data=validation, epochs=3, callbacks=[callback], batch_size=32, verbose=0
    )
    best = tuner.oracle.get_best_trials(1)[0]
    assert best.score == max(values_of(tuner, "pruned_accuracy"))
    # The stored network is that of the epoch whose pruned accuracy was best.
    model = tuner.get_best_models(1)[0]
    pruned = kss.prune(model, kss.plan(model, multiply_adds=0.5))
    pruned.compile(loss=CROSS, metrics=["accuracy"])
    after, before = (
        each.evaluate(*validation, verbose=0, return_dict=True)["accuracy"]
        for each in (pruned, model)
    )
    assert best.score == pytest.approx(after, abs=1e-3)
    assert abs(before - after) > 0.02  # the control


def test_a_search_by_the_accuracy_after_shrinking(digits: Any, tmp_path: Path) -> None:
    x, y, validation = digits
    tuner = keras_tuner.RandomSearch(
        Networks(multiply_adds=0.3, shrink_epochs=2),
        keras_tuner.Objective("shrunk_accuracy", "max"),
        directory=tmp_path,
        **ONE,
    )
    tuner.search(x, y, validation_data=validation, epochs=2, verbose=0)
    scores = values_of(tuner, "shrunk_accuracy")
    assert tuner.oracle.get_best_trials(1)[0].score == max(scores)
    assert tuner.oracle.get_best_trials(1)[0].score > 0.2
    assert all(0.1 < share <= 0.3 for share in values_of(tuner, "shrunk_multiply_adds_fraction"))
    assert all(0 < share < 1 for share in values_of(tuner, "shrunk_params_fraction"))
    assert all(0 < value < 3 for value in values_of(tuner, "shrunk_loss"))
    # The control: the network before is another one, and it is what is stored.
    assert values_of(tuner, "val_accuracy") != scores
    model = tuner.get_best_models(1)[0]
    assert kss.profile(model).multiply_adds > 3000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "budget: expected one of multiply_adds, params, latency, max_drop"),
        ({"multiply_adds": 0.5, "params": 0.5}, "budget: expected one of"),
        ({"multiply_adds": 2}, "multiply_adds: expected a number"),
        ({"params": 0.5, "shrink_epochs": 1}, "epochs: expected at least 2"),
        ({"params": 0.5, "shrink_epochs": 2.5}, "shrink_epochs: expected a whole number"),
        ({"params": 0.5, "method": "best"}, "method: expected a ShrinkMethod"),
    ],
)
def test_bad_arguments(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Networks(**arguments)
    assert Networks(params=0.5, name="mine").name == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation_data": None}, "fit: expected validation_data"),
        ({"validation_data": (np.ones((2, 8, 8, 1)),)}, "validation: expected arrays"),
        ({"x": [1, 2, 3], "y": None}, "train: expected arrays"),
        ({"sample_weight": np.ones(4)}, "fit: expected no sample_weight"),
        ({"class_weight": {0: 2.0}}, "fit: expected no class_weight"),
        ({"validation_split": 0.2}, "fit: expected no validation_split"),
    ],
)
def test_what_cannot_be_shrunk_ends_the_search(change: Any, message: str, tmp_path: Path) -> None:
    data = np.ones((4, 8, 8, 1)), np.zeros(4)
    options = {"x": data[0], "y": data[1], "validation_data": data, "verbose": 0, **change}
    objective = keras_tuner.Objective("shrunk_loss", "min")
    tuner = keras_tuner.RandomSearch(Networks(params=0.5), objective, directory=tmp_path, **ONE)
    with pytest.raises(keras_tuner.errors.FatalValueError, match=message):
        tuner.search(**options)


def test_the_names_are_there_without_keras_tuner() -> None:
    code = """
import sys
sys.modules["keras_tuner"] = None
import keras_structsparse as kss
class Alone(kss.ShrinkAfterFit):
    pass
print(Alone(multiply_adds=0.4).budget.share)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.4"
