"""Files are run where this package cannot be imported, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_export import images, network, same
from keras import layers as kl

from keras_structsparse.errors import ModelError
from keras_structsparse.export.clean_process import _difference, _reason, check_portable
from keras_structsparse.export.formats import export, load_model, save_model
from keras_structsparse.graph.numerics import relative_difference
from keras_structsparse.regularizers import KernelSize


def test_files_of_plain_models_need_only_keras(tmp_path: Path) -> None:
    model = network()
    paths = [save_model(model, tmp_path / "model.keras"), export(model, tmp_path / "saved")]
    other = save_model(network(), tmp_path / "other.keras")
    errors = check_portable(model, [*paths, other], images())
    assert list(errors) == [*paths, other]
    assert all(errors[path] < 1e-5 for path in paths)
    assert errors[other] > 0.1  # the control: another model gives other numbers


@pytest.mark.parametrize("kind", [pytest.param(list, marks=pytest.mark.slow), dict])
def test_models_of_several_inputs(tmp_path: Path, kind: type) -> None:
    named = {"b": keras.Input((3,), name="b"), "a": keras.Input((2,), name="a")}
    x = kl.Concatenate()([kl.Dense(2)(named["a"]), kl.Dense(2)(named["b"])])
    given = {"b": np.ones((2, 3), "float32"), "a": np.full((2, 2), 2, "float32")}
    as_kind: Any = dict if kind is dict else lambda mapping: list(mapping.values())
    model = keras.Model(as_kind(named), [x, kl.Dense(3)(x)])
    paths = [save_model(model, tmp_path / "model.keras"), export(model, tmp_path / "saved")]
    assert max(check_portable(model, paths, as_kind(given)).values()) < 1e-5


def test_a_model_that_needs_us_does_not_pass(tmp_path: Path) -> None:
    model = network(KernelSize(1e-3))
    path = save_model(model, tmp_path / "model.keras")
    assert same(load_model(path), model)  # here it loads
    with pytest.raises(ModelError, match=r"(?s)without keras_structsparse.*KernelSize"):
        check_portable(model, [path], images())


def test_only_what_python_raised_is_said() -> None:
    native = "I0000 00:00:1 port.cc:153] oneDNN custom operations are on."
    trace = 'Traceback (most recent call last):\n  File "x", line 1\n    run()'
    assert _reason(f"{native}\n{trace}\nRuntimeError: no such op\nin node 1") == (
        "RuntimeError: no such op\nin node 1"
    )
    assert _reason(f"{native}\nkilled") == f"{native}\nkilled"


def test_a_file_that_is_missing_does_not_pass(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.keras', which does not exist"):
        check_portable(network(), [tmp_path / "none.keras"], images())


def test_the_difference_is_relative_and_never_hides_a_nan() -> None:
    one, nan = np.array([2.0, -4.0]), np.array([2.0, np.nan])
    assert relative_difference(one, one) == 0
    assert relative_difference(one, one + 1) == 0.25
    assert relative_difference(0 * one, 0 * one + 0.5) == 0.5
    assert np.isnan(relative_difference(one, nan))
    assert np.isnan(relative_difference(nan, one))


def test_outputs_of_another_shape_are_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "outputs_0.npz", np.zeros(3))
    with pytest.raises(ModelError, match=r"'here': expected outputs of shapes \[\(2,\)\]"):
        _difference("here", [np.zeros(2)], tmp_path / "outputs_0.npz")
