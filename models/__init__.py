"""The zoo: base architectures, reference networks and pruned networks, one family a file.

Importable as ``keras_structsparse.models``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import keras

from keras_structsparse.models import (
    alexnet,
    cifar10,
    digits,
    googlenet,
    imagenet,
    mnist,
    resnet,
    vgg,
)
from keras_structsparse.models.bases import Base, build_base
from keras_structsparse.models.card import Card
from keras_structsparse.models.entries import Entry, Published, base_entry
from keras_structsparse.models.packaged import cards, load
from keras_structsparse.models.specs import is_spec, parse

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

BASES: Mapping[str, Entry] = {
    **digits.ENTRIES,
    **mnist.ENTRIES,
    **cifar10.ENTRIES,
    **imagenet.ENTRIES,
}
"""Upper bounds to train with a penalty, by name."""

REFERENCES: Mapping[str, Entry] = {
    **alexnet.REFERENCES,
    **vgg.REFERENCES,
    **googlenet.REFERENCES,
    **resnet.REFERENCES,
    **cifar10.REFERENCES,
}
"""Published networks to compare with (Table 1), by name."""

REGISTRY: Mapping[str, Entry] = {**BASES, **REFERENCES}


def find(name: str) -> Entry:
    """Look a network up.

    Args:
        name: Its name in the registry, or a base architecture as a text for :func:`parse`; that
            takes 32x32 images with three channels and has ten classes unless said otherwise.

    Returns:
        What the registry knows of it.

    Raises:
        ValueError: There is no network of that name, or the text is none.

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
    """Build a network of the zoo, or a base architecture of your own, with new weights.

    Args:
        name: As for :func:`find`.
        input_shape: Shape of one input, (height, width, channels); the entry's unless given.
        classes: Number of classes; the entry's unless given.

    Returns:
        The model.

    Raises:
        ValueError: As for :func:`find`.

    Examples:
        >>> build("digits-residual").output_shape
        (None, 10)
        >>> build("(8,5)x3 plain", (28, 28, 1)).input_shape
        (None, 28, 28, 1)
    """
    entry = find(name)
    shape = entry.input_shape if input_shape is None else input_shape
    return entry.builder(shape, entry.classes if classes is None else classes)
