"""Zero padding: nonzero constants are surrounded by zeros."""

from __future__ import annotations

from numbers import Number

import numpy as np
from keras import layers, ops

from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.channels.registry import arguments, register
from keras_structsparse.graph.channels.rule import Flow, Rule, Site, misplaced
from keras_structsparse.surgery.rules.elementwise import build


def flow(site: Site) -> Flow:
    """All constants are surrounded by the same zeros, so one can carry the others."""
    inputs = site.inputs[0]
    visible = inputs.offset.any() and np.any(site.operation.padding)
    border = site.name if visible and site.constants == "exact" else inputs.border
    return Flow(inputs.passed(border=border))


def flow_pad(site: Site) -> Flow:
    """Padding with zeros surrounds constants; padding by reflection leaves them constant."""
    inputs = site.inputs[0]
    visible = inputs.offset.any() and site.operation.mode == "constant"
    border = site.name if visible and site.constants == "exact" else inputs.border
    return Flow(inputs.passed(border=border))


def refuses_pad(site: Site) -> str | None:
    """Refuse padding with other values than zero, and padding of the channel axis."""
    value = arguments(site).get("constant_values")
    if len(site.inputs) > 1 or not isinstance(value, Number | None) or value:
        return "it pads with a value other than zero"
    if site.operation.mode not in ("constant", "reflect", "symmetric"):
        return f"its mode is {site.operation.mode!r}"
    if len(site.operation.pad_width) == 1 or any(site.operation.pad_width[-1]):
        return "it pads the channels"
    return None


register(
    Rule(flow_pad, build, refuses_pad, borders=True),
    operation_type(lambda x: ops.pad(x, 1)),
    understands=("pad_width", "mode", "constant_values"),
)
register(
    Rule(flow, build, misplaced, borders=True, channels_first=True),
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
)
