"""A shrinking from the first step to the last, on every backend."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_shrinking import Killed, ready, shrunk, values

import keras_structsparse as kss
from keras_structsparse.export.formats import load_model


@pytest.mark.filterwarnings("ignore:shrink. accuracy changed:UserWarning")
def test_a_network_is_shrunk_and_the_model_stays_as_it_was(tmp_path: Path) -> None:
    model, data = ready("dense")
    before = values(model.variables)
    result = shrunk(model, data, data, epochs=4, workdir=tmp_path / "work")
    assert 0.3 < result.comparison.multiply_adds_fraction <= 0.5
    assert len(result.history["loss"]) == 4
    assert len(result.history["share"]) == 2
    for own, old in zip(values(model.variables), before, strict=True):
        np.testing.assert_array_equal(own, old)
    again = shrunk(model, data, data, epochs=4, workdir=tmp_path / "work")
    for own, other in zip(values(again.model.weights), values(result.model.weights), strict=True):
        np.testing.assert_array_equal(own, other)
    path = result.save(tmp_path / "out", formats=()) / "model.keras"
    loaded = load_model(path)
    predicted = [each.predict(data[0], verbose=0) for each in (loaded, result.model, model)]
    np.testing.assert_allclose(predicted[0], predicted[1], rtol=1e-5, atol=1e-6)
    assert np.abs(predicted[1] - predicted[2]).max() > 1e-2


def test_one_that_is_killed_ends_as_one_that_is_not(tmp_path: Path) -> None:
    found = []
    for kill in (False, True):
        model, data = ready("dense")
        options = {"epochs": 6, "batch_size": 20, "workdir": tmp_path / str(kill)}
        if kill:
            keras.utils.set_random_seed(0)
            with pytest.raises(KeyboardInterrupt):
                shrunk(model, data, data, callbacks=[Killed(1)], **options)
        keras.utils.set_random_seed(0)
        found.append(shrunk(model, data, data, **options))
    assert found[0].plan.sizes == found[1].plan.sizes
    for own, other in zip(*(values(each.model.weights) for each in found), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-7)


def test_rates_are_tried_and_one_that_diverges_loses(tmp_path: Path) -> None:
    model, data = ready("dense")
    method = kss.ShrinkMethod(rates=(1, 4, 1e30))
    options = {"epochs": 10, "multiply_adds": 1.0, "method": method, "workdir": tmp_path / "work"}
    result = shrunk(model, data, data, **options)
    assert [bool(each.metrics) for each in result.rates] in ([True, True, False], [True, True])
    assert len(result.history["loss"]) == 7 + len([each for each in result.rates if each.metrics])
    again = shrunk(model, data, data, **options)
    assert again.rates == result.rates
    for own, other in zip(values(again.model.weights), values(result.model.weights), strict=True):
        np.testing.assert_array_equal(own, other)
