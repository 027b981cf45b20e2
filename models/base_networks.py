"""The base architectures of the registry, by data set: those of Table 2, and small ones.

The paper names square bounds for MNIST and leaves their numbers open. Those for 28x28 and 8x8
images are chosen so that a sweep takes minutes on a few cores: seven layers of sixteen 5x5
kernels. It does not say where the strides are either. Here they are where the width grows, as in
residual networks, and as follows:

* digits, 8x8: at the fourth convolution only, since the images are small.
* MNIST and Fashion-MNIST, 28x28: at the first and fourth convolution; the maps are 14x14 and 7x7.
* CIFAR-10, 32x32: the square bound, whose width never grows, has them at the same places as
  ResNet-20, the eighth and the fourteenth convolution. Shortcuts that change the shape are 1x1
  convolutions, so `cifar10-resnet20` has 40.8 million multiply-adds; the original ResNet-20 pads
  its shortcuts with zeros and has 40.6. The paper gives the square bound a depth of 20. Its text,
  eighteen convolutions, and the classifier make 19; the eighteenth convolution has no partner, so
  no shortcut bypasses it.
* ImageNet, 224x224: also at the first convolution, with a 3x3 max pooling with stride 2 behind it.
  So `imagenet-resnet18` is ResNet-18.
"""

from __future__ import annotations

from collections.abc import Mapping

from keras_structsparse.models.base_architecture import Base
from keras_structsparse.models.base_spec import strides
from keras_structsparse.models.entries import Entry, pair_of_entries

CIFAR10_SHAPE = (32, 32, 3)
_IMAGENET_SHAPE = (224, 224, 3)
_SMALL = ((16, 5),) * 7
_SQUARE = ((64, 5),) * 18


def cifar_resnet(depth: int) -> Base:
    """The bound that is a ResNet for CIFAR (He et al. 2016, section 4.2).

    Args:
        depth: 6n + 2 layers: one convolution, 2n of each of three widths, and the classifier.

    Examples:
        >>> cifar_resnet(20).strided
        (7, 13)
    """
    n = (depth - 2) // 6
    layers = ((16, 3),) * (2 * n + 1) + ((32, 3),) * (2 * n) + ((64, 3),) * (2 * n)
    return Base(layers, strides(layers))


def _imagenet_resnet(widths: tuple[int, ...], each: int) -> Base:
    """A 7x7 stem, then ``each`` 3x3 convolutions of every width."""
    layers = ((64, 7), *((width, 3) for width in widths for _ in range(each)))
    grown = tuple(1 + each * stage for stage in range(1, len(widths)))
    return Base(layers, (0, *grown), pooled=True)


BASES: Mapping[str, Entry] = {
    **pair_of_entries(
        ("digits-residual", "digits-plain"),
        "square bound for 8x8 images",
        (8, 8, 1),
        10,
        Base(_SMALL, (3,)),
    ),
    **{
        name: entry
        for data in ("mnist", "fashion-mnist")
        for name, entry in pair_of_entries(
            (f"{data}-residual", f"{data}-plain"),
            "square bound for 28x28 images",
            (28, 28, 1),
            10,
            Base(_SMALL, (0, 3)),
        ).items()
    },
    **pair_of_entries(
        ("cifar10-resnet20", "cifar10-plain20"),
        "base of depth 20",
        CIFAR10_SHAPE,
        10,
        cifar_resnet(20),
    ),
    **pair_of_entries(
        ("cifar10-square-residual", "cifar10-square-plain"),
        "square bound",
        CIFAR10_SHAPE,
        10,
        Base(_SQUARE, strides(_SQUARE)),
    ),
    **pair_of_entries(
        ("imagenet-resnet8", "imagenet-plain8"),
        "base of depth 8",
        _IMAGENET_SHAPE,
        1000,
        _imagenet_resnet((64, 128, 256), 2),
    ),
    **pair_of_entries(
        ("imagenet-resnet18", "imagenet-plain18"),
        "base of depth 18",
        _IMAGENET_SHAPE,
        1000,
        _imagenet_resnet((64, 128, 256, 512), 4),
    ),
}
"""Upper bounds to train with a penalty, by name."""
