"""Errors name the argument, and nothing is written then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_shrink import dense
from helpers_shrinking import CROSS, easy, ready
from keras import layers as L

import keras_structsparse as kss


def head_only() -> keras.Model:
    model = keras.Sequential([keras.Input((5,)), L.Dense(3, activation="softmax")], name="head")
    model.compile("adam", CROSS)
    return model


class Own(keras.Model):
    def train_step(self, *args: Any) -> Any:
        return super().train_step(*args)


def own_step() -> keras.Model:
    inputs = keras.Input((5,))
    model = Own(inputs, L.Dense(3)(L.Dense(4)(inputs)))
    model.compile("adam", "mse")
    return model


def without_loss() -> keras.Model:
    model = dense()
    model.compile("adam")
    return model


def with_loss(loss: Any) -> keras.Model:
    model = dense()
    model.compile("adam", loss)
    return model


X, Y = easy(dense())
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no budget": ({"multiply_adds": None}, "budget: expected one of multiply_adds, params"),
    "two budgets": ({"params": 0.5}, "budget: expected one of .*'params': 0.5"),
    "too large": ({"multiply_adds": 1.5}, r"multiply_adds: expected a number in \(0, 1\]"),
    "nothing": ({"multiply_adds": 0.0}, r"multiply_adds: expected a number in \(0, 1\]"),
    "text": ({"multiply_adds": "half"}, r"multiply_adds: expected a number in \(0, 1\]"),
    "drop": ({"multiply_adds": None, "max_drop": 1.0}, r"max_drop: expected a number in \[0, 1\)"),
    "no validation": ({"multiply_adds": None, "max_drop": 0.1}, "validation: expected data"),
    "one epoch": ({"epochs": 1}, "epochs: expected at least 2"),
    "half an epoch": ({"epochs": 2.5}, "epochs: expected a whole number"),
    "batch size": ({"batch_size": 0}, "batch_size: expected a whole number >= 1"),
    "optimizer": ({"optimizer": "adam"}, "optimizer: expected a Keras optimizer or None"),
    "method": ({"method": "kernel"}, "method: expected a ShrinkMethod"),
    "callbacks": ({"callbacks": [3]}, "callbacks: expected a list of Keras callbacks"),
    "one callback": ({"callbacks": keras.callbacks.Callback()}, "callbacks: expected a list"),
    "directory": ({"workdir": 3}, "workdir: expected a path or None"),
    "train": ({"train": 3}, "train: expected arrays"),
    "labels": ({"train": (X, Y[1:])}, "train: expected as many inputs as labels"),
    "validation": ({"validation": 3}, "validation: expected arrays"),
    "three": ({"validation": (X, Y, Y)}, "validation: expected arrays"),
    "some labels": ({"validation": (X, Y[1:])}, "validation: expected as many inputs as labels"),
    "no model": ({"model": 3}, "model: expected a Keras model"),
    "not compiled": ({"model": dense()}, "model: expected a compiled model"),
    "no loss": ({"model": without_loss()}, "model: expected a compiled model"),
    "own step": ({"model": own_step()}, "model: expected one that trains as Keras does"),
    "lambda": ({"model": with_loss(lambda a, b: a - b)}, "model: expected a loss and metrics"),
    "head": ({"model": head_only()}, "'head': expected trainable convolutions or dense layers"),
}


@pytest.mark.filterwarnings("ignore:The object being serialized includes a .lambda:UserWarning")
@pytest.mark.parametrize("name", BAD)
def test_errors_name_the_argument_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    changes, message = BAD[name]
    folder = tmp_path / "work"
    options = {"model": None, "train": (X, Y), "multiply_adds": 0.5, "workdir": folder, **changes}
    if "model" not in changes:
        options["model"] = ready("dense")[0]
    with pytest.raises(ValueError, match=message):
        kss.shrink(**options)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"removal": 1.0}, "removal: expected"),
        ({"distillation": 1.5}, "distillation: expected"),
        ({"distillation": -1}, "distillation: expected"),
        ({"groups": "rings"}, "groups: expected"),
        ({"realize": "cut"}, "realize: expected"),
        ({"measured_batches": 0}, "measured_batches: expected"),
        ({"learning_rate": 0.0}, "learning_rate: expected"),
    ],
)
def test_methods_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kss.ShrinkMethod(**options)


def test_numbers_of_numpy_are_taken(tmp_path: Path) -> None:
    model, data = ready("dense")
    numbers: dict[str, Any] = {"learning_rate": np.float32(0.01), "measured_batches": np.int64(2)}
    method = kss.ShrinkMethod(**numbers)
    options: dict[str, Any] = {"multiply_adds": np.float32(0.5), "epochs": np.int64(2)}
    options |= {"batch_size": np.int64(24), "method": method, "workdir": tmp_path / "work"}
    result = kss.shrink(model, data, **options, verbose=0)
    assert result.comparison.multiply_adds_fraction <= 0.5
