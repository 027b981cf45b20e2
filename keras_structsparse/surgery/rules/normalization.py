"""Normalisation of each channel by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_structsparse.copying import clone
from keras_structsparse.surgery.channels import Flow, Piece, Rule, Site, emit
from keras_structsparse.surgery.registry import register

Array = Any


def flow(site: Site) -> Flow:
    """Batch normalisation at inference is affine; a channel with gamma = 0 becomes beta."""
    inputs = site.inputs[0]
    gain, shift = _affine(site)
    live = inputs.live & (gain != 0)
    constant = np.where(inputs.live, 0.0, inputs.value)
    return Flow(inputs.passed(live=live, value=np.where(live, 0.0, gain * constant + shift)))


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The layer over the kept channels, with its moving statistics."""
    (piece,) = pieces
    assert piece is not None, "the output has the channels of the input"
    layer = clone(site.operation, name=site.layer_name)
    weights = [site.taken(name).along(0, piece.order) for name in site.weights]
    return Piece(emit(layer, piece.tensor, weights), piece.order)


def refuses(site: Site) -> str | None:
    """It must normalise the axis of the channels."""
    rank = len(site.shapes[0])
    if (site.operation.axis - site.axis) % rank:
        return f"it normalises axis {site.operation.axis}, not that of the channels"
    return None


def _affine(site: Site) -> tuple[Array, Array]:
    weights = {name: np.asarray(value, np.float64) for name, value in site.weights.items()}
    deviation = np.sqrt(weights["moving_variance"] + site.operation.epsilon)
    gain = weights.get("gamma", 1.0) / deviation
    return gain, weights.get("beta", 0.0) - gain * weights["moving_mean"]


register(Rule(flow, build, refuses, channels_first=True), keras.layers.BatchNormalization)
