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
    assert process.returncode == 130
    assert said == "interrupted: the same command goes on with the trials that are missing\n"
    assert (tmp_path / "run" / "settings.json").is_file()
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".structsparse"]
