"""ResNet-152 (He et al. 2016), from keras.applications."""

from __future__ import annotations

import keras

from keras_structsparse.models.entries import Entry, Published, Shape


def build_resnet152(input_shape: Shape, classes: int) -> keras.Model:
    """Build ResNet-152 with new weights.

    Args:
        input_shape: Shape of one input, (height, width, channels), 32x32 or larger.
        classes: Number of classes.
    """
    return keras.applications.ResNet152(weights=None, input_shape=input_shape, classes=classes)


REFERENCES = {
    "resnet152": Entry(
        "ResNet-152",
        (224, 224, 3),
        1000,
        build_resnet152,
        Published(
            "top-1 21.43 %, top-5 5.71 % (10 crops); 19.38 %, 4.49 % (several scales)",
            "He et al. 2016, Deep Residual Learning for Image Recognition, Tables 3 and 4",
        ),
    ),
}
