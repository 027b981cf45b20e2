"""Checks of arguments; each function returns the value that it has checked.

The functions are named after what they return. Error messages name the argument, what was expected,
and what was received. The names that some arguments may have are listed here, below every room and
without Keras or NumPy, because the library and the options of the command line both read them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

NORMS = ("l2", "group_normalized", "group_scaled", "linf")
"""Norms of a group."""

STEPS = ("half_ring", "ring")
"""Kinds of nested groups: kernels shrink to every size, or to every second one."""

GROUPS = (*STEPS, "kernel")
"""The same, and whole kernels, which are kept or removed."""

HEADS = ("auto", "none", "new")
"""What becomes of the last layers of a network that is to classify."""

WEIGHTS = ("uniform", "multiply_adds", "params")
"""Ways to share alpha among layers."""

CONSTANTS = ("exact", "interior", "drop")
"""Ways to treat the constants of removed channels."""

T = TypeVar("T")


def finite(argument: str, value: Any, error: type[ValueError] = ValueError) -> float:
    """Return the value as a float, if it is a finite number.

    Args:
        argument: Name of the argument, for the error message.
        value: The value to check; bools are not numbers.
        error: Class of the error to raise.

    Raises:
        ValueError: It is no finite number (`error`, if given).

    Examples:
        >>> finite("cost", 3)
        3.0
    """
    return _number(argument, value, _is_finite(value), "a finite number", error)


def nonnegative(argument: str, value: Any, error: type[ValueError] = ValueError) -> float:
    """Return the value as a float, if it is a finite number >= 0. Arguments: see :func:`finite`.

    Examples:
        >>> nonnegative("tau", -1.0)
        Traceback (most recent call last):
        ...
        ValueError: tau: expected a finite number >= 0. Received: -1.0
    """
    valid = _is_finite(value) and value >= 0
    return _number(argument, value, valid, "a finite number >= 0", error)


def positive_number(argument: str, value: Any, error: type[ValueError] = ValueError) -> float:
    """Return the value as a float, if it is a finite number > 0. Arguments: see :func:`finite`.

    Examples:
        >>> positive_number("learning_rate", 0.1)
        0.1
    """
    valid = _is_finite(value) and value > 0
    return _number(argument, value, valid, "a finite number > 0", error)


def fraction(argument: str, value: Any, error: type[ValueError] = ValueError) -> float:
    """Return the value as a float, if it is in (0, 1]. Arguments: see :func:`finite`.

    Examples:
        >>> fraction("target", 0)
        Traceback (most recent call last):
        ...
        ValueError: target: expected a number in (0, 1]. Received: 0
    """
    valid = _is_finite(value) and 0 < value <= 1
    return _number(argument, value, valid, "a number in (0, 1]", error)


def fraction_below_one(argument: str, value: Any, error: type[ValueError] = ValueError) -> float:
    """Return the value as a float, if it is in [0, 1). Arguments: see :func:`finite`.

    Examples:
        >>> fraction_below_one("momentum", 0.9)
        0.9
    """
    valid = _is_finite(value) and 0 <= value < 1
    return _number(argument, value, valid, "a number in [0, 1)", error)


def positive_int(argument: str, value: Any, error: type[ValueError] = ValueError) -> int:
    """Return the value as an int, if it is a whole number >= 1. Arguments: see :func:`finite`.

    Examples:
        >>> positive_int("round_to", 0)
        Traceback (most recent call last):
        ...
        ValueError: round_to: expected a whole number >= 1. Received: 0
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < 1:
        raise error(f"{argument}: expected a whole number >= 1. Received: {value!r}")
    return int(value)


def boolean(argument: str, value: Any, error: type[ValueError] = ValueError) -> bool:
    """Return the value, if it is True or False. Arguments: see :func:`finite`.

    Examples:
        >>> boolean("coupled", "no")
        Traceback (most recent call last):
        ...
        ValueError: coupled: expected True or False. Received: 'no'
    """
    if not isinstance(value, bool):
        raise error(f"{argument}: expected True or False. Received: {value!r}")
    return value


def one_of(
    argument: str, value: T, allowed: Sequence[T], error: type[ValueError] = ValueError
) -> T:
    """Return the value, if it is one of the allowed values. Arguments: see :func:`finite`.

    Examples:
        >>> one_of("power", 3, (1, 2))
        Traceback (most recent call last):
        ...
        ValueError: power: expected one of (1, 2). Received: 3
    """
    if value not in allowed:
        raise error(f"{argument}: expected one of {tuple(allowed)}. Received: {value!r}")
    return value


def _is_finite(value: Any) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _number(
    argument: str, value: Any, valid: bool, expected: str, error: type[ValueError]
) -> float:
    if not valid:
        raise error(f"{argument}: expected {expected}. Received: {value!r}")
    return float(value)
