"""Rebuild a graph without some of its layers, from copies of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import keras

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.cloning import clone, set_weights
from keras_structsparse.graph.functional_graph import Call


class Rebuilder:
    """Builds the outputs of each call; calls of a shared layer use one copy.

    Args:
        calls: All calls of the graph.
        gone: The layers that are left out: their input takes the place of their output.
        weights: New kernels and bias of convolutions and dense layers, by ``id`` of the layer.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        gone: Iterable[keras.Operation],
        weights: Mapping[int, Sequence[Array]] | None = None,
    ) -> None:
        self.gone = {id(layer) for layer in gone}
        self.weights = weights or {}
        self.names = _names(call for call in calls if id(call.operation) not in self.gone)
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


def _names(calls: Iterable[Call]) -> Mapping[int, str]:
    """A name for each operation, by ``id``: its own, unless another one has it."""
    names: dict[int, str] = {}
    # Names without a slash first, so that the model's own layers keep theirs.
    for call in sorted(calls, key=lambda call: "/" in call.name):
        name = call.name.replace("/", "_")
        while id(call.operation) not in names and name in names.values():
            name += "_"
        names.setdefault(id(call.operation), name)
    return names
