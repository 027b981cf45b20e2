"""Images as streams: read, cropped, augmented, preprocessed, in batches.

Only data sets of small images are held in memory, so ImageNet can be streamed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from keras_structsparse._typing import Tensor
from keras_structsparse.data.augmentation import Augmentation
from keras_structsparse.data.preprocessing import preprocessing
from keras_structsparse.data.records import Records, RecordSplits, records_of
from keras_structsparse.errors import DatasetError
from keras_structsparse.profiling.memory import check_memory

Stream = Any
"""A ``tf.data.Dataset`` of batches: images, float32 as the preprocessing makes them, and labels,
int64."""

BUFFER = 10_000
"""Size of the shuffle buffer, in examples."""

MARGIN = 256 / 224
"""For images of different sizes: the shorter side before the central crop, over the crop's side."""


class StreamSettings(Protocol):
    """The settings of a stream; any object with these attributes is one.

    Recipes are such objects, and belong to the training: the data know nothing of it.
    """

    @property
    def dataset(self) -> str:
        """Name of the data set in tensorflow-datasets, "digits", or a folder or file of images."""

    @property
    def batch_size(self) -> int:
        """Images in a batch."""

    @property
    def side(self) -> int | None:
        """Height and width that images are resized and cropped to; None for images of one size."""

    @property
    def augmentation(self) -> Augmentation:
        """Random changes of training images."""

    @property
    def preprocess(self) -> str:
        """What the network expects of its images, a name of :mod:`.preprocessing`."""


@dataclass(frozen=True, eq=False)
class Streams:
    """A data set as streams.

    Attributes:
        train: Batches of one epoch, shuffled and augmented, differently in every epoch.
        validation: Batches of the part held out of the official training split.
        test: Batches of the official test split.
        examples: Number of training images.
        shape: (height, width, channels) of an image.
        classes: Number of classes.
        class_names: The name of each class; empty if they have none.
    """

    train: Stream
    validation: Stream
    test: Stream
    examples: int
    shape: tuple[int, int, int]
    classes: int
    class_names: tuple[str, ...] = ()


def streams(
    settings: StreamSettings,
    data_dir: str | Path | None = None,
    validation: float = 0.1,
    seed: int = 0,
) -> Streams:
    """Open a data set as streams.

    The validation split of a set of tensorflow-datasets is the beginning of the training split, in
    the order of its files, which tensorflow-datasets shuffled when it wrote them. Of a folder, see
    :meth:`keras_structsparse.data.image_folders.ImageFolder.open`.

    Args:
        settings: The data set, batch size, image size, preprocessing and augmentation.
        data_dir: As for :func:`keras_structsparse.data.datasets.load`; not used for a folder.
        validation: Share of the training split to hold out, above 0 and below 1.
        seed: Seed of the order and the augmentation of training images.

    Returns:
        The streams.

    Raises:
        DatasetError: As for :func:`keras_structsparse.data.datasets.builder` or
            :meth:`keras_structsparse.data.image_folders.ImageFolder.open`; or the share leaves
            a split empty, a split does not exist, or images have different sizes and
            ``settings.side`` is None.

    Examples:
        >>> from keras_structsparse.training.recipes import RECIPES
        >>> found = streams(RECIPES["digits"])
        >>> found.examples, found.shape
        (1167, (8, 8, 1))
    """
    opened = records_of(settings.dataset, data_dir, settings.side, validation, seed)
    return streams_of(opened, settings, seed)


def streams_of(opened: RecordSplits, settings: StreamSettings, seed: int) -> Streams:
    """The splits of an opened data set as streams.

    Args:
        opened: The splits.
        settings: As for :func:`streams`.
        seed: As for :func:`streams`.

    Raises:
        DatasetError: As for :func:`streams`.
    """
    train, held, test = (SplitStreams(records, settings, seed) for records in opened.splits)
    for part in (train, held, test):
        part.check_memory()
    batches = train.changed(), held.plain(), test.plain()
    examples, names = train.records.examples, opened.class_names
    return Streams(*batches, examples, train.shape, opened.classes, names)


class SplitStreams:
    """A split of a data set, not yet opened as a stream."""

    def __init__(self, records: Records, settings: StreamSettings, seed: int) -> None:
        self.records, self.settings, self.seed = records, settings, seed
        self.shape = records.shape_at(settings.side)
        self.preprocess = preprocessing(settings.preprocess)
        self.preprocess(np.zeros((1, 1, 1, self.shape[-1]), np.float32))  # Its errors come now.

    @property
    def batch_size(self) -> int:
        """Images in the largest batch."""
        # TensorFlow takes a time in proportion to the size, however few images there are.
        return min(self.settings.batch_size, self.records.examples)

    def check_memory(self) -> None:
        """Raise unless a batch fits into the memory.

        Raises:
            DatasetError: It does not.
        """
        images = self.batch_size
        what = f"a batch of {images} images of {'x'.join(map(str, self.shape))}"
        check_memory(4 * images * math.prod(self.shape), what, "batch_size", DatasetError)

    def plain(self) -> Stream:
        """Batches in order, images unchanged or cropped to their center."""
        images = self.records.open(False)
        return self._batches(_mapped(images, lambda x, y: (self._image(x), y)))

    def changed(self) -> Stream:
        """Batches in random order, images augmented."""
        import tensorflow as tf

        images = self.records.open(True)
        images = images.shuffle(BUFFER, self.seed, reshuffle_each_iteration=True)
        numbers = tf.data.Dataset.random(self.seed, rerandomize_each_iteration=True).batch(2)
        pairs = tf.data.Dataset.zip((images, numbers))
        return self._batches(_mapped(pairs, lambda xy, seed: (self._changed(xy[0], seed), xy[1])))

    def _batches(self, images: Stream) -> Stream:
        import tensorflow as tf

        return images.batch(self.batch_size).prefetch(tf.data.AUTOTUNE)

    def _scaled(self, image: Tensor) -> Tensor:
        import tensorflow as tf

        unit = tf.cast(image, tf.float32) / self.records.levels
        return tf.ensure_shape(self.preprocess(unit), self.shape)

    def _image(self, image: Tensor) -> Tensor:
        return self._scaled(self._centered(image))

    def _centered(self, image: Tensor) -> Tensor:
        if not self.records.encoded:
            return image
        side, channels = self.settings.side, self.shape[-1]
        return decoded(image, channels) if side is None else middle(image, side, channels)

    def _changed(self, image: Tensor, seed: Tensor) -> Tensor:
        augmentation, side = self.settings.augmentation, self.settings.side
        if self.records.encoded and side is not None and augmentation.area is not None:
            image = random_area(image, side, augmentation.area, seed)
        else:
            image = self._centered(image)
        return self._scaled(shifted_and_flipped(image, augmentation, seed))


def _mapped(stream: Stream, function: Callable[..., Any]) -> Stream:
    import tensorflow as tf

    return stream.map(function, num_parallel_calls=tf.data.AUTOTUNE)


def shifted_and_flipped(image: Tensor, augmentation: Augmentation, seed: Tensor) -> Tensor:
    """Randomly crop an image that is padded with zeros to its old size, and mirror it at random.

    Args:
        image: (height, width, channels).
        augmentation: Largest shift, and whether to mirror.
        seed: Two integers.
    """
    import tensorflow as tf

    if augmentation.shift:
        border = (augmentation.shift,) * 2
        wide = tf.pad(image, (border, border, (0, 0)))
        image = tf.image.stateless_random_crop(wide, tf.shape(image), seed)
    if augmentation.flip:
        image = tf.image.stateless_random_flip_left_right(image, seed + 1)
    return image


def random_area(encoded: Tensor, side: int, area: tuple[float, float], seed: Tensor) -> Tensor:
    """Decode a random part of an image and resize it.

    Args:
        encoded: The encoded image.
        side: Height and width of the result.
        area: Smallest and largest share of the image's area.
        seed: Two integers.
    """
    import tensorflow as tf

    def window(shape: Tensor) -> Tensor:
        start, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            tf.zeros((1, 0, 4)),
            seed,
            min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=area,
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat((start[:2], size[:2]), axis=0)

    def of_jpeg() -> Tensor:
        # A part of a JPEG can be decoded alone, which takes less time.
        part = window(tf.io.extract_jpeg_shape(encoded))
        return tf.image.decode_and_crop_jpeg(encoded, part, channels=3)

    def of_any() -> Tensor:
        image = decoded(encoded, 3)
        top, left, height, width = tf.unstack(window(tf.shape(image)))
        return image[top : top + height, left : left + width]

    return _resized(tf.cond(tf.io.is_jpeg(encoded), of_jpeg, of_any), (side, side))


def middle(encoded: Tensor, side: int, channels: int = 3) -> Tensor:
    """Decode an image, resize it, and crop its center.

    Args:
        encoded: The encoded image.
        side: Height and width of the result.
        channels: Number of channels of the result, 1 or 3.
    """
    import tensorflow as tf

    image = decoded(encoded, channels)
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    wide = tf.cast(tf.round(sides * (side * MARGIN / tf.reduce_min(sides))), tf.int32)
    top, left = tf.unstack((wide - side) // 2)
    return tf.image.crop_to_bounding_box(_resized(image, wide), top, left, side, side)


def decoded(encoded: Tensor, channels: int) -> Tensor:
    """An image (height, width, channels), uint8."""
    import tensorflow as tf

    return tf.io.decode_image(encoded, channels=channels, expand_animations=False)


def _resized(image: Tensor, size: Any) -> Tensor:
    import tensorflow as tf

    return tf.clip_by_value(tf.image.resize(image, size), 0.0, 255.0)
