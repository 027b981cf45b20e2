"""Training by recipes, in Python and on the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers_records import imagenet_archives
from typer.testing import CliRunner

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.cli import app
from keras_structsparse.data.image_streams import streams
from keras_structsparse.training.fit import compile_for, fit
from keras_structsparse.training.recipes import RECIPES


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["recipe", *words])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_recipe_trains_and_the_penalty_removes_kernels(alpha: float, tmp_path: Path) -> None:
    recipe = replace(RECIPES["digits"], epochs=2, ramp=0.5)
    data = streams(recipe, tmp_path)
    model = models.build("(8,3)x3", data.shape, data.classes)
    compile_for(model, recipe, data.examples, kss.KernelSize(alpha))
    history = fit(model, data.train, recipe, data.validation)
    assert len(history["val_accuracy"]) == 2
    widths = kss.plan(model, tau=0.0).widths
    removed = 3 * 8 + 8 + 10 - sum(widths.values())
    assert (removed > 0) == (alpha > 0)
    (regularizer, *_) = kss.regularizers_of(model).values()
    assert float(regularizer.alpha.numpy()) == pytest.approx(alpha)


def test_the_real_path_of_imagenet_trains_a_step(tmp_path: Path) -> None:
    imagenet_archives(tmp_path)
    recipe = replace(RECIPES["imagenet"], side=32, epochs=1, batch_size=4)
    data = streams(recipe, tmp_path, validation=0.2)
    model = models.build("(4,3)x3", data.shape, data.classes)
    compile_for(model, recipe, data.examples, kss.KernelCount(1e-4))
    before = model.get_layer("conv2").kernel.numpy().copy()
    history = fit(model, data.train, recipe, data.validation)
    assert np.isfinite(history["loss"][0])
    assert not np.array_equal(before, model.get_layer("conv2").kernel.numpy())


def test_recipes_are_listed() -> None:
    code, out, _ = run()
    assert code == 0
    for name, recipe in RECIPES.items():
        assert name in out
        assert recipe.model in out


def test_the_command_trains_and_saves(tmp_path: Path) -> None:
    out = tmp_path / "trained.keras"
    words = ("digits", "--epochs", "1", "--model", "(6,3)x3", "--data-dir", str(tmp_path))
    code, said, error = run(*words, "--out", str(out))
    assert code == 0, error
    assert "epoch 1/1" in said
    assert "test accuracy 0." in said
    assert out.is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("digit", "--out", "x.keras"), "expected one of digits"),
        (("digits",), "expected --out FILE.keras"),
        (("digits", "--out", "x.h5"), "ends in .keras"),
    ],
)
def test_bad_words_are_refused(words: tuple[str, ...], message: str) -> None:
    code, _, error = run(*words)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error


def test_a_model_for_other_images_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "other.keras"
    models.build("(4,3)", (9, 9, 1)).save(model)
    words = ("digits", "--data-dir", str(tmp_path), "--out", str(tmp_path / "x.keras"))
    code, _, error = run(*words, "--model", str(model))
    assert code == 2
    assert "model: expected an input of shape (8, 8, 1)" in error
    assert "(9, 9, 1)" in error
