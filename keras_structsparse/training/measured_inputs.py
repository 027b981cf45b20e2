"""Networks that measure what layers of another network read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import keras
from keras import ops

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Tensor
from keras_structsparse.graph.data_format import channel_axis
from keras_structsparse.graph.prunable_layers import PrunableLayers


class MeasuredInputs(keras.Model):
    """A network that measures what some layers of another network read, in inference.

    It shares the layers of that network. Its outputs are the measurements, by name of the layer.

    Args:
        found: The prunable layers of that network.
        measures: For the name of each layer a function of the tensor that the layer reads.
        name: The name of this network.
    """

    def __init__(
        self, found: PrunableLayers, measures: Mapping[str, Callable[[Tensor], Any]], name: str
    ) -> None:
        graph = found.graph
        super().__init__(
            inputs=_keras_compat.input_structure(graph.model),
            outputs=_keras_compat.output_structure(graph.model),
            name=name,
        )
        self._calls, self._inputs_of_graph = graph.calls, graph.inputs
        self._measures = dict(measures)
        inputs = _keras_compat.input_structure(graph.model)
        # Casts inputs, and brings them in the order of the graph.
        self._entry = keras.Model(
            inputs, [keras.layers.Identity()(x) for x in keras.tree.flatten(inputs)]
        )

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> dict[str, Any]:
        """Measure what the layers read."""
        given = keras.tree.flatten(self._entry(inputs, training=False))
        values = dict(zip(self._inputs_of_graph, given, strict=True))
        found = {}
        for call in self._calls:
            tensors = [values[i] for i in call.inputs]
            if call.name in self._measures:
                found[call.name] = self._measures[call.name](tensors[0])
            args, kwargs = call.arguments(tensors)
            results = keras.tree.flatten(call.operation(*args, **kwargs))
            values.update(zip(call.outputs, results, strict=True))
        return found


def input_means(found: PrunableLayers, names: Iterable[str]) -> MeasuredInputs:
    """A network that computes the mean (channels,) of each channel that some layers read.

    Args:
        found: The prunable layers of a network.
        names: The names of the layers.
    """
    layers = {c.name: c.operation for c in found.graph.layers()}
    measures = {name: partial(_channel_means, layers[name]) for name in names}
    return MeasuredInputs(found, measures, "input_means")


def _channel_means(layer: keras.Layer, tensor: Tensor) -> Tensor:
    axes = list(range(len(tensor.shape)))
    del axes[channel_axis(layer)]
    return ops.mean(ops.cast(tensor, "float32"), axis=axes)
