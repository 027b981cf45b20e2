"""The command ``export``: what it folds, writes, checks and refuses."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_models import randomize
from keras import layers as L

from keras_structsparse.cli import export_jobs
from keras_structsparse.errors import ModelError
from keras_structsparse.export.formats import EXPORTERS
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.surgery.verification import Verification

pytest.importorskip("tensorflow")


def network() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = L.BatchNormalization()(L.Conv2D(4, 3, name="conv")(inputs))
    x = L.BatchNormalization()(L.MaxPooling2D(2)(L.ReLU()(x)))
    return randomize(keras.Model(inputs, L.Dense(2)(L.Flatten()(x))))


@pytest.mark.parametrize("format", EXPORTERS)
def test_it_folds_and_checks_what_it_wrote(
    tmp_path: Path, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in EXPORTERS[format].needs:
        pytest.importorskip(name)
    path = tmp_path / f"model{EXPORTERS[format].suffix}"
    export_jobs.export(network(), path, format)
    said = capsys.readouterr().out
    assert "folded 1 batch normalisations; folded against the model in float64: equal (" in said
    assert "relative difference, run without this package: " in said
    assert f"saved {path} (" in said
    assert os.listdir(tmp_path) == [path.name]


def test_without_folding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_jobs, "folded", None)
    export_jobs.export(network(), tmp_path / "saved", "saved_model", fold=False)
    assert os.listdir(tmp_path) == ["saved"]


def test_a_model_without_normalisations_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_jobs, "verify_folding", None)
    model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    assert export_jobs.fold_verified(model) is model


def test_a_check_that_can_see_nothing_folds_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_jobs, "verify_folding", lambda model: Verification(0.0, 1e-12))
    model = network()
    assert export_jobs.fold_verified(model) is model
    assert "not folded; " in capsys.readouterr().out


@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_a_wrong_fold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    monkeypatch.setattr(export_jobs, "verify_folding", lambda model: Verification(error, 1.0))
    with pytest.raises(ModelError, match=r"NOT equal.*Nothing is written; --no-fold"):
        export_jobs.export(network(), tmp_path / "saved", "saved_model")
    assert os.listdir(tmp_path) == []


def test_a_wrong_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is compared with the model that was given, not with the folded one."""

    def wrong(model: keras.Model) -> keras.Model:
        result = folded(model)
        bias = result.get_layer("conv").bias
        bias.assign(bias + np.ones(4))
        return result

    monkeypatch.setattr(export_jobs, "fold_verified", wrong)
    with pytest.raises(ModelError, match="nothing is written"):
        export_jobs.export(network(), tmp_path / "saved", "saved_model")
    assert os.listdir(tmp_path) == []
