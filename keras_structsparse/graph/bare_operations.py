"""Types of bare operations, and calls of operations once more on other tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Tensor


def again(inputs: Sequence[Tensor], output: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Call the operations between ``inputs`` and ``output`` once more, on other tensors.

    Args:
        inputs: Symbolic tensors that ``output`` was computed from.
        output: A symbolic tensor.
        tensors: New values of ``inputs``.

    Returns:
        The new value of ``output``.
    """
    values = {id(old): new for old, new in zip(inputs, tensors, strict=True)}

    def value(tensor: Tensor) -> Tensor:
        if id(tensor) not in values:
            node = _keras_compat.producer(tensor)
            new_inputs = [value(t) for t in node.inputs]
            args, kwargs = _keras_compat.filled(node.arguments, new_inputs)
            results = keras.tree.flatten(node.operation(*args, **kwargs))
            values.update(zip(map(id, node.outputs), results, strict=True))
        return values[id(tensor)]

    return value(output)


def operation_type(function: Callable[..., Tensor], inputs: int = 1) -> type[keras.Operation]:
    """The type of bare operation that a function of ``keras.ops`` adds to a graph.

    Args:
        function: The function. It is called on symbolic tensors of shape (1, 1).
        inputs: Its number of tensor arguments.

    Returns:
        The type.

    Examples:
        >>> operation_type(keras.ops.add, 2).__name__
        'Add'
    """
    output = function(*[keras.KerasTensor((1, 1)) for _ in range(inputs)])
    return type(_keras_compat.producer(output).operation)
