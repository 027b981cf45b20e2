"""Write files and directories so that a reader sees the old one or the new one, never a half."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from keras_structsparse._typing import StrPath
from keras_structsparse.errors import OutputError

MARKER = ".structsparse"
MARK = "written by keras_structsparse\n"
SHOWN = 5
"""Names that an error lists."""
MOST_TEXT = 2**28
"""Bytes of a file of text: plans, costs, cards and trials are far smaller."""
MANIFEST = ".structsparse.files"
MANIFEST_FORMAT = "keras_structsparse.files/1"


def write_text(path: StrPath, text: str) -> Path:
    """Write a text file (UTF-8, newlines as they are) atomically.

    Args:
        path: The file; parent directories are made.
        text: Its content.

    Returns:
        The path.

    Raises:
        OutputError: The file cannot be written.

    Examples:
        >>> import tempfile
        >>> write_text(Path(tempfile.mkdtemp(), "a.txt"), "hello").read_text()
        'hello'
    """
    return write_atomically(path, lambda target: target.write_bytes(text.encode("utf-8")))


def write_atomically(path: StrPath, writer: Callable[[Path], object]) -> Path:
    """Let ``writer`` make a file or directory, and put it in place when it is finished.

    Args:
        path: The target. An existing file is replaced by a file, and an existing directory by a
            directory if it is empty or :func:`write_manifest` listed all that it holds. Parent
            directories are made; a link is followed.
        writer: Receives a path that does not exist yet, beside the target and with its suffix.

    Returns:
        The path. If ``writer`` raises, the target is as it was and nothing else is left.

    Raises:
        OutputError: The target cannot be written, or is a directory that holds something else.
    """
    # Through a symbolic link: the file it points to is what is to change.
    target = Path(os.path.realpath(path))
    fresh = _beside(target, Path(path).suffix)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer(fresh)
        _put(fresh, target)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: expected a path that can be written. Received: {error}") from (
            error
        )
    finally:
        _remove(fresh)
    return Path(path)


def read_bytes(path: StrPath) -> bytes:
    """Read a file of text, such as JSON; one without end is not read to the end.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        OSError: It cannot be read, or holds more than :data:`MOST_TEXT`.
    """
    with open(path, "rb") as opened:
        content = opened.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise OSError(f"expected a text of at most {MOST_TEXT / 2**20:.0f} MiB. Received more")
    return content


def new_directory(path: StrPath, argument: str = "path") -> Path:
    """A directory that is ours: new or empty until now, or marked by an earlier call.

    Args:
        path: The directory; it is made, with its parents, and marked with a hidden file. What an
            earlier call marked is taken as it is, with its content.
        argument: What the caller's user knows the path as.

    Returns:
        The path.

    Raises:
        OutputError: The path is a file, holds something that is not ours, or cannot be made.

    Examples:
        >>> import tempfile
        >>> new_directory(Path(tempfile.mkdtemp(), "runs", "first")).name
        'first'
    """
    directory = Path(path)
    expected = f"{argument}: expected a new or empty directory, or one written by this program"
    try:
        if directory.exists() and not directory.is_dir():
            raise OutputError(f"{expected}. Received a file: {directory}")
        if directory.is_dir() and not is_ours(directory) and (held := _first_entry(directory)):
            raise OutputError(
                f"{expected}. Received: {directory}, which holds '{held}' and no mark '{MARKER}'"
            )
        directory.mkdir(parents=True, exist_ok=True)
        if not is_ours(directory):
            write_text(directory / MARKER, MARK)
        check_writable(directory, argument)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{expected}. Received: {directory} ({error})") from error
    return directory


def check_writable(directory: Path, argument: str = "path", received: Path | None = None) -> None:
    """Raise unless a file can be made in a directory, or in the nearest one above that exists.

    Args:
        directory: The directory; it need not exist.
        argument: What the caller's user knows the path as.
        received: The path that was given, if it is another one.

    Raises:
        OutputError: No file can be made there.
    """
    folder = directory.absolute()
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OutputError(
            f"{argument}: expected a path that can be written. Received: {received or directory} "
            f"({nearest}: {error.strerror})"
        ) from error


def check_room(directory: Path, size: int, what: str, argument: str = "path") -> None:
    """Raise unless the disk of a directory has room.

    Args:
        directory: The directory, which exists.
        size: The bytes that are needed.
        what: What they are needed for.
        argument: What the caller's user knows the path as.

    Raises:
        OutputError: There is less room.
    """
    if (free := shutil.disk_usage(directory).free) < size:
        raise OutputError(
            f"{argument}: expected {size:,} free bytes for {what}. Received: {directory}, whose "
            f"disk has {free:,}"
        )


def is_ours(directory: Path) -> bool:
    """Whether :func:`new_directory` marked a directory."""
    marker = directory / MARKER
    return marker.is_file() and marker.read_bytes() == MARK.encode("utf-8")


def write_manifest(directory: Path) -> None:
    """List all that a finished directory holds in a hidden file, so that it can be replaced later.

    Args:
        directory: The directory.
    """
    record = {"format": MANIFEST_FORMAT, "files": _entries(directory)}
    write_text(directory / MANIFEST, json.dumps(record, indent=1) + "\n")


def unlisted(directory: Path) -> tuple[str, ...]:
    """What a directory holds and :func:`write_manifest` did not list.

    Args:
        directory: The directory; it need not exist.

    Returns:
        Relative paths of files and directories, sorted; all of them if there is no manifest.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = write_text(folder / "ours.txt", "")
        >>> write_manifest(folder)
        >>> unlisted(folder)
        ()
        >>> _ = write_text(folder / "thesis.tex", "")
        >>> unlisted(folder)
        ('thesis.tex',)
    """
    listed = _listed(directory / MANIFEST)
    return tuple(name for name in _entries(directory) if name not in listed)


def quoted(names: Sequence[str]) -> str:
    """Names as an error lists them: the first ones, and the number of the others.

    Args:
        names: The names.

    Examples:
        >>> quoted(["a", "b"]), quoted(list("abcdefg"))
        ("'a', 'b'", "'a', 'b', 'c', 'd', 'e' and 2 others")
    """
    first, others = names[:SHOWN], len(names) - SHOWN
    count = f" and {others} other{'s' * (others > 1)}" if others > 0 else ""
    return ", ".join(map(repr, first)) + count


def _entries(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


def _listed(manifest: Path) -> frozenset[str]:
    """What a manifest lists, with itself; nothing if it is missing or damaged."""
    try:
        record = json.loads(manifest.read_text(encoding="utf-8"))
        if record["format"] == MANIFEST_FORMAT:
            return frozenset([*record["files"], MANIFEST])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return frozenset()


def _first_entry(directory: Path) -> str:
    """Any name in a directory, but for what is left of a mark that was never finished."""
    names = (entry.name for entry in directory.iterdir())
    return min((name for name in names if not name.startswith(f".{MARKER}.")), default="")


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.stem}.{uuid.uuid4().hex[:12]}{suffix}")


def _put(fresh: Path, target: Path) -> None:
    """Rename the finished ``fresh`` to ``target``."""
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise OutputError(
            f"{target}: expected a file, a directory, or nothing to replace. Received a device, a "
            "pipe or a socket"
        )
    if target.exists() and target.is_dir() != fresh.is_dir():
        kinds = {True: "directory", False: "file"}
        raise OutputError(
            f"{target}: expected a {kinds[fresh.is_dir()]} or nothing to replace. "
            f"Received a {kinds[target.is_dir()]}."
        )
    if not target.is_dir():
        os.replace(fresh, target)
        return
    # A directory that holds something cannot be replaced in one step.
    old = _beside(target, target.suffix)
    os.rename(target, old)
    try:
        # Now: what was put there while the new one was written counts as well.
        if held := unlisted(old):
            raise OutputError(
                f"{target}: expected a new or empty directory, or one that holds nothing but what "
                f"this program wrote. Received one that holds {quoted(held)}"
            )
        os.rename(fresh, target)
    except OSError:
        os.rename(old, target)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):  # it may never have been made
        path.unlink()
