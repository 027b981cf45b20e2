"""Layers of KerasHub's backbones, registered by name: the package need not be installed."""

from __future__ import annotations

from collections.abc import Sequence

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import Piece, Rule, Site, emit, only
from keras_structsparse.graph.cloning import clone
from keras_structsparse.surgery.rules import elementwise, mixing


def build_affine(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """A copy of the layer: one factor and one offset apply to all channels."""
    piece = only(pieces)
    layer = clone(site.operation, name=site.layer_name)
    weights = [site.taken(name) for name in site.weights]
    return Piece(emit(layer, piece.tensor, weights), piece.order)


register(
    Rule(elementwise.flow_activation, build_affine, channels_first=True),
    "keras_hub>HGNetV2LearnableAffineBlock",
)
register(mixing.unchanged(mixing.CHANNELS), "keras_hub>RmsNorm2d")
