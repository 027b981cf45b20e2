"""The pruned networks that come with the package do what their cards say."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_fashion_mnist import DEBIAN, restore
from typer.testing import CliRunner

import keras_structsparse as kss
from keras_structsparse.cli import app
from keras_structsparse.data import datasets
from keras_structsparse.errors import ModelError
from keras_structsparse.models.card import Card
from keras_structsparse.models.packaged import FOLDER, cards, load
from keras_structsparse.training.fit import accuracy

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 5 * 2**20
OFFLINE = "digits"

every = pytest.mark.parametrize("name", list(cards()))
offline = pytest.mark.parametrize(
    "name", [name for name, card in cards().items() if card.dataset.startswith(OFFLINE)]
)

fashion = pytest.mark.parametrize(
    "name", [name for name, card in cards().items() if card.dataset.startswith("fashion_mnist")]
)


def right(model: keras.Model) -> int:
    """Test images of the digits that a network gets right."""
    test = datasets.load(OFFLINE).test
    return round(accuracy(model, (test.x, test.y)) * len(test))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "pruned"
    shutil.copytree(FOLDER, folder)
    return folder


@every
def test_costs_are_those_of_the_card(name: str) -> None:
    card, found = cards()[name], kss.profile(load(name))
    assert (found.multiply_adds, found.params) == (card.multiply_adds, card.params)
    whole = kss.profile(kss.models.build(card.base))
    assert (whole.multiply_adds, whole.params) == (card.dense_multiply_adds, card.dense_params)
    percent = int(name.rpartition("-")[2].removesuffix("pc"))
    assert card.multiply_adds <= percent / 100 * card.dense_multiply_adds


@offline
def test_accuracy_is_that_of_the_card(name: str) -> None:
    """All test images; another machine's rounding may move one of them."""
    model, card = load(name), cards()[name]
    expected = round(card.accuracy * len(datasets.load(OFFLINE).test))
    assert abs(right(model) - expected) <= 1
    kernel = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)).kernel
    changed = kernel.numpy()
    changed[..., 0] *= -1
    kernel.assign(changed)
    assert abs(right(model) - expected) > 1


@fashion
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_accuracy_on_clothes_is_that_of_the_card(name: str, tmp_path: Path) -> None:
    """On all test images, read without tensorflow-datasets."""
    restore(tmp_path)
    images, labels = (
        np.frombuffer(
            gzip.decompress((tmp_path / f"t10k-{file}-ubyte.gz").read_bytes())[skip:], "u1"
        )
        for file, skip in (("images-idx3", 16), ("labels-idx1", 8))
    )
    test = images.reshape(-1, 28, 28, 1).astype("float32") / 255, labels.astype("int64")
    model, card = load(name), cards()[name]
    assert accuracy(model, test) == pytest.approx(card.accuracy, abs=3e-4)
    assert accuracy(model, (1 - test[0], test[1])) < card.accuracy - 0.1


def test_there_is_a_network_for_the_digits() -> None:
    assert "digits-residual-40pc" in cards()


def test_they_need_only_keras() -> None:
    code = "import sys, keras; [keras.models.load_model(file) for file in sys.argv[1:]]; "
    code += f"print('{kss.__name__}' in sys.modules)"
    files = [str(FOLDER / f"{name}.keras") for name in cards()]
    words = [sys.executable, "-c", code, *files]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == "False"


@every
def test_a_card_is_written_as_it_is_read(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_text("utf-8")
    card = Card.from_json(text)
    assert card.to_json() == text
    assert replace(card, accuracy=0.5).to_json() != text
    sweep, choose = card.commands
    assert re.match(r"(KERAS_BACKEND=\w+ )?structsparse sweep --model ", sweep)
    assert choose.startswith("structsparse choose run ")
    assert card.sha256 in card.to_markdown()


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"one of .*digits-residual-40pc.*Received: 'digits-40'"):
        load("digits-40")
    with pytest.raises(ValueError, match="expected one of"):
        load("../pruned/digits-residual-40pc")


@every
def test_another_file_than_that_of_the_card_is_refused(name: str, copied: Path) -> None:
    load(name, copied)
    file = copied / f"{name}.keras"
    model = load(name)
    first = model.weights[0]
    first.assign(first + 1e-3)
    model.save(file)
    with pytest.raises(ModelError, match=f"{name}: expected the file of its card, SHA-256"):
        load(name, copied)
    file.unlink()
    with pytest.raises(ModelError, match="expected the file"):
        load(name, copied)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other/1"}', "null"])
def test_a_file_that_is_no_card_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "net-40pc.json").write_text(text)
    with pytest.raises(ModelError, match="card: expected"):
        cards(tmp_path)


def test_all_together_are_small() -> None:
    files = [file for file in FOLDER.iterdir() if file.suffix == ".keras"]
    assert {file.stem for file in files} == set(cards())
    assert 0 < sum(file.stat().st_size for file in files) <= LIMIT


def test_a_wheel_holds_them() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["keras_structsparse.models"]
    held = {path.name for pattern in patterns for path in (ROOT / "models").glob(pattern)}
    assert held == {f"{name}{end}" for name in cards() for end in (".json", ".keras")}


@pytest.mark.slow
def test_a_built_wheel_holds_them(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "-q"]
    # In a copy: setuptools leaves a folder "build" behind.
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "tests", "docs", "benchmarks", "tutorials")
    shutil.copytree(ROOT, source, ignore=ignored)
    build = ("--no-build-isolation", "-w", str(tmp_path), str(source))
    subprocess.run([*words, *build], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"keras_structsparse/models/pruned/{name}.keras" for name in cards()} <= names


def test_the_command_lists_them_and_takes_their_names() -> None:
    run = CliRunner(env={"COLUMNS": "200"})
    listed = run.invoke(app, ["models", "--pruned"]).stdout
    for name, card in cards().items():
        line = next(line for line in listed.splitlines() if f" {name} " in line)
        assert f"{card.multiply_adds:,}" in line
        assert f"{card.accuracy:.2%}" in line
    words = ["profile", "digits-residual", "--compare", "digits-residual-40pc"]
    found = run.invoke(app, words)
    assert f"{cards()['digits-residual-40pc'].multiply_adds:,}" in found.stdout
    both = run.invoke(app, ["models", "--pruned", "--references"])
    assert both.exit_code == 2


def test_outputs_are_probabilities() -> None:
    for name in cards():
        model = load(name)
        found = model(np.zeros((2, *model.input_shape[1:]), "float32"))
        np.testing.assert_allclose(keras.ops.sum(found, axis=-1), 1.0, rtol=1e-5)
