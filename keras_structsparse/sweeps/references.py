"""Published and other networks to show beside a frontier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from keras_structsparse._files import read_bytes
from keras_structsparse._records import parse_json, shortened
from keras_structsparse._typing import StrPath
from keras_structsparse._validation import positive_number, set_checked, share
from keras_structsparse.errors import MarksError


@dataclass(frozen=True)
class ReferenceNetwork:
    """A network that somebody reported on.

    Attributes:
        name: Its name.
        accuracy: Its test accuracy, 0 to 1.
        source: Source of these numbers.
        multiply_adds: Its multiply-adds for one image; or
        multiply_adds_fraction: the same over those of the sweep's dense network. Exactly one of the
            two is given.

    Raises:
        MarksError: A field is missing or out of its range.

    Examples:
        >>> ReferenceNetwork("LeNet", 0.9, "a paper", multiply_adds=50).fraction(dense=200)
        0.25
    """

    name: str
    accuracy: float
    source: str
    multiply_adds: float | None = None
    multiply_adds_fraction: float | None = None

    def __post_init__(self) -> None:
        _require("name", _is_text(self.name), "a text", self.name)
        try:
            set_checked(self, accuracy=share("accuracy", self.accuracy))
        except ValueError:
            _require("accuracy", False, "a number from 0 to 1", self.accuracy)
        _require("source", _is_text(self.source), "a text", self.source)
        costs = {name: getattr(self, name) for name in COSTS}
        given = {name: value for name, value in costs.items() if value is not None}
        _require(" or ".join(COSTS), len(given) == 1, "exactly one of them", given or "none")
        for name, value in given.items():
            set_checked(self, **{name: positive_number(name, value, MarksError)})

    def fraction(self, dense: float) -> float:
        """The multiply-adds over those of a dense network.

        Args:
            dense: Multiply-adds of the dense network.
        """
        if self.multiply_adds_fraction is not None:
            return float(self.multiply_adds_fraction)
        assert self.multiply_adds is not None, "one of the two is given"
        return self.multiply_adds / dense


COSTS = ("multiply_adds", "multiply_adds_fraction")


def read_references(path: StrPath) -> tuple[ReferenceNetwork, ...]:
    """Read networks to compare with from a file.

    Args:
        path: JSON: a list of objects with the attributes of :class:`ReferenceNetwork`.

    Returns:
        The networks.

    Raises:
        MarksError: The file cannot be read or holds something else; the entry and its field are
            named.
    """
    try:
        content = parse_json(read_bytes(path))
    except (OSError, ValueError) as error:
        raise MarksError(f"marks: expected a file of JSON. Received: {path} ({error})") from error
    if not isinstance(content, list):
        raise MarksError(
            f"marks: expected a list of networks. Received: {path}, which holds "
            f"{type(content).__name__}"
        )
    return tuple(
        _reference(f"marks: {path}, entry {i}", entry) for i, entry in enumerate(content, 1)
    )


def _reference(where: str, entry: Any) -> ReferenceNetwork:
    if not isinstance(entry, Mapping):
        raise MarksError(f"{where}: expected an object. Received: {shortened(entry)}")
    known = [field.name for field in fields(ReferenceNetwork)]
    for name in entry:
        if name not in known:
            raise MarksError(f"{where}, {name}: expected no field but {', '.join(known)}")
    values = {"name": None, "accuracy": None, "source": None, **entry}
    try:
        return ReferenceNetwork(**values)
    except MarksError as error:
        raise MarksError(f"{where}, {error}") from None


def _require(name: str, fits: bool, expected: str, received: Any) -> None:
    if not fits:
        raise MarksError(f"{name}: expected {expected}. Received: {shortened(received)}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
