"""Checks of arguments; each function returns the value that it has checked.

The functions are named after what they return. Numbers are returned as Python's own, also those of
NumPy and arrays of one number: they are written as JSON and into names of files. Error messages
name the argument, what was expected, and what was received. The names that some arguments may have
are listed here, below every room and without Keras or NumPy, because the library and the options of
the command line both read them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

NORMS = ("l2", "group_normalized", "group_scaled", "linf")
"""Norms of a group."""

STEPS = ("half_ring", "ring")
"""Kinds of nested groups: kernels shrink to every size, or to every second one."""

GROUPS = (*STEPS, "kernel")
"""The same, and whole kernels, which are kept or removed."""

MIXED = "mixed"
"""Half-rings, but whole depthwise kernels."""

HEADS = ("auto", "none", "new")
"""What becomes of the last layers of a network that is to classify."""

WEIGHTS = ("uniform", "multiply_adds", "params")
"""Ways to share alpha among layers."""

CONSTANTS = ("exact", "interior", "drop")
"""Ways to treat the constants of removed channels."""

RUNTIMES = ("onnxruntime", "litert", "keras")
"""Where the latency of networks is measured; "keras" is its backend in this process."""

MOST_THREADS = 1024
"""More threads than any machine has cores."""

SEEDS = 2**32
"""Seeds that NumPy and Keras take are below it."""

MOST_EPOCHS = 1_000_000
"""Epochs of a training; more would not end."""

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
    return _number(argument, value, lambda number: True, "a finite number", error)


def nonnegative(argument: str, value: Any, error: type[ValueError] = ValueError) -> float:
    """Return the value as a float, if it is a finite number >= 0. Arguments: see :func:`finite`.

    Examples:
        >>> nonnegative("tau", -1.0)
        Traceback (most recent call last):
        ...
        ValueError: tau: expected a finite number >= 0. Received: -1.0
    """
    return _number(argument, value, lambda number: number >= 0, "a finite number >= 0", error)


def positive_number(argument: str, value: Any, error: type[ValueError] = ValueError) -> float:
    """Return the value as a float, if it is a finite number > 0. Arguments: see :func:`finite`.

    Examples:
        >>> positive_number("learning_rate", 0.1)
        0.1
    """
    return _number(argument, value, lambda number: number > 0, "a finite number > 0", error)


def fraction(argument: str, value: Any, error: type[ValueError] = ValueError) -> float:
    """Return the value as a float, if it is in (0, 1]. Arguments: see :func:`finite`.

    Examples:
        >>> fraction("target", 0)
        Traceback (most recent call last):
        ...
        ValueError: target: expected a number in (0, 1]. Received: 0
    """
    return _number(argument, value, lambda number: 0 < number <= 1, "a number in (0, 1]", error)


def fraction_below_one(argument: str, value: Any, error: type[ValueError] = ValueError) -> float:
    """Return the value as a float, if it is in [0, 1). Arguments: see :func:`finite`.

    Examples:
        >>> fraction_below_one("momentum", 0.9)
        0.9
    """
    return _number(argument, value, lambda number: 0 <= number < 1, "a number in [0, 1)", error)


def share(argument: str, value: Any, error: type[ValueError] = ValueError) -> float:
    """Return the value as a float, if it is in [0, 1]. Arguments: see :func:`finite`.

    Examples:
        >>> share("accuracy", 1)
        1.0
    """
    return _number(argument, value, lambda number: 0 <= number <= 1, "a number in [0, 1]", error)


def positive_int(argument: str, value: Any, error: type[ValueError] = ValueError) -> int:
    """Return the value as an int, if it is a whole number >= 1. Arguments: see :func:`finite`.

    Examples:
        >>> positive_int("round_to", 0)
        Traceback (most recent call last):
        ...
        ValueError: round_to: expected a whole number >= 1. Received: 0
    """
    return _whole(argument, value, lambda number: number >= 1, "a whole number >= 1", error)


def nonnegative_int(argument: str, value: Any, error: type[ValueError] = ValueError) -> int:
    """Return the value as an int, if it is a whole number >= 0. Arguments: see :func:`finite`.

    Examples:
        >>> nonnegative_int("shift", 4)
        4
    """
    return _whole(argument, value, lambda number: number >= 0, "a whole number >= 0", error)


def count(argument: str, value: Any, most: int, error: type[ValueError] = ValueError) -> int:
    """Return the value as an int in [1, most]: what is repeated so often.

    Args:
        argument: Name of the argument, for the error message.
        value: The value to check.
        most: The largest one; above, nobody would wait for the end.
        error: Class of the error to raise.

    Raises:
        ValueError: It is something else (`error`, if given).

    Examples:
        >>> count("repeats", 10**9, 10**6)
        Traceback (most recent call last):
        ...
        ValueError: repeats: expected a whole number in [1, 1000000]. Received: 1000000000
    """
    expected = f"a whole number in [1, {most}]"
    return _whole(argument, value, lambda number: 1 <= number <= most, expected, error)


def seed(argument: str, value: Any, error: type[ValueError] = ValueError) -> int:
    """Return the value as an int, if NumPy and Keras take it as a seed. Arguments as of `finite`.

    Examples:
        >>> seed("seed", 1.5)
        Traceback (most recent call last):
        ...
        ValueError: seed: expected a whole number in [0, 2**32). Received: 1.5
    """
    expected = "a whole number in [0, 2**32)"
    return _whole(argument, value, lambda number: 0 <= number < SEEDS, expected, error)


def several(argument: str, values: Any, each: Callable[[str, Any], T]) -> tuple[T, ...]:
    """Return the values as a tuple, each of them checked.

    Args:
        argument: Name of the argument, for the error message.
        values: A list, a tuple, an array of one axis, or anything else that can be iterated over.
        each: The check of a value, such as :func:`nonnegative`.

    Raises:
        ValueError: It is one value, a text or a mapping, or a value does not pass the check.

    Examples:
        >>> several("taus", [0, 1e-3], nonnegative)
        (0.0, 0.001)
    """
    is_sequence = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    if is_sequence and getattr(values, "ndim", 1) == 1:
        return tuple(each(argument, value) for value in values)
    raise ValueError(f"{argument}: expected numbers in a sequence. Received: {values!r}")


def interval(
    argument: str, values: Any, each: Callable[[str, Any], float] = positive_number
) -> tuple[float, float]:
    """Return the values as a tuple, if they are two that rise. Arguments: see :func:`several`.

    Examples:
        >>> interval("reweight", (0.3, 0.1))
        Traceback (most recent call last):
        ...
        ValueError: reweight: expected two rising numbers. Received: (0.3, 0.1)
    """
    found = several(argument, values, each)
    if len(found) != 2 or not found[0] < found[1]:
        raise ValueError(f"{argument}: expected two rising numbers. Received: {values!r}")
    return found


def boolean(argument: str, value: Any, error: type[ValueError] = ValueError) -> bool:
    """Return the value, if it is True or False. Arguments: see :func:`finite`.

    Examples:
        >>> boolean("coupled", "no")
        Traceback (most recent call last):
        ...
        ValueError: coupled: expected True or False. Received: 'no'
    """
    if not isinstance(value := _plain(value), bool):
        raise error(f"{argument}: expected True or False. Received: {value!r}")
    return value


def one_of(
    argument: str, value: T, allowed: Sequence[T], error: type[ValueError] = ValueError
) -> T:
    """Return the allowed value that the given one equals. Arguments: see :func:`finite`.

    Examples:
        >>> one_of("power", 3, (1, 2))
        Traceback (most recent call last):
        ...
        ValueError: power: expected one of (1, 2). Received: 3
    """
    given: Any = _plain(value)
    if isinstance(given, str | Real):
        for each in allowed:
            if each == given and isinstance(each, bool) == isinstance(given, bool):
                return each
    raise error(f"{argument}: expected one of {tuple(allowed)}. Received: {value!r}")


def set_checked(record: Any, **values: Any) -> None:
    """Set fields of a frozen dataclass to the values that its ``__post_init__`` has checked.

    Args:
        record: The dataclass.
        **values: The values by field.
    """
    for name, value in values.items():
        object.__setattr__(record, name, value)


def _plain(value: Any) -> Any:
    """A number of Python in place of one of NumPy, or of an array without axes."""
    single = getattr(value, "shape", None) == () and hasattr(value, "item")
    return value.item() if single else value


def _is(kind: type, value: Any) -> bool:
    """Whether a value is a number of a kind; bools are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _number(
    argument: str,
    value: Any,
    fits: Callable[[float], bool],
    expected: str,
    error: type[ValueError],
) -> float:
    given = _plain(value)
    if _is(Real, given):
        try:
            number = float(given) + 0.0  # -0.0 is 0.0
        except OverflowError:
            number = math.inf
        if math.isfinite(number) and fits(number):
            return number
    raise error(f"{argument}: expected {expected}. Received: {value!r}")


def _whole(
    argument: str, value: Any, fits: Callable[[int], bool], expected: str, error: type[ValueError]
) -> int:
    given = _plain(value)
    if _is(Integral, given) and fits(int(given)):
        return int(given)
    raise error(f"{argument}: expected {expected}. Received: {value!r}")
