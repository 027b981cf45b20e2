"""CIFAR-10, 32x32: the base architectures of Table 2, and ResNet-56.

Strides of 2 are where the width grows; the square bound, whose width never grows, has them at the
same places, the eighth and the fourteenth convolution. Shortcuts that change the shape are 1x1
convolutions, so `cifar10-resnet20` has 40.8 million multiply-adds; the original ResNet-20 pads its
shortcuts with zeros and has 40.6.

The paper gives the square bound a depth of 20. Its text, eighteen convolutions, and the classifier
make 19; the eighteenth convolution has no partner, so no shortcut bypasses it.
"""

from __future__ import annotations

from dataclasses import replace

from keras_structsparse.models.bases import Base
from keras_structsparse.models.entries import Published, base_entry, pair_of_entries
from keras_structsparse.models.specs import strides

_SHAPE = (32, 32, 3)


def _resnet(depth: int) -> Base:
    """6n + 2 layers: one convolution, three widths with 2n each, the classifier."""
    n = (depth - 2) // 6
    layers = (((16, 3),) * (2 * n + 1), ((32, 3),) * (2 * n), ((64, 3),) * (2 * n))
    flat = tuple(layer for run in layers for layer in run)
    return Base(flat, strides(flat))


_SQUARE = ((64, 5),) * 18

ENTRIES = {
    **pair_of_entries(
        ("cifar10-resnet20", "cifar10-plain20"), "base of depth 20", _SHAPE, 10, _resnet(20)
    ),
    **pair_of_entries(
        ("cifar10-square-residual", "cifar10-square-plain"),
        "square bound",
        _SHAPE,
        10,
        Base(_SQUARE, strides(_SQUARE)),
    ),
}

_HE = "He et al. 2016, Deep Residual Learning for Image Recognition, Table 6, zero-padded shortcuts"

REFERENCES = {
    "cifar10-resnet20": replace(
        ENTRIES["cifar10-resnet20"], published=Published("CIFAR-10 8.75 %", _HE)
    ),
    "cifar10-resnet56": replace(
        base_entry("ResNet-56 for CIFAR", _SHAPE, 10, _resnet(56)),
        published=Published("CIFAR-10 6.97 %", _HE),
    ),
}
