"""Rules for Keras' own layers, one family a file. Importing a file registers its rules."""

from keras_structsparse.surgery.rules import (
    convolution,
    dense,
    elementwise,
    merging,
    normalization,
    padding,
    pooling,
    reshaping,
)

__all__ = [
    "convolution",
    "dense",
    "elementwise",
    "merging",
    "normalization",
    "padding",
    "pooling",
    "reshaping",
]
