"""One function loads every kind of data set, into memory or as streams."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from helpers_images import bright_and_dark
from helpers_records import imagenet_archives

from keras_structsparse.data import datasets, loading, splits
from keras_structsparse.data.augmentation import ImageOptions
from keras_structsparse.data.records import is_local
from keras_structsparse.errors import DatasetError
from keras_structsparse.profiling import memory as machine_memory


@pytest.fixture
def folder(tmp_path: Path) -> str:
    bright_and_dark(tmp_path / "photos")
    return str(tmp_path / "photos")


def test_a_folder_is_loaded(folder: str) -> None:
    data = loading.load(folder, validation=0.25, side=8)
    assert (data.shape, data.classes, data.class_names) == ((8, 8, 3), 2, ("bright", "dark"))
    for part, count in ((data.train, 12), (data.validation, 4), (data.test, 4)):
        assert part.x.shape == (count, 8, 8, 3)
        assert ((part.x.mean(axis=(1, 2, 3)) < 0.5) == (part.y == 1)).all()
        assert 0 <= part.x.min() <= part.x.max() <= 1


def test_images_of_one_size_need_no_side(folder: str) -> None:
    assert loading.load(folder).shape == (12, 16, 3)


def test_images_are_preprocessed(folder: str) -> None:
    plain, caffe = (loading.load(folder, preprocess=name).train for name in ("none", "caffe"))
    expected = plain.x[..., ::-1] - np.array([103.939, 116.779, 123.68])
    np.testing.assert_allclose(caffe.x, expected, atol=1e-3)
    digits = loading.load("digits", preprocess="none")
    assert digits.train.x.max() == 255


def test_arrays_keep_their_size(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    np.savez(file, x=np.zeros((40, 6, 6), np.uint8), y=np.arange(40) % 2)
    assert loading.load(str(file), side=6).shape == (6, 6, 1)
    with pytest.raises(DatasetError, match=r"that of the arrays, 6x6. Received: 8"):
        loading.load(str(file), side=8)


def test_images_of_several_sizes_are_resized_or_refused(tmp_path: Path) -> None:
    bright_and_dark(tmp_path / "train")
    bright_and_dark(tmp_path / "test", size=(20, 10))
    with pytest.raises(DatasetError, match=r"images of one size unless they are resized"):
        loading.load(str(tmp_path))
    assert loading.load(str(tmp_path), side=8).test.x.shape == (20, 8, 8, 3)


def test_data_sets_of_tfds_are_resized_as_well(tmp_path: Path) -> None:
    imagenet_archives(tmp_path)
    data = loading.load("imagenet2012", tmp_path, validation=0.2, side=16)
    assert data.shape == (16, 16, 3)
    assert (len(data.train), len(data.validation), len(data.test)) == (8, 2, 3)


def test_too_many_images_for_memory_are_refused(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "MEMORY_LIMIT", 1000)
    with pytest.raises(DatasetError, match=r"in memory, .*--image-size"):
        loading.load(folder)


def test_a_batch_larger_than_the_memory_is_refused(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = loading.for_training(folder, None, ImageOptions(), 4).shape
    monkeypatch.setattr(machine_memory, "memory", lambda: 4 * 4 * math.prod(shape))
    loading.for_training(folder, None, ImageOptions(), 4)
    with pytest.raises(DatasetError, match=r"batch_size: expected at most .* a batch of 5 images"):
        loading.for_training(folder, None, ImageOptions(), 5)


@pytest.mark.parametrize("side", [1, 9999])
def test_arrays_of_tfds_are_not_resized(side: int) -> None:
    with pytest.raises(DatasetError, match=rf"that of the arrays, 8x8. Received: {side}"):
        loading.for_training("digits", None, ImageOptions(side), 8)
    assert loading.for_training("digits", None, ImageOptions(8), 8).shape == (8, 8, 1)


def test_small_sets_of_tfds_are_arrays_and_all_others_streams(folder: str) -> None:
    digits = loading.for_training("digits", None, ImageOptions(), 8)
    np.testing.assert_array_equal(digits.train[0], datasets.load("digits").train.x)
    for name, options in ((folder, ImageOptions()), ("digits", ImageOptions(augment="shift"))):
        data = loading.for_training(name, None, options, 8)
        images, labels = next(iter(data.train))
        assert images.shape == (8, *data.shape)
        assert labels.shape == (8,)


def test_training_files_come_in_another_order_every_epoch_and_none_is_lost(folder: str) -> None:
    data = loading.for_training(folder, None, ImageOptions(), 4, seed=1)
    first, second = (
        np.concatenate([x.numpy() for x, _ in data.train]).reshape(data.examples, -1)
        for _ in range(2)
    )
    assert not np.array_equal(first, second)
    assert {row.tobytes() for row in first} == {row.tobytes() for row in second}
    again = loading.for_training(folder, None, ImageOptions(), 4, seed=1)
    third = np.concatenate([x.numpy() for x, _ in again.train]).reshape(data.examples, -1)
    np.testing.assert_array_equal(first, third)


def test_random_parts_are_cut_out_of_any_kind_of_image(tmp_path: Path) -> None:
    import tensorflow as tf

    bright_and_dark(tmp_path / "photos", size=(40, 30))
    for path in sorted((tmp_path / "photos" / "dark").glob("*.jpg")):
        image = tf.io.decode_image(path.read_bytes())
        path.with_suffix(".png").write_bytes(tf.io.encode_png(image).numpy())
        path.unlink()
    options = ImageOptions(image_size=16, augment="crop-flip")
    data = loading.for_training(str(tmp_path / "photos"), None, options, 4)
    images = np.concatenate([x.numpy() for x, _ in data.train])
    assert images.shape == (data.examples, 16, 16, 3)
    labels = np.concatenate([y.numpy() for _, y in data.train])
    assert set(labels.tolist()) == {0, 1}


def test_what_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_local("photos")
    (tmp_path / "photos").mkdir()
    assert is_local("photos")
    assert not is_local("imagenet_resized/8x8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size: expected a whole number >= 1"),
        ({"preprocess": "tf"}, "preprocess: expected one of"),
        ({"augment": "mirror"}, "augment: expected one of"),
    ],
)
def test_image_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageOptions(**options)  # type: ignore[arg-type]


def test_images_have_the_side_that_a_network_takes(folder: str, tmp_path: Path) -> None:
    plain = ImageOptions()
    for options, side, expected in (
        (plain, 8, (8, 8, 3)),
        (plain, None, (12, 16, 3)),
        (ImageOptions(image_size=10), 8, (10, 10, 3)),
    ):
        found = loading.for_model(folder, None, options, 4, 0, side)
        assert found.shape == expected
        assert found.class_names == ("bright", "dark")
        assert next(iter(found.train))[0].shape[1:] == expected


def test_images_that_have_the_side_already_stay_as_they_are(tmp_path: Path) -> None:
    bright_and_dark(tmp_path / "square", size=(8, 8))
    same = loading.for_model(str(tmp_path / "square"), None, ImageOptions(), 4, 0, 8)
    raw = loading.for_training(str(tmp_path / "square"), None, ImageOptions(), 4)
    resized = loading.for_training(str(tmp_path / "square"), None, ImageOptions(8), 4)
    given, plain, cropped = (next(iter(x.test))[0].numpy() for x in (same, raw, resized))
    np.testing.assert_array_equal(given, plain)
    assert not np.array_equal(given, cropped)  # the control: a crop of what was made larger
    digits = loading.for_model("digits", None, ImageOptions(), 4, 0, 8)
    assert isinstance(digits.train, tuple)
    assert digits.class_names == tuple("0123456789")


def test_arrays_are_not_resized_for_a_network(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    np.savez(file, x=np.zeros((40, 6, 6), np.uint8), y=np.arange(40) % 4)
    found = loading.for_model(str(file), None, ImageOptions(), 4, 0, 8)
    assert (found.shape, found.class_names) == ((6, 6, 1), ())
