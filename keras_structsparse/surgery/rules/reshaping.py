"""Layers that move channels to other places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers

from keras_structsparse.surgery.channels import Channels, Flow, Piece, Rule, Site
from keras_structsparse.surgery.registry import register
from keras_structsparse.surgery.rules.elementwise import build

Array = Any


def flow_flatten(site: Site) -> Flow:
    """Every position holds all channels, so the flat vector repeats them."""
    inputs = site.inputs[0]
    positions = _positions(site)
    return Flow(
        Channels(
            ids=np.tile(inputs.ids, positions),
            live=np.tile(inputs.live, positions),
            value=np.tile(inputs.value, positions),
            cost=np.tile(inputs.cost / positions, positions),
        )
    )


def build_flatten(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """Flatten the kept channels; every position has them in the same order."""
    piece, width = build(site, wanted, pieces), len(site.inputs[0])
    starts = np.arange(_positions(site)) * width
    return Piece(piece.tensor, (starts[:, None] + piece.order).ravel())


def _positions(site: Site) -> int:
    return math.prod(size or 1 for size in site.shapes[0][1:-1])


def refuses(site: Site) -> str | None:
    """The number of positions must be known, and channels must come last."""
    if site.operation.data_format != "channels_last":
        return "its data format is channels_first"
    if None in site.shapes[0][1:]:
        return f"the size of its input is not known: {site.shapes[0]}"
    return None


register(Rule(flow_flatten, build_flatten, refuses), layers.Flatten)
