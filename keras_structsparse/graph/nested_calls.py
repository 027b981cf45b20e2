"""How a call hands its arguments to a nested model: by name, by order, with casts and ranks.

Keras does this when a nested model is called, so a graph that lists the calls inside the nested
model has to do the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import keras

from keras_structsparse import _keras_compat
from keras_structsparse._keras_compat import Node
from keras_structsparse._typing import Tensor
from keras_structsparse.graph.bare_operations import operation_type

NAMES = ("inputs", "training", "mask")
"""The parameters of the call of a functional or Sequential model, in order."""


def given_training(node: Node, outer: bool | None) -> bool | None:
    """The ``training`` that a call of a nested model hands on to the layers inside.

    Args:
        node: The call.
        outer: What the model around it hands on, which replaces that of the call; None if nothing.
    """
    return outer if outer is not None else call_arguments(node).get("training")


def given_inputs(node: Node, model: keras.Model) -> list[Tensor] | None:
    """The tensors that a call of a nested model gives to its inputs.

    Args:
        node: The call.
        model: The nested model, as a functional one.

    Returns:
        For each input of the model the tensor of the call; None if it is not certain, if the call
        has further arguments, or if only the model knows how many channels a tensor has: its layers
        cannot be called without that. Masks are not looked at.
    """
    arguments = call_arguments(node)
    others = [value for name, value in arguments.items() if name not in NAMES]
    if any(value is not None for value in keras.tree.flatten(others)):
        return None
    found = _in_order(arguments["inputs"], _keras_compat.input_structure(model), model)
    tensors = all(isinstance(tensor, keras.KerasTensor) for tensor in found)
    if not tensors or len(found) != len(model.inputs):
        return None
    return None if any(map(_loses_channels, found, model.inputs)) else found


def _loses_channels(tensor: Tensor, expected: Tensor) -> bool:
    """Whether the number of channels is open where an input of the nested model has one."""
    pairs = zip(tensor.shape[1:], expected.shape[1:], strict=False)
    opened = [outer is None and inner is not None for outer, inner in pairs]
    return len(opened) > 1 and opened[-1]


def _in_order(given: Any, expected: Any, model: keras.Model) -> list[Any]:
    """The arguments in the order of the inputs of the model; empty if it is not certain."""
    flat = keras.tree.flatten(given)[: len(model.inputs)]
    if not isinstance(given, dict):
        unsorted = isinstance(expected, dict) and list(expected) != sorted(expected)
        return [] if unsorted and len(flat) > 1 else flat
    if not isinstance(expected, dict):
        return [given.get(tensor.name) for tensor in model.inputs]
    # Keras takes the first ones in the order of the keys, surplus ones included.
    return flat if sorted(given)[: len(expected)] == sorted(expected) else []


def call_arguments(node: Node) -> Mapping[str, Any]:
    """The arguments of a call of a nested model by the names of its parameters."""
    args, kwargs = _keras_compat.filled(node.arguments, node.inputs)
    return {**dict(zip(NAMES, args, strict=False)), **kwargs}


def takes_training(operation: keras.Operation) -> bool:
    """Whether the call of a layer has a parameter ``training``."""
    return (
        isinstance(operation, keras.Layer)
        and "training" in inspect.signature(operation.call).parameters
    )


def hands_on_training(operation: keras.Operation) -> bool:
    """Whether all layers inside a layer learn of ``training`` by an argument of their own call.

    A layer without that parameter hands it on unseen to the layers that it calls.

    Args:
        operation: A layer, a nested model or a bare operation.
    """
    if not isinstance(operation, keras.Layer) or takes_training(operation):
        return True
    return not any(map(takes_training, _keras_compat.inner_layers(operation)))


def conversions(tensor: Tensor, expected: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The operations that fit a tensor to the dtype and the rank of an input.

    Args:
        tensor: The symbolic tensor of the call.
        expected: The input of the nested model.

    Yields:
        A name, the symbolic input of the operation, and its output.
    """
    if tensor.dtype != expected.dtype:
        before, operation = _like(tensor), _kind("cast")(dtype=expected.dtype, name="cast")
        tensor = operation(before)
        yield f"as_{expected.dtype}", before, tensor
    more = len(expected.shape) - len(tensor.shape)
    if more:
        before, kind = _like(tensor), "expand_dims" if more > 0 else "squeeze"
        yield kind, before, _kind(kind)(axis=-1, name=kind)(before)


def _like(tensor: Tensor) -> Tensor:
    return keras.KerasTensor(tensor.shape, dtype=tensor.dtype)


@cache
def _kind(name: str) -> type[keras.Operation]:
    examples: dict[str, Callable[[Tensor], Tensor]] = {
        "cast": lambda x: keras.ops.cast(x, "float16"),
        "expand_dims": lambda x: keras.ops.expand_dims(x, -1),
        "squeeze": lambda x: keras.ops.squeeze(x, -1),
    }
    return operation_type(examples[name])
