"""Build a new model by replacing the calls of a graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import keras

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.cloning import clone, input_like, set_weights
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
    new_inputs = keras.tree.map_structure(input_like, _keras_compat.input_structure(graph.model))
    values: dict[int, Tensor] = dict(zip(graph.inputs, keras.tree.flatten(new_inputs), strict=True))
    for call in graph.calls:
        results = replace(call, [values[i] for i in call.inputs])
        values.update(zip(call.outputs, results, strict=True))
    outputs = keras.tree.pack_sequence_as(
        _keras_compat.output_structure(graph.model), [values[i] for i in graph.outputs]
    )
    return new_model(new_inputs, outputs, graph.model.name)


class Rebuilder:
    """Builds the outputs of each call; calls of a shared layer use one copy.

    Args:
        graph: The graph.
        gone: The layers that are left out: their input takes the place of their output.
        weights: New kernels and bias of convolutions and dense layers, by ``id`` of the layer.
    """

    def __init__(
        self,
        graph: Graph,
        gone: Iterable[keras.Operation],
        weights: Mapping[int, Sequence[Array]] | None = None,
    ) -> None:
        self.gone = {id(layer) for layer in gone}
        self.weights = weights or {}
        self.names = _names(graph, self.gone)
        self.copies: dict[int, keras.Operation] = {}

    def __call__(self, call: Call, tensors: list[Tensor | None]) -> Sequence[Tensor | None]:
        """The new output tensors of a call, for its new inputs."""
        operation, key = call.operation, id(call.operation)
        if key in self.gone:
            return tensors
        args, kwargs = call.arguments(tensors)
        if key in self.copies:
            return keras.tree.flatten(self.copies[key](*args, **kwargs))
        changes = {"use_bias": True} if key in self.weights else {}
        twin = self.copies[key] = clone(operation, name=self.names[key], **changes)
        outputs = keras.tree.flatten(twin(*args, **kwargs))
        if weights := getattr(operation, "weights", ()):
            # As arrays, since JAX may reuse the memory of a trained variable.
            values = [keras.ops.convert_to_numpy(weight) for weight in weights]
            set_weights(twin, self.weights.get(key, values))
        return outputs


def _names(graph: Graph, gone: Collection[int]) -> Mapping[int, str]:
    """A name for each operation, by ``id``: its own, unless an input or another one has it."""
    names = {id(tensor): tensor.name for tensor in graph.model.inputs}
    calls = [call for call in graph.calls if id(call.operation) not in gone]
    # Names without a slash first, so that the model's own layers keep theirs.
    for call in sorted(calls, key=lambda call: "/" in call.name):
        name = call.name.replace("/", "_")
        while id(call.operation) not in names and name in names.values():
            name += "_"
        names.setdefault(id(call.operation), name)
    return names
