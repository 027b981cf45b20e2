"""``structsparse shrink``: what it writes, what it says, and what it refuses before a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_images import bright_and_dark
from keras import layers as kl
from typer.testing import CliRunner, Result

from keras_structsparse.cli import app
from keras_structsparse.export.formats import load_model
from keras_structsparse.training.shrink import handing_over, latency_share, measured

BUDGET = ("--multiply-adds", "0.5")
SHORT = ("--epochs", "2", "--out", "out")


def invoke(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["shrink", *words])


def assert_refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    for part in parts:
        assert part in line
    assert not Path("out").exists()


def save(name: str, *last: kl.Layer, **compiled: Any) -> None:
    first = (keras.Input((8, 8, 3)), kl.Conv2D(6, 3, activation="relu", name="conv"))
    model = keras.Sequential([*first, kl.Conv2D(6, 3, activation="relu", name="more"), *last])
    if compiled:
        model.compile(**compiled)
    model.save(name)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measured, "REPEATS", 3)
    bright_and_dark(tmp_path / "photos", each=20)


@pytest.fixture
def _no_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are tested once: each starts processes."""

    def hand_over(*given: Any, **options: Any) -> Any:
        return write(*given, **{**options, "formats": ()})

    write = handing_over.hand_over
    monkeypatch.setattr(handing_over, "hand_over", hand_over)


def test_a_backbone_and_a_folder_become_a_small_classifier() -> None:
    save("base.keras")
    result = invoke("base.keras", "photos", *BUDGET, *SHORT)
    assert result.exit_code == 0, (result.output, result.exception)
    said = result.stdout
    assert "a new head for 2 classes: trained alone for 1 epochs, then with the rest for 1" in said
    for name in ("model.keras", "model.tflite", "saved_model", "plan.json", "layers.png"):
        assert Path("out", name).exists()
        assert f"saved out/{name} (" in said
    assert Path("out/labels.txt").read_text() == "bright\ndark\n"
    assert load_model(Path("out/model.keras")).output_shape == (None, 2)
    card = Path("out/card.md").read_text("utf-8")
    for part in ("test accuracy", "milliseconds", "`model.tflite`", "Classes: bright, dark"):
        assert part in card
    report = Path("out/report.html").read_text("utf-8")
    assert "50.0% of the multiply-adds" in report


@pytest.mark.usefixtures("_no_exports")
def test_a_second_call_goes_on_and_replaces_only_by_force() -> None:
    save("base.keras")
    words = ("base.keras", "photos", *BUDGET, *SHORT, "--workdir", "state")
    first = invoke(*words)
    assert first.exit_code == 0, (first.output, first.exception)
    refused = invoke(*words)
    assert refused.exit_code == 2
    assert "out, which an earlier call wrote; --force replaces it" in refused.stderr
    again = invoke(*words, "--force")
    assert again.exit_code == 0, again.output
    assert sum(line.startswith("epoch ") for line in first.stdout.splitlines()) == 4
    assert sum(line.startswith("epoch ") for line in again.stdout.splitlines()) == 0


@pytest.mark.usefixtures("_no_exports")
def test_a_compiled_network_keeps_its_loss_and_arrays_have_no_names(tmp_path: Path) -> None:
    save(
        "base.keras",
        kl.GlobalAveragePooling2D(),
        kl.Dense(3, activation="softmax"),
        optimizer="sgd",
        loss="sparse_categorical_crossentropy",
    )
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.random((60, 8, 8, 3)), y=np.arange(60) % 3)
    given = ("--params", "0.6", "--groups", "kernel", "--realize", "none", "--distillation", "0.5")
    result = invoke("base.keras", "data.npz", *given, "--learning-rate", "0.01", *SHORT)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "compiled as in its file" in result.stdout
    assert not Path("out/labels.txt").exists()
    report = Path("out/report.html").read_text("utf-8")
    assert "60.0% of the params" in report
    for value in ("kernel", "0.01", "0.5"):
        assert f"<td>{value}</td>" in report


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ("expected one of --multiply-adds, --params, --latency, --max-drop. Received: none",)),
        (
            (*BUDGET, "--params", "0.5"),
            ("Received: --multiply-adds and --params",),
        ),
        (("--multiply-adds", "1.5"), ("--multiply-adds", "(0, 1]. Received: 1.5")),
        (("--params", "many"), ("--params", "expected a number. Received: 'many'")),
        (("--max-drop", "1"), ("max_drop: expected a number in [0, 1)",)),
        ((*BUDGET, "--epochs", "1"), ("epochs: expected at least 2",)),
        ((*BUDGET, "--batch-size", "0"), ("--batch-size: expected a whole number >= 1",)),
        ((*BUDGET, "--distillation", "2"), ("distillation", "Received: 2")),
        ((*BUDGET, "--learning-rate", "-1"), ("learning_rate", "Received: -1")),
        ((*BUDGET, "--groups", "square"), ("--groups", "Received: 'square'")),
        ((*BUDGET, "--head", "old"), ("--head", "expected one of auto, none, new")),
        ((*BUDGET, "--preprocess", "tf"), ("--preprocess", "Received: 'tf'")),
        ((*BUDGET, "--head", "none"), ("MODEL base.keras", "shape (2,), the classes of the data")),
        ((*BUDGET, "--image-size", "9"), ("MODEL base.keras", "input of shape (9, 9, 3)")),
        ((*BUDGET, "--workdir", "photos"), ("workdir", "photos, which holds 'bright'")),
    ],
)
def test_wrong_options_are_refused_before_a_training(
    words: tuple[str, ...], parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*given: Any, **options: Any) -> None:
        pytest.fail("a training began")

    monkeypatch.setattr(keras.Model, "fit", trained)
    save("base.keras")
    assert_refused(invoke("base.keras", "photos", "--out", "out", *words), *parts)


def test_wrong_files_are_refused() -> None:
    save("base.keras")
    result = invoke("base.keras", "./nosuch", *BUDGET, *SHORT)
    assert_refused(result, "DATA: expected a folder of images or an .npz file", "./nosuch")
    assert_refused(invoke("none.keras", "photos", *BUDGET, *SHORT), "none.keras")
    result = invoke("base.keras", "photos", *BUDGET, "--out", "photos")
    assert_refused(result, "--out", "photos, which holds 'bright'")
    result = invoke("base.keras", "photos", *BUDGET, "--out", "base.keras")
    assert_refused(result, "--out", "Received a file: base.keras")


@pytest.mark.filterwarnings("ignore:shrink. expected 90.0% of the time:UserWarning")
@pytest.mark.usefixtures("_no_exports")
def test_a_budget_in_time_is_measured_where_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_share, "BLOCKS", (2,))
    save("base.keras")
    place = ("--latency", "90%", "--runtime", "keras", "--run-batch-size", "2")
    result = invoke("base.keras", "photos", *place, *SHORT)
    assert result.exit_code == 0, (result.output, result.exception)
    card = Path("out/card.md").read_text("utf-8")
    assert "| milliseconds (keras, 2 examples, 1 thread) |" in card
    report = Path("out/report.html").read_text("utf-8")
    assert "90.0% of the time (keras, 2 examples, 1 thread)" in report


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--latency", "4kg"), ("--latency", "such as 4ms", "'4kg'")),
        (("--latency", "150%"), ("--latency", "expected a number in (0, 1]")),
        (("--latency", "0ms"), ("--latency", "expected a finite number > 0")),
        (("--latency", "4ms", "--threads", "0"), ("threads: expected a whole number",)),
        (("--latency", "4ms", "--groups", "ring"), ("groups: expected 'kernel'", "'ring'")),
        (("--latency", "4ms", "--params", "0.4"), ("--params and --latency",)),
        ((*BUDGET, "--threads", "2"), ("expected --latency with --runtime",)),
        ((*BUDGET, "--runtime", "litert"), ("expected --latency with --runtime",)),
    ],
)
def test_wrong_times_are_refused(words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    save("base.keras")
    assert_refused(invoke("base.keras", "photos", *words, *SHORT), *parts)
