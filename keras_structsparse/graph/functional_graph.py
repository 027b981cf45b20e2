"""Read and rebuild functional Keras graphs.

The only file that touches Keras' graph internals (nodes, histories, private classes): everything
else sees a :class:`Graph` of :class:`Call` values with integers for tensors.
"""

from __future__ import annotations

import collections
import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
from keras.src.models.functional import Functional

from keras_structsparse._typing import Shape, Tensor
from keras_structsparse.errors import ModelError

_notes: weakref.WeakKeyDictionary[keras.Model, tuple[str, ...]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Call:
    """One call of one operation: an edge-labelled node of the graph.

    Attributes:
        name: Name of the operation; with the names of the nested models around it, joined by "/".
        operation: The Keras layer or bare operation.
        inputs: Indices of the tensors among the arguments, in order.
        outputs: Indices of the tensors returned, in order.
    """

    name: str
    operation: keras.Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    _arguments: Any = field(repr=False, compare=False)

    @property
    def options(self) -> Mapping[str, Any]:
        """The keyword arguments of the call."""
        return self._arguments.kwargs

    @property
    def is_training(self) -> bool:
        """Whether the call asks for training; layers of images do by default, and mean nothing."""
        parameter = inspect.signature(self.operation.call).parameters.get("training")
        default = parameter is not None and parameter.default is True
        return bool(self.options.get("training")) and not default

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments with ``tensors`` in the places of its inputs."""
        values = {id(t): v for t, v in zip(self._arguments.keras_tensors, tensors, strict=True)}
        args, kwargs = self._arguments.fill_in(values)
        return args, kwargs


@dataclass(frozen=True)
class Graph:
    """A functional model as a value: calls in topological order over numbered tensors.

    Attributes:
        model: The model that was read, as a functional one.
        calls: The calls, each after those that produce its inputs; nested models are opened.
        inputs: Indices of the model's input tensors.
        outputs: Indices of the model's output tensors.
        shapes: Shape of every tensor, batch dimension first.
        dtypes: Type of every tensor.
    """

    model: keras.Model
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]

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

    def layers(self) -> Iterator[Call]:
        """The first call of every layer, in topological order."""
        seen: set[int] = set()
        for call in self.calls:
            if isinstance(call.operation, keras.Layer) and id(call.operation) not in seen:
                seen.add(id(call.operation))
                yield call


def functional(model: keras.Model) -> keras.Model:
    """The model as an uncompiled functional model over the same layers.

    Args:
        model: A functional or a built Sequential model.

    Returns:
        A functional model that shares the layers and weights of ``model``.

    Raises:
        ModelError: ``model`` has no graph: it is subclassed or not built, or not a model.
    """
    if not isinstance(model, keras.Model):
        raise ModelError(f"Expected a keras.Model. Received: {type(model).__name__}")
    if isinstance(model, keras.Sequential) and _is_plain(model):
        if not model.built or not model.layers:
            raise ModelError(
                f"Sequential model '{model.name}' is not built, so its shapes are unknown. "
                "Give it a keras.Input as its first element, or call it once."
            )
        return Functional(model.inputs[0], model.outputs[0], name=model.name)
    if not _is_plain(model):
        raise ModelError(
            f"Model '{model.name}' is of the subclassed type {type(model).__name__}, which has no "
            "graph of layers to read. Expected a functional or Sequential model; kss.traced makes "
            "one of a call that is made of Keras layers and keras.ops."
        )
    return Functional(model._inputs_struct, model._outputs_struct, name=model.name)


def read(model: keras.Model) -> Graph:
    """Read a model's graph, with nested functional and Sequential models opened.

    Args:
        model: A functional or a built Sequential model.

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
    shapes: list[Shape] = []
    dtypes: list[str] = []

    def number(tensor: Tensor) -> int:
        shapes.append(tuple(tensor.shape))
        dtypes.append(str(tensor.dtype))
        return len(shapes) - 1

    inputs = [number(t) for t in model.inputs]
    calls: list[Call] = []
    outputs = _walk(model, inputs, "", calls, number)
    tensors = tuple(shapes), tuple(dtypes)
    return Graph(model, tuple(calls), tuple(inputs), tuple(outputs), *tensors)


def input_structure(model: keras.Model) -> Any:
    """How the inputs of a functional model are nested."""
    return functional(model)._inputs_struct


def _walk(
    model: keras.Model,
    inputs: Sequence[int],
    prefix: str,
    calls: list[Call],
    number: Callable[[Tensor], int],
) -> list[int]:
    """Append the calls of ``model`` on the numbered ``inputs``; the numbers of its outputs."""
    index = {id(t): i for t, i in zip(model.inputs, inputs, strict=True)}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            operation, sources = node.operation, [index[id(t)] for t in node.input_tensors]
            if is_opened(operation) and not node.arguments.kwargs.get("training"):
                inner = functional(operation)
                results = _walk(inner, sources, f"{prefix}{operation.name}/", calls, number)
            else:
                results = [number(t) for t in node.outputs]
                name = prefix + operation.name
                calls.append(Call(name, operation, tuple(sources), tuple(results), node.arguments))
            index.update({id(t): i for t, i in zip(node.outputs, results, strict=True)})
    return [index[id(t)] for t in model.outputs]


def is_opened(operation: keras.Operation) -> bool:
    """Whether reading a graph goes into this operation: a nested model that is only a graph."""
    return _is_plain(operation) and operation.built


def _is_plain(operation: Any) -> bool:
    """Whether calling a model follows its graph and nothing else."""
    return any(
        isinstance(operation, kind) and type(operation).call is kind.call
        for kind in (keras.Sequential, Functional)
    )


def rebuild(
    graph: Graph, replace: Callable[[Call, list[Tensor | None]], Sequence[Tensor | None]]
) -> keras.Model:
    """Build a new model by replacing every call of a graph.

    Args:
        graph: The graph to follow.
        replace: Receives a call and its new input tensors (None for a tensor that is gone) and
            returns the new output tensors (None likewise).

    Returns:
        A functional model with the same input and output structure.
    """
    structure = graph.model._inputs_struct
    new_inputs = keras.tree.map_structure(
        lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name), structure
    )
    values: dict[int, Tensor] = dict(zip(graph.inputs, keras.tree.flatten(new_inputs), strict=True))
    for call in graph.calls:
        results = replace(call, [values[i] for i in call.inputs])
        values.update(zip(call.outputs, results, strict=True))
    outputs = keras.tree.pack_sequence_as(
        graph.model._outputs_struct, [values[i] for i in graph.outputs]
    )
    return Functional(new_inputs, outputs, name=graph.model.name)


def again(inputs: Sequence[Tensor], output: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """What the layers and operations from ``inputs`` to ``output`` make of other tensors."""
    values = {id(old): new for old, new in zip(inputs, tensors, strict=True)}

    def value(tensor: Tensor) -> Tensor:
        if id(tensor) not in values:
            operation, place, _ = tensor._keras_history
            node = operation._inbound_nodes[place]
            args, kwargs = node.arguments.fill_in({id(t): value(t) for t in node.input_tensors})
            results = keras.tree.flatten(operation(*args, **kwargs))
            values.update(zip(map(id, node.outputs), results, strict=True))
        return values[id(tensor)]

    return value(output)


def detached(operation: keras.Operation, name: str | None = None) -> keras.Operation:
    """The same instance once more, without its place in a graph."""
    # Not copy.copy: it saves and loads, which fails for arguments that cannot be saved.
    twin = object.__new__(type(operation))
    twin.__dict__.update(operation.__dict__)
    twin.__dict__.update(_inbound_nodes=[], _outbound_nodes=[], name=name or operation.name)
    return twin


def recorded_config(layer: keras.Layer) -> dict[str, Any] | None:
    """The arguments that a layer was made with, as Keras wrote them down.

    Args:
        layer: The layer.

    Returns:
        A configuration; None where an argument is more than a number, a text or None, for then
        Keras writes nothing down.

    Examples:
        >>> recorded_config(keras.layers.Dense(3, name="d"))["units"]
        3
    """
    recorded = getattr(layer, "_auto_config", None)
    if recorded is None:
        return None
    return {**recorded.config, **keras.layers.Layer.get_config(layer)}


def operation_type(function: Callable[..., Tensor], inputs: int = 1) -> type[keras.Operation]:
    """The type of bare operation that a function of ``keras.ops`` adds to a graph.

    Args:
        function: The function; called on symbolic tensors of shape (1, 1).
        inputs: How many tensors it takes.

    Returns:
        The type.

    Examples:
        >>> operation_type(keras.ops.add, 2).__name__
        'Add'
    """
    output = function(*[keras.KerasTensor((1, 1)) for _ in range(inputs)])
    return type(output._keras_history.operation)


def note(model: keras.Model, sentences: Sequence[str]) -> None:
    """Remember, in this process, what is worth knowing about how a model was made."""
    _notes[model] = tuple(sentences)


def notes(model: keras.Model) -> tuple[str, ...]:
    """What surgery left as it was, and why.

    Args:
        model: A model that :func:`keras_structsparse.prune` returned in this process.

    Returns:
        One sentence per layer; empty for any other model.
    """
    return _notes.get(model, ())
