"""Dense layers."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import Flow, Piece, Rule, Site, emit, only
from keras_structsparse.graph.cloning import clone
from keras_structsparse.surgery import constant_maps, linear_layers


def flow(site: Site) -> Flow:
    """A dense layer is a convolution without padding."""
    return linear_layers.flow(site, padded=False)


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The layer with the kept units over the kept inputs."""
    piece = only(pieces)
    offset = constant_maps.removed(site, piece.order, wanted)
    kernel, bias = linear_layers.shrunk(site, piece.order, wanted, padded=False)
    layer = clone(
        site.operation,
        name=site.layer_name,
        units=len(wanted),
        use_bias=bias is not None,
        **constant_maps.linear(offset),
    )
    weights = [kernel] if bias is None else [kernel, bias]
    tensor = emit(layer, piece.tensor, weights)
    return Piece(constant_maps.added(site, tensor, offset), wanted)


def refuses(site: Site) -> str | None:
    """Refuse weights besides kernel and bias: of low-rank adapters or quantised kernels."""
    return linear_layers.unknown_weights(site)


register(Rule(flow, build, refuses, maps=constant_maps.addable), keras.layers.Dense)
