"""Read functional Keras models as graphs of calls, and build new models from them.

A :class:`Graph` is a value: :class:`Call` objects over tensors that are numbered.
"""

from __future__ import annotations

import collections
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Shape, Tensor
from keras_structsparse.errors import ModelError
from keras_structsparse.graph import nested_calls
from keras_structsparse.graph.mask_terms import has_its_own_masks, has_mask, may_differ


@dataclass(frozen=True)
class Call:
    """One call of one operation.

    Attributes:
        name: Name of the operation, after the names of the nested models around it, joined by "/".
        operation: The Keras layer or bare operation.
        inputs: Indices of the tensors among the arguments, in order.
        outputs: Indices of the tensors returned, in order.
    """

    name: str
    operation: keras.Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    _arguments: Any = field(repr=False, compare=False)
    _handed_on: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def options(self) -> Mapping[str, Any]:
        """The keyword arguments of the call, with what models around it hand on."""
        return {**_keras_compat.keyword_arguments(self._arguments), **self._handed_on}

    @property
    def is_training(self) -> bool:
        """Whether the call sets ``training=True`` and that is not the layer's default."""
        return bool(self.options.get("training")) and self.training_default is not True

    @property
    def training_default(self) -> Any:
        """What the operation takes for ``training`` if a call does not set it."""
        parameter = inspect.signature(self.operation.call).parameters.get("training")
        return None if parameter is None else parameter.default

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments with ``tensors`` in the places of its inputs."""
        args, kwargs = _keras_compat.filled(self._arguments, tensors)
        return args, {**kwargs, **self._handed_on}


@dataclass(frozen=True)
class Graph:
    """A functional model as calls in topological order over numbered tensors.

    Attributes:
        model: The model that was read, as a functional one.
        calls: The calls, each after those that produce its inputs. The calls inside nested models
            are listed in place of the nested model.
        inputs: Indices of the model's input tensors.
        outputs: Indices of the model's output tensors.
        shapes: Shape of every tensor, batch dimension first.
        dtypes: dtype of every tensor.
        tensors: The symbolic tensor that each number stands for.
    """

    model: keras.Model
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    tensors: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)

    @cached_property
    def readers(self) -> Mapping[int, tuple[Call, ...]]:
        """The calls that read each tensor."""
        readers = collections.defaultdict(list)
        for call in self.calls:
            for tensor in dict.fromkeys(call.inputs):
                readers[tensor].append(call)
        return {tensor: tuple(calls) for tensor, calls in readers.items()}

    @cached_property
    def calls_of(self) -> Mapping[int, tuple[Call, ...]]:
        """The calls of each operation, by the operation's ``id``."""
        calls = collections.defaultdict(list)
        for call in self.calls:
            calls[id(call.operation)].append(call)
        return {key: tuple(value) for key, value in calls.items()}

    def is_shared(self, call: Call) -> bool:
        """Whether the operation of ``call`` is called more than once."""
        return len(self.calls_of[id(call.operation)]) > 1

    @cached_property
    def hidden(self) -> frozenset[int]:
        """The ``id`` of all layers inside other layers, such as the one that a wrapper holds."""
        layers = (c.operation for c in self.calls if isinstance(c.operation, keras.Layer))
        return frozenset(id(i) for layer in layers for i in _keras_compat.inner_layers(layer))

    def layers(self) -> Iterator[Call]:
        """The first call of every layer, in topological order."""
        seen: set[int] = set()
        for call in self.calls:
            if isinstance(call.operation, keras.Layer) and id(call.operation) not in seen:
                seen.add(id(call.operation))
                yield call


def functional(model: keras.Model) -> keras.Model:
    """Return the model as an uncompiled functional model over the same layers.

    Args:
        model: A functional or a built Sequential model.

    Returns:
        A functional model that shares the layers and weights of ``model``.

    Raises:
        ModelError: ``model`` is subclassed, not built or not a model, so it has no graph.
    """
    if not isinstance(model, keras.Model):
        raise ModelError(f"Expected a keras.Model. Received: {type(model).__name__}")
    if isinstance(model, keras.Sequential) and _is_plain(model):
        if not model.built or not model.layers:
            raise ModelError(
                f"Sequential model '{model.name}' is not built, so its shapes are unknown. "
                "Give it a keras.Input as its first element, or call it once."
            )
        return new_model(model.inputs[0], model.outputs[0], model.name)
    if not _is_plain(model):
        raise ModelError(
            f"Model '{model.name}' is of the subclassed type {type(model).__name__}, which has no "
            "graph of layers to read. Expected a functional or Sequential model. kss.traced makes "
            "a functional model of a call that uses only Keras layers and keras.ops."
        )
    return renamed(model, model.name)


def renamed(model: keras.Model, name: str) -> keras.Model:
    """A functional model over the layers of another one, with another name."""
    inputs, outputs = _keras_compat.input_structure(model), _keras_compat.output_structure(model)
    return new_model(inputs, outputs, name)


def new_model(inputs: Any, outputs: Any, name: str) -> keras.Model:
    """A functional model between symbolic tensors; both may be nested structures."""
    return _keras_compat.functional_class()(inputs, outputs, name=name)


def input_structure(model: keras.Model) -> Any:
    """The input tensors of a functional or built Sequential model, nested as it takes them."""
    return _keras_compat.input_structure(functional(model))


def read(model: keras.Model, nested: bool = True) -> Graph:
    """Read the graph of a model, with the calls inside nested functional and Sequential models.

    Args:
        model: A functional or a built Sequential model.
        nested: Whether to list the calls inside nested models, instead of the call of the model.

    Returns:
        The graph; the model is not changed.

    Raises:
        ModelError: The model has no graph.

    Examples:
    >>> inputs = keras.Input((8, 8, 1))
    >>> model = keras.Model(inputs, keras.layers.Conv2D(2, 3, name="conv")(inputs))
    >>> [call.name for call in read(model).calls]
    ['conv']
    """
    model = functional(model)
    symbols: list[Tensor] = []

    def number(tensor: Tensor) -> int:
        symbols.append(tensor)
        return len(symbols) - 1

    inputs = [number(t) for t in model.inputs]
    calls: list[Call] = []
    outputs = _walk(model, inputs, "", calls, number, masked=() if nested else None)
    shapes, dtypes = (tuple(t.shape) for t in symbols), (str(t.dtype) for t in symbols)
    tensors = tuple(shapes), tuple(dtypes), tuple(symbols)
    return Graph(model, tuple(calls), tuple(inputs), tuple(outputs), *tensors)


def _walk(
    model: keras.Model,
    inputs: Sequence[int],
    prefix: str,
    calls: list[Call],
    number: Callable[[Tensor], int],
    training: bool | None = None,
    masked: Collection[int] | None = (),
) -> list[int]:
    """Append the calls of ``model`` on numbered tensors; return the numbers of its outputs.

    The call of the model hands on ``training``; None if it has no such argument. Those of its
    inputs that may be given masks are ``masked``; None: nested models stay whole.
    """
    index = {id(t): i for t, i in zip(model.inputs, inputs, strict=True)}
    nodes = list(_keras_compat.nodes(model))
    hidden = may_differ(nodes, {key for key, i in index.items() if i in (masked or ())})
    for node in nodes:
        operation, path = node.operation, f"{prefix}{node.operation.name}"
        given = None if masked is None else _given(node, training, hidden)
        if given is not None:
            inner, mode = functional(operation), nested_calls.given_training(node, training)
            pairs = zip(given, inner.inputs, strict=True)
            sources = [_fitted(index[id(t)], t, own, path, calls, number) for t, own in pairs]
            maybe = {i for i, t in zip(sources, given, strict=True) if _may_be_masked(t, hidden)}
            results = _walk(inner, sources, f"{path}/", calls, number, mode, maybe)
        else:
            sources = [index[id(t)] for t in node.inputs]
            results = [number(t) for t in node.outputs]
            known = training is not None and nested_calls.takes_training(operation)
            handed = {"training": training} if known else {}
            call = Call(path, operation, tuple(sources), tuple(results), node.arguments, handed)
            calls.append(call)
        index.update({id(t): i for t, i in zip(node.outputs, results, strict=True)})
    return [index[id(t)] for t in model.outputs]


def _given(
    node: _keras_compat.Node, outer: bool | None, hidden: Collection[int]
) -> list[Tensor] | None:
    """What a call gives to the inputs of a nested model; None if it remains one call."""
    if not is_opened(node.operation) or not has_its_own_masks(node, hidden):
        return None
    inner = functional(node.operation)
    training = nested_calls.given_training(node, outer)
    if training and not all(map(nested_calls.hands_on_training, _operations(inner))):
        return None
    given = nested_calls.given_inputs(node, inner)
    if given is None:
        return None
    # Keras hands masks on through these conversions; bare operations would drop them.
    changed = any(
        any(nested_calls.conversions(t, own)) and _may_be_masked(t, hidden)
        for t, own in zip(given, inner.inputs, strict=True)
    )
    return None if changed else given


def _may_be_masked(tensor: Tensor, hidden: Collection[int]) -> bool:
    return id(tensor) in hidden or has_mask(tensor)


def _operations(model: keras.Model) -> Iterator[keras.Operation]:
    """The operations of a functional model, with those inside nested models."""
    for node in _keras_compat.nodes(model):
        yield node.operation
        if is_opened(node.operation):
            yield from _operations(functional(node.operation))


def _fitted(
    index: int,
    tensor: Tensor,
    expected: Tensor,
    path: str,
    calls: list[Call],
    number: Callable[[Tensor], int],
) -> int:
    """The number of a tensor with the dtype and rank of the input of a nested model."""
    for name, _, result in nested_calls.conversions(tensor, expected):
        node, source, index = _keras_compat.producer(result), index, number(result)
        calls.append(Call(f"{path}/{name}", node.operation, (source,), (index,), node.arguments))
    return index


def is_opened(operation: keras.Operation) -> bool:
    """Whether :func:`read` lists the calls inside this operation: a nested model with a graph."""
    return _is_plain(operation) and operation.built


def _is_plain(operation: Any) -> bool:
    """Whether calling a model runs its graph and nothing else."""
    return any(
        isinstance(operation, kind) and type(operation).call is kind.call
        for kind in (keras.Sequential, _keras_compat.functional_class())
    )
