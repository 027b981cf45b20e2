"""Claims: one process at a time trains a trial, and what has ended holds nobody up."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keras_structsparse.sweeps import claims
from keras_structsparse.sweeps.claims import Owner, TakenOverError, claimed

HOLD = """
import sys, time
from pathlib import Path
from keras_structsparse.sweeps.claims import claimed
with claimed(Path(sys.argv[1]), "a trial", print):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(claims, "POLL", 0.02)
    return tmp_path / ".trial.claim"


@pytest.fixture(params=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("links")
def test_one_at_a_time(file: Path) -> None:
    inside, most, turns = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, turns
        for _ in range(5):
            with claimed(file, "a trial", lambda line: None):
                inside += 1
                most, turns = max(most, inside), turns + 1
                time.sleep(0.002)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 30)
    assert not list(file.parent.iterdir())


def test_an_error_releases_the_claim(file: Path) -> None:
    with pytest.raises(ZeroDivisionError), claimed(file, "a trial", print):
        1 / 0  # noqa: B018
    assert not file.exists()


def test_what_was_killed_is_taken_over_at_once(file: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    said: list[str] = []

    def kill() -> None:
        time.sleep(0.5)
        assert said
        assert file.exists(), "a process that lives is waited for"
        process.kill()

    killer, start = threading.Thread(target=kill), time.monotonic()
    killer.start()
    with claimed(file, "a trial", said.append) as claim:
        claim.check()
        assert 0.5 <= time.monotonic() - start < 60
    killer.join()
    process.communicate()
    assert f"waits for a trial, on which process {process.pid} on " in said[0]
    assert f"a trial is taken over from process {process.pid}" in said[1]
    assert len(said) == 2


@pytest.fixture
def elsewhere(file: Path) -> Iterator[Owner]:
    """A claim of a process on another machine, of which nothing is known but its file."""
    owner = replace(Owner.this(), host="elsewhere", place="another machine")
    assert claims._made(file, owner)
    yield owner
    assert not owner.is_gone


@pytest.mark.parametrize("clock", [0, 10**9, 4 * 10**9], ids=["1970", "2001", "2096"])
@pytest.mark.usefixtures("elsewhere")
def test_on_another_machine_a_touch_counts_whatever_its_clock_says(
    file: Path, clock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "PATIENCE", 0.5)
    touches = [clock + i for i in range(20)]

    def touch() -> None:
        for now in touches:
            os.utime(file, (now, now))
            time.sleep(0.1)

    other, start = threading.Thread(target=touch), time.monotonic()
    os.utime(file, (clock, clock))
    other.start()
    with claimed(file, "a trial", lambda line: None):
        waited = time.monotonic() - start
    other.join()
    assert 2.0 < waited < 60, "as long as it is touched, and the patience"


def test_without_a_touch_it_is_dead_after_the_patience(
    file: Path, elsewhere: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "PATIENCE", 0.3)
    said: list[str] = []
    with claimed(file, "a trial", said.append) as claim:
        claim.check()
    assert [line for line in said if "taken over from" in line and "elsewhere" in line]


def test_a_claim_is_touched(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.05)
    with claimed(file, "a trial", print):
        times = set()
        for _ in range(10):
            times.add(file.stat().st_mtime_ns)
            time.sleep(0.1)
    assert len(times) > 5


def test_who_was_taken_over_knows_it_and_removes_nothing(file: Path) -> None:
    with claimed(file, "a trial", print) as claim:
        file.unlink()
        with pytest.raises(TakenOverError):
            claim.check()
        other = replace(Owner.this(), place="another machine")
        assert claims._made(file, other)
        with pytest.raises(TakenOverError):
            claim.check()
    assert claims._owner(file) == other


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": 1}', bytes(range(256))])
def test_a_damaged_claim_is_dead_after_the_patience(
    file: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "PATIENCE", 0.2)
    file.write_bytes(content)
    with claimed(file, "a trial", lambda line: None) as claim:
        claim.check()


def test_numbers_of_processes_of_other_containers_mean_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine = Owner.this()
    assert not mine.is_gone
    if mine.place:
        assert replace(mine, started="0").is_gone, "the number was given to another process"
        assert replace(mine, pid=2**22 + 1).is_gone
    assert not replace(mine, pid=2**22 + 1, place="another container").is_gone
    monkeypatch.setattr(claims, "PROC", tmp_path)  # as on systems without it
    assert not replace(Owner.this(), pid=2**22 + 1).is_gone
