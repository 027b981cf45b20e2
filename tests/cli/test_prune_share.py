"""``structsparse prune`` for a share of the cost: what it leaves and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_images import bright_and_dark
from keras import layers as kl
from typer.testing import CliRunner, Result

from keras_structsparse.cli import app
from keras_structsparse.export.formats import load_model
from keras_structsparse.profiling.profile import compare
from keras_structsparse.surgery.plans import Plan


def invoke(*words: str) -> Result:
    given = ["prune", "base.keras", "--out", "out.keras", *words]
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, given)


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bright_and_dark(tmp_path / "photos")
    inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(6, 3, activation="relu", name="conv1")(inputs)
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(6, 3, activation="relu", name="conv2")(x))
    keras.Model(inputs, kl.Dense(2, activation="softmax", name="head")(x)).save("base.keras")


def left(unit: str) -> float:
    models = (load_model(Path(name)) for name in ("base.keras", "out.keras"))
    return float(getattr(compare(*models), f"{unit}_fraction"))


@pytest.mark.parametrize("unit", ["multiply_adds", "params"])
def test_a_share_is_left(unit: str) -> None:
    result = invoke(f"--{unit.replace('_', '-')}", "0.6")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "equal (relative difference" in result.stdout
    assert 0.4 < left(unit) <= 0.6


def test_data_change_what_is_left() -> None:
    plans = []
    for words in ((), ("--data", "photos", "--preprocess", "-1..1")):
        result = invoke("--multiply-adds", "0.6", "--save-plan", "plan.json", "--force", *words)
        assert result.exit_code == 0, (result.output, result.exception)
        assert 0.4 < left("multiply_adds") <= 0.6
        plans.append(Plan.from_json(Path("plan.json").read_text()))
    assert plans[0] != plans[1]
    assert json.loads(Path("plan.json").read_text())["sizes"]["head"] == [1, 1]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--tau", "0.1", "--params", "0.5"), "Received: --tau and --params"),
        (("--multiply-adds", "0.5", "--params", "0.5"), "--multiply-adds and --params"),
        (("--multiply-adds", "0.5", "--plan", "p.json"), "--plan and --multiply-adds"),
        (("--data", "photos"), "expected --multiply-adds or --params beside --data"),
        (("--multiply-adds", "2"), "expected a number in (0, 1]. Received: 2"),
        (("--params", "0.5", "--data", "./none"), "--data: expected a folder of images"),
        (("--params", "0.5", "--data", "three.npz"), "MODEL base.keras: expected an output"),
    ],
)
def test_options_that_do_not_fit_are_refused(words: tuple[str, ...], part: str) -> None:
    np.savez("three.npz", x=np.zeros((30, 8, 8, 3), np.uint8), y=np.arange(30) % 3)
    result = invoke(*words)
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    assert part in line
    assert not Path("out.keras").exists()
