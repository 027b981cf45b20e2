"""Optional and sparse inputs stay so, whatever is made of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import randomize
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.inlining import opened

PLAN = kss.Plan({"d": (1, 0) * 4})
MADE: Mapping[str, Callable[[keras.Model], keras.Model]] = {
    "copied": copy_model,
    "masked": lambda model: kss.masked(model, PLAN),
    "pruned": lambda model: kss.prune(model, PLAN),
    "opened": opened,
    "folded": folded,
}


class Maybe(L.Layer):
    """Adds what may be missing."""

    def call(self, a: Any, b: Any = None) -> Any:
        return a if b is None else a + b

    def compute_output_spec(self, a: Any, b: Any = None) -> Any:
        return keras.KerasTensor(a.shape, a.dtype)


@pytest.mark.parametrize("made", MADE)
def test_an_optional_input_may_be_left_out(made: str) -> None:
    inputs = [keras.Input((8,), name="a"), keras.Input((8,), name="b", optional=True)]
    hidden = Maybe()(L.BatchNormalization()(L.Dense(8, name="d")(inputs[0])), inputs[1])
    model = randomize(keras.Model(inputs, L.Dense(2)(hidden)))
    x, other = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("float32")
    reference = kss.masked(model, PLAN) if made in ("masked", "pruned") else model
    new = MADE[made](model)
    for given in ([x, None], [x, other]):
        np.testing.assert_allclose(new(given), reference(given), rtol=1e-4, atol=1e-5)
    assert np.abs(np.array(new([x, None])) - np.array(new([x, other]))).max() > 0.1


@pytest.mark.parametrize("made", MADE)
def test_a_sparse_input_stays_sparse(made: str) -> None:
    inputs = keras.Input((12,), sparse=True, name="x")
    model = randomize(keras.Model(inputs, L.Dense(2)(L.Dense(8, "relu", name="d")(inputs))))
    found = MADE[made](model).inputs[0]
    assert (found.sparse, found.name) == (True, "x")
