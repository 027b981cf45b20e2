"""Random changes of training images, and how images are brought into a network, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_structsparse._validation import (
    boolean,
    fraction,
    interval,
    nonnegative_int,
    one_of,
    positive_int,
    set_checked,
)
from keras_structsparse.data.preprocessing import FAMILIES, PREPROCESSINGS, preprocessing

LARGEST_SIDE = 10_000
"""Pixels of a side that images are resized to: 1.2 GB for each image of three channels."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images.

    Attributes:
        shift: Pixels of zeros around an image, out of which a part of its old size is cut.
        flip: Whether half of the images are mirrored.
        area: Smallest and largest share of an image's area that is cut out, with sides of 3:4 to
            4:3, and resized; None for none. Only for images that are cut to one side.

    Raises:
        ValueError: A value is out of its range.
    """

    shift: int = 0
    flip: bool = False
    area: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        set_checked(
            self,
            shift=nonnegative_int("shift", self.shift),
            flip=boolean("flip", self.flip),
            area=None if self.area is None else interval("area", self.area, fraction),
        )


NOTHING = Augmentation()
AUGMENTATIONS: Mapping[str, Augmentation] = {
    "none": NOTHING,
    "flip": Augmentation(flip=True),
    "shift": Augmentation(shift=4),
    "shift-flip": Augmentation(shift=4, flip=True),
    "crop-flip": Augmentation(flip=True, area=(0.35, 1.0)),
}
"""Usual changes by name: "shift-flip" is usual for CIFAR-10, "crop-flip" for photographs."""


@dataclass(frozen=True)
class ImageOptions:
    """How the images of a data set are brought into a network.

    Attributes:
        image_size: Height and width that images are resized and cropped to; none for images of one
            size.
        preprocess: What the network expects of its images: values in 0..1 or -1..1, none for 0 to
            255, the normalisations torch or caffe, or a module of keras.applications such as
            mobilenet_v2.
        augment: Random changes of training images: mirrored, shifted by up to 4 pixels, or cut out
            at random and resized.

    Raises:
        DatasetError: ``preprocess`` is unknown.
        ValueError: Another argument is not one of its values.
    """

    image_size: int | None = None
    preprocess: str = field(default="0..1", metadata={"choices": (*PREPROCESSINGS, *FAMILIES)})
    augment: str = field(default="none", metadata={"choices": tuple(AUGMENTATIONS)})

    def __post_init__(self) -> None:
        if self.image_size is not None:
            size = positive_int("image_size", self.image_size)
            if size > LARGEST_SIDE:
                raise ValueError(
                    f"image_size: expected at most {LARGEST_SIDE:,} pixels. Received: {size:,}"
                )
            set_checked(self, image_size=size)
        preprocessing(self.preprocess)
        one_of("augment", self.augment, tuple(AUGMENTATIONS))

    def __str__(self) -> str:
        size = f", {self.image_size} pixels" if self.image_size else ""
        return size + (f", preprocessed as {self.preprocess}" if self.preprocess != "0..1" else "")
