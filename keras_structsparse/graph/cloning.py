"""Copy layers and models, without anything that only this package could load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import keras

from keras_structsparse.errors import ModelError
from keras_structsparse.graph.functional_graph import (
    detached,
    functional,
    input_structure,
    is_opened,
    read,
    recorded_config,
)

OUR_PACKAGE = "keras_structsparse>"
REFUSALS = (NotImplementedError, TypeError, ValueError)
"""What Keras raises where a layer cannot be made from a configuration."""


def clone(operation: keras.Operation, **changes: Any) -> keras.Operation:
    """A new operation of the same type and configuration, without weights or history.

    Regularizers of this package are left out, so that the copy needs only Keras to load. A layer
    whose ``get_config`` does not fit its constructor is made once more with the arguments that
    Keras wrote down when it was made.

    Args:
        operation: The layer or bare operation.
        **changes: Entries of its configuration to replace.

    Returns:
        The new operation. A layer without weights that cannot be made from its configuration (a
        Lambda around a Python function) is copied as an instance.

    Raises:
        ModelError: The layer has weights and cannot be made from its configuration.
    """
    try:
        return _made(operation, operation.get_config(), changes)
    except REFUSALS as error:
        if not getattr(operation, "weights", None):
            twin = detached(operation, changes.get("name"))
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


def _made(
    operation: keras.Operation, config: Mapping[str, Any], changes: Mapping[str, Any]
) -> keras.Operation:
    with _policy(changes.get("dtype", getattr(operation, "dtype_policy", None))):
        return type(operation).from_config({**_without_ours(config), **changes})


@contextmanager
def _policy(policy: Any) -> Iterator[None]:
    """Layers that are made within, as parts of another, follow a dtype policy unless they say."""
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
    """A configuration without our regularizers, at any depth."""
    if isinstance(entry, dict):
        return {k: None if _is_ours(v) else _without_ours(v) for k, v in entry.items()}
    if isinstance(entry, list | tuple):
        return type(entry)(_without_ours(v) for v in entry)
    return entry


def copy_model(
    model: keras.Model,
    config: Callable[[keras.Layer], Mapping[str, Any]] = lambda layer: {},
    weights: Callable[[keras.Layer], list[Any]] = lambda layer: layer.get_weights(),
) -> keras.Model:
    """A copy of a model with its own weights, uncompiled and without our regularizers.

    Args:
        model: A functional or built Sequential model.
        config: For each layer, the configuration entries to replace in the copy.
        weights: For each layer, the weights of the copy; its own unless given.

    Returns:
        A functional model that computes the same.

    Raises:
        ModelError: The model has no graph.
    """

    def like(tensor: Any) -> Any:
        """Keras keeps the type of inputs: in a nested model it would round what comes in."""
        layer = keras.layers.InputLayer(batch_shape=tensor.shape, dtype=tensor.dtype)
        dtype = config(layer).get("dtype", tensor.dtype)
        return keras.Input(batch_shape=tensor.shape, dtype=dtype, name=tensor.name)

    def copied(operation: keras.Operation) -> keras.Operation:
        if is_opened(operation):
            return copy_model(operation, config, weights)
        changes = config(operation) if isinstance(operation, keras.Layer) else {}
        return clone(operation, **changes)

    source = functional(model)
    inputs = keras.tree.map_structure(like, input_structure(model))
    twin = keras.models.clone_model(source, input_tensors=inputs, clone_function=copied)
    for old, new in zip(read(source).layers(), read(twin).layers(), strict=True):
        set_weights(new.operation, weights(old.operation))
    return twin


@contextmanager
def unset(layer: keras.Layer) -> Iterator[None]:
    """Weights that the layer makes within are zeros: drawing random ones takes longer."""
    zeros = keras.initializers.Zeros()
    own = {k: v for k, v in vars(layer).items() if isinstance(v, keras.initializers.Initializer)}
    for name in own:
        setattr(layer, name, zeros)
    try:
        yield
    finally:
        for name, initializer in own.items():
            setattr(layer, name, initializer)


def set_weights(layer: keras.Layer, weights: Sequence[Any]) -> None:
    """Set the weights of a layer, and what preprocessing layers derive from theirs."""
    layer.set_weights(weights)
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()
