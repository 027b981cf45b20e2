"""Which layers have kernels that can be chosen, and what hides their scale."""

from __future__ import annotations

import keras

from keras_structsparse.graph.functional_graph import Call, Graph

KERNEL_LAYERS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)
PADDINGS = (
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)


def is_convolution(operation: keras.Operation) -> bool:
    """Whether an operation is a plain convolution whose kernels can be chosen one by one."""
    return type(operation) in KERNEL_LAYERS[:3] and operation.groups == 1


def kernel_layers(graph: Graph) -> dict[str, keras.Layer]:
    """The layers of a graph whose kernels can be chosen one by one, by name.

    Args:
        graph: The graph.

    Returns:
        Ungrouped convolutions and dense layers in topological order. Types are compared exactly:
        what a subclass does with its kernel is not known. Nor are layers with low-rank adapters.
    """
    return {
        call.name: call.operation
        for call in graph.layers()
        if is_convolution(call.operation) or type(call.operation) is keras.layers.Dense
        if not getattr(call.operation, "lora_enabled", False)
    }


def batch_norm_pairs(graph: Graph) -> dict[str, keras.Layer]:
    """The batch normalisation that follows each convolution and nothing else does.

    Args:
        graph: The graph.

    Returns:
        By name of the convolution (or dense layer), the normalisation of its output channels:
        found where it is the only reader, directly or behind zero padding, both are called once,
        and the layer has no activation of its own.
    """
    layers, pairs = kernel_layers(graph), {}
    for call in graph.layers():
        if call.name in layers and call.operation.activation is keras.activations.linear:
            first = getattr(call.operation, "data_format", None) == "channels_first"
            norm = _only_norm(graph, call, 1 if first else -1)
            if norm is not None:
                pairs[call.name] = norm
    return pairs


def _only_norm(graph: Graph, call: Call, axis: int) -> keras.Layer | None:
    """The normalisation of the channels, on some axis, that alone reads a call."""
    if graph.is_shared(call) or call.outputs[0] in graph.outputs:
        return None
    readers = graph.readers.get(call.outputs[0], ())
    if len(readers) != 1:
        return None
    (reader,) = readers
    if type(reader.operation) in PADDINGS:
        return _only_norm(graph, reader, axis)
    rank = len(graph.shapes[call.outputs[0]])
    if type(reader.operation) is not keras.layers.BatchNormalization or graph.is_shared(reader):
        return None
    return reader.operation if (reader.operation.axis - axis) % rank == 0 else None
