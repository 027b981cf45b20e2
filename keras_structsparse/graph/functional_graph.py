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

    @property
    def options(self) -> Mapping[str, Any]:
        """The keyword arguments of the call."""
        return _keras_compat.keyword_arguments(self._arguments)

    @property
    def is_training(self) -> bool:
        """Whether the call sets ``training=True`` and that is not the layer's default."""
        parameter = inspect.signature(self.operation.call).parameters.get("training")
        default = parameter is not None and parameter.default is True
        return bool(self.options.get("training")) and not default

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments with ``tensors`` in the places of its inputs."""
        return _keras_compat.filled(self._arguments, tensors)


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
        return _new_model(model.inputs[0], model.outputs[0], model.name)
    if not _is_plain(model):
        raise ModelError(
            f"Model '{model.name}' is of the subclassed type {type(model).__name__}, which has no "
            "graph of layers to read. Expected a functional or Sequential model. kss.traced makes "
            "a functional model of a call that uses only Keras layers and keras.ops."
        )
    inputs, outputs = _keras_compat.input_structure(model), _keras_compat.output_structure(model)
    return _new_model(inputs, outputs, model.name)


def _new_model(inputs: Any, outputs: Any, name: str) -> keras.Model:
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
    shapes: list[Shape] = []
    dtypes: list[str] = []
    symbols: list[Tensor] = []

    def number(tensor: Tensor) -> int:
        symbols.append(tensor)
        shapes.append(tuple(tensor.shape))
        dtypes.append(str(tensor.dtype))
        return len(shapes) - 1

    inputs = [number(t) for t in model.inputs]
    calls: list[Call] = []
    outputs = _walk(model, inputs, "", calls, number, () if nested else None)
    tensors = tuple(shapes), tuple(dtypes), tuple(symbols)
    return Graph(model, tuple(calls), tuple(inputs), tuple(outputs), *tensors)


def _walk(
    model: keras.Model,
    inputs: Sequence[int],
    prefix: str,
    calls: list[Call],
    number: Callable[[Tensor], int],
    given: Collection[int] | None = (),
) -> list[int]:
    """Append the calls of ``model`` on numbered tensors; return the numbers of its outputs.

    Those of its inputs that may be given masks are ``given``; None: nested models stay whole.
    """
    index = {id(t): i for t, i in zip(model.inputs, inputs, strict=True)}
    nodes = list(_keras_compat.nodes(model))
    hidden = may_differ(nodes, {key for key, i in index.items() if i in (given or ())})
    for node in nodes:
        operation, sources = node.operation, [index[id(t)] for t in node.inputs]
        training = _keras_compat.keyword_arguments(node.arguments).get("training")
        whole = given is None or training or not is_opened(operation)
        if not whole and has_its_own_masks(node, hidden):
            inner = functional(operation)
            sources = sources[: len(inner.inputs)]  # without masks, which are their own
            maybe = {index[id(t)] for t in node.inputs if id(t) in hidden or has_mask(t)}
            results = _walk(inner, sources, f"{prefix}{operation.name}/", calls, number, maybe)
        else:
            results = [number(t) for t in node.outputs]
            name = prefix + operation.name
            calls.append(Call(name, operation, tuple(sources), tuple(results), node.arguments))
        index.update({id(t): i for t, i in zip(node.outputs, results, strict=True)})
    return [index[id(t)] for t in model.outputs]


def is_opened(operation: keras.Operation) -> bool:
    """Whether :func:`read` lists the calls inside this operation: a nested model with a graph."""
    return _is_plain(operation) and operation.built


def _is_plain(operation: Any) -> bool:
    """Whether calling a model runs its graph and nothing else."""
    return any(
        isinstance(operation, kind) and type(operation).call is kind.call
        for kind in (keras.Sequential, _keras_compat.functional_class())
    )


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
    new_inputs = keras.tree.map_structure(
        lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name),
        _keras_compat.input_structure(graph.model),
    )
    values: dict[int, Tensor] = dict(zip(graph.inputs, keras.tree.flatten(new_inputs), strict=True))
    for call in graph.calls:
        results = replace(call, [values[i] for i in call.inputs])
        values.update(zip(call.outputs, results, strict=True))
    outputs = keras.tree.pack_sequence_as(
        _keras_compat.output_structure(graph.model), [values[i] for i in graph.outputs]
    )
    return _new_model(new_inputs, outputs, graph.model.name)


def again(inputs: Sequence[Tensor], output: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Call the operations between ``inputs`` and ``output`` once more, on other tensors.

    Args:
        inputs: Symbolic tensors that ``output`` was computed from.
        output: A symbolic tensor.
        tensors: New values of ``inputs``.

    Returns:
        The new value of ``output``.
    """
    values = {id(old): new for old, new in zip(inputs, tensors, strict=True)}

    def value(tensor: Tensor) -> Tensor:
        if id(tensor) not in values:
            node = _keras_compat.producer(tensor)
            new_inputs = [value(t) for t in node.inputs]
            args, kwargs = _keras_compat.filled(node.arguments, new_inputs)
            results = keras.tree.flatten(node.operation(*args, **kwargs))
            values.update(zip(map(id, node.outputs), results, strict=True))
        return values[id(tensor)]

    return value(output)


def operation_type(function: Callable[..., Tensor], inputs: int = 1) -> type[keras.Operation]:
    """The type of bare operation that a function of ``keras.ops`` adds to a graph.

    Args:
        function: The function. It is called on symbolic tensors of shape (1, 1).
        inputs: Its number of tensor arguments.

    Returns:
        The type.

    Examples:
        >>> operation_type(keras.ops.add, 2).__name__
        'Add'
    """
    output = function(*[keras.KerasTensor((1, 1)) for _ in range(inputs)])
    return type(_keras_compat.producer(output).operation)
