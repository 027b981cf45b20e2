"""A data set in memory, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_structsparse.data.digits import stratified
from keras_structsparse.errors import DatasetError

TEST_SHARE = 0.2
"""For data without a test split: the part of the training split that becomes one."""

MEMORY_LIMIT = 8 * 2**30
"""The most bytes that the images of a data set may need in memory."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels.

    Attributes:
        x: float32 in [0, 1], or as the preprocessing makes them, shape (n, height, width,
            channels).
        y: int64 class numbers, shape (n,).
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    @property
    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Images and labels as a pair, as ``model.fit`` takes them."""
        return self.x, self.y


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    Attributes:
        name: The name that it was loaded by.
        train: The official training split without the validation split.
        validation: The part that is held out of the official training split.
        test: The official test split; never trained on, never selected on.
        classes: Number of classes.
        shape: (height, width, channels) of an image.
        class_names: The name of each class; empty if they have none.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    shape: tuple[int, int, int]
    class_names: tuple[str, ...] = ()


def drawn(labels: NDArray[np.integer], share: float, seed: int) -> NDArray[np.bool_]:
    """Draw a share of the examples, stratified by class.

    Args:
        labels: Class numbers (n,).
        share: The share to draw, above 0 and below 1.
        seed: Seed of the draw.

    Returns:
        Whether each example is drawn (n,).

    Raises:
        DatasetError: Nothing is drawn, or everything.

    Examples:
        >>> int(drawn(np.array([0, 0, 0, 1, 1, 1]), 1 / 3, seed=0).sum())
        2
    """
    count = round(share * len(labels))
    if not 0 < count < len(labels):
        raise DatasetError(
            f"validation: expected a share that leaves images on both sides of {len(labels)}, or "
            f"more images, received {share!r}"
        )
    return stratified(labels, count, seed)


def cut(whole: Split, share: float, seed: int) -> tuple[Split, Split]:
    """The remaining part of a split, and the part that :func:`drawn` draws."""
    out = drawn(whole.y, share, seed)
    return Split(whole.x[~out], whole.y[~out]), Split(whole.x[out], whole.y[out])


def check_memory(name: str, images: int, shape: tuple[int, int, int], instead: str) -> None:
    """Raise unless the images fit in memory.

    Args:
        name: Name of the data set, for the error message.
        images: How many images there are.
        shape: (height, width, channels) of an image.
        instead: What to do instead, for the error message.

    Raises:
        DatasetError: They need more than :data:`MEMORY_LIMIT`.
    """
    need = 4 * images * math.prod(shape)
    if need > MEMORY_LIMIT:
        raise DatasetError(
            f"data set {name!r}: expected at most {MEMORY_LIMIT / 2**30:g} GiB in memory, "
            f"received {need / 2**30:.1f} GiB: {instead}"
        )
