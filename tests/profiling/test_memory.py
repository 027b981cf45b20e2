"""What needs more memory than there is, or would never end, is refused before it begins."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from keras_structsparse.profiling import memory as machine_memory
from keras_structsparse.profiling.memory import check_memory, memory


def test_the_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine_memory, "CGROUP", tmp_path / "memory.max")
    machine = memory()
    assert machine > 2**20
    for text, expected in {"max\n": machine, f"{2**20}\n": 2**20, "": machine}.items():
        (tmp_path / "memory.max").write_text(text)
        assert memory() == expected


def test_an_unknown_memory_is_no_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine_memory, "CGROUP", tmp_path / "nothing")
    monkeypatch.delattr(os, "sysconf")
    assert memory() == math.inf
    check_memory(2**100, "a batch", "batch_size")


def test_what_fits_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "memory", lambda: 8.0)
    check_memory(8, "a batch", "batch_size")
    with pytest.raises(ValueError, match=r"batch_size: expected at most .* Received: a batch of"):
        check_memory(9, "a batch", "batch_size")
