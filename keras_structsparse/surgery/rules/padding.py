"""Zero padding: constants other than zero get a border."""

from __future__ import annotations

import numpy as np
from keras import layers

from keras_structsparse.surgery.channels import Flow, Rule, Site, misplaced
from keras_structsparse.surgery.registry import register
from keras_structsparse.surgery.rules.elementwise import build


def flow(site: Site) -> Flow:
    """All constants of the tensor end at the same border, so one can stand for the others."""
    inputs = site.inputs[0]
    visible = inputs.offset.any() and np.any(site.operation.padding)
    border = site.name if visible and site.constants == "exact" else inputs.border
    return Flow(inputs.passed(border=border))


register(
    Rule(flow, build, misplaced, borders=True, channels_first=True),
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
)
