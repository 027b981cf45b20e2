"""Put regularizers onto the layers of a model that exists already."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping

import keras

from keras_structsparse import _keras_compat
from keras_structsparse.errors import ModelError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.prunable_layers import ModelLike, PrunableLayers, graph_of
from keras_structsparse.regularizers import MultiplyAdds
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.coupled_groups import (
    PenalizedLayers,
    complexity_links,
    joint_links,
    no_links,
    positions,
)
from keras_structsparse.regularizers.coupling import CouplingSpec

Shares = Callable[[functional_graph.Graph, Mapping[str, keras.Layer]], dict[str, float]]


def attach(
    model: keras.Model,
    regularizer: GroupSparsityRegularizer,
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
            the "multiply_adds" or "params" of one of its kernels. :class:`MultiplyAdds` weighs
            its terms itself.
        coupled: Join the whole kernels that write the same channel of a residual stream into one
            group, so that they vanish together and the stream gets narrower; the inner groups of
            a kernel stay its own. Channels that something else writes as well, such as the input
            of the model or a layer that is left out, join nothing.

    Returns:
        The same model.

    Raises:
        ModelError: The model has no graph or no convolutions, a batch normalisation that follows
            a convolution has no scale, or multiply-adds are asked for and a size is open.
        TypeError: ``regularizer`` is none of this package.
        ValueError: ``layers`` names a layer that cannot be regularized, ``weights`` is unknown,
            or ``weights`` or ``coupled`` does not go with the regularizer.

    Examples:
        >>> from keras_structsparse.regularizers import KernelCount
        >>> inputs = keras.Input((8, 8, 1))
        >>> model = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="conv")(inputs))
        >>> len(model.losses), len(attach(model, KernelCount(1e-3)).losses)
        (0, 1)
    """
    if not isinstance(regularizer, GroupSparsityRegularizer):
        raise TypeError(
            f"regularizer: expected one of keras_structsparse. Received: {regularizer!r}"
        )
    if weights not in SHARES:
        raise ValueError(f"weights: expected one of {tuple(SHARES)}. Received: {weights!r}")
    _check_choice(regularizer, weights, coupled)
    found = PrunableLayers.of(model)
    chosen = _chosen(found, layers)
    pairs = found.batch_norms
    norms = {name: _scaled_norm(name, pairs[name]) for name in chosen if name in pairs}
    shares = SHARES[weights](found.graph, chosen)
    mean = math.fsum(shares.values()) / len(shares)
    shares = {name: share / mean for name, share in shares.items()}
    _set(PenalizedLayers(found, chosen, norms, shares, regularizer.norm), regularizer, coupled)
    _keras_compat.forget_compiled_functions(model)
    return model


def regularizers_of(model: ModelLike) -> dict[str, GroupSparsityRegularizer]:
    """The regularizers of this package on a model, by name of the layer.

    Args:
        model: A functional or built Sequential model.

    Returns:
        In topological order.
    """
    found = {}
    for call in graph_of(model).layers():
        regularizer = getattr(getattr(call.operation, "kernel", None), "regularizer", None)
        if isinstance(regularizer, GroupSparsityRegularizer):
            found[call.name] = regularizer
    return found


def _chosen(found: PrunableLayers, names: Iterable[str] | None) -> Mapping[str, keras.Layer]:
    available = found.layers
    if names is None:
        if not found.convolutions:
            raise ModelError(
                f"Model '{found.model.name}' has no convolutions to regularize. Expected at "
                "least one Conv1D, Conv2D or Conv3D layer with groups=1."
            )
        return found.convolutions
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("layers: expected at least one name. Received: none")
    for name in names:
        if name not in available:
            raise ValueError(_unavailable(found.graph, available, name))
    return {name: available[name] for name in names}


def _unavailable(network: functional_graph.Graph, available: Iterable[str], name: str) -> str:
    near = difflib.get_close_matches(str(name), available, 3, 0.4) or available
    kinds = [type(call.operation).__name__ for call in network.layers() if call.name == name]
    return (
        "layers: expected names of ungrouped convolutions (not transposed, depthwise or separable) "
        f"or dense layers, such as {', '.join(near)}. "
        f"Received: {name!r}{', a ' + kinds[0] if kinds else ''}"
    )


def _scaled_norm(name: str, norm: keras.Layer) -> keras.Layer:
    if not norm.scale:
        raise ModelError(
            f"Layer '{name}' is followed by the batch normalisation '{norm.name}' with "
            "scale=False: the norm of its kernels has no effect, so it cannot be penalised. "
            "Take kss.with_scales(model), the same network with a scale of 1 there, build it with "
            "scale=True, or leave the layer out with `layers`."
        )
    return norm


def _check_choice(regularizer: GroupSparsityRegularizer, weights: str, coupled: bool) -> None:
    if not isinstance(coupled, bool):
        raise ValueError(f"coupled: expected True or False. Received: {coupled!r}")
    if isinstance(regularizer, MultiplyAdds) and (coupled or weights != "uniform"):
        raise ValueError(
            "regularizer: MultiplyAdds weighs every layer by its own multiply-adds and counts the "
            'channels of residual streams once. Expected weights="uniform" and coupled=False. '
            f"Received: weights={weights!r}, coupled={coupled!r}"
        )
    if coupled and (regularizer.norm == "linf" or regularizer.power != 1):
        raise ValueError(
            "coupled: expected a regularizer with an l2 norm and power=1. Received: "
            f"norm={regularizer.norm!r}, power={regularizer.power!r}"
        )


def _set(site: PenalizedLayers, regularizer: GroupSparsityRegularizer, coupled: bool) -> None:
    if isinstance(regularizer, MultiplyAdds):
        links = complexity_links(site)
    else:
        links = joint_links(site) if coupled else no_links(site)
    install(site, links, dict.fromkeys(site.layers, regularizer))


def install(
    site: PenalizedLayers,
    links: Mapping[str, CouplingSpec],
    regularizers: Mapping[str, GroupSparsityRegularizer],
) -> None:
    """Give every layer of a site a copy of a regularizer, with the layer's share of alpha.

    Args:
        site: The layers.
        links: What the penalties must know of each other, by name of the layer.
        regularizers: What to copy, by name of the layer.
    """
    variables = site.variables() if links else {}
    for name, layer in site.layers.items():
        norm = site.norms.get(name)
        scale = None if norm is None else norm.gamma.path
        own = regularizers[name].bound(site.shares[name], scale, links.get(name))
        own.bind(variables if norm is None else {**variables, norm.gamma.path: norm.gamma})
        # The loss reads the variable's regularizer, the configuration that of the layer.
        layer.kernel_regularizer = own
        layer.kernel.regularizer = own


def _uniform(
    network: functional_graph.Graph, layers: Mapping[str, keras.Layer]
) -> dict[str, float]:
    return dict.fromkeys(layers, 1.0)


def _params(network: functional_graph.Graph, layers: Mapping[str, keras.Layer]) -> dict[str, float]:
    return {name: math.prod(layer.kernel.shape[:-1]) for name, layer in layers.items()}


def _multiply_adds(
    network: functional_graph.Graph, layers: Mapping[str, keras.Layer]
) -> dict[str, float]:
    places = {c.name: positions(network, c) for c in network.layers() if c.name in layers}
    return {n: places[n] * size for n, size in _params(network, layers).items()}


SHARES: dict[str, Shares] = {
    "uniform": _uniform,
    "multiply_adds": _multiply_adds,
    "params": _params,
}
