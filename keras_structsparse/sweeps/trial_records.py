"""The file of a finished trial: its points, and what tells that it is whole and of this run.

A file holds a fingerprint of the settings of its run, the size and checksum of every network, and a
checksum of itself. Files of version 0.1 hold only the trial and its points.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from keras_structsparse._files import read_bytes
from keras_structsparse._records import check_format, parse_json, read_record
from keras_structsparse._validation import nonnegative, nonnegative_int, set_checked
from keras_structsparse.errors import OutputError
from keras_structsparse.sweeps.points import Point
from keras_structsparse.sweeps.settings import Trial

FORMAT = "keras_structsparse.trial/2"
OLD = "keras_structsparse.trial/1"
"""What files of version 0.1 would say if they said anything."""

Correlations = Mapping[str, Sequence[float]]
"""By layer of the base network, the mean correlation of its kernels after every epoch."""


@dataclass(frozen=True)
class StoredFile:
    """What a file must be to be the one that was written.

    Attributes:
        size: Its size in bytes.
        sha256: The SHA-256 of its content.

    Raises:
        ValueError: The size is negative.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "a.keras")
        >>> _ = file.write_bytes(b"network")
        >>> stored = StoredFile.of(file)
        >>> stored.size, stored.is_whole(file)
        (7, True)
        >>> _ = file.write_bytes(b"netw0rk")
        >>> stored.is_whole(file)
        False
    """

    size: int
    sha256: str

    def __post_init__(self) -> None:
        nonnegative_int("size", self.size)

    @classmethod
    def of(cls, file: Path) -> StoredFile:
        """The size and checksum of a file."""
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return cls(file.stat().st_size, digest)

    def is_whole(self, file: Path) -> bool:
        """Whether a file is there and has the content."""
        return file.is_file() and file.stat().st_size == self.size and self == type(self).of(file)


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial.

    Attributes:
        trial: The trial.
        seconds: How long it took.
        points: Its points; none of a network that died.
        correlations: The mean correlation of kernels by layer, after every epoch; None for nan.
        settings: The fingerprint of the settings, see :func:`fingerprint`; none of version 0.1.
        files: The networks, by name of the file; None of version 0.1.
    """

    trial: Trial
    seconds: float
    points: tuple[Point, ...]
    correlations: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    settings: str | None = None
    files: Mapping[str, StoredFile] | None = None

    def __post_init__(self) -> None:
        set_checked(self, seconds=nonnegative("seconds", self.seconds))
        for point in self.points:
            if point.alpha != self.trial.alpha:
                raise ValueError(
                    f"points: expected points of alpha {self.trial.alpha!r}. Received one of "
                    f"{point.alpha!r}"
                )

    @property
    def known_correlations(self) -> Correlations:
        """The correlations with nan in place of None."""
        return {
            name: tuple(math.nan if value is None else value for value in values)
            for name, values in self.correlations.items()
        }

    def lost(self, folder: Path) -> tuple[str, ...]:
        """The names of the networks that are missing or have another content.

        Args:
            folder: The directory of networks.
        """
        if self.files is None:
            names = [network_name(self.trial, point) for point in self.points]
            return tuple(name for name in names if not _is_archive(folder / name))
        return tuple(n for n, stored in self.files.items() if not stored.is_whole(folder / n))

    def to_json(self) -> str:
        """JSON text, which :func:`read_trial` reads."""
        content = json.loads(json.dumps({"format": FORMAT, **asdict(self)}))
        return json.dumps({**content, "checksum": _checksum(content)}, indent=1) + "\n"


def network_name(trial: Trial, point: Point) -> str:
    """The name of the file of a point's network."""
    return f"{trial.name}-tau-{point.tau!r}.keras"


def rounded(correlations: Correlations) -> dict[str, tuple[float | None, ...]]:
    """Correlations as a record holds them: JSON has no nan."""
    return {
        name: tuple(None if math.isnan(value) else round(float(value), 6) for value in values)
        for name, values in correlations.items()
    }


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A text that only equal settings share.

    Args:
        settings: The record of settings. Entries that are None count as missing: earlier versions
            did not have them.

    Examples:
        >>> fingerprint({"alphas": [0.1], "path": None}) == fingerprint({"alphas": [0.1]})
        True
        >>> fingerprint({"alphas": [0.1]}) == fingerprint({"alphas": [0.2]})
        False
    """
    return _checksum(_without_none(settings))


def read_trial(file: Path) -> TrialRecord:
    """Read the file of a finished trial.

    Args:
        file: The file.

    Returns:
        The record.

    Raises:
        OutputError: It cannot be read, is damaged, or is that of another trial.
    """
    where = f"run: expected the points of a trial. Received: {file}"
    content = read_object(file, where)
    checksum = content.pop("checksum", None)
    if content.get("format", OLD) != OLD or checksum is not None:
        check_format(content, FORMAT, where, OutputError)
        if checksum != _checksum(content):
            raise OutputError(f"{where}, whose checksum is that of another content. {AGAIN}")
    fields = {name: value for name, value in content.items() if name != "format"}
    record = read_record(TrialRecord, fields, where, OutputError)
    if file.name != f"{record.trial.name}.json":
        raise OutputError(f"{where}, which holds the trial {record.trial.name}. {AGAIN}")
    return record


AGAIN = "Remove this file, and the same sweep trains its trial again"


def read_object(file: Path, where: str) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Args:
        file: The file.
        where: What the error begins with.

    Raises:
        OutputError: It is no file, or holds something else.
    """
    try:
        if file.exists() and not file.is_file():
            raise OutputError(f"{where}, which is no file")
        content = parse_json(read_bytes(file))
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"{where} ({error})") from error
    if not isinstance(content, dict):
        raise OutputError(f"{where} (its content is {type(content).__name__})")
    return content


def with_files(record: TrialRecord, folder: Path, names: Sequence[str]) -> TrialRecord:
    """The record with the sizes and checksums of its networks.

    Args:
        record: The record.
        folder: The directory of networks.
        names: The names of the files.
    """
    return replace(record, files={name: StoredFile.of(folder / name) for name in names})


def _is_archive(file: Path) -> bool:
    """Whether a ``.keras`` file is there and its parts are whole."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, ValueError, EOFError):
        return False


def _checksum(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_none(own) for name, own in value.items() if own is not None}
    return [_without_none(own) for own in value] if isinstance(value, list | tuple) else value
