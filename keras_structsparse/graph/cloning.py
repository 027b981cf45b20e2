"""Copy layers and models, without the regularizers and the records of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Tensor
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.embedded_text import plain_policy, without_text
from keras_structsparse.graph.functional_graph import (
    functional,
    input_structure,
    is_opened,
    read,
    renamed,
)

OUR_PACKAGE = "keras_structsparse>"
KNOWN = tuple(function for function in vars(keras.activations).values() if callable(function))
"""The functions that a configuration says by name."""

REFUSALS = (NotImplementedError, OSError, TypeError, ValueError)
"""What Keras raises where a layer cannot be made from a configuration."""


def clone(operation: keras.Operation, **changes: Any) -> keras.Operation:
    """Make a new operation of the same type and configuration, without weights or calls.

    Regularizers of this package are left out, so that the copy needs only Keras to load, and so is
    the record of surgery that a layer of a pruned model may hold. If the ``get_config`` of a layer
    does not fit its constructor, the arguments that Keras wrote down when the layer was made are
    used instead.

    Args:
        operation: The layer or bare operation.
        **changes: Entries of its configuration to replace.

    Returns:
        The new operation. A layer without weights that cannot be made from its configuration, such
        as a Lambda of a Python function, is copied as an instance.

    Raises:
        ModelError: The layer has weights and cannot be made from its configuration.
    """
    if is_opened(operation):
        twin = _same_structure(functional(operation), lambda layer: {}, {})
        return renamed(twin, changes.get("name", operation.name))
    try:
        return _made(operation, _config(operation), changes)
    except REFUSALS as error:
        if not getattr(operation, "weights", None):
            twin = _keras_compat.without_calls(operation, changes.get("name", operation.name))
            if "dtype" in changes:
                twin.dtype_policy = keras.dtype_policies.get(changes["dtype"])
            return twin
        recorded = recorded_config(operation)
        if recorded is not None:
            with suppress(*REFUSALS):
                return _made(operation, recorded, changes)
        raise ModelError(
            f"Layer '{operation.name}' of type {type(operation).__name__} cannot be copied "
            f"from its configuration: {error}"
        ) from error


def recorded_config(layer: keras.Layer) -> dict[str, Any] | None:
    """The configuration of a layer from the arguments that Keras wrote down when it was made.

    Args:
        layer: The layer.

    Returns:
        The configuration; None if an argument is not a number, a text or None, since then Keras
        writes nothing down.

    Examples:
        >>> recorded_config(keras.layers.Dense(3, name="d"))["units"]
        3
    """
    arguments = _keras_compat.constructor_arguments(layer)
    return None if arguments is None else {**arguments, **keras.layers.Layer.get_config(layer)}


def _made(
    operation: keras.Operation, config: Mapping[str, Any], changes: Mapping[str, Any]
) -> keras.Operation:
    own = plain_policy(getattr(operation, "dtype_policy", None))
    entries = {**_without_ours(config), **_activations(operation, config, changes), **changes}
    with _policy(changes.get("dtype", own)):
        return type(operation).from_config(entries)


def _config(operation: keras.Operation) -> dict[str, Any]:
    """The configuration of an operation, where Keras has names for what it holds.

    Keras would look for the source of functions that it has no name for, to warn of them.
    """
    nameless = [n for n, v in vars(operation).items() if _is_activation(n, v) and v not in KNOWN]
    if not nameless:
        return dict(operation.get_config())
    twin = _keras_compat.without_calls(operation, operation.name)
    vars(twin).update(dict.fromkeys(nameless, keras.activations.linear))
    return dict(twin.get_config())


def _is_activation(name: str, value: Any) -> bool:
    return "activation" in name and callable(value)


def _activations(
    operation: keras.Operation, config: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The activations of a layer that are not functions of ``keras.activations``.

    A configuration holds the name of a function alone, which may be that of another function.
    """
    values = {name: getattr(operation, name, None) for name in config}
    dtype = {"dtype": changes["dtype"]} if "dtype" in changes else {}
    return {
        name: _layer_again(value, dtype) if isinstance(value, keras.Layer) else value
        for name, value in values.items()
        if _is_activation(name, value) and value not in KNOWN
    }


def _layer_again(layer: keras.Layer, dtype: Mapping[str, Any]) -> keras.Operation:
    """A copy of a layer that is an activation, with weights if it has some."""
    twin = clone(layer, **dtype)
    if layer.weights and layer.built:
        twin.build_from_config(layer.get_build_config())
    return twin


@contextmanager
def _policy(policy: Any) -> Iterator[None]:
    """The dtype policy of layers that a constructor makes inside another layer without saying."""
    before = keras.config.dtype_policy()
    if policy is not None:
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _is_ours(entry: Any) -> bool:
    return isinstance(entry, dict) and str(entry.get("registered_name")).startswith(OUR_PACKAGE)


def _without_ours(entry: Any) -> Any:
    """A configuration without our regularizers and embedded text, at any depth.

    Nor do wrapped layers keep the shape that they were built for: the copy may read fewer channels.
    """
    if isinstance(entry, dict):
        found = without_text(entry)
        if found is not entry:
            return found
        kept = {k: v for k, v in entry.items() if k != "build_config"}
        # Of a regularizer of this package, only the one of another kind beside it is copied.
        plain = {k: v["config"].get("beside") if _is_ours(v) else v for k, v in kept.items()}
        return {k: _without_ours(v) for k, v in plain.items()}
    if isinstance(entry, list | tuple):
        return type(entry)(_without_ours(v) for v in entry)
    return entry


def input_like(tensor: Tensor, **changes: Any) -> Tensor:
    """A new input with the options of the input of a model: optional and sparse ones stay so.

    Args:
        tensor: An input tensor of a model.
        **changes: Options to replace.

    Examples:
        >>> input_like(keras.Input((3,), sparse=True), name="x").sparse
        True
    """
    options = _keras_compat.producer(tensor).operation.get_config()
    given = {"batch_shape": tensor.shape, "dtype": tensor.dtype, "name": tensor.name}
    return keras.Input(**{**options, **given, **changes})


def copy_model(
    model: keras.Model,
    config: Callable[[keras.Layer], Mapping[str, Any]] = lambda layer: {},
    weights: Callable[[keras.Layer], list[Any]] = lambda layer: layer.get_weights(),
) -> keras.Model:
    """Copy a model, uncompiled and without our regularizers; the copy has weights of its own.

    Args:
        model: A functional or built Sequential model.
        config: For each layer, the configuration entries to replace in the copy.
        weights: For each layer, the weights of the copy; those of the layer unless given.

    Returns:
        A functional model that computes the same.

    Raises:
        ModelError: The model has no graph.
    """
    twin = _same_structure(functional(model), config, {})
    for old, new in zip(read(model).layers(), read(twin).layers(), strict=True):
        set_weights(new.operation, weights(old.operation))
    return twin


def _same_structure(
    source: keras.Model,
    config: Callable[[keras.Layer], Mapping[str, Any]],
    made: dict[int, keras.Operation],
) -> keras.Model:
    """A copy of a functional model with weights of no meaning.

    Args:
        source: The model.
        config: As for :func:`copy_model`.
        made: The copies so far, by ``id`` of the operation: nested models may share layers.
    """

    def like(tensor: Any) -> Any:
        """An input of the copy's dtype; Keras would keep the old one and round its values."""
        layer = keras.layers.InputLayer(batch_shape=tensor.shape, dtype=tensor.dtype)
        dtype = config(layer).get("dtype", tensor.dtype)
        return input_like(tensor, dtype=dtype)

    def copied(operation: keras.Operation) -> keras.Operation:
        if id(operation) not in made:
            if is_opened(operation):
                made[id(operation)] = _same_structure(functional(operation), config, made)
            else:
                changes = config(operation) if isinstance(operation, keras.Layer) else {}
                made[id(operation)] = clone(operation, **changes)
        return made[id(operation)]

    inputs = keras.tree.map_structure(like, input_structure(source))
    return keras.models.clone_model(source, input_tensors=inputs, clone_function=copied)


@contextmanager
def unset(layer: keras.Layer) -> Iterator[None]:
    """Let a layer be built with zeros as weights, since drawing random ones takes longer.

    Initializers that hold arrays stay replaced: the layer may have another width than they have.
    """
    zeros = keras.initializers.Zeros()
    own = {k: v for k, v in vars(layer).items() if isinstance(v, keras.initializers.Initializer)}
    for name in own:
        setattr(layer, name, zeros)
    try:
        yield
    finally:
        for name, initializer in own.items():
            if not any(np.size(value) > 1 for value in _arrays(initializer)):
                setattr(layer, name, initializer)


def _arrays(initializer: keras.initializers.Initializer) -> Iterator[Any]:
    for value in vars(initializer).values():
        if isinstance(value, list | tuple | np.ndarray) or keras.ops.is_tensor(value):
            yield keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value


def set_weights(layer: keras.Layer, weights: Sequence[Any]) -> None:
    """Set the weights of a layer, and the state that preprocessing layers derive from them.

    Raises:
        ModelError: The layer has other weights, as the copy of a quantised layer may have.
    """
    try:
        layer.set_weights(weights)
    except ValueError as error:
        mode = getattr(layer, "quantization_mode", None)
        raise ModelError(
            f"Layer '{layer.name}' of type {type(layer).__name__}"
            f"{f' is quantised ({mode}) and' * bool(mode)} cannot be copied: expected its copy to "
            f"have the same weights. Received: {error}"
        ) from error
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()
