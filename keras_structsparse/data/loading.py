"""Load any data set into memory: of tensorflow-datasets, a folder of images, an ``.npz`` file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_structsparse.data import datasets
from keras_structsparse.data.augmentation import (
    AUGMENTATIONS,
    NOTHING,
    Augmentation,
    ImageOptions,
)
from keras_structsparse.data.image_streams import SplitStreams, Streams, streams, streams_of
from keras_structsparse.data.preprocessing import preprocessing
from keras_structsparse.data.records import is_local, records_of
from keras_structsparse.data.splits import Dataset, Split, check_memory

_BATCH = 64


@dataclass(frozen=True)
class _Settings:
    """Settings of streams; by default they only read images."""

    dataset: str
    side: int | None
    preprocess: str
    batch_size: int = _BATCH
    augmentation: Augmentation = NOTHING


def load(
    name: str,
    data_dir: str | Path | None = None,
    validation: float = 0.1,
    seed: int = 0,
    side: int | None = None,
    preprocess: str = "0..1",
) -> Dataset:
    """Load a data set into memory.

    Args:
        name: A folder with one subfolder for each class (with or without ``train``, ``val`` and
            ``test`` above them), an ``.npz`` file, "digits", or a name of tensorflow-datasets. A
            folder in the working directory that is called like a data set of tensorflow-datasets is
            meant by ``./NAME``.
        data_dir: As for :func:`keras_structsparse.data.datasets.load`; not used for the user's own
            files.
        validation: Share of the training split that is held out, above 0 and below 1.
        seed: Seed of the validation split.
        side: Height and width that images are resized and cropped to; None for images of one size.
        preprocess: What the network expects of its images, see
            :func:`keras_structsparse.data.preprocessing.preprocessing`.

    Returns:
        The data set.

    Raises:
        DatasetError: As for :func:`keras_structsparse.data.datasets.load`,
            :func:`keras_structsparse.data.array_files.load` and
            :meth:`keras_structsparse.data.image_folders.ImageFolder.open`.

    Examples:
        >>> data = load("digits", preprocess="-1..1")
        >>> float(data.train.x.min()), float(data.train.x.max())
        (-1.0, 1.0)
    """
    ImageOptions(side, preprocess)  # Its errors come now.
    if is_local(name) or side is not None:
        return _read(_Settings(name, side, preprocess), data_dir, validation, seed)
    data = datasets.load(name, data_dir, validation, seed)
    changed = preprocessing(preprocess)
    train, held, test = (
        Split(np.asarray(changed(part.x)), part.y)
        for part in (data.train, data.validation, data.test)
    )
    return replace(data, train=train, validation=held, test=test)


def for_training(
    name: str,
    data_dir: str | Path | None,
    options: ImageOptions,
    batch_size: int,
    seed: int = 0,
) -> Streams:
    """Open a data set to train on: data sets of tensorflow-datasets in memory, others as streams.

    Args:
        name: As for :func:`load`.
        data_dir: As for :func:`load`.
        options: Size, preprocessing and augmentation of the images. Augmented images are streamed.
        batch_size: Images in a batch of a stream.
        seed: Seed of the validation split, the order and the augmentation.

    Returns:
        The splits, each as arrays or as a stream.

    Raises:
        DatasetError: As for :func:`load`.
    """
    augmentation = AUGMENTATIONS[options.augment]
    side, preprocess = options.image_size, options.preprocess
    if is_local(name) or side is not None or augmentation != NOTHING:
        settings = _Settings(name, side, preprocess, batch_size, augmentation)
        return streams(settings, data_dir, seed=seed)
    data = load(name, data_dir, seed=seed, preprocess=preprocess)
    parts = data.train.arrays, data.validation.arrays, data.test.arrays
    return Streams(*parts, len(data.train), data.shape, data.classes, data.class_names)


def for_model(
    name: str,
    data_dir: str | Path | None,
    options: ImageOptions,
    batch_size: int,
    seed: int = 0,
    side: int | None = None,
) -> Streams:
    """Open a data set to train a given network on, with images of the size that it takes.

    Args:
        name: As for :func:`load`.
        data_dir: As for :func:`load`.
        options: As for :func:`for_training`.
        batch_size: As for :func:`for_training`.
        seed: As for :func:`for_training`.
        side: Height and width that the network takes; images of another size are resized and
            cropped to it. None for a network that takes any size, or where ``options`` has one.

    Returns:
        The splits, each as arrays or as a stream.

    Raises:
        DatasetError: As for :func:`load`.
    """
    if side is None or options.image_size is not None:
        return for_training(name, data_dir, options, batch_size, seed)
    opened = records_of(name, data_dir, side, 0.1, seed)
    first, augmentation = opened.splits[0], AUGMENTATIONS[options.augment]
    fits = first.shape[:2] == (side, side) and augmentation.area is None
    if fits and not is_local(name):
        return for_training(name, data_dir, options, batch_size, seed)
    used = None if fits or not first.encoded else side
    settings = _Settings(name, used, options.preprocess, batch_size, augmentation)
    return streams_of(opened, settings, seed)


def _read(
    settings: _Settings, data_dir: str | Path | None, validation: float, seed: int
) -> Dataset:
    """A data set whose images have to be decoded or resized."""
    opened = records_of(settings.dataset, data_dir, settings.side, validation, seed)
    parts = [SplitStreams(records, settings, seed) for records in opened.splits]
    images, shape = sum(records.examples for records in opened.splits), parts[0].shape
    check_memory(settings.dataset, images, shape, "choose a smaller --image-size (side)")
    train, held, test = (_arrays(part) for part in parts)
    name, names = settings.dataset, opened.class_names
    return Dataset(name, train, held, test, opened.classes, shape, names)


def _arrays(part: SplitStreams) -> Split:
    x, y = np.empty((part.records.examples, *part.shape), np.float32), []
    start = 0
    for images, labels in part.plain():
        x[start : start + len(images)] = images
        start += len(images)
        y.append(labels)
    return Split(x, np.concatenate(y).astype(np.int64))
