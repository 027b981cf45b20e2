"""Ctrl-C and SIGTERM end a command in one line, and the same command goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = (
    *("sweep", "--model", "(4,3)x2", "--dataset", "digits", "--alphas", "1e-3,1e-2"),
    *("--taus", "0", "--epochs", "200", "--out", "run"),
)
SECONDS = 10
"""How long it may take to end."""


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "structsparse", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_sweep_in_one_line(tmp_path: Path, number: signal.Signals) -> None:
    process = started(tmp_path, *COMMAND)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        assert process.stdout is not None
        if process.stdout.readline().startswith("training"):
            break
    time.sleep(1)
    process.send_signal(number)
    start = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - start < SECONDS
    assert process.returncode == 130, said
    assert said == "interrupted: the same command goes on with the trials that are missing\n"
    assert (tmp_path / "run" / "settings.json").is_file()
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".structsparse"]


def told(code: str, line: str, number: signal.Signals) -> subprocess.Popen[str]:
    """A process that runs some code, and gets a signal when it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == line
    process.send_signal(number)
    return process


LOST = """
import time, weakref
from keras_structsparse.cli.errors import interrupt_when_told

class Value:
    pass

def while_it_is_freed(reference):
    try:
        print("freed", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("lost", flush=True)
        raise

interrupt_when_told()
value = Value()
watched = weakref.ref(value, while_it_is_freed)
try:
    del value
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_python_ignores_is_repeated(number: signal.Signals) -> None:
    process = told(LOST, "freed\n", number)
    start = time.monotonic()
    said, ignored = process.communicate(timeout=30)
    assert said == "lost\ninterrupted\n", "the control: the first one is lost"
    assert "Exception ignored" not in ignored
    assert time.monotonic() - start < SECONDS


CHANGED = """
import time, typer
from keras_structsparse.cli.errors import Commands, interrupt_when_told

app = typer.Typer(cls=Commands)

@app.callback()
def top() -> None: ...

@app.command()
def sweep() -> None:
    print("begun", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt as error:
        raise RuntimeError("something of a library") from error

interrupt_when_told()
app(["sweep"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_a_library_changes_is_one(number: signal.Signals) -> None:
    process = told(CHANGED, "begun\n", number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.endswith("interrupted: the same command goes on with the trials that are missing\n")
    assert "Traceback" not in said
