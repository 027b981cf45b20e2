"""The zoo: base architectures, reference networks and pruned networks.

Importable as ``keras_structsparse.models``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import keras

from keras_structsparse.errors import ModelError
from keras_structsparse.models.base_architecture import Base, build_base
from keras_structsparse.models.base_networks import BASES
from keras_structsparse.models.base_spec import is_spec, parse
from keras_structsparse.models.card import Card
from keras_structsparse.models.entries import Entry, Published, base_entry
from keras_structsparse.models.packaged import cards, load
from keras_structsparse.models.references import REFERENCES

__all__ = [
    "BASES",
    "REFERENCES",
    "REGISTRY",
    "Base",
    "Card",
    "Entry",
    "Published",
    "build",
    "build_base",
    "cards",
    "find",
    "is_spec",
    "load",
    "parse",
]

REGISTRY: Mapping[str, Entry] = {**BASES, **REFERENCES}
"""All networks that can be built, by name."""


def find(name: str) -> Entry:
    """Find the registry's entry of a network.

    Args:
        name: Its name in the registry, or a base architecture as a text for :func:`parse`. Such a
            base has 32x32 inputs with three channels and ten classes by default.

    Returns:
        The entry.

    Raises:
        ValueError: The registry has no such name, or the text does not describe a base.

    Examples:
        >>> find("(64,5)x18").summary
        'base: (64,5)x18'
    """
    if is_spec(name):
        return base_entry("base", (32, 32, 3), 10, parse(name))
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, REGISTRY, n=3, cutoff=0.3) or list(REGISTRY)
        raise ValueError(f"model: expected a name such as {', '.join(near)}. Received: {name!r}")
    return REGISTRY[name]


def build(
    name: str, input_shape: tuple[int, int, int] | None = None, classes: int | None = None
) -> keras.Model:
    """Build a network of the registry, or a base architecture of your own, with new weights.

    Args:
        name: As for :func:`find`.
        input_shape: Shape of one input, (height, width, channels); None: the entry's.
        classes: Number of classes; None: the entry's.

    Returns:
        The model.

    Raises:
        ValueError: As for :func:`find`.
        ModelError: The network is not for inputs of this shape: a feature map would have no size.

    Examples:
        >>> build("digits-residual").output_shape
        (None, 10)
        >>> build("(8,5)x3 plain", (28, 28, 1)).input_shape
        (None, 28, 28, 1)
    """
    entry = find(name)
    shape = entry.input_shape if input_shape is None else input_shape
    try:
        return entry.builder(shape, entry.classes if classes is None else classes)
    except ValueError as error:  # of Keras
        raise ModelError(
            f"model {name!r}: expected inputs of a shape such as {entry.input_shape}. Received: "
            f"{tuple(shape)}, of which no network can be built ({error})"
        ) from error
