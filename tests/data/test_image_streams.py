"""Streams of images: real digits, and small files in the formats of CIFAR-10 and ImageNet."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers_records import SYNSETS, cifar10_files, imagenet_archives, jpeg, pixels

from keras_structsparse.data import datasets, image_streams, raw_files
from keras_structsparse.data.augmentation import Augmentation
from keras_structsparse.data.image_streams import Streams, streams
from keras_structsparse.errors import DatasetError
from keras_structsparse.training.recipes import RECIPES, DataRecipe

SMALL: dict[str, Any] = {"epochs": 1, "batch_size": 4}
SEED = (1, 2)


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="module")
def imagenet_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagenet")
    imagenet_archives(folder)
    return folder


@pytest.fixture
def imagenet(imagenet_dir: Path) -> Streams:
    return streams(replace(RECIPES["imagenet"], side=32, **SMALL), imagenet_dir, validation=0.2)


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, Any]]:
    """Records that the builder itself makes of small files; only the download is left out."""
    import tensorflow_datasets as tfds

    found = cifar10_files(tmp_path / "raw")
    manager = tfds.download.DownloadManager
    monkeypatch.setattr(manager, "download_and_extract", lambda self, url: str(tmp_path / "raw"))
    monkeypatch.setattr(raw_files, "locate", lambda source: tmp_path)
    return found


def arrays(stream: Any) -> tuple[Any, Any]:
    batches = [(x.numpy(), y.numpy()) for x, y in stream]
    return tuple(np.concatenate(side) for side in zip(*batches, strict=True))  # type: ignore[return-value]


def rows(images: Any) -> set[bytes]:
    return {image.tobytes() for image in images}


# --- digits ---


def test_without_augmentation_the_streams_are_the_data(digits_dir: Path) -> None:
    found, data = streams(RECIPES["digits"], digits_dir), datasets.load("digits", digits_dir)
    assert (found.shape, found.classes, found.examples) == ((8, 8, 1), 10, 1167)
    train, validation = arrays(found.train)[0], arrays(found.validation)[0]
    assert rows(train) | rows(validation) == rows(data.train.x) | rows(data.validation.x)
    assert (len(train), len(validation)) == (1167, 130)
    np.testing.assert_array_equal(arrays(found.test)[0], data.test.x)
    np.testing.assert_array_equal(arrays(found.test)[1], data.test.y)


def test_the_seed_decides_order_and_changes(digits_dir: Path) -> None:
    recipe = replace(RECIPES["digits"], augmentation=Augmentation(shift=2, flip=True))
    first, again, other = (
        arrays(streams(recipe, digits_dir, seed=seed).train)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_epoch_is_another(digits_dir: Path) -> None:
    recipe = replace(RECIPES["digits"], augmentation=Augmentation(shift=2))
    stream = streams(recipe, digits_dir).train
    first, second = arrays(stream)[0], arrays(stream)[0]
    assert rows(first) != rows(second)
    plain = streams(RECIPES["digits"], digits_dir).train
    first, second = arrays(plain)[0], arrays(plain)[0]
    assert rows(first) == rows(second)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("share", [0.0, 1.0, 1e-6, float("nan")])
def test_a_bad_share_is_refused(digits_dir: Path, share: float) -> None:
    with pytest.raises(DatasetError, match="validation: expected a share"):
        streams(RECIPES["digits"], digits_dir, validation=share)


def test_a_batch_size_beyond_all_images_takes_no_time(digits_dir: Path) -> None:
    begin = time.monotonic()
    found = streams(replace(RECIPES["digits"], batch_size=10**9), digits_dir)  # Minutes by itself.
    assert [len(labels) for _, labels in found.train] == [1167]
    assert time.monotonic() - begin < 30


# --- augmentation ---


def test_a_shift_cuts_out_of_a_border_of_zeros() -> None:
    image = tf.constant(pixels(0, 6, 7) + 1)
    wide = np.pad(image.numpy(), ((2, 2), (2, 2), (0, 0)))
    windows = {wide[i : i + 6, j : j + 7].tobytes() for i in range(5) for j in range(5)}
    seen = set()
    for number in range(100):
        found = image_streams.shifted_and_flipped(
            image, Augmentation(shift=2), tf.constant((number, 0))
        )
        seen.add(found.numpy().tobytes())
    assert seen <= windows
    assert len(seen) > 15


def test_a_flip_mirrors_half_of_the_images() -> None:
    image = tf.constant(pixels(0, 4, 5))
    mirrored = 0
    for number in range(100):
        found = image_streams.shifted_and_flipped(
            image, Augmentation(flip=True), tf.constant((number, 0))
        )
        is_mirrored = np.array_equal(found, image[:, ::-1])
        assert is_mirrored != np.array_equal(found, image)
        mirrored += is_mirrored
    assert 30 < mirrored < 70


def test_nothing_is_changed_unless_wanted() -> None:
    image = tf.constant(pixels(0, 4, 5))
    found = image_streams.shifted_and_flipped(image, Augmentation(), tf.constant(SEED))
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize(("height", "width"), [(90, 60), (60, 90), (64, 64)])
def test_the_middle_keeps_its_place(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    top, left = height // 2 - 15, width // 2 - 15
    image[top : top + 30, left : left + 30] = 255
    found = image_streams.middle(jpeg(image), 32).numpy()
    assert found.shape == (32, 32, 3)
    assert found[16, 16].min() > 250
    assert found[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 5
    for axis in (0, 1):
        weights = found.sum(axis=(2, 1 - axis))
        assert np.average(np.arange(32), weights=weights) == pytest.approx(15.5, abs=0.75)


@pytest.mark.parametrize("area", [(0.08, 0.2), (0.9, 1.0)])
def test_a_random_area_has_its_size(area: tuple[float, float]) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 96)[:, None, None], (96, 96, 3)).astype(np.uint8)
    spans = []
    for number in range(30):
        seed = tf.constant((number, 1))
        found = image_streams.random_area(jpeg(ramp), 24, area, seed).numpy()
        assert found.shape == (24, 24, 3)
        spans.append(float(np.ptp(found.mean(axis=(1, 2)))) / 255)
    # sides of 3:4 to 4:3, less half a pixel at both ends
    assert min(spans) > np.sqrt(area[0] * 3 / 4) - 0.06
    assert max(spans) < min(1.0, np.sqrt(area[1] * 4 / 3)) + 0.02
    assert np.ptp(spans) > 0.01


# --- the formats of CIFAR-10 and ImageNet ---


def test_cifar10_comes_out_of_its_files(
    cifar10: dict[str, tuple[Any, Any]], tmp_path: Path
) -> None:
    plain = replace(RECIPES["cifar10"], augmentation=Augmentation(), **SMALL)
    found = streams(plain, tmp_path, validation=0.25)
    assert (found.shape, found.classes, found.examples) == ((32, 32, 3), 10, 30)
    images = [arrays(part) for part in (found.train, found.validation)]
    assert [len(y) for _, y in images] == [30, 10]
    for split, parts in (("train", images), ("test", [arrays(found.test)])):
        expected = {
            (x / np.float32(255)).tobytes(): y for x, y in zip(*cifar10[split], strict=True)
        }
        got = {
            image.tobytes(): y for x, labels in parts for image, y in zip(x, labels, strict=True)
        }
        assert got == expected


def test_cifar10_is_augmented(cifar10: dict[str, tuple[Any, Any]], tmp_path: Path) -> None:
    found = streams(replace(RECIPES["cifar10"], **SMALL), tmp_path, validation=0.25)
    images = arrays(found.train)[0]
    originals = rows(cifar10["train"][0] / np.float32(255))
    assert len(rows(images) - originals) > 20
    assert rows(arrays(found.validation)[0]) <= originals


def test_imagenet_comes_out_of_its_archives(imagenet: Streams) -> None:
    assert (imagenet.shape, imagenet.classes, imagenet.examples) == ((32, 32, 3), 1000, 8)
    x, y = arrays(imagenet.train)
    assert x.shape == (8, 32, 32, 3)
    assert (x.dtype, x.min() >= 0, x.max() <= 1) == (np.float32, True, True)
    held = arrays(imagenet.validation)
    assert sorted([*y, *held[1]]) == [0] * 5 + [1] * 5
    assert len(SYNSETS) == 2


def test_imagenet_is_tested_on_the_middle_of_the_official_validation_images(
    imagenet: Streams,
) -> None:
    x, _ = arrays(imagenet.test)
    originals = [image_streams.middle(jpeg(pixels(100 + i, 50, 70)), 32) / 255 for i in (1, 2, 3)]
    assert rows(x) == rows(np.array(originals))


def test_images_of_different_sizes_need_a_side(imagenet_dir: Path) -> None:
    recipe = DataRecipe(dataset="imagenet2012", **SMALL)
    with pytest.raises(DatasetError, match=r"imagenet2012.*images of one size"):
        streams(recipe, imagenet_dir, validation=0.2)


def test_a_stream_that_is_looked_at_loses_no_image(digits_dir: Path) -> None:
    """Behind tf.data's cache, one in ten of these streams ended after the batch looked at."""
    lengths = set()
    for _ in range(40):
        found = streams(RECIPES["digits"], digits_dir)
        next(iter(found.validation))
        lengths.add(sum(len(labels) for _, labels in found.validation))
    assert lengths == {130}
