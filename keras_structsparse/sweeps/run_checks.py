"""Checks of a run directory before a sweep begins: nothing in the way, nothing of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from keras_structsparse.errors import OutputError

PARTS = ("trials", "models")
"""The directories of a run."""


def check_entries(run: Path) -> None:
    """Raise if something else than files is where trials and networks are written.

    Args:
        run: The directory of a run.

    Raises:
        OutputError: There is a directory, a link to nothing, or a file in place of a directory.
    """
    for part in PARTS:
        folder = run / part
        if is_there(folder) and not folder.is_dir():
            raise OutputError(f"run: expected a directory. Received: {folder}")
        # Hidden files are those that processes are writing: they come and go.
        for entry in folder.glob("[!.]*"):
            if not entry.is_file() and is_there(entry):
                raise OutputError(f"run: expected a file. Received: {entry}")


def check_no_orphans(run: Path, settings: str) -> None:
    """Raise if there are trials or networks of a run whose settings are gone.

    Args:
        run: The directory of a run without settings.
        settings: The name of the file with the settings.

    Raises:
        OutputError: There are some.
    """
    # Another process may have begun this run a moment ago: then the settings are there now.
    if (orphan := next(_entries(run), None)) and not is_there(run / settings):
        raise OutputError(
            f"--out: expected a new directory, or a run with its {settings}. Received: {run} "
            f"without it, but with {orphan}, whose settings nobody knows"
        )


def is_there(path: Path) -> bool:
    """Whether there is anything, also a link to nothing."""
    return path.exists() or path.is_symlink()


def _entries(run: Path) -> Iterator[Path]:
    for part in PARTS:
        yield from sorted((run / part).glob("[!.]*"))
