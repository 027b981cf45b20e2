"""Kills at random moments of a sweep, a shrinking and an export lose nothing and change nothing."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers_kills import results, started

KILLS = 20
MINUTES = 15 * 60


def stage(folder: Path) -> str:
    """What a process was about to do when it ended."""
    if (folder / "shrunk" / "card.md").exists():
        return "finished"
    if (folder / "work" / "state.npz").exists():
        return "export" if (folder / "shrunk").exists() else "shrink"
    return "sweep"


def finish(folder: Path) -> None:
    """Let the work end, or go on to its end."""
    with started(folder) as process:
        _, said = process.communicate(timeout=MINUTES)
    assert process.returncode == 0, said.decode()[-2000:]


@pytest.mark.slow
def test_twenty_kills_end_in_the_results_of_undisturbed_work(tmp_path: Path) -> None:
    start = time.monotonic()
    finish(tmp_path / "whole")
    seconds = time.monotonic() - start
    expected = results(tmp_path / "whole")
    rng, killed, rounds = np.random.default_rng(0), Counter[str](), 0
    while killed.total() < KILLS:
        folder = tmp_path / str(rounds)
        process = started(folder)
        try:
            _, said = process.communicate(timeout=rng.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed[stage(folder)] += 1
            continue
        assert process.returncode == 0, said.decode()[-2000:]
        assert results(folder) == expected
        rounds += 1
    finish(tmp_path / str(rounds))
    assert results(tmp_path / str(rounds)) == expected
    print(f"kills: {dict(killed)}; {rounds + 1} works were finished; {seconds:.0f} s undisturbed")
