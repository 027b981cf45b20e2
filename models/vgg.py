"""VGG-16 (Simonyan and Zisserman 2015), from keras.applications."""

from __future__ import annotations

import keras

from keras_structsparse.models.entries import Entry, Published, Shape


def build_vgg16(input_shape: Shape, classes: int) -> keras.Model:
    """Build VGG-16 with new weights.

    Args:
        input_shape: Shape of one input, (height, width, channels), 32x32 or larger.
        classes: Number of classes.
    """
    return keras.applications.VGG16(weights=None, input_shape=input_shape, classes=classes)


REFERENCES = {
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
}
