"""Merge a gain and a shift per channel into the weights of a convolution or dense layer.

After the layer, ``g (W x + b) + s = (g W) x + (g b + s)``. Before it, ``W (g x + s) + b = (W g) x +
(b + W s)``, if all output positions see the shift s alike: not with zero padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_structsparse._typing import Array


@dataclass(frozen=True)
class Affine:
    """A gain and a shift for each channel: ``gain * x + shift``.

    Attributes:
        gain: Factors (channels,).
        shift: Values that are added to the product (channels,).
    """

    gain: Array
    shift: Array

    @property
    def is_finite(self) -> bool:
        """Whether all entries are finite."""
        return bool(np.isfinite(self.gain).all() and np.isfinite(self.shift).all())

    def part(self, start: int, stop: int) -> Affine:
        """The gain and shift of the channels ``start`` to ``stop``."""
        return Affine(self.gain[start:stop], self.shift[start:stop])


def normalization(norm: keras.Layer) -> Affine:
    """The gain and the shift of a layer at inference, by :func:`normalization_affine`."""
    weights = {weight.name: keras.ops.convert_to_numpy(weight) for weight in norm.weights}
    return normalization_affine(weights, norm.epsilon)


def normalization_affine(weights: Mapping[str, Array], epsilon: float) -> Affine:
    """The gain and the shift of a batch normalisation at inference.

    ``gain = gamma / sqrt(variance + epsilon)`` and ``shift = beta - gain * mean``.

    Args:
        weights: Its weights (channels,) by name; gamma and beta may be missing.
        epsilon: Its epsilon.

    Returns:
        Gain and shift (channels,) in float64; not finite where the weights are not.

    Examples:
        >>> weights = {"gamma": [4.0], "moving_mean": [1.0], "moving_variance": [4.0]}
        >>> normalization_affine(weights, 0.0)
        Affine(gain=array([2.]), shift=array([-2.]))
    """
    values = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    with np.errstate(invalid="ignore", divide="ignore"):  # callers check is_finite
        gain = values.get("gamma", 1.0) / np.sqrt(values["moving_variance"] + epsilon)
        return Affine(gain, values.get("beta", 0.0) - gain * values["moving_mean"])


@dataclass(frozen=True)
class Kernels:
    """The axes of channels in the kernels of a type of layer.

    Attributes:
        inputs: Reshapes values of the input channels to multiply the layer's first kernel.
        outputs: Reshapes values of the output channels to multiply its last kernel.
        total: The output for an input of ones, without the bias (out,).
        is_even: Whether all output positions see the same of a constant input: no zero padding.
    """

    inputs: Callable[[keras.Layer, Array], Array]
    outputs: Callable[[keras.Layer, Array], Array]
    total: Callable[[Sequence[Array]], Array]
    is_even: Callable[[keras.Layer], bool]


def _as_rows(layer: keras.Layer, values: Array) -> Array:
    return values[:, None]


def _as_columns(layer: keras.Layer, values: Array) -> Array:
    return values


def _of_groups(layer: keras.Layer, values: Array) -> Array:
    """Reshape to (inputs of a group, kernels): each group of kernels reads its own inputs."""
    groups = layer.groups
    return np.repeat(values.reshape(groups, -1), layer.filters // groups, axis=0).T


def _over_multiplier(layer: keras.Layer, values: Array) -> Array:
    return values.reshape(-1, layer.depth_multiplier)


def _space(kernel: Array) -> tuple[int, ...]:
    return tuple(range(kernel.ndim - 2))


def _total(kernels: Sequence[Array]) -> Array:
    return kernels[0].sum(axis=(*_space(kernels[0]), -2))


def _total_transposed(kernels: Sequence[Array]) -> Array:
    return kernels[0].sum(axis=(*_space(kernels[0]), -1))


def _total_depthwise(kernels: Sequence[Array]) -> Array:
    """With the pointwise kernel, if there is one."""
    sums = kernels[0].sum(axis=_space(kernels[0])).ravel()
    return sums @ kernels[1].sum(axis=_space(kernels[1])) if len(kernels) > 1 else sums


def _is_unpadded(layer: keras.Layer) -> bool:
    return layer.padding == "valid" or set(layer.kernel_size) == {1}


def _is_pointwise(layer: keras.Layer) -> bool:
    """Windows above 1x1 overlap less at the border, and strides leave gaps."""
    return set(layer.kernel_size) | set(layer.strides) == {1}


_PLAIN = Kernels(_of_groups, _as_columns, _total, _is_unpadded)
_DENSE = Kernels(_as_rows, _as_columns, _total, lambda layer: True)
_TRANSPOSED = Kernels(_as_columns, _as_rows, _total_transposed, _is_pointwise)
_DEPTHWISE = Kernels(_as_rows, _over_multiplier, _total_depthwise, _is_unpadded)
_SEPARABLE = Kernels(_as_rows, _as_columns, _total_depthwise, _is_unpadded)

KERNELS: Mapping[type, Kernels] = MappingProxyType(
    {
        layers.Dense: _DENSE,
        layers.Conv1D: _PLAIN,
        layers.Conv2D: _PLAIN,
        layers.Conv3D: _PLAIN,
        layers.Conv1DTranspose: _TRANSPOSED,
        layers.Conv2DTranspose: _TRANSPOSED,
        layers.Conv3DTranspose: _TRANSPOSED,
        layers.DepthwiseConv1D: _DEPTHWISE,
        layers.DepthwiseConv2D: _DEPTHWISE,
        layers.SeparableConv1D: _SEPARABLE,
        layers.SeparableConv2D: _SEPARABLE,
    }
)
"""By exact type: a subclass may use its kernels in any way."""


def behind(layer: keras.Layer, affine: Affine) -> list[Array]:
    """The weights of a layer without activation, merged with a gain and shift after it.

    Args:
        layer: A built layer of one of the types in :data:`KERNELS`.
        affine: Gain and shift of its output channels (out,).

    Returns:
        Its kernels and a bias, in the dtype of the weights.
    """
    *kernels, last, bias = _weights(layer)
    scaled = last * KERNELS[type(layer)].outputs(layer, affine.gain)
    return _rounded(layer, [*kernels, scaled, affine.gain * bias + affine.shift])


def ahead(layer: keras.Layer, affine: Affine) -> list[Array] | None:
    """The weights of a layer, merged with a gain and shift before it.

    Args:
        layer: A built layer of one of the types in :data:`KERNELS`.
        affine: Gain and shift of its input channels (in,).

    Returns:
        Its kernels and a bias, in the dtype of the weights; None if zero padding makes the shift
        differ between output positions.
    """
    kind, (first, *kernels, bias) = KERNELS[type(layer)], _weights(layer)
    if affine.shift.any() and not kind.is_even(layer):
        return None
    shifted = kind.total([first * kind.inputs(layer, affine.shift), *kernels])
    return _rounded(layer, [first * kind.inputs(layer, affine.gain), *kernels, bias + shifted])


def _weights(layer: keras.Layer) -> list[Array]:
    """Kernels and bias in double precision."""
    weights = [_float64(weight) for weight in layer.weights]
    return weights if layer.use_bias else [*weights, np.zeros(())]


def _rounded(layer: keras.Layer, weights: Sequence[Array]) -> list[Array]:
    kind = keras.ops.convert_to_numpy(layer.weights[0]).dtype
    return [weight.astype(kind) for weight in weights]


def _float64(weight: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(weight)).astype(np.float64)
