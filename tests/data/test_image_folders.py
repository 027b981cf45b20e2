"""Folders of images: which splits they have, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers_images import bright_and_dark

from keras_structsparse.data.image_folders import ImageFiles, ImageFolder
from keras_structsparse.errors import DatasetError


def names(files: ImageFiles) -> set[str]:
    return {"/".join(Path(path).parts[-3:]) for path in files.paths}


@pytest.mark.parametrize(
    ("splits", "counts"),
    [
        ((), (12, 4, 4)),
        (("train",), (12, 4, 4)),
        (("train", "val"), (15, 5, 20)),
        (("train", "Test"), (15, 5, 20)),
        (("train", "validation", "test"), (20, 20, 20)),
    ],
)
def test_splits_are_folders_or_drawn(
    tmp_path: Path, splits: tuple[str, ...], counts: tuple[int, int, int]
) -> None:
    for number, split in enumerate(splits or (".",)):
        bright_and_dark(tmp_path / split, seed=number)
    found = ImageFolder.open(tmp_path, validation=0.25)
    assert (len(found.train), len(found.validation), len(found.test)) == counts
    assert found.classes == ("bright", "dark")
    assert found.size == (12, 16)
    parts = [names(part) for part in (found.train, found.validation, found.test)]
    assert len(set.union(*parts)) == sum(counts)
    for part in (found.train, found.validation, found.test):
        assert set(part.labels.tolist()) == {0, 1}
        folders = [Path(path).parent.name for path in part.paths]
        assert folders == [found.classes[label] for label in part.labels]


def test_the_seed_draws_the_validation_split_and_never_the_test_split(tmp_path: Path) -> None:
    bright_and_dark(tmp_path)
    first, again, other = (ImageFolder.open(tmp_path, seed=seed) for seed in (0, 0, 1))
    assert first.validation.paths == again.validation.paths
    assert first.validation.paths != other.validation.paths
    assert first.test.paths == other.test.paths


def test_images_of_several_sizes_have_no_size(tmp_path: Path) -> None:
    bright_and_dark(tmp_path / "train")
    bright_and_dark(tmp_path / "test", size=(12, 12))
    assert ImageFolder.open(tmp_path).size is None


def test_damaged_files_are_counted_and_named(tmp_path: Path) -> None:
    bright_and_dark(tmp_path)
    whole = (tmp_path / "dark" / "000.jpg").read_bytes()
    damaged = {"bright/000.jpg": b"", "dark/001.jpg": whole[: len(whole) // 2], "dark/x.png": b"x"}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match="received 3 of 21 files") as caught:
        ImageFolder.open(tmp_path)
    assert all(name in str(caught.value) for name in damaged)


def test_other_files_are_not_read(tmp_path: Path) -> None:
    bright_and_dark(tmp_path)
    (tmp_path / "bright" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "dark" / ".hidden.jpg").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"1 file \(1 x \.txt: .*notes\.txt\) left out"):
        assert len(ImageFolder.open(tmp_path).train) == 14


@pytest.mark.parametrize("split", ["", "train", "test"])
def test_images_that_are_not_read_are_counted_and_named_in_one_line(
    tmp_path: Path, split: str
) -> None:
    for part in ("train", "test") if split else ("",):
        bright_and_dark(tmp_path / part)
    folder = tmp_path / split / "dark"
    for name in ("a.webp", "b.webp", "c.HEIC", "d.tif", "plain", "e.webp"):
        (folder / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match="left out") as caught:
        ImageFolder.open(tmp_path)
    (said,) = [str(warning.message) for warning in caught]
    assert "6 files (3 x .webp, 1 x .heic, 1 x .tif, 1 x no ending: " in said
    assert f"{folder / 'a.webp'}, " in said
    assert "and 1 more) left out; images are files that end in .jpg" in said
    assert "\n" not in said


def test_a_class_of_other_files_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    bright_and_dark(tmp_path)
    (tmp_path / "grey").mkdir()
    (tmp_path / "grey" / "a.webp").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"none in .*grey, but 1 file \(1 x \.webp: "):
        ImageFolder.open(tmp_path)


def test_nothing_is_said_of_folders_without_other_files(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    bright_and_dark(tmp_path)
    (tmp_path / "dark" / ".DS_Store").write_bytes(b"x")
    ImageFolder.open(tmp_path)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ((), "at least two, received none"),
        (("cat",), r"at least two, received \['cat'\]"),
        (("cat", "dog"), "none in .*cat"),
        (("test/cat", "test/dog"), r"a folder 'train' in .*, received \['test'\]"),
        (("train/cat", "train/dog", "val/cat"), "only one of train and validation has: dog"),
        (("train/cat", "val/cat", "valid/cat"), "one folder for the split validation"),
    ],
)
def test_folders_of_another_form_are_refused(
    tmp_path: Path, folders: tuple[str, ...], message: str
) -> None:
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(DatasetError, match=message):
        ImageFolder.open(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected a folder of images, received .*nowhere"):
        ImageFolder.open(tmp_path / "nowhere")


def test_files_keep_their_labels_when_cut(tmp_path: Path) -> None:
    files = ImageFiles([f"{i}" for i in range(40)], np.arange(40) % 2)
    rest, drawn = files.cut(0.3, seed=0)
    assert (len(rest), len(drawn)) == (28, 12)
    assert sorted([*rest.paths, *drawn.paths]) == sorted(files.paths)
    for part in (rest, drawn):
        assert [int(path) % 2 for path in part.paths] == part.labels.tolist()
