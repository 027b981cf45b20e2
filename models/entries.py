"""An entry of the registry: a network's builder, default shapes and published errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import keras

from keras_structsparse.models.base_architecture import Base, build_base
from keras_structsparse.models.base_spec import text_of

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Published:
    """Errors published by others; quoted, not measured here.

    Attributes:
        errors: The errors, and how they were measured.
        source: The publication, with the table.
    """

    errors: str
    source: str


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Attributes:
        summary: A description in one line.
        input_shape: Default shape of one input, (height, width, channels).
        classes: Default number of classes.
        builder: From input shape and classes to a new model.
        published: Errors to quote, for networks published by others.
    """

    summary: str
    input_shape: Shape
    classes: int
    builder: Callable[[Shape, int], keras.Model]
    published: Published | None = None


def base_entry(summary: str, input_shape: Shape, classes: int, base: Base) -> Entry:
    """The entry of a base architecture; its layers are added to the summary."""
    return Entry(
        f"{summary}: {text_of(base)}",
        input_shape,
        classes,
        lambda shape, count: build_base(base, shape, count),
    )


def pair_of_entries(
    names: tuple[str, str], summary: str, input_shape: Shape, classes: int, base: Base
) -> dict[str, Entry]:
    """A base with shortcuts and the same without.

    Args:
        names: The name of the base with shortcuts, and of the one without.
        summary: A description of both in one line.
        input_shape: Default shape of one input.
        classes: Default number of classes.
        base: The base with shortcuts.
    """
    plain = replace(base, residual=False)
    return {
        names[0]: base_entry(f"{summary}, residual", input_shape, classes, base),
        names[1]: base_entry(summary, input_shape, classes, plain),
    }
