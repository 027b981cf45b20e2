"""Pooling, cropping and upsampling: channel by channel; constants do not change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import layers, ops

from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.channels.constant_maps import always
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import Flow, Rule, Site, misplaced
from keras_structsparse.surgery import constant_maps
from keras_structsparse.surgery.rules.elementwise import build


def flow(site: Site) -> Flow:
    """The mean and the maximum of a window do not change a constant.

    Keras leaves the padding of a pooling out of the window, so constants stay constant there.
    """
    return Flow(site.inputs[0])


def flow_places(site: Site) -> Flow:
    """Positions are repeated or left out."""
    return Flow(site.inputs[0].passed(maps=constant_maps.through(site)))


def flow_upsampling(site: Site) -> Flow:
    """Interpolation rounds constants to float32 on some backends, so they count as live."""
    inputs = site.inputs[0]
    if is_nearest(site):
        return flow_places(site)
    return Flow(inputs.passed(live=inputs.live | inputs.offset))


def is_nearest(site: Site) -> bool:
    """Whether an upsampling only repeats positions."""
    return bool(site.operation.interpolation == "nearest")


def refuses_reduction(site: Site) -> str | None:
    """Refuse reductions over the batch or the channels; others are global poolings."""
    axes = reduced_axes(site)
    if axes is None or not axes <= set(range(1, len(site.shapes[0]) - 1)):
        return f"it reduces the axes {site.operation.axis}, not only the positions"
    return None


def reduced_axes(site: Site) -> set[int] | None:
    """The axes of a reduction, as indices >= 0; None for all axes."""
    axes = site.operation.axis
    if axes is None:
        return None
    return {axis % len(site.shapes[0]) for axis in ([axes] if isinstance(axes, int) else axes)}


def flow_sum(site: Site) -> Flow:
    """A constant is multiplied by the number of positions."""
    inputs, shape = site.inputs[0], site.shapes[0]
    places = math.prod(shape[axis] or 0 for axis in reduced_axes(site) or ())
    return Flow(inputs.passed(value=inputs.value * places))


def refuses_sum(site: Site) -> str | None:
    """Refuse open sizes, and what :func:`refuses_reduction` refuses."""
    if None in site.shapes[0][1:]:
        return f"the size of its input is not known: {site.shapes[0]}"
    return refuses_reduction(site)


def flow_spread(site: Site) -> Flow:
    """The variance of a constant is zero."""
    inputs = site.inputs[0]
    return Flow(inputs.passed(value=np.zeros(len(inputs))))


def refuses_resizing(site: Site) -> str | None:
    """Refuse padding to the aspect ratio, and another data format."""
    if site.operation.pad_to_aspect_ratio:
        return "it pads to the aspect ratio"
    return misplaced(site)


ADAPTIVE = [
    getattr(layers, f"Adaptive{kind}Pooling{rank}D", None)
    for kind in ("Average", "Max")
    for rank in (1, 2, 3)
]
"""None where the installed version of Keras has no such layer."""

POOLS: tuple[Any, ...] = (
    lambda x: ops.max_pool(x[..., None], 1),
    lambda x: ops.average_pool(x[..., None], 1),
)
RESIZE = operation_type(lambda x: ops.image.resize(x[None, ..., None], (1, 1)))

REDUCES = ("axis", "keepdims")
"""The arguments of reductions; that of an initial value is not known."""

register(
    Rule(flow, build, refuses_reduction),
    *map(operation_type, (ops.mean, ops.max, ops.min)),
    understands=REDUCES,
)
register(Rule(flow_sum, build, refuses_sum), operation_type(ops.sum), understands=REDUCES)
register(
    Rule(flow_spread, build, refuses_reduction),
    *map(operation_type, (ops.var, ops.std)),
    understands=REDUCES,
)
register(
    Rule(flow, build, misplaced),
    *filter(None, ADAPTIVE),
    *map(operation_type, POOLS),
    understands=("pool_size", "strides", "padding", "data_format"),
)
register(
    Rule(flow_upsampling, build, refuses_resizing),
    layers.Resizing,
    RESIZE,
    understands=(
        *("size", "interpolation", "antialias", "data_format"),
        *("crop_to_aspect_ratio", "pad_to_aspect_ratio", "fill_mode", "fill_value"),
    ),
)
register(
    Rule(flow, build, misplaced, channels_first=True),
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
)
register(
    Rule(flow_upsampling, build, misplaced, channels_first=True, maps=is_nearest),
    layers.UpSampling2D,
)
register(
    Rule(flow_places, build, misplaced, channels_first=True, maps=always),
    layers.UpSampling3D,
    layers.Cropping2D,
    layers.Cropping3D,
)
register(Rule(flow_places, build, maps=always), layers.UpSampling1D, layers.Cropping1D)
