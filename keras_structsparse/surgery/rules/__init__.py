"""Rules for Keras' own layers, one family a file. Importing a file registers its rules."""

from keras_structsparse.surgery.rules import (
    arithmetic,
    convolution,
    dense,
    depthwise,
    elementwise,
    merging,
    mixing,
    normalization,
    padding,
    pooling,
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
    "merging",
    "mixing",
    "normalization",
    "padding",
    "pooling",
    "reshaping",
    "slicing",
    "transposed",
]
