"""Layers that treat every entry by itself: activations, dropout and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from keras import activations, layers, ops

from keras_structsparse.copying import clone
from keras_structsparse.graph import operation_type
from keras_structsparse.surgery import linear
from keras_structsparse.surgery.channels import Flow, Piece, Rule, Site
from keras_structsparse.surgery.constants import settled
from keras_structsparse.surgery.registry import register

Array = Any


def flow_activation(site: Site) -> Flow:
    """A constant c becomes the constant f(c)."""
    inputs = site.inputs[0]
    live, value = settled(site, inputs.live)
    return Flow(inputs.passed(live=live, value=value))


def flow_identity(site: Site) -> Flow:
    """At inference the layer passes everything on."""
    return Flow(site.inputs[0])


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The same layer on fewer channels."""
    (piece,) = pieces
    assert piece is not None, "the output has the channels of the input"
    args, kwargs = site.fill([piece.tensor])
    return Piece(clone(site.operation, name=site.layer_name)(*args, **kwargs), piece.order)


def mixes(site: Site) -> str | None:
    """Softmax and its like mix channels, and unknown functions may."""
    if linear.is_elementwise(site.operation.activation):
        return None
    return "its activation is not known to treat every channel by itself"


FUNCTIONS = (
    activations.relu,
    *(ops.relu, ops.relu6, ops.leaky_relu, ops.elu, ops.selu, ops.celu, ops.gelu, ops.silu),
    *(ops.sigmoid, ops.log_sigmoid, ops.hard_sigmoid, ops.hard_silu, ops.softplus, ops.softsign),
    *(ops.tanh, ops.exp, ops.sqrt, ops.square, ops.abs, ops.negative),
)
"""What bare operations of one tensor make of every entry by itself."""

ACTIVATION = Rule(flow_activation, build, channels_first=True)

register(ACTIVATION, layers.ReLU, layers.LeakyReLU, layers.ELU)
register(ACTIVATION, *dict.fromkeys(map(operation_type, FUNCTIONS)))
register(replace(ACTIVATION, refuses=mixes), layers.Activation)
register(
    Rule(flow_identity, build, borders=True, channels_first=True),
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianNoise,
    layers.GaussianDropout,
    layers.Identity,
)
