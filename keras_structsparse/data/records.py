"""The splits of a data set as records that are still to be read: TFDS, folders, arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_structsparse.data import array_files, datasets, digits
from keras_structsparse.data.image_folders import ImageFiles, ImageFolder
from keras_structsparse.data.splits import Split
from keras_structsparse.errors import DatasetError

ARRAYS = ".npz"

HELD_IN_MEMORY = 2**30
"""The most bytes of a split of tensorflow-datasets that are read once and held in memory."""


@dataclass(frozen=True, eq=False)
class Records:
    """A split of a data set.

    Attributes:
        name: Name of the data set.
        examples: Number of images.
        shape: (height, width, channels); a side that differs between images is None.
        levels: The largest value of a pixel; the smallest is 0.
        encoded: Whether images are files in memory, such as JPEG, and not yet arrays.
        open: Makes a ``tf.data.Dataset`` of images and labels; the argument says whether files are
            read in random order.
    """

    name: str
    examples: int
    shape: tuple[int | None, int | None, int]
    levels: float
    encoded: bool
    open: Callable[[bool], Any]

    def shape_at(self, side: int | None) -> tuple[int, int, int]:
        """(height, width, channels) of the images that a network gets.

        Args:
            side: The side that images are cropped to; None if they are not.

        Raises:
            DatasetError: Images have different sizes and ``side`` is None; or ``side`` is given for
                arrays of another size.
        """
        height, width, channels = self.shape
        if side is not None and self.encoded:
            return side, side, channels
        if side is not None and (height, width) != (side, side):
            raise DatasetError(
                f"data set {self.name!r}: expected no image size, or that of the arrays, "
                f"{height}x{width}. Received: {side}"
            )
        if height is None or width is None:
            raise DatasetError(
                f"data set {self.name!r}: expected images of one size unless they are resized "
                f"(--image-size, side). Received: {self.shape} (height, width, channels)"
            )
        return height, width, channels


@dataclass(frozen=True, eq=False)
class RecordSplits:
    """The splits of a data set.

    Attributes:
        splits: Training, validation and test split.
        classes: Number of classes.
        class_names: The name of each class; empty if they have none.
    """

    splits: tuple[Records, Records, Records]
    classes: int
    class_names: tuple[str, ...] = ()


def is_local(name: str) -> bool:
    """Whether a data set is a folder or file of the user, and no name of tensorflow-datasets.

    Args:
        name: What the user calls the data set.

    Examples:
        >>> is_local("digits"), is_local("photos.npz"), is_local("./photos")
        (False, True, True)
    """
    path = Path(name).expanduser()
    return name.startswith((".", "~", "/")) or path.suffix == ARRAYS or path.is_dir()


def records_of(
    name: str, data_dir: str | Path | None, side: int | None, validation: float, seed: int
) -> RecordSplits:
    """The splits of a data set.

    Args:
        name: A folder of images, an ``.npz`` file, "digits", or a name of tensorflow-datasets.
        data_dir: As for :func:`keras_structsparse.data.datasets.load`.
        side: The side that images will be cropped to; None if they are not.
        validation: Share of the training split to hold out.
        seed: Seed of the validation split of folders and arrays.

    Raises:
        DatasetError: As for :func:`keras_structsparse.data.image_streams.streams`.
    """
    if not is_local(name):
        return _of_tfds(datasets.builder(name, data_dir), side, validation, seed)
    if Path(name).suffix == ARRAYS:
        data = array_files.load(name, validation, seed)
        parts = (data.train, data.validation, data.test)
        train, held, test = (_of_arrays(name, part, data.shape) for part in parts)
        return RecordSplits((train, held, test), data.classes)
    folder = ImageFolder.open(name, validation, seed)
    files = (folder.train, folder.validation, folder.test)
    train, held, test = (_of_files(name, part, folder.size, seed) for part in files)
    return RecordSplits((train, held, test), len(folder.classes), folder.classes)


def _of_arrays(name: str, split: Split, shape: tuple[int, int, int]) -> Records:
    def opened(shuffled: bool) -> Any:
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices(split.arrays)

    return Records(name, len(split), shape, 1.0, False, opened)


def _of_files(name: str, files: ImageFiles, size: tuple[int, int] | None, seed: int) -> Records:
    def opened(shuffled: bool) -> Any:
        import tensorflow as tf

        pairs = tf.data.Dataset.from_tensor_slices((list(files.paths), files.labels))
        # Paths are small: all are shuffled, since files of a class are one behind the other.
        pairs = pairs.shuffle(len(files), seed) if shuffled else pairs
        return pairs.map(lambda path, label: (tf.io.read_file(path), label), tf.data.AUTOTUNE)

    return Records(name, len(files), (*(size or (None, None)), 3), 255.0, True, opened)


def _of_tfds(source: Any, side: int | None, validation: float, seed: int) -> RecordSplits:
    held_out = _held_out(source, validation)
    names = (f"train[{held_out}:]", f"train[:{held_out}]", _test_split(source))
    train, held, test = (_of_split(source, split, side is not None, seed) for split in names)
    label = source.info.features["label"]
    return RecordSplits((train, held, test), int(label.num_classes), tuple(label.names))


def _of_split(source: Any, split: str, resized: bool, seed: int) -> Records:
    """Images that will be resized are read as files, so that a part of one can be decoded.

    Only images are stored as files: plain tensors, as of the digits, are arrays in any case.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    encoded = resized and isinstance(source.info.features["image"], tfds.features.Image)

    @functools.cache
    def arrays() -> Any:
        return tfds.as_numpy(source.as_dataset(split=split, batch_size=-1))

    def opened(shuffled: bool) -> Any:
        if not encoded and 0 < examples * math.prod(shape) <= HELD_IN_MEMORY:
            # Not tf.data's cache: an iterator that is dropped early may leave it cut short.
            found = arrays()
            return tf.data.Dataset.from_tensor_slices((found["image"], found["label"]))
        decoders = {"image": tfds.decode.SkipDecoding()} if encoded else None
        config = tfds.ReadConfig(shuffle_seed=seed, try_autocache=False)
        found = source.as_dataset(
            split, shuffle_files=shuffled, decoders=decoders, read_config=config
        )
        return found.map(lambda example: (example["image"], example["label"]))

    levels = digits.LEVELS if source.name == "digits" else 255
    height, width, channels = source.info.features["image"].shape
    shape = (height or 0, width or 0, channels)
    examples = source.info.splits[split].num_examples
    return Records(source.name, examples, (height, width, channels), levels, encoded, opened)


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
