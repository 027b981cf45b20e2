"""The memory of this machine, and a check before more than that is asked for."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/memory.max")
"""What a container may use, on Linux."""


def memory() -> float:
    """The bytes of memory that this machine or container has; infinity where nothing says so.

    Examples:
        >>> memory() > 2**20
        True
    """
    known = [_physical(), _allowed()]
    return min((size for size in known if size), default=math.inf)


def check_memory(need: int, what: str, argument: str, error: type[ValueError] = ValueError) -> None:
    """Raise if something needs more memory than there is.

    Linux promises memory that it does not have, and ends the process when it is used. So what is
    sure to fail is refused before it begins.

    Args:
        need: The bytes that are needed.
        what: What they are needed for.
        argument: What the caller's user knows the cause as.
        error: Class of the error to raise.

    Raises:
        ValueError: There is less memory (`error`, if given).

    Examples:
        >>> check_memory(2**80, "a batch", "batch_size")
        Traceback (most recent call last):
        ...
        ValueError: batch_size: expected at most the ... GiB of memory of this machine. Received:
        a batch of 1,125,899,906,842,624.0 GiB
    """
    if need > (there := memory()):
        raise error(
            f"{argument}: expected at most the {there / 2**30:,.1f} GiB of memory of this machine. "
            f"Received: {what} of {need / 2**30:,.1f} GiB"
        )


def _physical() -> int:
    """0 where it is not known, as on Windows."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def _allowed() -> int:
    """0 where there is no limit."""
    try:
        text = CGROUP.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0
