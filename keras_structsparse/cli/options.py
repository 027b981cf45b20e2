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
Format = StrEnum("Format", ["saved_model", "litert", "onnx"])
ENDINGS = {Format.litert: ".tflite", Format.onnx: ".onnx"}

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


def alphas(text: str) -> tuple[float, ...]:
    """Weights such as "1e-5:1e-2:8", eight in equal ratios, or "1e-3,2e-3".

    Examples:
        >>> alphas("1e-4:1e-2:3")
        (0.0001, 0.001, 0.01)
    """
    expected = f"expected numbers > 0 such as 1e-3,2e-3, or FIRST:LAST:COUNT. Received: {text!r}"
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


def _geometric(first: float, last: float, count: int) -> tuple[float, ...]:
    """Rounded to six digits, so that names of files stay short."""
    ratio = (last / first) ** (1 / (count - 1)) if count > 1 else 1.0
    return tuple(float(f"{first * ratio**i:.6g}") for i in range(count))


def interval(text: str) -> tuple[float, float]:
    """A range such as "0.03:0.3".

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


def taus(text: str) -> tuple[float, ...] | None:
    """Thresholds such as "0,1e-3,1e-2"; None for "auto"."""
    return None if text == "auto" else tuple(nonnegative(part) for part in text.split(","))


def seeds(text: str) -> tuple[int, ...]:
    """Seeds such as "0,1,2"."""
    return tuple(seed(part) for part in text.split(","))


def positive(text: str | float) -> float:
    """Parse a finite number > 0."""
    if not (math.isfinite(value := number(text)) and value > 0):
        raise typer.BadParameter(f"expected a finite number > 0. Received: {text}")
    return value


def milliseconds(text: str | float) -> float:
    """Parse a time such as "2ms" or "2".

    Examples:
        >>> milliseconds("2ms"), milliseconds("0.5")
        (2.0, 0.5)
    """
    return positive(str(text).removesuffix("ms").strip())


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

# --- options of training ---

AnyNetwork = Annotated[
    str, typer.Option(metavar=f"NAME|FILE{KERAS}", help="A name of `models`, or a file.")
]
DataName = Annotated[
    str, typer.Option(metavar="NAME", help="digits, or a TFDS image-classification set.")
]
DataDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of prepared or raw TFDS data.")
]
Kind = Annotated[Regularizer, typer.Option(help="What to penalise; it replaces that of a file.")]
NormOfGroups = Annotated[Norm, typer.Option(help="Norm of a group.")]
Steps = Annotated[
    Groups, typer.Option(help="Steps of kernel-size: all sizes, or every second one.")
]
Realization = Annotated[
    Realize, typer.Option(help="Layers of several kernel sizes: one convolution or several.")
]
Shares = Annotated[Weights, typer.Option(help="Share alpha among the layers by this.")]
Reweight = Annotated[
    float,
    floating("Pull less at kernels that are large; 0.1 keeps most accuracy, 0 is convex."),
]
Coupled = Annotated[
    bool, typer.Option("--coupled", help="Let whole channels of residual streams vanish.")
]
Epochs = Annotated[int, integer("Number of epochs.")]
ShrinkEvery = Annotated[
    int,
    integer(
        "Cut out what has gone to zero, where that saves time, every so many epochs; 0: never."
    ),
]
BatchSize = Annotated[int, integer("Examples a step.")]
LearningRate = Annotated[float, floating("Rate at the start; it falls to 0 along a half cosine.")]
Momentum = Annotated[float, floating("Momentum of SGD.")]
WeightDecay = Annotated[float, floating("Weight decay of kernels, as a part of the gradient.")]


def check_reweight(regularizer: Regularizer, reweight: float) -> None:
    """Raise unless a penalty can be reweighted, if it is to be.

    Raises:
        typer.BadParameter: It cannot.
    """
    if reweight and regularizer is Regularizer.NONE:
        raise typer.BadParameter(
            "expected a --regularizer for --reweight to change. "
            f"Received: --reweight {reweight:g} --regularizer {regularizer.value}"
        )
