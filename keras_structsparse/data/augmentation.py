"""Random changes of training images, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images.

    Attributes:
        shift: Pixels of zeros around an image, out of which a part of its old size is cut.
        flip: Whether half of the images are mirrored.
        area: Smallest and largest share of an image's area that is cut out, with sides of 3:4 to
            4:3, and resized; None for none. Only for images that are cut to one side.
    """

    shift: int = 0
    flip: bool = False
    area: tuple[float, float] | None = None
