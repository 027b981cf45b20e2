"""Multiply-adds of single layers, and the shapes of all tensors of a network."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_structsparse._typing import Shape, Tensor
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.data_format import spatial_shape
from keras_structsparse.graph.functional_graph import Call, Graph


@functools.singledispatch
def multiply_adds(layer: keras.Operation, call: Call, shapes: Mapping[int, Shape]) -> int | None:
    """The multiply-adds of one call of a layer or a bare operation, for one example.

    Args:
        layer: The layer or bare operation; its type selects the formula.
        call: The call.
        shapes: The shape of every tensor, batch axis first.

    Returns:
        The count; None for an unknown type that may compute a matrix product.

    Raises:
        ModelError: The size of the map is open.
    """
    return None if any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ())) else 0


def _unknown(layer: keras.Operation, call: Call, shapes: Mapping[int, Shape]) -> None:
    return None


def _nothing(layer: keras.Operation, call: Call, shapes: Mapping[int, Shape]) -> int:
    return 0


def _at_outputs(layer: keras.Layer, call: Call, shapes: Mapping[int, Shape]) -> int:
    return _places(call, shapes[call.outputs[0]]) * math.prod(layer.kernel.shape)


def _at_inputs(layer: keras.Layer, call: Call, shapes: Mapping[int, Shape]) -> int:
    return _places(call, shapes[call.inputs[0]]) * math.prod(layer.kernel.shape)


def _separable(layer: keras.Layer, call: Call, shapes: Mapping[int, Shape]) -> int:
    depthwise = math.prod(layer.depthwise_kernel.shape)
    pointwise = math.prod(layer.pointwise_kernel.shape)
    return _places(call, shapes[call.outputs[0]]) * (depthwise + pointwise)


def _recurrent(layer: keras.Layer, call: Call, shapes: Mapping[int, Shape]) -> int:
    shape = shapes[call.inputs[0]]
    cells = [
        getattr(layer, name) for name in ("forward_layer", "backward_layer") if hasattr(layer, name)
    ]
    kernels = [k for one in cells or [layer] for k in (one.cell.kernel, one.cell.recurrent_kernel)]
    return _steps(call, shape) * sum(math.prod(kernel.shape) for kernel in kernels)


_COUNTS = {
    _at_outputs: (
        kl.Conv1D,
        kl.Conv2D,
        kl.Conv3D,
        kl.Dense,
        kl.DepthwiseConv1D,
        kl.DepthwiseConv2D,
    ),
    _at_inputs: (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose),
    _recurrent: (kl.SimpleRNN, kl.LSTM, kl.GRU),
    _separable: (kl.SeparableConv1D, kl.SeparableConv2D),
    # Their weights may have two axes, but there is no matrix product.
    _nothing: (kl.Embedding, kl.PReLU, kl.BatchNormalization, kl.LayerNormalization),
}
for _count, _kinds in _COUNTS.items():
    for _kind in _kinds:
        multiply_adds.register(_kind, _count)


def _square(x: Tensor) -> Tensor:
    return ops.reshape(x, (1, 1, 1, 1))


_ONE = np.ones((1, 1, 1, 1), "float32")
_PRODUCTS = (
    *(ops.matmul, ops.dot, ops.inner, ops.vdot),
    lambda x, y: ops.tensordot(x, y, 1),
    lambda x, y: ops.einsum("ij,jk->ik", x, y),
    lambda x, y: ops.correlate(ops.reshape(x, (1,)), ops.reshape(y, (1,))),
    lambda x, y: ops.conv(_square(x), _ONE),
    lambda x, y: ops.depthwise_conv(_square(x), _ONE),
    lambda x, y: ops.separable_conv(_square(x), _ONE, _ONE),
    lambda x, y: ops.conv_transpose(_square(x), _ONE, strides=1),
    lambda x, y: ops.dot_product_attention(*map(_square, (x, y, y))),
)
"""Sums of products of tensors, as functions of two; no formula counts them."""

PRODUCTS = frozenset(operation_type(function, 2) for function in _PRODUCTS)
"""The types of these bare operations."""

for _kind in (*PRODUCTS, kl.Dot, kl.Attention, kl.AdditiveAttention):
    multiply_adds.register(_kind, _unknown)


def _steps(call: Call, shape: Shape) -> int:
    if shape[1] is None:
        raise ModelError(
            f"Layer '{call.name}': expected a sequence of known length. Received the shape "
            f"{shape}. Pass input_shape=(steps, features), on the command line for example "
            "--input-shape 100,6."
        )
    return shape[1]


def _places(call: Call, shape: Shape) -> int:
    """The number of positions of a feature map."""
    sides = spatial_shape(call.operation, shape)
    if None in sides:
        raise ModelError(
            f"Layer '{call.name}': expected a map of known size. Received the shape {shape}. "
            "Pass input_shape=(height, width, channels), on the command line for example "
            "--input-shape 224,224,3."
        )
    return math.prod(side or 0 for side in sides)


# --- shapes ---


def shapes_of(network: Graph, input_shape: Sequence[Any] | None) -> Mapping[int, Shape]:
    """The shape of every tensor, batch axis first, for given shapes of the inputs.

    Args:
        network: The graph.
        input_shape: As for :func:`keras_structsparse.profile`; None for the shapes of the graph.

    Returns:
        The shapes by index of the tensor.

    Raises:
        ModelError: ``input_shape`` does not fit the model.
    """
    if input_shape is None:
        return dict(enumerate(network.shapes))
    specs = {
        tensor: keras.KerasTensor((network.shapes[tensor][0], *shape), given.dtype)
        for tensor, shape, given in zip(
            network.inputs, _fitting(network, input_shape), network.model.inputs, strict=True
        )
    }
    for call in network.calls:
        args, kwargs = call.arguments([specs[i] for i in call.inputs])
        try:
            outputs = keras.tree.flatten(call.operation.compute_output_spec(*args, **kwargs))
        except ValueError as error:
            raise ModelError(
                f"Layer '{call.name}' does not take input_shape={input_shape!r}: {error}"
            ) from error
        specs.update(zip(call.outputs, outputs, strict=True))
    return {tensor: tuple(spec.shape) for tensor, spec in specs.items()}


def _fitting(network: Graph, input_shape: Sequence[Any]) -> list[tuple[int, ...]]:
    single = not any(isinstance(side, Sequence) for side in input_shape)
    given = [tuple(shape) for shape in ([input_shape] if single else input_shape)]
    known = [network.shapes[tensor][1:] for tensor in network.inputs]
    if list(map(len, given)) != list(map(len, known)) or not all(
        isinstance(side, int) and side > 0 and fixed in (None, side)
        for sides, shape in zip(given, known, strict=True)
        for side, fixed in zip(sides, shape, strict=True)
    ):
        raise ModelError(
            f"input_shape: expected {known if len(known) > 1 else known[0]} with a number for "
            f"each None. Received: {input_shape!r}"
        )
    return given
