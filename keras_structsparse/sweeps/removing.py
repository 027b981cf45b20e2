"""Remove a run: the files that a sweep and its report wrote, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from keras_structsparse._files import MARKER, quoted
from keras_structsparse.errors import OutputError
from keras_structsparse.sweeps.report.figures import FIGURES

_PART = r"(trials|models)(/\.?alpha-.+\.(json|keras))?"
_TOP = rf"{re.escape(MARKER)}|settings\.json|points\.csv|report\.html"
_DRAWN = rf"({'|'.join(FIGURES)})\.(png|svg|csv)"
OURS = re.compile(rf"{_PART}|{_TOP}|{_DRAWN}")
"""Names in a run directory that a sweep and its report write."""


def remove_run(folder: Path) -> None:
    """Remove what an earlier sweep left in a directory.

    Args:
        folder: The run directory; it need not exist.

    Raises:
        OutputError: It holds something else. Nothing is removed.
    """
    entries = sorted(folder.rglob("*"))
    others = [name for entry in entries if not OURS.fullmatch(name := _name(entry, folder))]
    if others:
        raise OutputError(
            f"--out: expected nothing but an earlier run in {folder}. Received: {quoted(others)}"
        )
    for entry in reversed(entries):
        if entry.is_dir() and not entry.is_symlink():
            entry.rmdir()
        else:
            entry.unlink()


def _name(entry: Path, folder: Path) -> str:
    return entry.relative_to(folder).as_posix()
