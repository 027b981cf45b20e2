"""Which weights of a model the weights of its pruned model come from."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph import functional_graph
from keras_structsparse.surgery.index_ranges import Indices
from keras_structsparse.surgery.model_structure import Structure
from keras_structsparse.surgery.provenance import Provenance, recorded

MOST_DIFFERENCES = 3
"""How many layers an error message lists."""


def between(model: keras.Model, pruned: keras.Model) -> Provenance:
    """Where the weights and layers of a pruned model come from in a model before.

    Args:
        model: The model before surgery, or one with the same layers, weight names and shapes, such
            as a loaded copy. It may lie several cuts back.
        pruned: What :func:`keras_structsparse.prune` made of it, also a loaded one.

    Returns:
        The provenance, whose source is ``model``.

    Raises:
        ModelError: ``model`` has no graph.
        ValueError: ``pruned`` was not made from such a model.
    """
    wanted = Structure.of(functional_graph.read(model))
    nearest = found = recorded(pruned)
    while found is not None:
        if not wanted.differences(found.source):
            return found
        found = found.from_earlier
    expected = f"pruned: expected what kss.prune made of the model '{model.name}'. "
    if nearest is None:
        raise ValueError(
            f"{expected}Received: the model '{pruned.name}', which holds no record of surgery on a "
            "model of its weights"
        )
    different = wanted.differences(nearest.source)
    more = len(different) - MOST_DIFFERENCES
    raise ValueError(
        f"{expected}Received: the model '{pruned.name}', which was made of another one, "
        f"'{nearest.source.name}': {'; '.join(different[:MOST_DIFFERENCES])}"
        + (f"; and {more} more" if more > 0 else "")
    )


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


def origins(model: keras.Model, pruned: keras.Model) -> tuple[Origin | None, ...]:
    """Where the weights of a pruned model come from.

    Args:
        model: The model before.
        pruned: What :func:`keras_structsparse.prune` made of it, also a loaded one.

    Returns:
        One origin for each of ``pruned.weights``; None for a new weight, such as the bias of a
        layer that had none.

    Raises:
        ModelError: ``model`` has no graph.
        ValueError: ``pruned`` was not made from ``model``.

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
    provenance = between(model, pruned)
    positions = {id(weight): position for position, weight in enumerate(model.weights)}
    old = {c.name: c.operation.weights for c in functional_graph.read(model).layers()}
    found: dict[int, Origin] = {}
    for call in functional_graph.read(pruned).layers():
        sources = provenance.weights.get(call.name, ())
        for weight, source in zip(call.operation.weights, sources, strict=False):
            if source is not None:
                position = positions[id(old[source.layer][source.number])]
                found[id(weight)] = Origin(position, tuple(map(_array, source.places)))
    return tuple(found.get(id(weight)) for weight in pruned.weights)


def _array(indices: Indices) -> Array:
    return np.array(indices, dtype=np.intp)
