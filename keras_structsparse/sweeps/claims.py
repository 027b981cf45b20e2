"""Who trains a trial: a file in the run directory, so that no trial is trained by two processes.

Several processes, on several machines with a shared folder, may work on one run. Each claims a
trial before it trains it, by a file that only one can make. It touches the file every few seconds.

A claim is dead if its process has ended, which is known on the machine of that process; on other
machines, if the file was not touched for some minutes. No clocks are compared: what counts is
whether the time of the file changes while one looks at it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from keras_structsparse._records import parse_json

BEAT = 15.0
"""Seconds after which a claim is touched again."""

PATIENCE = 180.0
"""Seconds without a touch after which a claim is dead: more than a network file system may keep the
times of a file (60 s)."""

POLL = 2.0
"""Seconds between two looks at the claim of another process."""

PROC = Path("/proc")

Say = Callable[[str], None]


class TakenOverError(Exception):
    """Another process has taken this claim for dead: this one stood still for minutes."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a claim.

    Attributes:
        host: The name of its machine, for people.
        pid: The number of the process there.
        place: What tells machines, their starts and containers apart; empty where nothing does.
        started: When the process began, in the units of the machine; empty where it is not known.
        token: A random text, another one for every claim.
    """

    host: str
    pid: int
    place: str
    started: str
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def this(cls) -> Owner:
        """This process."""
        return cls(platform.node(), os.getpid(), _place(), _started(os.getpid()))

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended for sure."""
        return bool(self.place) and self.place == _place() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class Claim:
    """A claim that this process holds.

    Attributes:
        file: Its file.
        owner: This process.
    """

    file: Path
    owner: Owner

    def check(self) -> None:
        """Raise unless the claim is still that of this process.

        Raises:
            TakenOverError: It is not.
        """
        if _owner(self.file) != self.owner:
            raise TakenOverError(str(self.file))


@contextlib.contextmanager
def claimed(file: Path, what: str, say: Say) -> Iterator[Claim]:
    """Hold a claim, after every other process that lives has released it.

    Args:
        file: The file of the claim; its directory exists.
        what: What is claimed, for the lines that are said.
        say: Takes a line that says what this process waits for.

    Yields:
        The claim.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), ".trial.claim")
        >>> with claimed(file, "a trial", print) as claim:
        ...     claim.check()
        ...     file.is_file()
        True
        >>> file.is_file()
        False
    """
    owner = Owner.this()
    _take(file, owner, what, say)
    stop = threading.Event()
    beat = threading.Thread(target=_touch, args=(file, stop), daemon=True, name="claim")
    beat.start()
    try:
        yield Claim(file, owner)
    finally:
        stop.set()
        beat.join()
        if _owner(file) == owner:
            file.unlink(missing_ok=True)


def _take(file: Path, owner: Owner, what: str, say: Say) -> None:
    seen, since, said = None, 0.0, None
    while not _made(file, owner):
        now, holder = _state(file), _owner(file)
        if now is None:
            continue  # Released meanwhile.
        if now != seen:
            seen, since = now, time.monotonic()
        if (holder is not None and holder.is_gone) or time.monotonic() - since > PATIENCE:
            say(f"{what} is taken over from {holder or 'a process'}, which has ended")
            _remove(file, holder)
            continue
        if said != (said := str(holder)):
            say(
                f"waits for {what}, on which {holder or 'another process'} works; if that is gone, "
                f"it is taken over after {PATIENCE / 60:g} minutes"
            )
        time.sleep(POLL)


def _made(file: Path, owner: Owner) -> bool:
    """Make the file of a claim with its content; False if there is one."""
    fresh = file.with_name(f".{file.stem}.{uuid.uuid4().hex[:12]}.json")
    fresh.write_text(json.dumps(asdict(owner)))
    try:
        os.link(fresh, file)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        return _made_without_links(file, owner)
    finally:
        fresh.unlink(missing_ok=True)
    return True


def _made_without_links(file: Path, owner: Owner) -> bool:
    try:
        with file.open("x") as opened:
            opened.write(json.dumps(asdict(owner)))
    except FileExistsError:
        return False
    return True


def _remove(file: Path, holder: Owner | None) -> None:
    """Remove a dead claim, and no other one: somebody else may have been faster."""
    dead = file.with_name(f".{file.stem}.{uuid.uuid4().hex[:12]}.json")
    with contextlib.suppress(FileNotFoundError):
        os.rename(file, dead)
        if _owner(dead) != holder:
            with contextlib.suppress(OSError):
                os.link(dead, file)
        dead.unlink(missing_ok=True)


def _touch(file: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        with contextlib.suppress(OSError):  # A server that is away for a while.
            os.utime(file)


def _owner(file: Path) -> Owner | None:
    """Who holds a claim; None if nobody does, or if nothing says who."""
    try:
        return Owner(**parse_json(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _state(file: Path) -> tuple[int, int] | None:
    """What changes when a claim is touched or made anew; None if it is gone."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _place() -> str:
    """This start of this machine, and the container in it: numbers of processes differ in each."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began; empty if it has ended, or where nothing says it."""
    try:
        stat = (PROC / f"{pid}/stat").read_text()
    except OSError:
        return ""
    state, *numbers = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else numbers[18]
