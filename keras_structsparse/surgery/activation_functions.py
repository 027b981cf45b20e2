"""Activation functions that are known to be applied entry by entry."""

from __future__ import annotations

import functools
from numbers import Number
from typing import Any

from keras import activations, layers, ops

OPERATIONS = (
    *(ops.relu, ops.relu6, ops.leaky_relu, ops.elu, ops.selu, ops.celu, ops.gelu, ops.silu),
    *(ops.sigmoid, ops.log_sigmoid, ops.hard_sigmoid, ops.hard_silu, ops.softplus, ops.softsign),
    *(ops.hard_tanh, ops.hard_shrink, ops.soft_shrink, ops.tanh_shrink),
    *(ops.sparse_plus, ops.sparse_sigmoid, ops.squareplus),
    *(ops.tanh, ops.exp, ops.expm1, ops.log, ops.log1p, ops.log2, ops.log10, ops.erf),
    *(ops.sqrt, ops.rsqrt, ops.square, ops.reciprocal, ops.abs, ops.absolute, ops.negative),
    *(ops.sin, ops.cos, ops.sinh, ops.cosh, ops.arctan, ops.arctanh, ops.arcsinh),
    *(ops.sign, ops.floor, ops.ceil, ops.round, ops.trunc),
)
"""Elementwise functions of one tensor."""

ELEMENTWISE = frozenset(
    {
        activations.celu,
        activations.elu,
        activations.exponential,
        activations.gelu,
        activations.hard_shrink,
        activations.hard_sigmoid,
        activations.hard_silu,
        activations.hard_tanh,
        activations.leaky_relu,
        activations.linear,
        activations.log_sigmoid,
        activations.mish,
        activations.relu,
        activations.relu6,
        activations.selu,
        activations.sigmoid,
        activations.silu,
        activations.soft_shrink,
        activations.softplus,
        activations.softsign,
        activations.sparse_plus,
        activations.squareplus,
        activations.tanh,
        activations.tanh_shrink,
        activations.threshold,
        *OPERATIONS,
        *(ops.swish, ops.hard_swish),
    }
)

LAYERS = (layers.ReLU, layers.LeakyReLU, layers.ELU)
"""Layers without weights that may stand for an activation function."""

MIXING = frozenset({activations.softmax, activations.log_softmax, ops.softmax, ops.log_softmax})
"""Functions of a vector of channels that treat all positions alike."""


def is_elementwise(activation: Any) -> bool:
    """Whether an activation is known to be applied entry by entry.

    Args:
        activation: A function of Keras, such a function with numbers as keyword arguments
            (``functools.partial``), a layer, or a function of a user.

    Examples:
        >>> is_elementwise(layers.LeakyReLU(0.1)), is_elementwise(layers.Softmax())
        (True, False)
        >>> is_elementwise(functools.partial(ops.leaky_relu, negative_slope=0.1))
        True
    """
    if type(activation) in LAYERS:
        return True
    if type(activation) is layers.Activation:
        return is_elementwise(activation.activation)
    if isinstance(activation, functools.partial):
        numbers = all(isinstance(value, Number) for value in activation.keywords.values())
        return numbers and not activation.args and is_elementwise(activation.func)
    return _is_among(activation, ELEMENTWISE)


def is_known(activation: Any) -> bool:
    """Whether an activation can be applied to the channels of a single position."""
    return is_elementwise(activation) or _is_among(activation, MIXING)


def _is_among(activation: Any, functions: frozenset[Any]) -> bool:
    try:
        return activation in functions
    except TypeError:  # cannot be hashed
        return False


MIXING = frozenset({activations.softmax, activations.log_softmax})
"""Activation functions that compute every entry from all channels."""


def activation_reason(activation: Any) -> str:
    """Why channels behind an activation that is not :func:`is_elementwise` cannot be removed."""
    if getattr(activation, "__hash__", None) and activation in MIXING:
        return "its activation mixes channels"
    return "its activation is not known to treat every channel by itself"
