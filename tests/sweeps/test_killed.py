"""Sweeps in processes that are killed, and in several at once."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_sweeps import SETTINGS, points, started

from keras_structsparse.sweeps import read_run

KILLS = 10
MINUTES = 10 * 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The directory of a sweep that nobody killed, and its seconds."""
    folder, start = tmp_path_factory.mktemp("sweep") / "run", time.monotonic()
    assert started(folder).wait(MINUTES) == 0
    return folder, time.monotonic() - start


@pytest.fixture(scope="module")
def undisturbed(whole: tuple[Path, float]) -> tuple[list[Any], float]:
    """The points of that sweep, and its seconds."""
    return points(read_run(whole[0])), whole[1]


def test_killed_at_random_moments_it_ends_with_the_same_points(
    undisturbed: tuple[list[Any], float], tmp_path: Path
) -> None:
    expected, seconds = undisturbed
    rng, folder, killed, finished = np.random.default_rng(0), tmp_path / "run", 0, dict[str, int]()
    for _ in range(KILLS):
        process = started(folder)
        try:
            process.wait(rng.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        now = {file.name: file.stat().st_mtime_ns for file in folder.glob("trials/[!.]*")}
        assert finished.items() <= now.items(), "no finished trial is run twice or lost"
        finished = now
    assert killed > 0
    assert started(folder).wait(MINUTES) == 0
    assert points(read_run(folder)) == expected


def test_a_full_disk_is_named_and_loses_nothing(
    whole: tuple[Path, float], undisturbed: tuple[list[Any], float], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    lost = folder / "trials" / f"{SETTINGS.trials[-1].name}.json"
    lost.unlink()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    process = started(folder, "full", stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=MINUTES)
    assert process.returncode == 1
    last = said.decode().splitlines()[-1]
    assert ".keras: expected a path that can be written. Received:" in last
    assert "File too large" in last
    after = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    files = [file for file in before if file.is_file()]
    assert {file: after.get(file) for file in files} == {file: before[file] for file in files}
    assert set(after) == set(before)
    assert started(folder).wait(MINUTES) == 0
    assert points(read_run(folder)) == undisturbed[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_a_chief_and_two_workers_find_the_same_points(
    undisturbed: tuple[list[Any], float], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    cluster = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(free_port())}

    def member(name: str) -> subprocess.Popen[bytes]:
        return started(folder, environment={**cluster, "KERASTUNER_TUNER_ID": name})

    chief = member("chief")
    workers = [member("worker-1"), member("worker-2")]
    # One dies within its first trial, and is started again under its name.
    time.sleep(0.6 * undisturbed[1])
    workers[0].send_signal(signal.SIGKILL)
    workers[0].wait()
    workers[0] = member("worker-1")
    assert [process.wait(MINUTES) for process in (*workers, chief)] == [0, 0, 0]
    run = read_run(folder)
    assert {found.trial for found in run.found()} == set(SETTINGS.trials)
    assert points(run) == undisturbed[0]
