"""Replace layers that are composed of other layers by nested models of these layers."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from numbers import Number
from types import EllipsisType
from typing import Any

import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Tensor
from keras_structsparse.errors import ModelError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.cloning import clone, input_like
from keras_structsparse.graph.masks import follow
from keras_structsparse.graph.tracing import check_outputs

PLAIN = (keras.KerasTensor, Number, str, slice, EllipsisType, type(None))
OWN = frozenset(kind for kind in vars(keras.layers).values() if isinstance(kind, type))
"""Keras' own layers; surgery has rules for them, so they are not opened."""


def opened(model: keras.Model) -> keras.Model:
    """Return a model in which layers composed of other layers are nested models of these layers.

    Then regularizers, plans and surgery can use the convolutions inside. Layers and weights are
    those of the model, not copies. A layer is opened if the nested model is equivalent: the layer's
    call runs on symbolic tensors, does the same in training, and uses no weights or arrays except
    those of the layers that it calls. Other layers, layers called more than once, and layers that
    receive or make masks or receive optional inputs, are kept.

    Args:
        model: A functional or built Sequential model.

    Returns:
        A functional model that computes the same. An opened layer is a nested model of its name.

    Raises:
        ModelError: The model has no graph.

    Examples:
        >>> class Block(keras.layers.Layer):
        ...     def __init__(self):
        ...         super().__init__(name="block")
        ...         self.conv = keras.layers.Conv2D(4, 3, name="conv")
        ...     def call(self, x):
        ...         return keras.ops.relu(self.conv(x))
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), Block()])
        >>> [call.name for call in functional_graph.read(opened(model)).layers()]
        ['block/conv']
    """
    network = functional_graph.read(model)
    masks = follow(network)
    # A nested model hands on the masks that the layers inside hand on, a layer what it says itself.
    masked = {
        id(call.operation)
        for call in network.calls
        if any(index in masks.beside for index in (*call.inputs, *call.outputs))
    }
    return _opened(model, masked)


def _opened(model: keras.Model, kept: Collection[int]) -> keras.Model:
    """The model with opened layers, except those to keep, by ``id``."""
    source, network = functional_graph.functional(model), functional_graph.read(model)
    shared = {key for key, calls in network.calls_of.items() if len(calls) > 1}

    def same(operation: keras.Operation) -> keras.Operation:
        return _opened(operation, kept) if functional_graph.is_opened(operation) else operation

    def called(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        if _may_open(operation, kwargs) and id(operation) not in {*shared, *kept}:
            tensors = _tensors((args, kwargs))
            if any(map(_is_optional, tensors)):
                return operation(*args, **kwargs)  # It may be called with None.
            inner = _inside(operation, tensors, args, kwargs)
            if inner is not None:
                return inner(tensors[0] if len(tensors) == 1 else tensors)
        return operation(*args, **kwargs)

    inputs = keras.tree.map_structure(input_like, functional_graph.input_structure(model))
    return keras.models.clone_model(
        source, input_tensors=inputs, clone_function=same, call_function=called
    )


def _may_open(operation: keras.Operation, options: dict[str, Any]) -> bool:
    return (
        isinstance(operation, keras.Layer)
        and not isinstance(operation, keras.Model)
        and type(operation) not in OWN
        and not options.get("training")
        and options.get("mask") is None
    )


def _inside(
    layer: keras.Layer, tensors: Sequence[Tensor], args: Any, kwargs: Any
) -> keras.Model | None:
    """The call of a layer on tensors as a model; None if the model would not be equivalent."""
    if any(tensor.dtype != layer.compute_dtype for tensor in tensors):
        return None  # the layer would cast them
    try:
        model = _traced(layer, tensors, args, kwargs)
        options = {**kwargs, "training": True} if _knows_training(layer) else kwargs
        trained = _traced(layer, tensors, args, options)
    except Exception:  # a user's code may raise anything on symbolic tensors
        return None
    kinds = [
        [type(call.operation) for call in functional_graph.read(m).calls] for m in (model, trained)
    ]
    found = {id(weight) for weight in model.weights}
    complete = all(id(weight) in found for weight in layer.weights)
    whole = kinds[0] != kinds[1] or not complete or not _is_plain(model)
    if whole or not _agree(layer, model, args, kwargs):
        return None
    inner = opened(model)
    return inner if _can_be_copied(inner) else None


def _traced(layer: keras.Layer, tensors: Sequence[Tensor], args: Any, kwargs: Any) -> keras.Model:
    inputs = [_like(tensor) for tensor in tensors]
    places = iter(inputs)
    args, kwargs = keras.tree.map_structure(
        lambda x: next(places) if _is_tensor(x) else x, (args, kwargs)
    )
    outputs = layer.call(*args, **kwargs)
    return keras.Model(inputs, outputs, name=layer.name)


def _knows_training(layer: keras.Layer) -> bool:
    return "training" in inspect.signature(layer.call).parameters


def _is_plain(model: keras.Model) -> bool:
    """Whether no call of the model has an array or a variable among its arguments."""
    calls = functional_graph.read(model).calls
    arguments = [call.arguments([None] * len(call.inputs)) for call in calls]
    return all(isinstance(value, PLAIN) for value in keras.tree.flatten(arguments))


def _agree(layer: keras.Layer, model: keras.Model, args: Any, kwargs: Any) -> bool:
    """Whether both compute the same; a call may depend on the batch size or on random numbers."""
    rng = np.random.default_rng(0)

    def drawn(value: Any) -> Any:
        return _random(rng, value) if _is_tensor(value) else value

    args, kwargs = keras.tree.map_structure(drawn, (args, kwargs))
    arrays = [value for value in keras.tree.flatten((args, kwargs)) if keras.ops.is_tensor(value)]
    try:
        # Explicit, or a layer inside that trains by default would put the others in training mode.
        expected = layer(*args, **{**kwargs, "training": False})
        check_outputs(layer.name, expected, model(arrays, training=False))
    except Exception:  # ModelError for other outputs, or anything that a call raises
        return False
    return True


def _random(rng: np.random.Generator, tensor: Tensor) -> Tensor:
    shape = [2 if size is None else size for size in tensor.shape]
    return keras.ops.convert_to_tensor(rng.normal(size=shape), dtype=tensor.dtype)


def _can_be_copied(model: keras.Model) -> bool:
    """Whether every layer can be made from its configuration, which surgery requires."""
    try:
        return all(
            clone(call.operation) is not None for call in functional_graph.read(model).layers()
        )
    except ModelError:
        return False


def _is_optional(tensor: Tensor) -> bool:
    return bool(getattr(_keras_compat.producer(tensor).operation, "optional", False))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def _tensors(structure: Any) -> list[Tensor]:
    return [value for value in keras.tree.flatten(structure) if _is_tensor(value)]


def _like(tensor: Tensor) -> Tensor:
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
