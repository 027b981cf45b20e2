"""What a network expects of its images: the scale of the values and the order of the channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.errors import DatasetError


@dataclass(frozen=True)
class Preprocessing:
    """An affine map of each channel: ``image * scale + offset``, for images in [0, 1].

    Attributes:
        scale: One factor, or one for each channel.
        offset: One number, or one for each channel.
        bgr: Whether the channels are brought from the order red, green, blue into blue, green, red
            first.
    """

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    bgr: bool = False

    def __call__(self, images: Array | Tensor) -> Array | Tensor:
        """The images that the network gets.

        Args:
            images: float32 in [0, 1], shape (..., height, width, channels).

        Returns:
            float32 of the same shape.

        Raises:
            DatasetError: The map is one of three channels, and the images have another number.
        """
        import numpy as np

        channels = images.shape[-1]
        if (self.bgr or len(self.scale) > 1) and channels != 3:
            raise DatasetError(
                "preprocess: expected images of three channels for a map of red, green and blue, "
                f"received {channels}"
            )
        ordered = images[..., ::-1] if self.bgr else images
        return ordered * np.asarray(self.scale, np.float32) + np.asarray(self.offset, np.float32)


_STD = (0.229, 0.224, 0.225)
_MEAN = (0.485, 0.456, 0.406)

UNIT = Preprocessing()
PREPROCESSINGS: Mapping[str, Preprocessing] = {
    "0..1": UNIT,
    "-1..1": Preprocessing((2.0,), (-1.0,)),
    "none": Preprocessing((255.0,)),
    "torch": Preprocessing(
        tuple(1 / std for std in _STD),
        tuple(-mean / std for mean, std in zip(_MEAN, _STD, strict=True)),
    ),
    "caffe": Preprocessing((255.0,), (-103.939, -116.779, -123.68), bgr=True),
}
"""Preprocessings by name, as in ``keras.applications.imagenet_utils``; "none": 0 to 255."""

FAMILIES: Mapping[str, str] = {
    "convnext": "none",
    "densenet": "torch",
    "efficientnet": "none",
    "efficientnet_v2": "none",
    "inception_resnet_v2": "-1..1",
    "inception_v3": "-1..1",
    "mobilenet": "-1..1",
    "mobilenet_v2": "-1..1",
    "mobilenet_v3": "none",
    "nasnet": "-1..1",
    "resnet": "caffe",
    "resnet_v2": "-1..1",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "xception": "-1..1",
}
"""The preprocessing of each module of ``keras.applications``."""


def preprocessing(name: str) -> Preprocessing:
    """The preprocessing of a name.

    Args:
        name: One of :data:`PREPROCESSINGS`, or a module of ``keras.applications``.

    Raises:
        DatasetError: There is no such name.

    Examples:
        >>> preprocessing("mobilenet_v2") == preprocessing("-1..1")
        True
    """
    found = PREPROCESSINGS.get(FAMILIES.get(name, name))
    if found is None:
        raise DatasetError(
            f"preprocess: expected one of {', '.join((*PREPROCESSINGS, *FAMILIES))}. "
            f"Received: {name!r}"
        )
    return found
