"""Weights that know which entries of which old weight they hold, so that others can follow them.

Every new weight of surgery holds entries of one old weight, chosen along each axis. Constants may
have been added to them; they are still entries of that weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.cloning import set_weights

Index = Any

RECORD = "_keras_structsparse_taken"
"""Where a new layer keeps the origins of its weights until surgery has collected them all."""


@dataclass(frozen=True)
class Taken:
    """Entries of a weight of an old layer, in the order that they have in a new one.

    Attributes:
        values: The values, which may differ from the old ones by the constants of removed channels.
        operation: The old layer; None for entries of no old weight.
        number: The position of the weight in ``operation.weights``.
        places: For each axis the indices of the entries in the old weight.
    """

    values: Array
    operation: keras.Operation | None
    number: int
    places: tuple[Array, ...]

    @property
    def swapped(self) -> Taken:
        """The same with the last two axes exchanged, here and in the old weight."""
        *others, inputs, outputs = self.places
        values = np.swapaxes(self.values, -1, -2)
        return replace(self, values=values, places=(*others, outputs, inputs))

    def along(self, axis: int, index: Index) -> Taken:
        """The entries at the given indices, or in the slice, of one axis."""
        places = list(self.places)
        places[axis] = places[axis][index]
        if isinstance(index, slice):
            where = [slice(None)] * len(places)
            where[axis] = index
            return replace(self, values=self.values[tuple(where)], places=tuple(places))
        # Several times as fast as indexing the last axis of a kernel.
        return replace(self, values=np.take(self.values, index, axis), places=tuple(places))

    def holding(self, values: Array) -> Taken:
        """The same entries with other values."""
        return replace(self, values=values)


def whole(values: Array, operation: keras.Operation, number: int) -> Taken:
    """All entries of a weight."""
    return Taken(values, operation, number, tuple(np.arange(size) for size in values.shape))


def new(values: Array) -> Taken:
    """Entries of no old weight, or of one whose entries are not chosen axis by axis."""
    return Taken(values, None, 0, tuple(np.arange(size) for size in values.shape))


def assign(layer: keras.Layer, weights: Sequence[Array | Taken]) -> None:
    """Give a new layer its weights, and let it keep where they come from.

    Args:
        layer: The new layer.
        weights: One array for each of ``layer.weights``; those that are no :class:`Taken` count as
            new.
    """
    set_weights(layer, [w.values if isinstance(w, Taken) else w for w in weights])
    # Without the values, which would be kept twice.
    vars(layer)[RECORD] = tuple(w.holding(None) if _is_old(w) else None for w in weights)


def _is_old(weight: Array | Taken) -> bool:
    return isinstance(weight, Taken) and weight.operation is not None


def collect(layer: keras.Layer) -> tuple[Taken | None, ...]:
    """Take from a new layer where its weights come from.

    Args:
        layer: A layer that :func:`assign` has given weights.

    Returns:
        The old entries of each of ``layer.weights``, without values; None for a new weight.
    """
    found: tuple[Taken | None, ...] = vars(layer).pop(RECORD, ())
    return found + (None,) * (len(layer.weights) - len(found))
