"""Depthwise convolutions: every output channel is computed from one input channel.

With zero padding, a constant becomes a spatial pattern that differs from channel to channel, so no
other channel can carry it: there nonzero constants count as live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from keras import layers

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import (
    Channels,
    Flow,
    Piece,
    Rule,
    Site,
    emit,
    misplaced,
    only,
)
from keras_structsparse.graph.cloning import clone
from keras_structsparse.surgery import linear_layers
from keras_structsparse.surgery.activation_functions import activation_reason, is_elementwise


def flow(site: Site) -> Flow:
    """Each output channel has the number of the input channel that it is computed from."""
    inputs, kernel = site.inputs[0], _matrix(site.weights["kernel"])
    copies = kernel.shape[-1]
    active = inputs.live | (inputs.offset & _is_padded(site))
    live = (active[:, None] & (kernel != 0).any(axis=0)).ravel()
    sums = (np.where(active, 0.0, inputs.value)[:, None] * kernel.sum(axis=0)).ravel()
    constants = sums + np.asarray(site.weights.get("bias", 0.0), np.float64)
    value = linear_layers.activated(site, np.where(live, 0.0, constants))
    work = linear_layers.positions(site) * kernel.shape[0]
    output = Channels(
        ids=np.repeat(inputs.ids, copies),
        live=live,
        value=np.where(live, 0.0, value),
        cost=np.repeat(inputs.cost / copies, copies) + work,
    )
    return Flow(output, notes=_notes(site, active))


def _notes(site: Site, active: Array) -> tuple[str, ...]:
    held = int((active & ~site.inputs[0].live).sum())
    return (f"{held} constant channels are kept: its padding changes each differently",) * bool(
        held
    )


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The layer over the kept channels."""
    piece = only(pieces)
    kernel = site.taken("kernel").along(-2, piece.order)
    order = repeated(piece.order, kernel.values.shape[-1])
    bias = [site.taken("bias").along(0, order)] if "bias" in site.weights else []
    layer = clone(site.operation, name=site.layer_name)
    return Piece(emit(layer, piece.tensor, [kernel, *bias]), order)


def repeated(order: Array, copies: int) -> Array:
    """The output channels that are computed from some input channels.

    Args:
        order: The input channels (channels,).
        copies: The depth multiplier.

    Returns:
        The output channels (channels * copies,).
    """
    return np.asarray((order[:, None] * copies + np.arange(copies)).ravel())


def refuses(site: Site) -> str | None:
    """Refuse activations that may mix channels, unknown weights, and another data format."""
    if not is_elementwise(site.operation.activation):
        return activation_reason(site.operation.activation)
    known = {"kernel", "depthwise_kernel", "pointwise_kernel", "bias"}
    return linear_layers.unknown_weights(site, known) or misplaced(site)


def flow_separable(site: Site) -> Flow:
    """The product of the two kernels is the kernel of a convolution."""
    found = linear_layers.flow(joined := _as_convolution(site), padded=False)
    return replace(found, notes=found.notes + _notes(site, joined.inputs[0].live))


def build_separable(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """Both kernels over the kept channels."""
    piece = only(pieces)
    bias = linear_layers.shrunk_bias(_as_convolution(site), piece.order, wanted, padded=False)
    depthwise = site.taken("depthwise_kernel").along(-2, piece.order)
    rows = repeated(piece.order, depthwise.values.shape[-1])
    pointwise = site.taken("pointwise_kernel").along(-2, rows).along(-1, wanted)
    layer = clone(
        site.operation, name=site.layer_name, filters=len(wanted), use_bias=bias is not None
    )
    weights = [depthwise, pointwise] if bias is None else [depthwise, pointwise, bias]
    return Piece(emit(layer, piece.tensor, weights), wanted)


def _as_convolution(site: Site) -> Site:
    """The site with one kernel (positions, in, out); constants behind padding count as live."""
    depthwise = _matrix(np.asarray(site.weights["depthwise_kernel"], np.float64))
    pointwise = np.asarray(site.weights["pointwise_kernel"], np.float64)
    pointwise = pointwise.reshape(*depthwise.shape[1:], -1)
    kernel = np.einsum("pik,iko->pio", depthwise, pointwise)
    bias = {name: value for name, value in site.weights.items() if name == "bias"}
    (inputs,) = site.inputs
    if _is_padded(site):
        inputs = inputs.passed(live=inputs.live | inputs.offset)
    return replace(site, weights={"kernel": kernel, **bias}, inputs=(inputs,))


def _matrix(kernel: Array) -> Array:
    """A depthwise kernel reshaped to (positions, in, copies)."""
    return kernel.reshape(-1, *kernel.shape[-2:])


def _is_padded(site: Site) -> bool:
    return site.operation.padding != "valid" and max(site.operation.kernel_size) > 1


register(
    Rule(flow, build, refuses, channels_first=True), layers.DepthwiseConv1D, layers.DepthwiseConv2D
)
register(
    Rule(flow_separable, build_separable, refuses, channels_first=True),
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
