"""What a network computes in front of its last softmax, sigmoid or tanh.

Random inputs saturate the last activation of a trained network: its outputs are 0 and 1, whatever
its kernels are within a few percent. In front of it, every difference shows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.functional_graph import Call, Graph
from keras_structsparse.graph.kernel_axes import KERNELS
from keras_structsparse.graph.rebuilding import Rebuilder, rebuild

FUNCTIONS = MappingProxyType(
    {
        keras.activations.softmax: "softmax",
        ops.softmax: "softmax",
        keras.activations.sigmoid: "sigmoid",
        ops.sigmoid: "sigmoid",
        keras.activations.tanh: "tanh",
        ops.tanh: "tanh",
    }
)
"""The activation functions that saturate."""

WHOLE = MappingProxyType(
    {
        layers.Softmax: "softmax",
        operation_type(lambda x: ops.softmax(ops.repeat(x, 2, axis=-1))): "softmax",
        operation_type(ops.sigmoid): "sigmoid",
        operation_type(ops.tanh): "tanh",
    }
)
"""The layers and bare operations that are nothing but such a function."""

LEAST = 1e-30
"""Smaller probabilities than this may be 0 in float32."""

MOST = 1 - 1e-3
"""Above it, float32 loses the logits of a sigmoid and a tanh."""

INVERSES: MappingProxyType[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "softmax": lambda p: np.log(np.maximum(p, LEAST)),
        "sigmoid": lambda p: _logit(np.clip(p, LEAST, MOST)),
        "tanh": lambda y: np.arctanh(np.clip(y, -MOST, MOST)),
    }
)


def kinds(model: keras.Model) -> tuple[str, ...]:
    """The kind of the last activation in front of each output.

    Args:
        model: A functional or built Sequential model.

    Returns:
        "softmax", "sigmoid" or "tanh" for each output; empty texts for others, and where something
        else reads the output or calls its layer.

    Raises:
        ModelError: The model has no graph.

    Examples:
        >>> kinds(keras.Sequential([keras.Input((4,)), layers.Dense(2, activation="softmax")]))
        ('softmax',)
    """
    return tuple(_kind(call) if call else "" for call in _last_calls(functional_graph.read(model)))


def in_front(model: keras.Model, places: Collection[int]) -> keras.Model:
    """A copy of a model without the last activation in front of some of its outputs.

    Args:
        model: A functional or built Sequential model; it is not changed.
        places: Positions of the outputs, each of which has a kind.

    Returns:
        The copy, with the same structure of outputs.

    Raises:
        ModelError: The model has no graph, or a layer cannot be copied.

    Examples:
        >>> model = keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.Softmax()])
        >>> [type(layer).__name__ for layer in in_front(model, [0]).layers]
        ['InputLayer', 'Dense']
    """
    graph = functional_graph.read(model)
    found = [call for place, call in enumerate(_last_calls(graph)) if call and place in places]
    last = [call.operation for call in found]
    copies = Rebuilder(graph, [each for each in last if _is_whole(each)])
    kept = {id(each) for each in last if not _is_whole(each)}

    def replace(call: Call, tensors: list[Tensor | None]) -> Sequence[Tensor | None]:
        outputs = copies(call, tensors)
        if id(call.operation) in kept:
            twin: Any = copies.copies[id(call.operation)]
            twin.activation = keras.activations.linear
        return outputs

    return rebuild(graph, replace)


def inverted(outputs: Array, kind: str) -> Array:
    """The values in front of an activation, as far as its outputs in float32 tell them.

    Args:
        outputs: Its outputs.
        kind: "softmax", "sigmoid" or "tanh". Those of a softmax are told but for a constant.

    Returns:
        An array of the same shape; outputs that are saturated are all the same there.

    Examples:
        >>> inverted(np.array([0.5, 1e-6]), "sigmoid").round(1).tolist()
        [0.0, -13.8]
    """
    return INVERSES[kind](outputs)


def _last_calls(graph: Graph) -> list[Call | None]:
    """The call that computes each output, if nothing else depends on its activation."""
    calls = {tensor: call for call in graph.calls for tensor in call.outputs}
    return [
        call if call and _kind(call) and not _is_read(graph, tensor, call) else None
        for tensor, call in ((tensor, calls.get(tensor)) for tensor in graph.outputs)
    ]


def _is_read(graph: Graph, tensor: int, call: Call) -> bool:
    """Whether something else reads an output of a call or needs its operation."""
    shared = graph.is_shared(call) or id(call.operation) in graph.hidden
    return shared or tensor in graph.readers or graph.outputs.count(tensor) > 1


def _is_whole(operation: keras.Operation) -> bool:
    return type(operation) in WHOLE or type(operation) is layers.Activation


def _kind(call: Call) -> str:
    operation = call.operation
    if len(call.inputs) != 1 or len(call.outputs) != 1:
        return ""  # as a softmax with a mask
    if type(operation) in WHOLE:
        return WHOLE[type(operation)]
    if type(operation) not in KERNELS and type(operation) is not layers.Activation:
        return ""  # a recurrent layer has an activation within
    function = getattr(operation, "activation", None)
    return FUNCTIONS.get(function, "") if getattr(function, "__hash__", None) else ""


def _logit(p: Array) -> Array:
    return np.log(p) - np.log1p(-p)
