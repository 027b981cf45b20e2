"""Dense layers."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import Flow, Piece, Rule, Site, emit, only
from keras_structsparse.graph.cloning import clone
from keras_structsparse.surgery import linear_layers


def flow(site: Site) -> Flow:
    """A dense layer is a convolution without padding."""
    return linear_layers.flow(site, padded=False)


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The layer with the kept units over the kept inputs."""
    piece = only(pieces)
    kernel, bias = linear_layers.shrunk(site, piece.order, wanted, padded=False)
    layer = clone(
        site.operation,
        name=site.layer_name,
        units=len(wanted),
        use_bias=bias is not None,
    )
    weights = [kernel] if bias is None else [kernel, bias]
    return Piece(emit(layer, piece.tensor, weights), wanted)


def refuses(site: Site) -> str | None:
    """Refuse weights besides kernel and bias: of low-rank adapters or quantised kernels."""
    return linear_layers.unknown_weights(site)


register(Rule(flow, build, refuses), keras.layers.Dense)
