"""Transposed convolutions, with kernels (*spatial, out, in).

A constant input becomes a spatial pattern, since strides and zero padding decide which entries of
the kernel reach a position. Through the same kernel slice all constants become the same pattern, so
one carrier can stand for the others. Kernels are not cropped.

A strided layer of size 1 with few kernels cannot be trained with oneDNN (see
:mod:`keras_structsparse.graph.onednn`): surgery keeps as many as it can train, some of them zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import Flow, Piece, Rule, Site, emit, misplaced, only
from keras_structsparse.graph.cloning import clone
from keras_structsparse.graph.onednn import REGISTER, overflows
from keras_structsparse.surgery import constant_maps, linear_layers


def flow(site: Site) -> Flow:
    """As for a linear layer with the kernel (*spatial, in, out)."""
    found = linear_layers.flow(_as_convolution(site), _makes_patterns(site))
    return replace(found, least_width=_trainable_width(site))


def _trainable_width(site: Site) -> int:
    """The fewest kernels with which oneDNN can train the layer; 0 if it can with any number."""
    *size, width, inputs = site.weights["kernel"].shape
    is_affected = overflows((*size, 1, inputs), site.operation.strides)
    return REGISTER if is_affected and width >= REGISTER else 0


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The layer with the kept kernels over the kept channels."""
    piece = only(pieces)
    offset = constant_maps.removed(site, piece.order, wanted, axis=-1)
    kernel, bias = linear_layers.shrunk(
        _as_convolution(site), piece.order, wanted, _makes_patterns(site)
    )
    layer = clone(
        site.operation,
        name=site.layer_name,
        filters=len(wanted),
        use_bias=bias is not None,
        **constant_maps.linear(offset),
    )
    weights = [kernel.swapped, *([] if bias is None else [bias])]
    return Piece(constant_maps.added(site, emit(layer, piece.tensor, weights), offset), wanted)


def _as_convolution(site: Site) -> Site:
    """The site with a kernel (*spatial, in, out), applied once per position of the input.

    Interior positions of the output differ from each other, so "interior" means "exact" here.
    """
    kernel = np.swapaxes(site.weights["kernel"], -1, -2)
    constants = "drop" if site.constants == "drop" else "exact"
    weights = {**site.weights, "kernel": kernel}
    return replace(site, weights=weights, output_shape=site.shapes[0], constants=constants)


def _makes_patterns(site: Site) -> bool:
    return max(*site.operation.kernel_size, *site.operation.strides) > 1


register(
    Rule(flow, build, misplaced, borders=True, maps=constant_maps.addable),
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
