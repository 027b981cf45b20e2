"""``structsparse recipe --dataset``: a recipe with the user's own images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers_images import bright_and_dark
from typer.testing import CliRunner, Result

from keras_structsparse.cli import app
from keras_structsparse.export.formats import load_model


def invoke(*words: str) -> Result:
    given = ["recipe", "digits", "--epochs", "1", "--out", "out.keras", *words]
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, given)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bright_and_dark(tmp_path / "photos", each=20)


@pytest.mark.parametrize(
    ("words", "shape", "classes"),
    [
        (("--dataset", "photos", "--image-size", "8"), (8, 8, 3), 2),
        (("--dataset", "data.npz", "--preprocess", "-1..1"), (6, 6, 1), 3),
    ],
)
def test_a_recipe_takes_own_images(
    words: tuple[str, ...], shape: tuple[int, ...], classes: int
) -> None:
    np.savez("data.npz", x=np.zeros((60, 6, 6), np.uint8), y=np.arange(60) % 3)
    result = invoke(*words, "--model", "(4,3)x2")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "test accuracy" in result.stdout
    model = load_model(Path("out.keras"))
    assert (model.input_shape[1:], model.output_shape[1:]) == (shape, (classes,))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--dataset", "./none"), "--dataset: expected a folder of images or an .npz file"),
        (("--dataset", "photos", "--preprocess", "tf"), "Received: 'tf'"),
        (("--dataset", "photos", "--model", "nosuch"), "nosuch"),
    ],
)
def test_what_does_not_fit_is_refused(words: tuple[str, ...], part: str) -> None:
    result = invoke(*words)
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    assert part in line
    assert not Path("out.keras").exists()
