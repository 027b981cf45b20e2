"""Data sets in files of NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_structsparse.data.array_files import load
from keras_structsparse.errors import DatasetError
from keras_structsparse.profiling import memory as machine_memory

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3)).astype(np.uint8)
LABELS = np.arange(40) % 4


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("column", [False, True])
def test_one_pair_of_arrays_is_split(tmp_path: Path, floats: bool, column: bool) -> None:
    x = IMAGES / 255.0 if floats else IMAGES
    data = load(saved(tmp_path, x=x, y=LABELS[:, None] if column else LABELS), validation=0.25)
    assert (len(data.train), len(data.validation), len(data.test)) == (24, 8, 8)
    assert (data.classes, data.shape) == (4, (6, 5, 3))
    rows = {
        (image / 255).astype("float32").tobytes(): label
        for image, label in zip(IMAGES, LABELS, strict=True)
    }
    for part in (data.train, data.validation, data.test):
        assert [rows[image.tobytes()] for image in part.x] == part.y.tolist()


def test_the_splits_of_a_file_are_kept(tmp_path: Path) -> None:
    parts = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:8], "y_test": LABELS[:8]}
    data = load(saved(tmp_path, **parts), validation=0.25)
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 8)
    data = load(saved(tmp_path, **parts, x_val=IMAGES[:4], y_val=LABELS[:4]))
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 4, 8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES, "y": LABELS}, "expected arrays x and y, .*received images, y"),
        ({"x": IMAGES[0, 0], "y": LABELS}, r"x_train as numbers of shape .*\(5, 3\)"),
        ({"x": IMAGES, "y": LABELS[:9]}, r"y_train as whole numbers .*\(9,\)"),
        ({"x": IMAGES, "y": LABELS - 1}, "y_train as whole numbers >= 0"),
        ({"x": IMAGES, "y": LABELS / 2}, "y_train as whole numbers"),
        ({"x": IMAGES * 1.0, "y": LABELS}, r"floats in \[0, 1\], received float64 in"),
        ({"x": np.full((4, 2, 2, 1), np.nan), "y": LABELS[:4]}, "floats in"),
        ({"x": IMAGES, "y": 2 * LABELS}, r"class from 0 to \d+ in .*received none of class 1"),
        ({"x": IMAGES, "y": LABELS + 1}, r"class from 0 to \d+ in .*received none of class 0"),
        ({"x": IMAGES, "y": LABELS + 10**18}, r"y_train as numbers of classes below 1,000,000"),
        (
            {"x": IMAGES, "y": LABELS.astype(np.uint64) + np.uint64(2**63)},
            r"y_train as numbers of classes below",
        ),
        ({"x": IMAGES[..., 0].astype("U4"), "y": LABELS}, "x_train as numbers"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, 1:], "y_test": LABELS},
            r"of one size, received \(6, 5, 3\) in x_train and \(5, 5, 3\) in x_test",
        ),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load(saved(tmp_path, **arrays))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ["x", "x_train", "x_test"])
def test_channels_first_are_refused(tmp_path: Path, channels: int, name: str) -> None:
    images = np.zeros((40, 6, 5, channels), np.uint8)
    arrays = {"x_train": images, "y_train": LABELS, "x_test": images, "y_test": LABELS}
    arrays = {"x": images, "y": LABELS} if name == "x" else arrays
    assert load(saved(tmp_path, **arrays)).shape == (6, 5, channels)  # the control
    arrays[name] = np.moveaxis(images, -1, 1)
    named = "x_train" if name == "x" else name
    shape = rf"\(40, {channels}, 6, 5\)"
    with pytest.raises(DatasetError, match=rf"{named} with the channels last.*received.*{shape}"):
        load(saved(tmp_path, **arrays))


def test_low_images_and_many_channels_are_taken(tmp_path: Path) -> None:
    for shape in ((3, 4, 3), (3, 3, 1), (8, 8, 12)):
        images = np.zeros((40, *shape), np.uint8)
        assert load(saved(tmp_path, x=images, y=LABELS)).shape == shape


def test_arrays_larger_than_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "data.npz"
    np.savez_compressed(file, x=np.zeros((40, 64, 64), np.uint8), y=np.arange(40) % 4)
    monkeypatch.setattr(machine_memory, "memory", lambda: 2**18)
    assert len(load(file).train)
    monkeypatch.setattr(machine_memory, "memory", lambda: 2**17)
    with pytest.raises(
        DatasetError, match=r"data.npz: expected at most the .* Received: arrays of"
    ):
        load(file)


def test_files_that_are_no_arrays_are_refused_and_pickles_not_loaded(tmp_path: Path) -> None:
    for content in (b"", b"text", b"PK\x03\x04"):
        path = tmp_path / "data.npz"
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"expected an \.npz file, received .*data\.npz"):
            load(path)
    pickled = np.empty(2, object)
    with pytest.raises(DatasetError, match=r"allow_pickle=False"):
        load(saved(tmp_path, x=pickled, y=pickled))
    with pytest.raises(DatasetError, match=r"expected an \.npz file"):
        load(tmp_path / "nowhere.npz")
