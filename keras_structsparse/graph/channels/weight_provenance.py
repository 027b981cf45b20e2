"""Where the entries of new weights come from, so that what belongs to them can follow.

Every new weight of surgery holds entries of one old weight, chosen along each axis. Constants may
have been added to them; that does not change whose entries they are.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.cloning import set_weights

Index = Any


@dataclass(frozen=True)
class Taken:
    """Entries of a weight of an old layer, in the places that they have in a new one.

    Attributes:
        values: The values, which may differ from the old ones by what removed channels leave.
        operation: The old layer; None for what is new.
        number: Which of its weights it is.
        places: For each axis the indices of the entries in the old weight.
    """

    values: Array
    operation: keras.Operation | None
    number: int
    places: tuple[Array, ...]

    @property
    def swapped(self) -> Taken:
        """With the last two axes in the other order, here and in the old weight."""
        *others, inputs, outputs = self.places
        values = np.swapaxes(self.values, -1, -2)
        return replace(self, values=values, places=(*others, outputs, inputs))

    def along(self, axis: int, index: Index) -> Taken:
        """The entries at some indices, or in a slice, of one axis."""
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


@dataclass(frozen=True)
class Origin:
    """Where the entries of a weight of a pruned model come from.

    Attributes:
        weight: Position of the old weight in ``model.weights``.
        places: For each axis the indices of the entries in the old weight.
    """

    weight: int
    places: tuple[Array, ...]

    def of(self, values: Array) -> Array:
        """The part of an array, shaped as the old weight, that belongs to the new one."""
        return values[np.ix_(*self.places)] if self.places else values


def whole(values: Array, operation: keras.Operation, number: int) -> Taken:
    """All entries of a weight."""
    return Taken(values, operation, number, tuple(np.arange(size) for size in values.shape))


def new(values: Array) -> Taken:
    """Entries that come from no old weight, or not in rows and columns."""
    return Taken(values, None, 0, tuple(np.arange(size) for size in values.shape))


_taken: weakref.WeakKeyDictionary[keras.Layer, Sequence[Any]] = weakref.WeakKeyDictionary()
_origins: weakref.WeakKeyDictionary[keras.Model, tuple[Any, tuple[Origin | None, ...]]]
_origins = weakref.WeakKeyDictionary()


def assign(layer: keras.Layer, weights: Sequence[Array | Taken]) -> None:
    """Give a new layer its weights, and remember where they come from."""
    set_weights(layer, [w.values if isinstance(w, Taken) else w for w in weights])
    # Without the values, which would be kept twice.
    _taken[layer] = [w.holding(None) if _is_old(w) else None for w in weights]


def _is_old(weight: Array | Taken) -> bool:
    return isinstance(weight, Taken) and weight.operation is not None


def settle(model: keras.Model, pruned: keras.Model) -> None:
    """Remember the origins of all weights of a pruned model, and nothing of the model itself."""
    positions = {id(weight): position for position, weight in enumerate(model.weights)}
    found: dict[int, Origin] = {}
    for layer in pruned.layers:
        for weight, taken in zip(layer.weights, _taken.pop(layer, ()), strict=False):
            if taken is not None:
                old = taken.operation.weights[taken.number]
                found[id(weight)] = Origin(positions[id(old)], taken.places)
    ordered = tuple(found.get(id(weight)) for weight in pruned.weights)
    _origins[pruned] = weakref.ref(model), ordered


def origins(model: keras.Model, pruned: keras.Model) -> tuple[Origin | None, ...]:
    """Where the weights of a pruned model come from.

    Args:
        model: The model before.
        pruned: What :func:`keras_structsparse.prune` made of it, in this process.

    Returns:
        One origin for each of ``pruned.weights``; None for a new weight, such as the bias of a
        layer that had none.

    Raises:
        ValueError: ``pruned`` was not made from ``model``, or in another process.

    Examples:
        >>> from keras_structsparse.surgery.plans import Plan
        >>> from keras_structsparse.surgery import prune
        >>> inputs = keras.Input((8, 8, 1))
        >>> x = keras.layers.Conv2D(3, 3, name="conv")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
        >>> kernel, *_ = origins(model, prune(model, Plan({"conv": (3, 0, 2)}), realize="crop"))
        >>> kernel.weight, [places.tolist() for places in kernel.places]
        (0, [[0, 1, 2], [0, 1, 2], [0], [0, 2]])
    """
    source, found = _origins.get(pruned, (lambda: None, ()))
    if source() is not model:
        raise ValueError(
            f"pruned: expected what kss.prune made of the model '{model.name}' in this process. "
            f"Received: the model '{pruned.name}', which was not."
        )
    return found
