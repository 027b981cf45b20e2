"""Which tensors have the same shape whatever the sizes are that a model leaves open.

Two open sizes look alike, and where tensors are added one of them may be 1 while the other is not.
So the shapes of all tensors are computed for several sizes of the inputs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_structsparse._typing import Shape
from keras_structsparse.graph.functional_graph import Call, Graph

SIZES = (*range(1, 13), 16, 21, 33, 50, 64)
"""Neighbours, since sizes are rounded up or down, and larger ones that no window exceeds."""

FEWEST = 3
"""Fewer tries with possible sizes would show nothing."""

Shapes = dict[int, Shape | None]
"""The shape of each tensor; None where the inputs are too small for a window."""

_tried: weakref.WeakKeyDictionary[keras.Model, list[Shapes]] = weakref.WeakKeyDictionary()


def same_shape(network: Graph, tensors: Sequence[int]) -> bool:
    """Whether some tensors of a graph always have the same shape.

    Sizes of different inputs, or of different axes of one, may differ; the batch is the same.

    Args:
        network: The graph.
        tensors: Their indices.

    Returns:
        True if they had the same shape for all tried sizes; False if they had not, or if it could
        not be tried.

    Examples:
        >>> from keras_structsparse.graph.functional_graph import read
        >>> x = keras.Input((None, 3))
        >>> network = read(keras.Model(x, [keras.layers.Dense(3)(x), x[:, :1]]))
        >>> dense, first = network.outputs
        >>> same_shape(network, [*network.inputs, dense]), same_shape(network, [dense, first])
        (True, False)
    """
    shapes = [network.shapes[i] for i in tensors]
    if len(set(shapes)) > 1 or None not in shapes[0]:
        return len(set(shapes)) == 1
    if network.model not in _tried:
        tries = len(SIZES) if _is_open(network) else 1  # the batch is not multiplied, or always
        _tried[network.model] = [_computed(network, number) for number in range(tries)]
    found = [[shapes[i] for i in tensors] for shapes in _tried[network.model]]
    possible = [shapes for shapes in found if None not in shapes]
    enough = len(possible) >= min(FEWEST, len(found))
    return enough and all(len(set(shapes)) == 1 for shapes in possible)


def _is_open(network: Graph) -> bool:
    """Whether an input has a size, besides the batch, that is not known."""
    return any(None in network.shapes[i][1:] for i in network.inputs)


def _computed(network: Graph, number: int) -> Shapes:
    """The shapes of all tensors for one of the sizes of each open axis."""
    roots = 0

    def fresh(tensor: int) -> Shape:
        """A shape with sizes that no other open axis has at all tries; the batch is the same."""
        nonlocal roots
        roots += 1
        batch, *sizes = network.shapes[tensor] or (1,)
        drawn = [_size(number, roots, axis) for axis in range(len(sizes))]
        known = [new if size is None else size for size, new in zip(sizes, drawn, strict=True)]
        return (7 if batch is None else batch, *known)

    shapes: Shapes = {tensor: fresh(tensor) for tensor in network.inputs}
    for call in network.calls:
        shapes.update(_outputs(network, call, shapes, fresh))
    return shapes


def _size(number: int, root: int, axis: int) -> int:
    """Every open axis gets all sizes in an order of its own."""
    return int(np.random.default_rng((root, axis)).permutation(SIZES)[number])


def _outputs(network: Graph, call: Call, shapes: Shapes, fresh: Callable[[int], Shape]) -> Shapes:
    """The shapes of the outputs of a call."""
    given = [shapes[i] for i in call.inputs]
    if None in given:
        return dict.fromkeys(call.outputs)
    dtypes = [network.dtypes[i] for i in call.inputs]
    pairs = zip(given, dtypes, strict=True)
    args, kwargs = call.arguments([keras.KerasTensor(s, dtype=d) for s, d in pairs])
    try:
        found = keras.tree.flatten(call.operation.compute_output_spec(*args, **kwargs))
        sizes = [tuple(tensor.shape) for tensor in found]
    except Exception:  # whatever a layer raises at sizes that it does not take
        too_small = len(call.inputs) == 1 and _is_open(network)
        return {i: None if too_small else fresh(i) for i in call.outputs}
    return {
        i: fresh(i) if None in shape else shape
        for i, shape in zip(call.outputs, sizes, strict=True)
    }
