"""Put regularizers onto the layers of a model that exists already."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping

import keras

from keras_structsparse import graph as graphs
from keras_structsparse.errors import ModelError
from keras_structsparse.kernels import batch_norm_pairs, is_convolution, kernel_layers
from keras_structsparse.structured import Structured

Shares = Callable[[graphs.Graph, Mapping[str, keras.Layer]], dict[str, float]]


def attach(
    model: keras.Model,
    regularizer: Structured,
    layers: Iterable[str] | None = None,
    weights: str = "uniform",
    coupled: bool = False,
) -> keras.Model:
    """Regularize the kernels of a model; its loss contains the penalty from now on.

    Every layer gets a copy of the regularizer; all copies share the variable ``regularizer.alpha``.
    Where a batch normalisation follows a convolution and nothing else does, the penalty is that of
    the effective kernels ``gamma_j k_j / |k_j|``: normalisation hides the kernel's own scale.

    Args:
        model: A functional or built Sequential model; compile it afterwards.
        regularizer: A regularizer of this package.
        layers: Names of the layers, nested ones as "model/layer"; all ungrouped convolutions
            unless given. Dense layers only on request.
        weights: The layer's share of alpha, mean 1 over the layers: "uniform", or in proportion to
            the "multiply_adds" or "params" of one of its kernels.
        coupled: Join the kernels that write the same residual stream into one group. Not
            available yet: only False is accepted.

    Returns:
        The same model.

    Raises:
        ModelError: The model has no graph or no convolutions, or a batch normalisation that
            follows a convolution has no scale.
        TypeError: ``regularizer`` is none of this package.
        ValueError: ``layers`` names a layer that cannot be regularized, ``weights`` is unknown,
            or ``coupled`` is not False.

    Example:
        >>> from keras_structsparse.regularizers import KernelCount
        >>> inputs = keras.Input((8, 8, 1))
        >>> model = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="conv")(inputs))
        >>> len(model.losses), len(attach(model, KernelCount(1e-3)).losses)
        (0, 1)
    """
    if not isinstance(regularizer, Structured):
        raise TypeError(
            f"regularizer: expected one of keras_structsparse. Received: {regularizer!r}"
        )
    if weights not in SHARES:
        raise ValueError(f"weights: expected one of {tuple(SHARES)}. Received: {weights!r}")
    if coupled:
        raise ValueError(f"coupled: expected False, other values not yet. Received: {coupled!r}")
    network = graphs.read(model)
    chosen = _chosen(network, layers)
    pairs = batch_norm_pairs(network)
    norms = {name: _scaled_norm(name, pairs[name]) for name in chosen if name in pairs}
    shares = SHARES[weights](network, chosen)
    mean = math.fsum(shares.values()) / len(shares)
    for name, layer in chosen.items():
        _set(layer, regularizer, shares[name] / mean, norms.get(name))
    _forget_traces(model)
    return model


def regularizers_of(model: keras.Model) -> dict[str, Structured]:
    """The regularizers of this package on a model, by name of the layer.

    Args:
        model: A functional or built Sequential model.

    Returns:
        In topological order.
    """
    found = {}
    for call in graphs.read(model).layers():
        regularizer = getattr(getattr(call.operation, "kernel", None), "regularizer", None)
        if isinstance(regularizer, Structured):
            found[call.name] = regularizer
    return found


def _chosen(network: graphs.Graph, names: Iterable[str] | None) -> dict[str, keras.Layer]:
    available = kernel_layers(network)
    if names is None:
        chosen = {n: layer for n, layer in available.items() if is_convolution(layer)}
        if not chosen:
            raise ModelError(
                f"Model '{network.model.name}' has no convolutions to regularize. Expected at "
                "least one Conv1D, Conv2D or Conv3D layer with groups=1."
            )
        return chosen
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("layers: expected at least one name. Received: none")
    for name in names:
        if name not in available:
            near = ", ".join(difflib.get_close_matches(str(name), available, 3, 0.4) or available)
            raise ValueError(
                "layers: expected names of ungrouped convolutions or dense layers, such as "
                f"{near}. Received: {name!r}"
            )
    return {name: available[name] for name in names}


def _scaled_norm(name: str, norm: keras.Layer) -> keras.Layer:
    if not norm.scale:
        raise ModelError(
            f"Layer '{name}' is followed by the batch normalisation '{norm.name}' with "
            "scale=False: the norm of its kernels has no effect, so it cannot be penalised. "
            "Build it with scale=True, or leave the layer out with `layers`."
        )
    return norm


def _set(layer: keras.Layer, regularizer: Structured, share: float, norm: keras.Layer) -> None:
    scale = norm.gamma.path if norm is not None else None
    own = regularizer.bound(weight=share, scale=scale)
    if norm is not None:
        own.bind_scale(norm.gamma)
    # The loss reads the variable's regularizer, the configuration that of the layer.
    layer.kernel_regularizer = own
    layer.kernel.regularizer = own


def _forget_traces(model: keras.Model) -> None:
    """Functions traced before would go on with the old loss."""
    for name in ("train_function", "test_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)


def _uniform(network: graphs.Graph, layers: Mapping[str, keras.Layer]) -> dict[str, float]:
    return dict.fromkeys(layers, 1.0)


def _params(network: graphs.Graph, layers: Mapping[str, keras.Layer]) -> dict[str, float]:
    return {name: math.prod(layer.kernel.shape[:-1]) for name, layer in layers.items()}


def _multiply_adds(network: graphs.Graph, layers: Mapping[str, keras.Layer]) -> dict[str, float]:
    positions = {call.name: _positions(network, call) for call in network.layers()}
    return {n: positions[n] * size for n, size in _params(network, layers).items()}


def _positions(network: graphs.Graph, call: graphs.Call) -> float:
    sizes = network.shapes[call.outputs[0]][1:-1]
    if None in sizes and is_convolution(call.operation):
        raise ModelError(
            f"Layer '{call.name}': the size of its output is not known ({sizes}), so its "
            "multiply-adds are not either. Give the model an input of fixed size, or choose "
            'weights="params".'
        )
    return float(math.prod(size or 1 for size in sizes))


SHARES: dict[str, Shares] = {
    "uniform": _uniform,
    "multiply_adds": _multiply_adds,
    "params": _params,
}
