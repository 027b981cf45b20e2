"""Parsers of option values. Their errors say what was expected and what was received.

The messages of typer itself leave out what was received.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import typer

from keras_structsparse.training.shrink.latency import Latency


def number(text: str | float) -> float:
    """Parse a number."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"expected a number. Received: {text!r}") from None


def nonnegative(text: str | float) -> float:
    """Parse a finite number >= 0."""
    if not (math.isfinite(value := number(text)) and value >= 0):
        raise typer.BadParameter(f"expected a finite number >= 0. Received: {text}")
    return value


def share(text: str | float) -> float:
    """Parse a number in (0, 1]."""
    if not 0 < (value := number(text)) <= 1:
        raise typer.BadParameter(f"expected a number in (0, 1]. Received: {text}")
    return value


def whole(text: str | int) -> int:
    """Parse a whole number."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"expected a whole number. Received: {text!r}") from None


def seed(text: str | int) -> int:
    """Parse a seed that Keras and numpy take."""
    if not 0 <= (value := whole(text)) < 2**32:
        raise typer.BadParameter(f"expected a whole number in [0, 2**32). Received: {text}")
    return value


def input_shape(text: str) -> tuple[int, ...]:
    """Parse the shape of an input, such as "28,28,1".

    Raises:
        typer.BadParameter: The text is no shape.
    """
    found = [side.strip() for side in text.split(",")]
    if not all(side.isdecimal() and int(side) > 0 for side in found):
        raise typer.BadParameter(
            f"expected whole numbers > 0 such as 28,28,1. Received: {text!r}",
            param_hint="'--input-shape'",
        )
    return tuple(int(side) for side in found)


def alphas(text: str) -> tuple[float, ...]:
    """Parse weights such as "1e-5:1e-2:8", eight in equal ratios, or "1e-3,2e-3".

    Examples:
        >>> alphas("1e-4:1e-2:3")
        (0.0001, 0.001, 0.01)
    """
    expected = (
        "expected numbers > 0 such as 1e-3,2e-3, or FIRST:LAST:COUNT with a COUNT of at most "
        f"{MOST_ALPHAS:,}. Received: {text!r}"
    )
    try:
        first, last, count = text.split(":") if ":" in text else ("1", "1", "1")
        found = _geometric(float(first), float(last), int(count))
        found = found if ":" in text else tuple(float(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise typer.BadParameter(expected) from None
    if not found or min(found) <= 0 or not all(map(math.isfinite, found)):
        raise typer.BadParameter(expected)
    if len(set(found)) < len(found):
        raise typer.BadParameter(f"expected different numbers. Received: {text!r}")
    return found


MOST_ALPHAS = 1_000
"""Trainings of a sweep: more are a slip of the keyboard."""


def _geometric(first: float, last: float, count: int) -> tuple[float, ...]:
    """Rounded to six digits, so that names of files stay short."""
    if count > MOST_ALPHAS:
        raise ValueError
    ratio = (last / first) ** (1 / (count - 1)) if count > 1 else 1.0
    return tuple(float(f"{first * ratio**i:.6g}") for i in range(count))


def interval(text: str) -> tuple[float, float]:
    """Parse a range such as "0.03:0.3".

    Examples:
        >>> interval("0.03:0.3")
        (0.03, 0.3)
    """
    parts = text.split(":")
    try:
        first, last = map(float, parts)
    except ValueError:
        first = last = 0.0
    if not 0 < first < last < math.inf:
        raise typer.BadParameter(f"expected LEAST:LARGEST, both > 0. Received: {text!r}")
    return first, last


def taus(text: str) -> tuple[float, ...]:
    """Parse thresholds such as "0,1e-3,1e-2", or "auto" for those of the library."""
    from keras_structsparse.sweeps.settings import TAUS

    return TAUS if text == "auto" else tuple(nonnegative(part) for part in text.split(","))


def seeds(text: str) -> tuple[int, ...]:
    """Parse seeds such as "0,1,2"."""
    return tuple(seed(part) for part in text.split(","))


def positive(text: str | float) -> float:
    """Parse a finite number > 0."""
    if not (math.isfinite(value := number(text)) and value > 0):
        raise typer.BadParameter(f"expected a finite number > 0. Received: {text}")
    return value


def latency(text: str | Latency) -> Latency:
    """Parse a time such as "4ms", or a share of the time before such as "50%" or "0.5".

    Examples:
        >>> latency("4ms").ms, latency("50%").share, latency("0.5").share
        (4.0, 0.5, 0.5)
    """
    if isinstance(text, Latency):
        return text
    if text.strip().endswith("ms"):
        return Latency(ms=milliseconds(text.strip()))
    if text.strip().endswith("%"):
        return Latency(share=share(number(text.strip().removesuffix("%")) / 100))
    try:
        return Latency(share=share(text))
    except typer.BadParameter:
        raise typer.BadParameter(
            f"expected milliseconds such as 4ms, or a share such as 50% or 0.5. Received: {text!r}"
        ) from None


def milliseconds(text: str | float) -> float:
    """Parse a time such as "2ms" or "2".

    Examples:
        >>> milliseconds("2ms"), milliseconds("0.5")
        (2.0, 0.5)
    """
    return positive(str(text).removesuffix("ms").strip())


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """A parser of one of some words.

    Args:
        choices: The words.

    Examples:
        >>> one_of(("none", "mirrored"))("none")
        'none'
    """

    def parse(text: str) -> str:
        if text not in choices:
            raise typer.BadParameter(f"expected one of {', '.join(choices)}. Received: {text!r}")
        return text

    return parse
