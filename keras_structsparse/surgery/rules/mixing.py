"""Layers that are copied unchanged, mostly since they mix channels; notes give the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import keras
from keras import layers, ops

from keras_structsparse._typing import Array
from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import Flow, Piece, Rule, Site

CHANNELS = "it mixes channels: every output depends on all of them"


def unchanged(reason: str) -> Rule:
    """A rule for layers that are copied unchanged, with all channels that they read and compute.

    Args:
        reason: The reason, for the note.

    Returns:
        The rule.
    """

    def flow(site: Site) -> Flow:
        raise AssertionError(f"{site.name} is refused")

    def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
        raise AssertionError(f"{site.name} is refused")

    return Rule(flow, build, refuses=lambda site: reason)


def along_channels(site: Site) -> str:
    """Why a normalisation or softmax is copied: it mixes channels, or acts along other axes."""
    axis = getattr(site.operation, "axis", -1)
    rank, axes = len(site.shapes[0]), [axis] if isinstance(axis, int) else axis
    if axes is None or any(own % rank == rank - 1 for own in axes):
        return CHANNELS
    return f"it acts along the axes {list(axes)}, which are not followed"


def _types(*names: str) -> list[type[keras.Layer]]:
    """The layers with these names that the installed version of Keras has."""
    return [getattr(layers, name) for name in names if hasattr(layers, name)]


register(
    replace(unchanged(CHANNELS), refuses=along_channels),
    *_types("LayerNormalization", "RMSNormalization", "UnitNormalization", "Softmax"),
    # With two channels: for one, Keras warns.
    *(
        operation_type(lambda x, function=function: function(ops.repeat(x, 2, axis=-1)))
        for function in (ops.softmax, ops.log_softmax, ops.logsumexp, ops.normalize)
    ),
    understands=None,
)
register(
    unchanged("attention mixes channels: every output depends on all of them"),
    *_types("MultiHeadAttention", "GroupQueryAttention", "Attention", "AdditiveAttention"),
)
register(
    unchanged("it is a matrix product, whose axes are not followed"),
    *_types("EinsumDense", "Dot"),
    *(operation_type(function, 2) for function in (ops.matmul, ops.dot)),
    operation_type(lambda *tensors: ops.einsum("ab,cb->ac", *tensors), 2),
    understands=None,
)
register(
    unchanged("its states mix channels"),
    *_types("RNN"),
    *_types("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
)
register(
    unchanged("it preprocesses inputs and keeps all its channels"),
    *_types(*(name for name in dir(layers) if name.startswith("Random"))),
    *_types("RandAugment", "AugMix", "MixUp", "CutMix", "CenterCrop"),
)
register(unchanged("it wraps another layer"), *_types("TimeDistributed", "SpectralNormalization"))
register(unchanged("it computes a mask from all channels"), layers.Masking)
register(unchanged("its function is not known"), layers.Lambda)
