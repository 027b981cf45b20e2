"""Rules for the layers of Keras, one family per module. Importing a module registers its rules."""

from keras_structsparse.surgery.rules import (
    arithmetic,
    convolution,
    dense,
    depthwise,
    elementwise,
    keras_hub,
    merging,
    mixing,
    normalization,
    padding,
    pooling,
    recurrent,
    reshaping,
    slicing,
    transposed,
)

__all__ = [
    "arithmetic",
    "convolution",
    "dense",
    "depthwise",
    "elementwise",
    "keras_hub",
    "merging",
    "mixing",
    "normalization",
    "padding",
    "pooling",
    "recurrent",
    "reshaping",
    "slicing",
    "transposed",
]
