"""Data: the built-in digits for real; every way in which data can be missing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_fashion_mnist import DEBIAN, IDX_FILES, restore
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse.data import datasets, digits, raw_files
from keras_structsparse.data.datasets import Dataset, Split, load
from keras_structsparse.errors import DatasetError


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    load("digits", folder)
    return folder


@pytest.fixture(scope="session")
def data(digits_dir: Path) -> Dataset:
    return load("digits", digits_dir, validation=0.2, seed=3)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a network, also on machines that have one."""
    monkeypatch.setattr(raw_files, "_answers", lambda url: False)


@pytest.fixture
def five_seconds() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 5


def rows(split: Split) -> set[bytes]:
    return {image.tobytes() for image in split.x}


# --- digits ---


def test_digits_are_described(data: Dataset) -> None:
    assert (data.name, data.classes, data.shape) == ("digits", 10, (8, 8, 1))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [1038, 259, 500]


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_split_has_images_in_the_unit_interval(data: Dataset, part: str) -> None:
    split = getattr(data, part)
    assert split.x.dtype == np.float32
    assert split.y.dtype == np.int64
    assert split.x.shape == (len(split), 8, 8, 1)
    assert split.x.min() == 0
    assert split.x.max() == 1
    assert set(split.y) == set(range(10))


def test_all_seventeen_grey_levels_survive(data: Dataset) -> None:
    assert set(np.unique(data.train.x * 16)) == set(range(17))


def test_the_splits_are_the_whole_set_and_disjoint(data: Dataset) -> None:
    from sklearn.datasets import load_digits

    whole = load_digits()
    parts = [rows(s) for s in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == len(whole.target)
    expected = {(i / 16).astype(np.float32).tobytes() for i in whole.images}
    assert set.union(*parts) == expected


def test_labels_belong_to_their_images(data: Dataset) -> None:
    from sklearn.datasets import load_digits

    whole = load_digits()
    keys = [(image / 16).astype(np.float32).tobytes() for image in whole.images]
    label = dict(zip(keys, whole.target, strict=True))
    for split in (data.train, data.validation, data.test):
        assert [label[image.tobytes()] for image in split.x] == split.y.tolist()


def test_the_same_seed_gives_the_same_splits(data: Dataset, digits_dir: Path) -> None:
    again = load("digits", digits_dir, validation=0.2, seed=3)
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(again, part).x, getattr(data, part).x)


def test_another_seed_moves_validation_but_not_test(data: Dataset, digits_dir: Path) -> None:
    other = load("digits", digits_dir, validation=0.2, seed=4)
    assert rows(other.validation) != rows(data.validation)
    np.testing.assert_array_equal(other.test.x, data.test.x)


def test_a_build_elsewhere_is_the_same(data: Dataset, tmp_path: Path) -> None:
    other = load("digits", tmp_path, validation=0.2, seed=3)
    np.testing.assert_array_equal(other.train.x, data.train.x)
    np.testing.assert_array_equal(other.test.y, data.test.y)


def test_builder_streams(digits_dir: Path) -> None:
    first = next(iter(datasets.builder("digits", digits_dir).as_dataset(split="test").take(1)))
    assert tuple(first["image"].shape) == (8, 8, 1)


def test_the_default_folder_is_the_user_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digits.cache_dir.cache_clear()
    assert digits.cache_dir() == tmp_path / "keras_structsparse"
    digits.cache_dir.cache_clear()


def test_without_a_home_a_temporary_folder_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    digits.cache_dir.cache_clear()
    assert digits.cache_dir().is_dir()
    digits.cache_dir.cache_clear()


def test_whoever_loses_the_race_uses_the_winners_data(tmp_path: Path) -> None:
    late = digits.builder_class()(data_dir=str(tmp_path))
    late.download_and_prepare = lambda **_: lose(tmp_path)
    found = datasets._prepare(late, None)
    assert found.info.splits["test"].num_examples == 500


def lose(folder: Path) -> None:
    load("digits", folder)
    raise OSError("Directory not empty")


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    share=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_stratified_takes_every_class_by_its_share(
    labels: list[int], share: float, seed: int
) -> None:
    y = np.array(labels)
    count = round(share * len(y))
    mask = digits.stratified(y, count, seed)
    assert mask.sum() == count
    for label in set(labels):
        fair = (y == label).sum() * count / len(y)
        assert abs(mask[y == label].sum() - fair) < 1 + 1e-9


# --- what goes wrong ---


@pytest.mark.parametrize("share", [0, 1, -0.1, 2, float("nan"), 1e-6])
def test_a_bad_validation_share_is_refused(digits_dir: Path, share: float) -> None:
    with pytest.raises(DatasetError, match=r"validation: expected .* received"):
        load("digits", digits_dir, validation=share)


def test_a_bad_seed_is_refused(digits_dir: Path) -> None:
    with pytest.raises(DatasetError, match=r"seed: expected .* received -1"):
        load("digits", digits_dir, seed=-1)


def test_an_unknown_name_gets_near_matches(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"(?s)'fashon_mnist'.*fashion_mnist.*list_builders"):
        load("fashon_mnist", tmp_path)


def test_an_unknown_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nosuch"):
        load("emnist/nosuch", tmp_path)


def test_a_set_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"image-classification .* received idx, label"):
        load("glue", tmp_path)


def test_a_file_as_data_dir_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="data_dir: expected a folder"):
        load("digits", tmp_path / "file")


def test_a_half_made_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "digits" / "1.0.0").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"digits/1\.0\.0: remove that folder"):
        load("digits", tmp_path)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("mnist", IDX_FILES),
        ("fashion_mnist", [*IDX_FILES, "dataset-fashion-mnist"]),
        ("cifar10", ["cifar-10-binary.tar.gz"]),
        ("imagenet2012", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "register"]),
    ],
)
@pytest.mark.usefixtures("offline", "five_seconds")
@pytest.mark.parametrize("function", [load, datasets.builder])
def test_missing_files_are_named(
    name: str, files: list[str], function: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(DatasetError) as caught:
        function(name, tmp_path)
    for part in [*files, str(tmp_path / "downloads" / "manual"), "prepared folder"]:
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("five_seconds")
def test_a_name_server_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = threading.Event()
    monkeypatch.setattr(raw_files, "_answers", lambda url: release.wait(30))
    with pytest.raises(DatasetError, match=r"www\.cs\.toronto\.edu cannot be reached"):
        load("cifar10", tmp_path)
    release.set()


@pytest.mark.usefixtures("offline")
def test_files_of_another_set_are_pointed_out(tmp_path: Path) -> None:
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / IDX_FILES[0]).write_bytes(b"short")
    with pytest.raises(DatasetError, match=r"has 5 bytes, expected 9,912,422"):
        load("mnist", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_fashion_mnist_is_built_from_debians_package(tmp_path: Path) -> None:
    restore(tmp_path / "downloads" / "manual")
    data = load("fashion_mnist", tmp_path)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [54000, 6000, 10000]


@pytest.mark.slow
def test_two_processes_at_once_build_the_same(tmp_path: Path) -> None:
    code = (
        "import sys; from keras_structsparse.data.datasets import load;"
        "print(load('digits', sys.argv[1]).train.x.sum())"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    first, second = [run.communicate(timeout=120)[0] for run in runs]
    assert first == second != ""
