"""``kss.export``: what it folds, writes, checks, refuses and returns."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import randomize
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.errors import ModelError, OutputError
from keras_structsparse.export import clean_process, formats, verified
from keras_structsparse.export.formats import EXPORTERS
from keras_structsparse.surgery.verification import Verification

pytest.importorskip("tensorflow")


def network() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = L.BatchNormalization(name="norm")(L.Conv2D(4, 3, name="conv")(inputs))
    x = L.BatchNormalization()(L.MaxPooling2D(2)(L.ReLU()(x)))
    return randomize(keras.Model(inputs, L.Dense(2)(L.Flatten()(x))))


@pytest.mark.parametrize("format", EXPORTERS)
def test_it_folds_and_checks_what_it_wrote(tmp_path: Path, format: str) -> None:
    for name in EXPORTERS[format].needs:
        pytest.importorskip(name)
    path = tmp_path / f"model{EXPORTERS[format].suffix}"
    done = kss.export(network(), path, format)
    assert (done.path, done.format, done.folded) == (path, format, ("norm",))
    assert done.difference < 1e-5
    assert done.folding is not None
    assert done.folding.passed
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    assert done.size == sum(file.stat().st_size for file in files)
    said = str(done)
    assert "folded 1 batch normalisations; folded against the model in float64: equal (" in said
    assert "relative difference, run without this package: " in said
    assert f"saved {path} (" in said
    assert os.listdir(tmp_path) == [path.name]
    with pytest.raises(FrozenInstanceError):
        done.size = 0  # type: ignore[misc]


def test_without_folding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "folded", None)
    done = kss.export(network(), tmp_path / "saved", fold=False)
    assert (done.folded, done.folding) == ((), None)
    assert "folded" not in str(done)
    assert os.listdir(tmp_path) == ["saved"]


def test_a_model_without_normalisations_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "verify_folding", None)
    model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    assert verified._folded(model)[0] is model
    assert kss.export(model, tmp_path / "saved").folding is None


def test_a_check_that_can_see_nothing_folds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "verify_folding", lambda model: Verification(0.0, 1e-12))
    model = network()
    assert verified._folded(model)[0] is model
    done = kss.export(model, tmp_path / "saved")
    assert done.folded == ()
    assert "not folded; " in str(done)


@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_a_wrong_fold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    monkeypatch.setattr(verified, "verify_folding", lambda model: Verification(error, 1.0))
    with pytest.raises(ModelError, match=r"NOT equal.*Nothing is written; .*--no-fold"):
        kss.export(network(), tmp_path / "saved")
    assert os.listdir(tmp_path) == []


def test_a_wrong_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is compared with the model that was given, not with the folded one."""
    right = verified._folded

    def wrong(model: keras.Model) -> Any:
        result, *rest = right(model)
        bias = result.get_layer("conv").bias
        bias.assign(bias + np.ones(4))
        return result, *rest

    monkeypatch.setattr(verified, "_folded", wrong)
    with pytest.raises(ModelError, match="nothing is written"):
        kss.export(network(), tmp_path / "saved")
    assert os.listdir(tmp_path) == []


def saturated(activation: str) -> keras.Model:
    """As a trained network on random inputs: outputs near 0 and 1."""
    stack = [L.Conv2D(4, 3, name="conv"), L.ReLU(), L.GlobalAveragePooling2D()]
    head = L.Dense(3, activation=activation, name="head")
    model = randomize(keras.Sequential([keras.Input((8, 8, 3)), *stack, head]))
    for weight in head.weights:
        weight.assign(weight * {"softmax": 50.0, "sigmoid": 20.0, "tanh": 20.0}[activation])
    return model


def kernels_off(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``export`` write a network whose kernels are wrong."""

    def wrong(model: keras.Model) -> Any:
        twin = keras.models.clone_model(model)
        twin.set_weights(model.get_weights())
        kernel = twin.get_layer("conv").kernel
        kernel.assign(kernel * factor)
        return twin, (), None

    monkeypatch.setattr(verified, "_folded", wrong)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "tanh"])
def test_a_file_with_kernels_that_are_two_percent_off_is_refused(
    activation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saturated(activation)
    assert kss.export(model, tmp_path / "saved").difference < 1e-5
    kernels_off(1.02, monkeypatch)
    with pytest.raises(ModelError, match=r"at most 0\.003"):
        kss.export(model, tmp_path / "saved")
    # The control: the outputs alone hide it, within a limit for half precision.
    monkeypatch.setattr(clean_process, "_kinds", lambda model: ())
    monkeypatch.setattr(verified, "_darkened", lambda array: array)
    monkeypatch.setattr(verified, "ALLOWED_DIFFERENCE", verified.ALLOWED_IF_COARSE)
    assert kss.export(model, tmp_path / "saved").difference < 1e-2


def test_half_precision_may_round_more(tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = saturated("softmax")
    assert clean_process.is_coarse(model)
    assert kss.export(model, tmp_path / "saved").difference < 1e-2


# --- what is refused before any work ---


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding, the first step, fails with another error than the expected one."""
    monkeypatch.setattr(verified, "_folded", None)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "torchscript"}, r"format: expected one of .*'torchscript'"),
        ({"quantize": "int8"}, r"quantize: expected the format litert or onnx for 'int8'"),
        ({"representative": [1]}, r"representative: expected None without .* Received: list"),
    ],
)
def test_arguments_are_checked_first(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kss.export(network(), tmp_path / "saved", **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("here", "saved_model", "expected a new or empty directory.* which holds 'thesis.tex'"),
        ("here/thesis.tex", "saved_model", "expected a new or empty directory.*Received a file"),
        ("here", "onnx", r"expected a file name that ends in \.onnx"),
        ("here.onnx", "onnx", "Received a directory"),
        ("new.onnx", "saved_model", r"expected a directory for.*new\.onnx.*--format onnx"),
        ("new.tflite", "saved_model", r"expected a directory for.*--format litert"),
    ],
)
def test_what_is_in_the_way_is_named(tmp_path: Path, name: str, format: str, message: str) -> None:
    for folder in ("here", "here.onnx"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=message):
        kss.export(network(), tmp_path / name, format)
    assert (tmp_path / "here" / "thesis.tex").read_text() == "mine"


@pytest.mark.usefixtures("no_work")
def test_a_missing_converter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n: None if n == "onnx" else find(n))
    with pytest.raises(RuntimeError, match=r"onnx is not installed; .*\[onnx\]"):
        kss.export(network(), tmp_path / "model.onnx", "onnx")


@pytest.mark.parametrize("fold", [True, False])
def test_what_has_no_graph_is_refused(tmp_path: Path, fold: bool) -> None:
    with pytest.raises(ModelError, match=r"keras\.Model.*Received: str"):
        kss.export("model.keras", tmp_path / "saved", fold=fold)
    with pytest.raises(ModelError, match="not built"):
        kss.export(keras.Sequential([L.Dense(2)]), tmp_path / "saved", fold=fold)
    assert os.listdir(tmp_path) == []


def test_whole_numbers_are_not_all_the_same() -> None:
    inputs = [keras.Input((9,), dtype="int32"), keras.Input((9,))]
    whole, floating = verified._inputs(keras.Model(inputs, [2 * x for x in inputs]), None)
    assert set(whole.ravel()) == {0, 1}
    assert (whole.dtype, floating.dtype) == (np.int32, np.float32)
    assert 0 <= floating.min() < floating.max() <= 1


# --- the name, which the function and the package share ---


def test_the_function_has_the_signature_that_help_shows() -> None:
    assert inspect.signature(kss.export) == inspect.signature(verified.export)


def test_the_package_stays_a_package() -> None:
    import keras_structsparse.export.formats as found

    assert found is formats
    package: Any = kss.export
    assert importlib.import_module("keras_structsparse.export") is package
    assert package.formats is formats


IN_A_PROCESS = {
    "modules first": "import keras_structsparse.export.formats; import keras_structsparse as kss",
    "modules later": "import keras_structsparse as kss, keras_structsparse.export.clean_process",
    "reloaded": (
        "import importlib, keras_structsparse as kss;"
        "importlib.reload(kss.export); importlib.reload(kss); importlib.reload(kss.export)"
    ),
    "all names": (
        "import keras_structsparse as kss; space = {};"
        "exec('from keras_structsparse import *', space); assert space['export'] is kss.export"
    ),
    "launcher": (
        "import structsparse; structsparse._leave_out_public_names();"
        "from keras_structsparse.export.formats import load_model;"
        "import keras_structsparse as kss; assert not hasattr(kss, 'prune')"
    ),
}


@pytest.mark.parametrize("way", IN_A_PROCESS)
def test_the_name_can_be_called_however_it_is_imported(way: str) -> None:
    check = (
        "assert callable(kss.export);"
        "from keras_structsparse.export.formats import save_model;"
        "import keras_structsparse.export.formats as formats;"
        "assert formats.save_model is save_model;"
        "print('all is well')"
    )
    code = f"{IN_A_PROCESS[way]}\n{check}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("all is well\n"), done.stderr


@pytest.mark.parametrize(("format", "name"), [("saved_model", "saved"), ("onnx", "m.onnx")])
def test_augmentation_is_not_exported(tmp_path: Path, format: str, name: str) -> None:
    """A SavedModel would go on augmenting, and converters do not know the operations."""
    if format == "onnx":
        pytest.importorskip("tf2onnx")
    stack = [L.RandomFlip(name="flip"), L.RandomRotation(0.5), L.Conv2D(4, 3), L.Dropout(0.5)]
    network = keras.Sequential([keras.Input((8, 8, 1)), *stack, L.Flatten(), L.Dense(2)])
    done = kss.export(network, tmp_path / name, format)
    assert len(done.left_out) == 3
    assert "left out, as they act in training only: flip, " in str(done)
    assert done.difference < 1e-5
