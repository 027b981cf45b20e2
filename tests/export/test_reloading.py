"""The proof that a network can be stored says the size of its file, and disturbs nothing."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
from helpers_sweeps import build

from keras_structsparse.errors import ModelError
from keras_structsparse.export.reloading import check_reloads


def test_it_changes_neither_the_network_nor_the_seeds() -> None:
    model = build()
    before, drawn = model.get_weights(), random.getstate()
    assert 1_000 < check_reloads(model, "build") < 1_000_000
    assert random.getstate() == drawn
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_network_that_does_not_load_is_refused() -> None:
    layers = [keras.layers.Lambda(lambda x: 2 * x), keras.layers.Dense(2)]
    with pytest.raises(ModelError, match=r"model: expected a model .* loaded again\. .*Lambda"):
        check_reloads(keras.Sequential([keras.Input((4,)), *layers]), "model")
