"""Checks of paths to write to, before a command starts its work."""

from __future__ import annotations

import os
from pathlib import Path

from keras_structsparse._files import check_writable, is_ours, quoted, unlisted
from keras_structsparse.errors import DatasetError, OutputError


def check_new_file(path: Path, option: str, suffix: str, force: bool) -> None:
    """Raise unless a file can be written; nothing is written.

    Args:
        path: The file.
        option: The option that gave it.
        suffix: How its name must end.
        force: Whether an existing file may be replaced.

    Raises:
        OutputError: The name ends otherwise, the file exists, or its folder cannot be written.
    """
    expected = f"{option}: expected a new file whose name ends in {suffix}"
    if path.suffix != suffix:
        raise OutputError(f"{expected}. Received: {path}")
    if path.is_dir():
        raise OutputError(f"{expected}. Received a directory: {path}")
    if path.exists() and not force:
        raise OutputError(f"{expected}. Received: {path}, which exists; --force replaces it")
    check_writable(path if path.is_dir() else _place(path), option, path)


def _place(path: Path) -> Path:
    """The directory that a file is written to, behind links."""
    return Path(os.path.realpath(path)).parent


def check_new_directory(path: Path, option: str, force: bool) -> None:
    """Raise unless a directory can be written; nothing is written.

    Args:
        path: The directory: it must not exist, or be empty.
        option: The option that gave it.
        force: Whether a directory that holds nothing but an earlier export may be replaced.

    Raises:
        OutputError: The directory holds something else, or cannot be written.
    """
    expected = f"{option}: expected a new or empty directory"
    if path.exists() and not path.is_dir():
        raise OutputError(f"{expected}. Received a file: {path}")
    if held := unlisted(path):
        raise OutputError(f"{expected}. Received: {path}, which holds {quoted(held)}")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise OutputError(f"{expected}. Received: {path}, an export; --force replaces it")
    check_writable(path if path.is_dir() else _place(path), option, path)


def check_own_directory(path: Path, option: str, force: bool) -> None:
    """Raise unless a directory can be filled by this program; nothing is written.

    Args:
        path: The directory: it must not exist, be empty, or have been made by an earlier call.
        option: The option that gave it.
        force: Whether what an earlier call wrote may be replaced.

    Raises:
        OutputError: The directory holds something else, or cannot be written.
    """
    expected = f"{option}: expected a new or empty directory"
    if path.exists() and not path.is_dir():
        raise OutputError(f"{expected}. Received a file: {path}")
    held = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if held and not is_ours(path):
        raise OutputError(f"{expected}. Received: {path}, which holds {quoted(held)}")
    if len(held) > 1 and not force:
        raise OutputError(
            f"{expected}. Received: {path}, which an earlier call wrote; --force replaces it"
        )
    check_writable(path if path.is_dir() else _place(path), option, path)


def check_data(name: str, option: str) -> None:
    """Raise unless a folder or file of the user exists; names of data sets are not looked up.

    Args:
        name: What the user calls the data set.
        option: The option that gave it.

    Raises:
        DatasetError: There is no such folder or file.
    """
    from keras_structsparse.data.records import is_local

    if is_local(name) and not Path(name).expanduser().exists():
        raise DatasetError(
            f"{option}: expected a folder of images or an .npz file. Received: {name}"
        )
