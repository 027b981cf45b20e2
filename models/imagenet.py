"""ImageNet, 224x224: the base architectures of Table 2.

The paper does not say where the strides are. As in residual networks: the first convolution has
stride 2 and a 3x3 max pooling with stride 2 behind it, then strides of 2 are where the width grows.
So `imagenet-resnet18` is ResNet-18.
"""

from __future__ import annotations

from keras_structsparse.models.bases import Base
from keras_structsparse.models.entries import pair_of_entries

_SHAPE = (224, 224, 3)
_STEM = (64, 7)


def _base(widths: tuple[int, ...], each: int) -> Base:
    layers = (_STEM, *((width, 3) for width in widths for _ in range(each)))
    grown = tuple(1 + each * stage for stage in range(1, len(widths)))
    return Base(layers, (0, *grown), pooled=True)


ENTRIES = {
    **pair_of_entries(
        ("imagenet-resnet8", "imagenet-plain8"),
        "base of depth 8",
        _SHAPE,
        1000,
        _base((64, 128, 256), 2),
    ),
    **pair_of_entries(
        ("imagenet-resnet18", "imagenet-plain18"),
        "base of depth 18",
        _SHAPE,
        1000,
        _base((64, 128, 256, 512), 4),
    ),
}
