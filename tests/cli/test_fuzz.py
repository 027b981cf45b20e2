"""Any combination of options ends with exit code 0, 1, 2 or 130, and never with a traceback."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import keras
import pytest
import typer
from helpers_sweeps import build
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from keras_structsparse.cli import app
from keras_structsparse.errors import ModelError
from keras_structsparse.profiling import calibration
from keras_structsparse.surgery.plans import Plan

CODES = {0, 1, 2, 130}

NUMBERS = (
    *("0", "1", "-1", "2", "0.5", "1e-400", "1e400", "nan", "inf", "-inf", "99999999999999999999"),
    *("True", "", " ", "1,2", "1:2", "1:2:3", "1e-3:1e-1:99999999", "0,0", "1e-3,2e-3", "2ms"),
)
PATHS = (
    *("model.keras", "plan.json", "empty", "binary", "folder", "loop", "nothing", "folder/new"),
    *("new.keras", "new.json", "new.svg", "new.tflite", "new.onnx", "/dev/null", "/proc/1/x", ".."),
)
TEXTS = (
    *("digits", "digits-plain", "(2,1)x2", "(64,5)x99999999", "(0,0)", "größe $x$|<b>[red]"),
    *("28,28,1", "8,8,1", "0,0", "none", "auto", "linf", "kernel-count", "multiply-adds", "saved"),
    *("onnx", "a\nb", "--", "-", "\x1b[31m", "a" * 300),
)
VALUES = st.sampled_from((*NUMBERS, *PATHS, *TEXTS))

SEEN: Counter[int] = Counter()


def parameters() -> dict[str, list[Any]]:
    """The parameters of every command."""
    group: Any = typer.main.get_command(app)
    return {name: command.params for name, command in group.commands.items()}


PARAMETERS = parameters()


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with arguments, all required options and some others."""
    name = draw(st.sampled_from(sorted(PARAMETERS)))
    words = [name]
    for parameter in PARAMETERS[name]:
        fitting = st.sampled_from(fits(parameter.name)) | VALUES
        if parameter.param_type_name == "argument":
            words += [draw(fitting)] if draw(st.integers(0, 9)) else []
        elif (parameter.required and draw(st.integers(0, 19))) or not draw(st.integers(0, 5)):
            option = draw(st.sampled_from(parameter.opts))
            words += [option] if parameter.is_flag else [option, draw(fitting)]
    return words


def fits(name: str) -> tuple[str, ...]:
    """Values that a parameter may well have."""
    known = {"model": ("model.keras", "digits-plain"), "dataset": ("digits",), "data": ("digits",)}
    known |= {"out": ("out", "new.keras", "new.json"), "run": ("folder",), "plan": ("plan.json",)}
    return known.get(name, NUMBERS)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of all kinds."""
    folder = tmp_path_factory.mktemp("files")
    build().save(folder / "model.keras")
    (folder / "plan.json").write_text(Plan({"conv1": (3, 1, 0, 3, 3, 3)}).to_json())
    (folder / "empty").touch()
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "folder").mkdir()
    (folder / "folder" / "thesis.tex").write_text("mine")
    (folder / "loop").symlink_to("loop")
    return folder


def no_work(*_: Any, **__: Any) -> NoReturn:
    raise ModelError("fuzz: expected no training. Received one")


@pytest.fixture
def invoke(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[list[str]], Any]]:
    """Runs a command in a fresh copy of the files; nothing is trained or measured."""
    monkeypatch.setattr(keras.Model, "fit", no_work)
    monkeypatch.setattr(calibration, "calibrate", no_work)

    def run(words: list[str]) -> Any:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(files, folder, symlinks=True)
        monkeypatch.chdir(folder)
        found = CliRunner().invoke(app, words)
        assert (folder / "folder" / "thesis.tex").read_text() == "mine", words
        return found

    yield run
    monkeypatch.chdir(tmp_path)


def check(found: Any, words: list[str]) -> None:
    SEEN[found.exit_code] += 1
    said = (words, found.output, found.exception)
    assert found.exit_code in CODES, said
    assert found.exception is None or isinstance(found.exception, SystemExit), said
    assert "Traceback" not in found.output, said
    errors = [line for line in found.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == (found.exit_code != 0), said


FUZZ = settings(suppress_health_check=list(HealthCheck), max_examples=25)


@FUZZ
@given(words=command_lines())
def test_command_lines_end_in_one_line(
    invoke: Callable[[list[str]], Any], words: list[str]
) -> None:
    check(invoke(words), words)


@pytest.mark.slow
@settings(FUZZ, max_examples=500, derandomize=False)
@given(words=command_lines())
def test_five_hundred_command_lines_end_in_one_line(
    invoke: Callable[[list[str]], Any], words: list[str]
) -> None:
    check(invoke(words), words)
