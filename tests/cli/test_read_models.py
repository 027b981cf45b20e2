"""The commands read model files of any kind, and models whose inputs have open sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_keras2 import as_old_h5
from keras import layers as kl
from typer.testing import CliRunner, Result

from keras_structsparse.cli import app

SHAPE = ["--input-shape", "16,16,3"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def network(*sides: int | None) -> keras.Model:
    """A network whose first layer has two kernels of zeros among six."""
    i = keras.Input((*sides, 3))
    x = kl.Conv2D(4, 3, name="b")(kl.Conv2D(6, 3, activation="relu", name="a")(i))
    model = keras.Model(i, kl.Dense(2)(kl.GlobalAveragePooling2D()(x)))
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 6))
    model.get_layer("a").kernel.assign(kernel * (np.arange(6) > 1))
    return model


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line


def test_every_command_reads_a_legacy_file_of_keras_2() -> None:
    as_old_h5(network(16, 16), Path("m.h5"))
    pruned = run("prune", "m.h5", "--out", "p.keras")
    assert pruned.exit_code == 0, pruned.output
    assert "a      Conv2D        6     4" in pruned.output
    for words in (
        ["profile", "m.h5", "--compare", "p.keras"],
        ["export", "m.h5", "--out", "saved", "--no-fold"],
    ):
        done = run(*words)
        assert done.exit_code == 0, (words, done.output, done.exception)


@pytest.mark.parametrize(
    "words",
    [["profile", "m.h5"], ["prune", "m.h5", "--out", "p.keras"], ["export", "m.h5", "--out", "e"]],
)
@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.touch(), "an empty file"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "Git LFS"),
        (lambda path: None, "no such file"),
    ],
)
def test_other_files_are_one_line(
    words: list[str], write: Callable[[Path], object], said: str
) -> None:
    write(Path("m.h5"))
    assert_refused(run(*words), "m.h5", said)


def test_open_sizes_need_a_shape_to_count_multiply_adds() -> None:
    network(None, None).save("open.keras")
    for words in (["profile", "open.keras"], ["prune", "open.keras", "--out", "p.keras"]):
        assert_refused(run(*words), "--input-shape 224,224,3")
        assert_refused(run(*words, "--input-shape", "16,16"), "(None, None, 3)")
    assert not Path("p.keras").exists()
    done = run("prune", "open.keras", "--out", "p.keras", *SHAPE)
    assert done.exit_code == 0, done.output
    assert keras.models.load_model("p.keras").input_shape == (None, None, None, 3)
    fixed = network(16, 16)
    fixed.save("fixed.keras")
    same = run("prune", "fixed.keras", "--out", "q.keras")
    totals = [line.split() for line in done.output.splitlines() if line.startswith("total")]
    assert totals == [line.split() for line in same.output.splitlines() if "total" in line]
