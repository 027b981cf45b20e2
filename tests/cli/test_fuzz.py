"""Any combination of options ends with exit code 0, 1, 2 or 130, soon, and with no traceback.

Every command line is written to a file before it runs, so that one that never ends is known.
"""

from __future__ import annotations

import faulthandler
import random
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import pytest
import typer
from helpers_sweeps import build
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from keras_structsparse import models
from keras_structsparse.cli import app
from keras_structsparse.errors import ModelError
from keras_structsparse.profiling import calibration
from keras_structsparse.surgery.plans import Plan

CODES = {0, 1, 2, 130}

SECONDS, MUCH_LATER = 60, 240
"""What a command line may take without training; and when a line that cannot be stopped, since it
is inside a library, ends the whole process."""

MEMORY = 2 * 2**20
"""KiB by which a command line may raise the largest memory of the process."""

NUMBERS = (
    *("0", "1", "-1", "2", "0.5", "1e-400", "1e400", "1e300", "nan", "inf", "-inf", "10001"),
    *("1000000000", "99999999999999999999", "True", "", " ", "1,2", "1:2", "1:2:3", "2ms"),
    *("1e-3:1e-1:99999999", "1e-300:1e300:9", "0,0", "1e-3,2e-3"),
)
PATHS = (
    *("model.keras", "plan.json", "empty", "binary", "folder", "loop", "nothing", "folder/new"),
    *("new.keras", "new.json", "new.svg", "new.tflite", "new.onnx", "labels.npz", "pictures"),
    *("/dev/null", "/dev/zero", "/proc/1/x", ".."),
)
TEXTS = (
    *("digits", "digits-plain", "(2,1)x2", "(64,5)x99999999", "(9999,9)x99", "(0,0)", "alexnet"),
    *("größe $x$|<b>[red]", "28,28,1", "8,8,1", "99999,99999,3", "0,0", "none", "auto", "linf"),
    *("kernel-count", "multiply-adds", "saved", "onnx", "a\nb", "--", "-", "\x1b[31m", "a" * 300),
)
VALUES = (*NUMBERS, *PATHS, *TEXTS)

VALID = (
    "quickstart --out out",
    "models",
    "shrink plain.keras digits --multiply-adds 0.5 --out out",
    "shrink plain.keras pictures --max-drop 0.1 --out out",
    "train --model digits-plain --dataset digits --out new.keras",
    "train --model (2,3)x2 --dataset pictures --image-size 8 --out new.keras",
    "recipe --model digits-plain --dataset digits --out new.keras",
    "sweep --model digits-plain --dataset digits --alphas 1e-3,1e-2 --out out",
    "sweep --model (2,3)x2 --dataset pictures --image-size 8 --alphas 1e-3,1e-2 --out out",
    "prune model.keras --plan plan.json --out new.keras",
    "prune model.keras --multiply-adds 0.5 --out new.keras",
    "profile digits-plain",
    "profile (2,3)x2 --input-shape 28,28,1",
    "export model.keras --out out",
    "calibrate --out new.json",
)
"""Command lines without a mistake, but for the training that they would begin."""

SEEN: Counter[int] = Counter()


def parameters() -> dict[str, list[Any]]:
    """The parameters of every command."""
    group: Any = typer.main.get_command(app)
    return {name: command.params for name, command in group.commands.items()}


PARAMETERS = parameters()


def command_line(rng: random.Random) -> list[str]:
    """A valid command line with one to three other options; or a command with any of them."""
    if rng.random() < 0.5:
        words = rng.choice(VALID).split()
        options = [each for each in PARAMETERS[words[0]] if each.param_type_name == "option"]
        for parameter in rng.sample(options, min(rng.randint(1, 3), len(options))):
            words = with_option(words, parameter, rng)
        return words
    words = [rng.choice(sorted(PARAMETERS))]
    for parameter in PARAMETERS[words[0]]:
        if parameter.param_type_name == "argument":
            words += [value(parameter, rng)] if rng.random() < 0.9 else []
        elif rng.random() < (0.95 if parameter.required else 0.15):
            words = with_option(words, parameter, rng)
    return words


def with_option(words: list[str], parameter: Any, rng: random.Random) -> list[str]:
    """Words with an option in place of what they had."""
    option = rng.choice(parameter.opts)
    if parameter.is_flag:
        return [*words, option]
    if option in words:
        where = words.index(option) + 1
        return [*words[:where], value(parameter, rng), *words[where + 1 :]]
    return [*words, option, value(parameter, rng)]


def value(parameter: Any, rng: random.Random) -> str:
    return rng.choice(fits(parameter.name) if rng.random() < 0.6 else VALUES)


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
    models.build("digits-plain").save(folder / "plain.keras")
    np.savez(folder / "labels.npz", x=np.zeros((9, 8, 8), np.uint8), y=np.full(9, 10**18))
    for name in "ab":
        (folder / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            keras.utils.save_img(folder / "pictures" / name / f"{i}.png", np.full((8, 8, 3), i))
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
    files: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[list[str]], Any]]:
    """Runs a command in a fresh copy of the files; nothing is trained or measured."""
    monkeypatch.setattr(keras.Model, "fit", no_work)
    monkeypatch.setattr(calibration, "calibrate", no_work)

    log = (tmp_path_factory.getbasetemp() / "command-lines.log").open("a")
    before = signal.signal(signal.SIGALRM, too_late)

    def run(words: list[str]) -> Any:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(files, folder, symlinks=True)
        monkeypatch.chdir(folder)
        print(words, file=log, flush=True)
        signal.alarm(SECONDS)
        faulthandler.dump_traceback_later(MUCH_LATER, exit=True, file=log)
        start, most = time.monotonic(), largest_memory()
        try:
            found = CliRunner().invoke(app, words)
        finally:
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()
        print(f"    {found.exit_code}, {time.monotonic() - start:.1f} s", file=log, flush=True)
        assert largest_memory() - most < MEMORY, words
        assert (folder / "folder" / "thesis.tex").read_text() == "mine", words
        return found

    yield run
    signal.signal(signal.SIGALRM, before)
    log.close()
    monkeypatch.chdir(tmp_path)


class TooLateError(BaseException):
    """A command line takes too long. No command must catch it."""


def too_late(number: int, frame: Any) -> NoReturn:
    raise TooLateError


def largest_memory() -> int:
    """The largest memory of this process until now, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def check(found: Any, words: list[str]) -> None:
    SEEN[found.exit_code] += 1
    said = (words, found.output, found.exception)
    assert found.exit_code in CODES, said
    assert found.exception is None or isinstance(found.exception, SystemExit), said
    assert "Traceback" not in found.output, said
    errors = [line for line in found.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == (found.exit_code != 0), said


@settings(suppress_health_check=list(HealthCheck), max_examples=12)
@given(seed=st.integers(0, 10**9))
def test_command_lines_end_in_one_line(invoke: Callable[[list[str]], Any], seed: int) -> None:
    words = command_line(random.Random(seed))
    check(invoke(words), words)


@pytest.mark.slow
def test_five_hundred_command_lines_end_in_one_line(invoke: Callable[[list[str]], Any]) -> None:
    seed, failed = random.SystemRandom().randrange(10**6), []
    print(f"seed {seed}")
    for number in range(500):
        words = command_line(random.Random(f"{seed} {number}"))
        try:
            check(invoke(words), words)
        except (AssertionError, TooLateError) as error:
            failed.append((words, error))
    assert not failed
    print(SEEN)
