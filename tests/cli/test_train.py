"""``structsparse train --shrink-every``: what it writes and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from helpers_images import bright_and_dark
from helpers_sweeps import build, dataset
from typer.testing import CliRunner, Result

from keras_structsparse.cli import app, train
from keras_structsparse.data.image_streams import Streams
from keras_structsparse.export.formats import load_model
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.training.fit import compile_for
from keras_structsparse.training.penalty_config import PenaltyConfig
from keras_structsparse.training.recipes import Recipe, Shrinking

TRAIN = ("train", "--model", "base.keras", "--dataset", "digits", "--out", "out.keras")
SHORT = ("--epochs", "2", "--batch-size", "512")


def invoke(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, [*TRAIN, *SHORT, *words])


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build().save("base.keras")


def test_the_plan_names_the_kernels_of_the_first_network() -> None:
    result = invoke("--shrink-every", "1", "--save-plan", "plan.json", "--data-dir", "data")
    assert result.exit_code == 0, result.output
    plan = Plan.from_json(Path("plan.json").read_text())
    assert {name: len(sizes) for name, sizes in plan.sizes.items()} == {
        "conv1": 6,
        "conv2": 6,
        "head": 10,
    }
    assert load_model(Path("out.keras")).count_params() > 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--target-multiply-adds", "0.5"), "no --target-multiply-adds with --shrink-every"),
        (("--regularizer", "none"), "Received --regularizer none"),
    ],
)
def test_what_cannot_shrink_is_refused(words: tuple[str, ...], part: str) -> None:
    result = invoke("--shrink-every", "1", *words)
    assert result.exit_code == 2
    assert part in " ".join(result.output.replace("│", " ").split())
    assert not Path("out.keras").exists()


def test_a_number_below_one_is_refused() -> None:
    result = invoke("--shrink-every", "-1", "--data-dir", "data")
    assert result.exit_code == 2
    assert "every: expected a whole number >= 1. Received: -1" in " ".join(result.output.split())


def trained(
    model: keras.Model, recipe: Recipe, alpha: float, shrinking: Shrinking | None = None
) -> tuple[keras.Model, Ancestry]:
    data, form = dataset(), PenaltyConfig()
    compile_for(model, recipe, len(data.train), form.regularizer(alpha))
    return train.fit(model, data.train.arrays, data.validation.arrays, recipe, None, shrinking)


def as_streams() -> Streams:
    data = dataset()
    parts = data.train.arrays, data.validation.arrays, data.test.arrays
    return Streams(*parts, len(data.train), data.shape, data.classes)


def test_it_says_when_it_has_shrunk(capsys: Any) -> None:
    """The control: without shrinking it says nothing, and the network is the same."""
    recipe = Recipe(epochs=5, batch_size=16)
    base = build()
    model, ancestry = trained(base, recipe, 0.01, Shrinking(1, True))
    assert "of the multiply-adds after" in capsys.readouterr().out
    assert model.count_params() < base.count_params()
    report = train.report(model, ancestry, as_streams(), 1e-3, "half_ring")
    assert len(report.sizes["conv1"]) == 6
    assert min(*report.sizes["conv1"], *report.sizes["conv2"]) == 0
    capsys.readouterr()
    whole, _ = trained(same := build(), recipe, 0.01)
    assert "of the multiply-adds after" not in capsys.readouterr().out
    assert whole is same
    assert isinstance(whole, keras.Model)


def test_it_says_when_no_cut_was_worth_it(capsys: Any) -> None:
    base = build()
    model, _ = trained(base, Recipe(epochs=2, batch_size=16), 1e-9, Shrinking(1))
    assert "not shrunk" in capsys.readouterr().out
    assert model.count_params() == base.count_params()


def test_a_folder_of_images_is_trained_on_and_swept(tmp_path: Path) -> None:
    from keras_structsparse import models

    bright_and_dark(tmp_path / "photos", each=20)
    models.build("(4,3)x2", (8, 8, 3), 2).save("base.keras")
    images = ("--image-size", "8", "--preprocess", "-1..1")
    words = ("train", "--model", "base.keras", "--dataset", "photos", "--out", "out.keras")
    cli = CliRunner(env={"COLUMNS": "100"})
    result = cli.invoke(app, [*words, *images, "--epochs", "8", "--augment", "flip"])
    assert result.exit_code == 0, result.output
    assert "test accuracy 1.0" in result.output
    assert load_model(Path("out.keras")).input_shape == (None, 8, 8, 3)
    words = ("sweep", "--model", "base.keras", "--dataset", "photos", "--out", "run")
    sweep = [*words, *images, "--epochs", "4", "--alphas", "1e-3", "--validation", "0.2"]
    result = cli.invoke(app, sweep)
    assert result.exit_code == 0, result.output
    settings = Path("run", "settings.json").read_text(encoding="utf-8")
    assert "photos, 8 pixels, preprocessed as -1..1, 0.2 for validation" in settings


def test_images_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    bright_and_dark(tmp_path / "photos")
    (tmp_path / "photos" / "dark" / "000.jpg").write_bytes(b"")
    words = ("train", "--model", "base.keras", "--dataset", "photos", "--out", "out.keras")
    result = CliRunner().invoke(app, [*words, "--preprocess", "tf"])
    assert (result.exit_code, "none" in result.output) == (2, True)
    result = CliRunner().invoke(app, [*words])
    assert result.exit_code == 2
    assert "dark/000.jpg" in result.output
    assert not Path("out.keras").exists()
