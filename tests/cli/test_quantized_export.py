"""``structsparse export --quantize``: files of 8 bits, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import pytest
from helpers_images import bright_and_dark
from keras import layers as kl
from typer.testing import CliRunner, Result

from keras_structsparse.cli import app

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")


def invoke(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["export", "model.keras", *words])


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bright_and_dark(tmp_path / "photos")
    inputs = keras.Input((8, 8, 3))
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(6, 3, activation="relu")(inputs))
    keras.Model(inputs, kl.Dense(2, activation="softmax", name="head")(x)).save("model.keras")


def test_photographs_give_the_ranges() -> None:
    words = "--out", "model.tflite", "--format", "litert", "--quantize", "int8", "--data", "photos"
    result = invoke(*words, "--preprocess", "-1..1")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "in 8 bits (int8): " in result.stdout
    assert f"({os.path.getsize('model.tflite'):,} bytes)" in result.stdout


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--quantize", "int8"), "expected --data with --quantize int8. Received: no --data"),
        (("--data", "photos"), "Received: --data with --quantize none"),
        (("--quantize", "dynamic", "--data", "photos"), "--data with --quantize dynamic"),
        (("--quantize", "int4"), "int4"),
        (("--quantize", "int8", "--data", "./none"), "--data: expected a folder of images"),
    ],
)
def test_wrong_options_are_named(words: tuple[str, ...], part: str) -> None:
    result = invoke("--out", "model.tflite", "--format", "litert", *words)
    assert result.exit_code == 2
    said = " ".join(result.output.replace("│", " ").split())
    assert part in said, said
    assert not Path("model.tflite").exists()


def test_a_saved_model_has_no_8_bits() -> None:
    result = invoke("--out", "saved", "--quantize", "dynamic")
    assert result.exit_code != 0
    assert "quantize: expected the format litert for 'dynamic'" in result.output
    assert not Path("saved").exists()
