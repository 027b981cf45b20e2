"""Build a new model by replacing the calls of a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Tensor
from keras_structsparse.graph.functional_graph import Call, Graph, new_model


def rebuild(
    graph: Graph, replace: Callable[[Call, list[Tensor | None]], Sequence[Tensor | None]]
) -> keras.Model:
    """Build a new model by replacing every call of a graph.

    Args:
        graph: The graph.
        replace: Receives a call and its new input tensors, None for a removed tensor. Returns the
            new output tensors, None for a removed one.

    Returns:
        A functional model with the same input and output structure.
    """
    new_inputs = keras.tree.map_structure(
        lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name),
        _keras_compat.input_structure(graph.model),
    )
    values: dict[int, Tensor] = dict(zip(graph.inputs, keras.tree.flatten(new_inputs), strict=True))
    for call in graph.calls:
        results = replace(call, [values[i] for i in call.inputs])
        values.update(zip(call.outputs, results, strict=True))
    outputs = keras.tree.pack_sequence_as(
        _keras_compat.output_structure(graph.model), [values[i] for i in graph.outputs]
    )
    return new_model(new_inputs, outputs, graph.model.name)
