"""Images from tensorflow-datasets as streams: read, cropped, augmented, in batches.

Only data sets of small images are held in memory, so ImageNet can be streamed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from keras_structsparse._typing import Tensor
from keras_structsparse.data import datasets, digits
from keras_structsparse.data.augmentation import Augmentation
from keras_structsparse.errors import DatasetError

Stream = Any
"""A ``tf.data.Dataset`` of images, float32 in [0, 1], and labels, int64, in batches."""

BUFFER = 10_000
"""Size of the shuffle buffer, in examples."""

SMALL_IMAGE = 64
"""Images of one size with sides up to this are cached in memory after the first epoch."""

MARGIN = 256 / 224
"""For images of different sizes: the shorter side before the central crop, over the crop's side."""


class StreamSettings(Protocol):
    """The settings of a stream; any object with these attributes is one.

    Recipes are such objects, and belong to the training: the data know nothing of it.
    """

    @property
    def dataset(self) -> str:
        """Name of the data set in tensorflow-datasets, or "digits"."""

    @property
    def batch_size(self) -> int:
        """Images in a batch."""

    @property
    def side(self) -> int | None:
        """Height and width that images are resized and cropped to; None for images of one size."""

    @property
    def augmentation(self) -> Augmentation:
        """Random changes of training images."""


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
    """

    train: Stream
    validation: Stream
    test: Stream
    examples: int
    shape: tuple[int, int, int]
    classes: int


def streams(
    recipe: StreamSettings,
    data_dir: str | Path | None = None,
    validation: float = 0.1,
    seed: int = 0,
) -> Streams:
    """Open a data set as streams.

    The validation split is the beginning of the training split, in the order of its files, which
    tensorflow-datasets shuffled when it wrote them.

    Args:
        recipe: The data set, batch size, image size and augmentation.
        data_dir: As for :func:`keras_structsparse.data.datasets.load`.
        validation: Share of the training split to hold out, above 0 and below 1.
        seed: Seed of the order and the augmentation of training images.

    Returns:
        The streams.

    Raises:
        DatasetError: As for :func:`keras_structsparse.data.datasets.builder`; or the share leaves
            a split empty, a split does not exist, or images have different sizes and
            ``recipe.side`` is None.

    Examples:
        >>> from keras_structsparse.training.recipes import RECIPES
        >>> found = streams(RECIPES["digits"])
        >>> found.examples, found.shape
        (1167, (8, 8, 1))
    """
    source = datasets.builder(recipe.dataset, data_dir)
    held_out = _held_out(source, validation)
    parts = (f"train[{held_out}:]", f"train[:{held_out}]", _test_split(source))
    train, held, test = (_Part(source, split, recipe, seed) for split in parts)
    examples = source.info.splits["train"].num_examples - held_out
    classes = int(source.info.features["label"].num_classes)
    opened = train.changed(), held.plain(), test.plain()
    return Streams(*opened, examples, train.shape, classes)


def _held_out(source: Any, share: float) -> int:
    total = source.info.splits["train"].num_examples
    count = round(share * total) if 0 < share < 1 else 0
    if not 0 < count < total:
        raise DatasetError(
            f"validation: expected a share that leaves images on both sides of {total}, "
            f"received {share!r}"
        )
    return count


def _test_split(source: Any) -> str:
    wanted = (datasets.OFFICIAL_TEST.get(source.name, "test"), "test", "validation")
    found = [split for split in wanted if split in source.info.splits]
    if not found:
        raise DatasetError(
            f"data set {source.name!r}: expected a split to test on, received "
            f"{sorted(source.info.splits)}"
        )
    return found[0]


class _Part:
    """A split of a data set, not yet opened as a stream."""

    def __init__(self, source: Any, split: str, recipe: StreamSettings, seed: int) -> None:
        self.source, self.split, self.recipe, self.seed = source, split, recipe, seed
        self.levels = digits.LEVELS if source.name == "digits" else 255
        self.shape = self._shape()

    def _shape(self) -> tuple[int, int, int]:
        height, width, channels = self.source.info.features["image"].shape
        if self.recipe.side is not None:
            return self.recipe.side, self.recipe.side, channels
        if None in (height, width):
            raise DatasetError(
                f"data set {self.source.name!r}: expected images of one size for a recipe without "
                f"a side, received {(height, width, channels)} (height, width, channels)"
            )
        return height, width, channels

    def plain(self) -> Stream:
        """Batches in order, images unchanged or cropped to their center."""
        images = self._records(shuffled=False)
        return self._batches(_mapped(images, lambda x, y: (self._image(x), y)))

    def changed(self) -> Stream:
        """Batches in random order, images augmented."""
        import tensorflow as tf

        images = self._records(shuffled=True)
        images = images.shuffle(BUFFER, self.seed, reshuffle_each_iteration=True)
        numbers = tf.data.Dataset.random(self.seed, rerandomize_each_iteration=True).batch(2)
        pairs = tf.data.Dataset.zip((images, numbers))
        return self._batches(_mapped(pairs, lambda xy, seed: (self._changed(xy[0], seed), xy[1])))

    def _records(self, shuffled: bool) -> Stream:
        """Images and labels; images of different sizes are still encoded."""
        import tensorflow_datasets as tfds

        encoded = self.recipe.side is not None
        decoders = {"image": tfds.decode.SkipDecoding()} if encoded else None
        config = tfds.ReadConfig(shuffle_seed=self.seed, try_autocache=False)
        found = self.source.as_dataset(
            self.split, shuffle_files=shuffled, decoders=decoders, read_config=config
        )
        found = _mapped(found, lambda example: (example["image"], example["label"]))
        return found if encoded or max(self.shape[:2]) > SMALL_IMAGE else found.cache()

    def _batches(self, images: Stream) -> Stream:
        import tensorflow as tf

        return images.batch(self.recipe.batch_size).prefetch(tf.data.AUTOTUNE)

    def _scaled(self, image: Tensor) -> Tensor:
        import tensorflow as tf

        return tf.ensure_shape(tf.cast(image, tf.float32) / self.levels, self.shape)

    def _image(self, image: Tensor) -> Tensor:
        side = self.recipe.side
        return self._scaled(image if side is None else middle(image, side))

    def _changed(self, image: Tensor, seed: Tensor) -> Tensor:
        augmentation = self.recipe.augmentation
        if self.recipe.side is not None and augmentation.area is not None:
            image = random_area(image, self.recipe.side, augmentation.area, seed)
        elif self.recipe.side is not None:
            image = middle(image, self.recipe.side)
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


def random_area(jpeg: Tensor, side: int, area: tuple[float, float], seed: Tensor) -> Tensor:
    """Decode a random part of an image and resize it.

    Args:
        jpeg: The encoded image.
        side: Height and width of the result.
        area: Smallest and largest share of the image's area.
        seed: Two integers.
    """
    import tensorflow as tf

    start, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(jpeg),
        tf.zeros((1, 0, 4)),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=area,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat((start[:2], size[:2]), axis=0)
    return _resized(tf.image.decode_and_crop_jpeg(jpeg, window, channels=3), (side, side))


def middle(encoded: Tensor, side: int) -> Tensor:
    """Decode an image, resize it, and crop its center.

    Args:
        encoded: The encoded image.
        side: Height and width of the result.
    """
    import tensorflow as tf

    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    wide = tf.cast(tf.round(sides * (side * MARGIN / tf.reduce_min(sides))), tf.int32)
    top, left = tf.unstack((wide - side) // 2)
    return tf.image.crop_to_bounding_box(_resized(image, wide), top, left, side, side)


def _resized(image: Tensor, size: Any) -> Tensor:
    import tensorflow as tf

    return tf.clip_by_value(tf.image.resize(image, size), 0.0, 255.0)
