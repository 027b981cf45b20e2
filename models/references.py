"""Published networks to compare with (Table 1).

AlexNet and GoogLeNet have files of their own; VGG-16 (Simonyan and Zisserman 2015) and ResNet-152
(He et al. 2016) are those of keras.applications.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import keras

from keras_structsparse.models import alexnet, googlenet
from keras_structsparse.models.base_networks import BASES, CIFAR10_SHAPE, cifar_resnet
from keras_structsparse.models.entries import Entry, Published, Shape, base_entry

_RESNET = "He et al. 2016, Deep Residual Learning for Image Recognition"
_RESNET_CIFAR = f"{_RESNET}, Table 6, zero-padded shortcuts"


def build_vgg16(input_shape: Shape, classes: int) -> keras.Model:
    """Build VGG-16 with new weights.

    Args:
        input_shape: Shape of one input, (height, width, channels), 32x32 or larger.
        classes: Number of classes.
    """
    return keras.applications.VGG16(weights=None, input_shape=input_shape, classes=classes)


def build_resnet152(input_shape: Shape, classes: int) -> keras.Model:
    """Build ResNet-152 with new weights.

    Args:
        input_shape: Shape of one input, (height, width, channels), 32x32 or larger.
        classes: Number of classes.
    """
    return keras.applications.ResNet152(weights=None, input_shape=input_shape, classes=classes)


REFERENCES: Mapping[str, Entry] = {
    "alexnet": alexnet.ENTRY,
    "vgg16": Entry(
        "VGG-16, configuration D",
        (224, 224, 3),
        1000,
        build_vgg16,
        Published(
            "top-1 27.0 %, top-5 8.8 % (one scale)",
            "Simonyan and Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image "
            "Recognition, Table 3, configuration D, S = Q = 256",
        ),
    ),
    "googlenet": googlenet.ENTRY,
    "resnet152": Entry(
        "ResNet-152",
        (224, 224, 3),
        1000,
        build_resnet152,
        Published(
            "top-1 21.43 %, top-5 5.71 % (10 crops); 19.38 %, 4.49 % (several scales)",
            f"{_RESNET}, Tables 3 and 4",
        ),
    ),
    "cifar10-resnet20": replace(
        BASES["cifar10-resnet20"], published=Published("CIFAR-10 8.75 %", _RESNET_CIFAR)
    ),
    "cifar10-resnet56": replace(
        base_entry("ResNet-56 for CIFAR", CIFAR10_SHAPE, 10, cifar_resnet(56)),
        published=Published("CIFAR-10 6.97 %", _RESNET_CIFAR),
    ),
}
"""Published networks, by name."""
