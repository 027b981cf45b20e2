"""The options of the commands: what they may be, and how their text is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

KERAS, JSON = ".keras", ".json"

# What an option may be; the values are those of the library.
Regularizer = StrEnum(
    "Regularizer",
    {
        "KERNEL_SIZE": "kernel-size",
        "KERNEL_COUNT": "kernel-count",
        "MULTIPLY_ADDS": "multiply-adds",
        "NONE": "none",
    },
)
Norm = StrEnum("Norm", ["l2", "group_normalized", "group_scaled", "linf"])
Groups = StrEnum("Groups", ["half_ring", "ring"])
Weights = StrEnum("Weights", ["uniform", "multiply_adds", "params"])
Constants = StrEnum("Constants", ["exact", "interior", "drop"])
Realize = StrEnum("Realize", ["auto", "crop", "split", "none"])
Format = StrEnum("Format", ["saved_model"])

# --- numbers; typer's own messages leave out what was received ---


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
    """The shape in the option ``--input-shape``, such as "28,28,1".

    Raises:
        typer.BadParameter: The text is none.
    """
    found = [side.strip() for side in text.split(",")]
    if not all(side.isdecimal() and int(side) > 0 for side in found):
        raise typer.BadParameter(
            f"expected whole numbers > 0 such as 28,28,1. Received: {text!r}",
            param_hint="'--input-shape'",
        )
    return tuple(int(side) for side in found)


def floating(help: str, parser: Callable[[str | float], float] = number) -> Any:
    """An option that takes a number."""
    return typer.Option(parser=parser, metavar="FLOAT", help=help)


def integer(help: str, parser: Callable[[str | int], int] = whole) -> Any:
    """An option that takes a whole number."""
    return typer.Option(parser=parser, metavar="INT", help=help)


# --- options of several commands ---

Seed = Annotated[int, integer("Seed of all random numbers.", seed)]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier call wrote.")]
NewModel = Annotated[Path, typer.Option(metavar=f"FILE{KERAS}", help="Where to save the model.")]
ModelFile = Annotated[Path, typer.Argument(metavar=f"MODEL{KERAS}", help="The model.")]
AnyModel = Annotated[
    str, typer.Argument(metavar=f"MODEL{KERAS}|NAME", help="A file, or a name of `models`.")
]
