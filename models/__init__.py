"""The zoo: base architectures, one family a file.

Importable as ``keras_structsparse.models``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras

from keras_structsparse.models.bases import Base, build_base

__all__ = ["REGISTRY", "Base", "Entry", "build", "build_base"]


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Attributes:
        summary: One line on what it is.
        input_shape: Default shape of one input, (height, width, channels).
        classes: Default number of classes.
        builder: From input shape and classes to a new model.
    """

    summary: str
    input_shape: tuple[int, int, int]
    classes: int
    builder: Callable[[tuple[int, int, int], int], keras.Model]


def _square(summary: str, input_shape: tuple[int, int, int], base: Base) -> Entry:
    return Entry(summary, input_shape, 10, lambda shape, classes: build_base(base, shape, classes))


_SEVEN = ((16, 5),) * 7

REGISTRY: Mapping[str, Entry] = {
    "digits-residual": _square(
        "square bound (16,5)x7 with shortcuts, for 8x8 images", (8, 8, 1), Base(_SEVEN, (3,))
    ),
    "digits-plain": _square(
        "square bound (16,5)x7, for 8x8 images",
        (8, 8, 1),
        Base(_SEVEN, (3,), residual=False),
    ),
    "fashion-mnist-residual": _square(
        "square bound (16,5)x7 with shortcuts, for 28x28 images", (28, 28, 1), Base(_SEVEN, (0, 3))
    ),
    "fashion-mnist-plain": _square(
        "square bound (16,5)x7, for 28x28 images",
        (28, 28, 1),
        Base(_SEVEN, (0, 3), residual=False),
    ),
}


def build(
    name: str, input_shape: tuple[int, int, int] | None = None, classes: int | None = None
) -> keras.Model:
    """Build a network of the zoo with new weights.

    Args:
        name: Its name in the registry.
        input_shape: Shape of one input, (height, width, channels); the entry's unless given.
        classes: Number of classes; the entry's unless given.

    Returns:
        The model.

    Raises:
        ValueError: There is no network of that name.

    Example:
        >>> build("digits-residual").output_shape
        (None, 10)
    """
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, REGISTRY, n=3, cutoff=0.3) or list(REGISTRY)
        raise ValueError(f"model: expected a name such as {', '.join(near)}. Received: {name!r}")
    entry = REGISTRY[name]
    shape = entry.input_shape if input_shape is None else input_shape
    return entry.builder(shape, entry.classes if classes is None else classes)
