"""Pooling: every channel by itself; constants stay what they are."""

from __future__ import annotations

from keras import layers

from keras_structsparse.surgery.channels import Flow, Rule, Site
from keras_structsparse.surgery.registry import register
from keras_structsparse.surgery.rules.elementwise import build


def flow(site: Site) -> Flow:
    """Neither the mean nor the maximum over a window changes a constant.

    The padding of Keras' own pooling is left out of the window, so it makes no border.
    """
    return Flow(site.inputs[0])


def refuses(site: Site) -> str | None:
    """Only the last axis holds channels."""
    if site.operation.data_format != "channels_last":
        return "its data format is channels_first"
    return None


register(
    Rule(flow, build, refuses),
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
