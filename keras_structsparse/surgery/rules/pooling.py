"""Pooling, cropping, up-sampling: every channel by itself; constants stay what they are."""

from __future__ import annotations

from keras import layers, ops

from keras_structsparse.graph import operation_type
from keras_structsparse.surgery.channels import Flow, Rule, Site, misplaced
from keras_structsparse.surgery.registry import register
from keras_structsparse.surgery.rules.elementwise import build


def flow(site: Site) -> Flow:
    """Neither the mean nor the maximum over a window changes a constant.

    The padding of Keras' own pooling is left out of the window, so it makes no border.
    """
    return Flow(site.inputs[0])


def flow_upsampling(site: Site) -> Flow:
    """Interpolation rounds to float32, on some backends, what is constant before it."""
    inputs = site.inputs[0]
    if site.operation.interpolation == "nearest":
        return Flow(inputs)
    return Flow(inputs.passed(live=inputs.live | inputs.offset))


def refuses_reduction(site: Site) -> str | None:
    """A mean over all axes but the first and the last is a global pooling."""
    rank, axes = len(site.shapes[0]), site.operation.axis
    axes = [axes] if isinstance(axes, int) else axes
    if axes is None or not {axis % rank for axis in axes} <= set(range(1, rank - 1)):
        return f"it reduces the axes {axes}, not the positions alone"
    return None


register(Rule(flow, build, refuses_reduction), *map(operation_type, (ops.mean, ops.max, ops.min)))
register(
    Rule(flow, build, misplaced, channels_first=True),
    layers.UpSampling3D,
    layers.Cropping2D,
    layers.Cropping3D,
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
register(Rule(flow_upsampling, build, misplaced, channels_first=True), layers.UpSampling2D)
register(Rule(flow, build), layers.UpSampling1D, layers.Cropping1D)
