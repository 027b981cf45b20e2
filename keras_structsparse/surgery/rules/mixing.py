"""Layers whose outputs each depend on all channels: they stay as they are, and notes say why."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import Flow, Piece, Rule, Site
from keras_structsparse.graph.functional_graph import operation_type

CHANNELS = "it mixes channels: every output depends on all of them"


def stays(reason: str) -> Rule:
    """A rule for layers that stay as they are, with all channels that they read and make.

    Args:
        reason: Why; the note says it.

    Returns:
        The rule.
    """

    def flow(site: Site) -> Flow:
        raise AssertionError(f"{site.name} is refused")

    def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
        raise AssertionError(f"{site.name} is refused")

    return Rule(flow, build, refuses=lambda site: reason)


def _types(*names: str) -> list[type[keras.Layer]]:
    """The layers of these names that this version of Keras has."""
    return [getattr(layers, name) for name in names if hasattr(layers, name)]


register(
    stays(CHANNELS),
    *_types("LayerNormalization", "RMSNormalization", "UnitNormalization", "Softmax"),
    # Two channels: of one, Keras warns.
    *(
        operation_type(lambda x, function=function: function(ops.repeat(x, 2, axis=-1)))
        for function in (ops.softmax, ops.log_softmax, ops.logsumexp, ops.normalize)
    ),
)
register(
    stays("attention mixes channels: every output depends on all of them"),
    *_types("MultiHeadAttention", "GroupQueryAttention", "Attention", "AdditiveAttention"),
)
register(
    stays("it is a product of matrices whose axes are not followed"),
    *_types("EinsumDense", "Dot"),
    *(operation_type(function, 2) for function in (ops.matmul, ops.dot)),
    operation_type(lambda *tensors: ops.einsum("ab,cb->ac", *tensors), 2),
)
register(
    stays("its states mix channels"),
    *_types("SimpleRNN", "LSTM", "GRU", "RNN", "Bidirectional"),
    *_types("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
)
register(
    stays("it is made for the inputs of a network and keeps all its channels"),
    *_types(*(name for name in dir(layers) if name.startswith("Random"))),
    *_types("RandAugment", "AugMix", "MixUp", "CutMix", "CenterCrop"),
)
register(stays("it wraps another layer"), *_types("TimeDistributed", "SpectralNormalization"))
register(stays("it computes a mask from all channels"), layers.Masking)
register(stays("its function is not known"), layers.Lambda)
