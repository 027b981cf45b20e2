"""Read JSON strictly, and turn it into frozen dataclasses by their types.

Every file that this package reads goes through here. So a damaged one ends in an error that names
the field, what was expected, and what was received. A schema of pydantic would do the same, but is
no dependency; the schemas here are the dataclasses.
"""

from __future__ import annotations

import json
import math
import reprlib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

DEPTH = 40
"""Levels of lists and objects in a file; ours have less than ten."""

T = TypeVar("T")


class _MismatchError(ValueError):
    """A value that is not of its type; the message begins with its place."""


def parse_json(text: str | bytes) -> Any:
    """Read JSON: every key once, and not nested without end.

    NaN and infinity are read as Python writes them; the types of the fields refuse them.

    Args:
        text: The text; bytes are UTF-8.

    Returns:
        Its content.

    Raises:
        ValueError: It is something else.

    Examples:
        >>> parse_json('{"tau": 1, "tau": 2}')
        Traceback (most recent call last):
        ...
        ValueError: 'tau' is given twice
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        content = json.loads(text, object_pairs_hook=_object)
        too_deep = _is_deeper(content, DEPTH)
    except RecursionError:
        too_deep = True
    if too_deep:
        raise ValueError(f"lists and objects are nested more than {DEPTH} levels deep")
    return content


def check_format(
    content: Any, format: str, where: str, error: type[Exception] = ValueError
) -> None:
    """Raise unless a file says that it is of a format.

    Args:
        content: What :func:`parse_json` gave.
        format: The format.
        where: What the error begins with, such as the file.
        error: Class of the error to raise.

    Raises:
        ValueError: It is not an object, or one of another format (`error`, if given).

    Examples:
        >>> check_format({"format": "plan/2"}, "plan/1", "Plan")
        Traceback (most recent call last):
        ...
        ValueError: Plan: expected "format": "plan/1". Received: 'plan/2'
    """
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found != format:
        raise error(f'{where}: expected "format": "{format}". Received: {shortened(found)}')


def read_record(kind: type[T], content: Any, where: str, error: type[Exception] = ValueError) -> T:
    """Make a value of a type from JSON, each part of it of the type that it should have.

    Args:
        kind: A dataclass, or another type of annotations: bool, int, float, str, None, Any, tuples,
            sequences, mappings from texts, and unions of these. Whole numbers are floats too.
        content: What :func:`parse_json` gave.
        where: What the error begins with, such as the file.
        error: Class of the error to raise.

    Returns:
        The value; of lists, tuples.

    Raises:
        ValueError: A field is missing, unknown or of another type, a number is not finite, or the
            dataclass itself refuses a value (`error`, if given).

    Examples:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Size:
        ...     name: str
        ...     sides: tuple[int, ...] = ()
        >>> read_record(Size, {"name": "conv", "sides": [3, 5]}, "sizes.json")
        Size(name='conv', sides=(3, 5))
        >>> read_record(Size, {"name": "conv", "sides": [3, "5"]}, "sizes.json")
        Traceback (most recent call last):
        ...
        ValueError: sizes.json, sides[1]: expected a whole number. Received: '5'
    """
    try:
        return _value(kind, content, "")
    except _MismatchError as found:
        raise error(f"{where}{found}") from None


def shortened(value: Any) -> str:
    """A value as errors show it: also a large one is short.

    Args:
        value: Any value.

    Examples:
        >>> shortened(list(range(1000)))
        '[0, 1, 2, 3, 4, 5, ...]'
    """
    return reprlib.repr(value)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"{name!r} is given twice")
        content[name] = value
    return content


def _is_deeper(content: Any, levels: int) -> bool:
    layer = [content]
    for _ in range(levels + 1):
        layer = [
            each
            for held in layer
            if isinstance(held, dict | list)
            for each in (held.values() if isinstance(held, dict) else held)
        ]
    return bool(layer)


def _value(kind: Any, given: Any, place: str) -> Any:
    """The value of a type; dispatches on the type."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return given
    if origin in (Union, types.UnionType):
        if given is None and type(None) in inner:
            return None
        return _value(next(k for k in inner if k is not type(None)), given, place)
    if is_dataclass(kind):
        return _dataclass(kind, given, place)
    if origin is not None and issubclass(origin, Mapping):
        _require(isinstance(given, dict), "an object", given, place)
        return {name: _value(inner[1], each, f"{place}.{name}") for name, each in given.items()}
    if origin is not None and issubclass(origin, Sequence):
        return _sequence(inner, given, place)
    return _scalar(kind, given, place)


def _scalar(kind: Any, given: Any, place: str) -> Any:
    if kind is float:
        is_number = isinstance(given, int | float) and not isinstance(given, bool)
        _require(is_number and _is_finite(given), "a finite number", given, place)
        return float(given)
    names = {int: "a whole number", str: "a text", bool: "true or false"}
    _require(type(given) is kind, names[kind], given, place)
    return given


def _is_finite(given: float) -> bool:
    try:
        return math.isfinite(given)
    except OverflowError:
        return False


def _sequence(inner: tuple[Any, ...], given: Any, place: str) -> tuple[Any, ...]:
    """The values of a list; of as many values as a tuple says."""
    _require(isinstance(given, list | tuple), "a list", given, place)
    if len(inner) == 1 or inner[1:] == (...,):
        return tuple(_value(inner[0], each, f"{place}[{i}]") for i, each in enumerate(given))
    _require(len(given) == len(inner), f"a list of {len(inner)}", given, place)
    pairs = enumerate(zip(inner, given, strict=True))
    return tuple(_value(kind, each, f"{place}[{i}]") for i, (kind, each) in pairs)


def _dataclass(kind: Any, given: Any, place: str) -> Any:
    _require(isinstance(given, dict), "an object", given, place)
    hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
    for name in given:
        _require(name in known, f"no field but {', '.join(known)}", name, place)
    for name, field in known.items():
        if name not in given and field.default is field.default_factory is MISSING:
            raise _MismatchError(f"{_shown(f'{place}.{name}')}: expected a value. Received none")
    values = {name: _value(hints[name], each, f"{place}.{name}") for name, each in given.items()}
    try:
        return kind(**values)
    except _MismatchError:
        raise
    except ValueError as error:
        raise _MismatchError(f"{_shown(place)}, {error}") from error


def _require(fits: bool, expected: str, given: Any, place: str) -> None:
    if not fits:
        message = f"expected {expected}. Received: {shortened(given)}"
        raise _MismatchError(f"{_shown(place)}: {message}")


def _shown(place: str) -> str:
    """The place of a field behind a file; nothing for the whole."""
    name = place.removeprefix(".")
    return f", {name}" if name else ""
