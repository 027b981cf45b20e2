"""`attach`: give the layers of a built model their regularizers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import keras

from keras_structsparse import _keras_compat
from keras_structsparse._validation import boolean, one_of
from keras_structsparse.graph.kernel_axes import axes_of, kernel_of
from keras_structsparse.graph.onednn import warn_of_overflows
from keras_structsparse.graph.prunable_layers import (
    ModelLike,
    PrunableLayers,
    graph_of,
)
from keras_structsparse.regularizers import MultiplyAdds
from keras_structsparse.regularizers.adaptive_weights import group_weights
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.coupled_groups import (
    PenalizedLayers,
    joint_specs,
    multiply_adds_specs,
    no_specs,
)
from keras_structsparse.regularizers.coupling import CouplingSpec
from keras_structsparse.regularizers.layer_choice import (
    chosen_layers,
    scaled_norm,
    warn_of_hidden_scales,
)
from keras_structsparse.regularizers.rebinding import rebind
from keras_structsparse.regularizers.saliency import Saliency
from keras_structsparse.regularizers.shares import SHARES, scale_free_shares


def attach(
    model: keras.Model,
    regularizer: GroupSparsityRegularizer,
    layers: Iterable[str] | None = None,
    weights: str = "uniform",
    coupled: bool = False,
    saliency: Saliency | None = None,
    scale_free: bool = False,
) -> keras.Model:
    """Add the penalty of a regularizer to a model, layer by layer.

    Every layer gets a copy of the regularizer; all copies share the variable ``regularizer.alpha``.
    A regularizer of Keras or of your own that a layer has already, such as ``L2``, stays in the
    loss beside it; an earlier one of this package is replaced.
    Where a batch normalisation alone reads a convolution, directly or behind its activation or a
    pooling, the penalty is that of the effective kernels ``gamma_j k_j / |k_j|``, since the
    normalisation hides the scale of a kernel.

    Args:
        model: A functional or built Sequential model; compile it afterwards.
        regularizer: A regularizer of this package.
        layers: Names of the layers, "model/layer" for layers of nested models. By default, all
            ungrouped convolutions, depthwise ones too, and the pointwise kernels of separable ones;
            dense layers are regularized only if they are named. Frozen layers are left out, and a
            warning names all kinds of convolutions that are.
        weights: Share of alpha of each layer, with mean 1 over the layers: "uniform", or in
            proportion to the "multiply_adds" or "params" of one of its kernels.
            :class:`MultiplyAdds` weighs its terms itself.
        coupled: Whether the kernels that write the same channel of a residual stream are one
            group, so that they vanish together and the stream gets narrower. The inner groups of
            a kernel are not joined. Channels that something else writes too, such as the input of
            the model or a layer without a regularizer, join nothing.
        saliency: What the loss would lose without each group, by ``kss.saliency`` with the groups
            of the regularizer: the adaptive group lasso. The norm of a group with
            the saliency ``s`` gets the weight ``(m / (s + m / 100))^0.5``, ``m`` the mean over all
            kernels. Layers that were not measured, as those that compute outputs, are left out by
            default.
        scale_free: Whether the share of a layer is divided by the mean norm of its kernels as they
            are, so that alpha has no unit: for trained networks without normalization, whose layers
            may be scaled against each other.

    Returns:
        The same model.

    Raises:
        ModelError: The model has no graph or no convolutions, a batch normalisation after a
            convolution has no scale, or multiply-adds are needed and the size of a map is open.
        TypeError: ``regularizer`` is not a regularizer of this package.
        ValueError: ``layers`` names a layer that cannot be regularized, ``weights`` is unknown,
            the regularizer does not allow the given options, or ``saliency`` is that of another
            network or of other groups.

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
    _check_measured(regularizer, coupled, saliency, scale_free)
    one_of("layout", regularizer.layout, ("plain",))
    found = PrunableLayers.of(model)
    chosen = chosen_layers(found, layers)
    if saliency is not None and layers is None:
        chosen = {name: layer for name, layer in chosen.items() if name in saliency.second}
    factors = {} if saliency is None else group_weights(saliency, regularizer, chosen)
    pairs = found.batch_norms
    norms = {name: scaled_norm(name, pairs[name]) for name in chosen if name in pairs}
    warn_of_hidden_scales(found, chosen)
    warn_of_overflows(model)
    shares = SHARES[weights](found.graph, chosen)
    mean = math.fsum(shares.values()) / len(shares)
    shares = {name: share / mean for name, share in shares.items()}
    if scale_free:
        shares = scale_free_shares(shares, chosen, norms)
    _install_copies(
        PenalizedLayers(found, chosen, norms, shares, regularizer.norm), regularizer, coupled
    )
    for name, layer in chosen.items():  # those of a regularizer of another model are not kept
        kernel_of(layer).regularizer.group_weights = factors.get(name)
    _keras_compat.forget_compiled_functions(model)
    return model


def regularizers_of(model: ModelLike) -> dict[str, GroupSparsityRegularizer]:
    """The regularizers of this package on a model, by name of the layer.

    Args:
        model: A functional or built Sequential model, or its prunable layers.

    Returns:
        The regularizers, in topological order of the layers.
    """
    graph, found = graph_of(model), {}
    for call in graph.layers():
        kernel = getattr(call.operation, axes_of(call.operation).weight, None)
        regularizer = getattr(kernel, "regularizer", None)
        if isinstance(regularizer, GroupSparsityRegularizer):
            found[call.name] = regularizer
    if any(regularizer.incomplete for regularizer in found.values()):
        rebind(graph.model)
    return found


def penalty(model: ModelLike) -> float:
    """The penalty of a model, with the present weights and alpha.

    Under :class:`~keras_structsparse.Proximal` the loss is that of the data alone: the penalty acts
    in the proximal step, and this is its value. Regularizers of other kinds do not count, and
    neither do frozen kernels.

    Args:
        model: A functional or built Sequential model, or its prunable layers.

    Returns:
        The sum over the layers; 0 without regularizers.

    Raises:
        ModelError: The model has no graph.

    Examples:
        >>> from keras_structsparse.regularizers import KernelCount
        >>> conv = keras.layers.Conv2D(4, 1, kernel_initializer="ones", use_bias=False)
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), conv])
        >>> round(penalty(attach(model, KernelCount(0.5))), 3)
        2.0
    """
    return math.fsum(penalties(model).values())


def penalties(model: ModelLike) -> dict[str, float]:
    """The penalty of every layer that is trained with one, by name of the layer.

    Args:
        model: A functional or built Sequential model, or its prunable layers.
    """
    regularizers = regularizers_of(model)
    layers = {call.name: call.operation for call in graph_of(model).layers()}
    kernels = {name: kernel_of(layers[name]) for name in regularizers}
    return {
        name: float(keras.ops.convert_to_numpy(regularizer.penalty(kernels[name])))
        for name, regularizer in regularizers.items()
        if kernels[name].trainable
    }


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


def _check_measured(
    regularizer: GroupSparsityRegularizer,
    coupled: bool,
    saliency: Saliency | None,
    scale_free: bool,
) -> None:
    boolean("scale_free", scale_free)
    if saliency is not None and not isinstance(saliency, Saliency):
        raise TypeError(f"saliency: expected what kss.saliency returns. Received: {saliency!r}")
    if isinstance(regularizer, MultiplyAdds) and (saliency is not None or scale_free):
        raise ValueError(
            "regularizer: MultiplyAdds counts kernels, whatever the loss needs. Expected "
            f"saliency=None and scale_free=False. Received: saliency={saliency!r}, "
            f"scale_free={scale_free!r}"
        )
    if coupled and saliency is not None:
        raise ValueError(
            "coupled: expected False with a saliency, since joint groups have no measurement of "
            "their own. Received: True"
        )


def _install_copies(
    penalized: PenalizedLayers, regularizer: GroupSparsityRegularizer, coupled: bool
) -> None:
    if isinstance(regularizer, MultiplyAdds):
        specs = multiply_adds_specs(penalized)
    else:
        specs = joint_specs(penalized) if coupled else no_specs(penalized)
    install(penalized, specs, dict.fromkeys(penalized.layers, regularizer))


def install(
    penalized: PenalizedLayers,
    specs: Mapping[str, CouplingSpec],
    regularizers: Mapping[str, GroupSparsityRegularizer],
) -> None:
    """Give every layer a copy of a regularizer, with the layer's share of alpha.

    Args:
        penalized: The layers.
        specs: How the penalties of layers depend on each other, by name of the layer.
        regularizers: The regularizers to copy, by name of the layer.
    """
    variables = penalized.variables() if specs else {}
    for name, layer in penalized.layers.items():
        norm = penalized.norms.get(name)
        scale = None if norm is None else norm.gamma.path
        own = regularizers[name].bound(penalized.shares[name], scale, specs.get(name))
        paired = [] if norm is None else [norm.gamma, norm.moving_variance]
        own.bind({**variables, **{variable.path: variable for variable in paired}})
        own.layout = axes_of(layer).layout
        own.beside = _beside(kernel_of(layer).regularizer)
        # Keras computes the loss from the variable's regularizer, and saves that of the layer.
        setattr(layer, axes_of(layer).regularizer, own)
        kernel_of(layer).regularizer = own


def _beside(
    regularizer: keras.regularizers.Regularizer | None,
) -> keras.regularizers.Regularizer | None:
    """The regularizer that stays in the loss when a layer gets one of this package."""
    if isinstance(regularizer, GroupSparsityRegularizer):
        return regularizer.beside
    return regularizer
