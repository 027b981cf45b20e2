"""Checks of numbers that users give; the errors name the argument."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def finite(argument: str, value: float) -> float:
    """The value as a float, if it is a finite number.

    Raises:
        ValueError: It is none.

    Examples:
        >>> finite("cost", 3)
        3.0
    """
    if not _is_finite(value):
        raise ValueError(f"{argument}: expected a finite number. Received: {value!r}")
    return float(value)


def nonnegative(argument: str, value: float) -> float:
    """The value as a float, if it is a finite number >= 0.

    Raises:
        ValueError: It is none.

    Examples:
        >>> nonnegative("tau", -1.0)
        Traceback (most recent call last):
        ...
        ValueError: tau: expected a finite number >= 0. Received: -1.0
    """
    if not _is_finite(value) or value < 0:
        raise ValueError(f"{argument}: expected a finite number >= 0. Received: {value!r}")
    return float(value)


def positive(argument: str, value: int) -> int:
    """The value, if it is a whole number above 0.

    Raises:
        ValueError: It is none.

    Examples:
        >>> positive("round_to", 0)
        Traceback (most recent call last):
        ...
        ValueError: round_to: expected a whole number above 0. Received: 0
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{argument}: expected a whole number above 0. Received: {value!r}")
    return int(value)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def require(argument: str, value: object, allowed: Sequence[object]) -> None:
    """Raise a ValueError unless an argument has one of its allowed values."""
    if value not in allowed:
        raise ValueError(f"`{argument}` must be one of {tuple(allowed)}. Received: {value!r}")
