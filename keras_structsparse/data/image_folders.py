"""Folders of images with one subfolder for each class, as users have them.

The folder holds the subfolders of the classes, or folders for the splits (``train``; ``val``,
``valid`` or ``validation``; ``test``) that hold them. Every file is decoded once when a folder is
opened, so a damaged one is named before a training starts.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_structsparse._typing import Tensor
from keras_structsparse.data.splits import TEST_SHARE, drawn
from keras_structsparse.errors import DatasetError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
"""Endings of the files that are read, in lower or upper case."""

SPLITS: Mapping[str, str] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""Names of the folders of splits, and the splits that they hold."""

MOST_NAMED = 5
"""How many damaged files an error message names, and how many files that are left out."""


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Files of images with their labels, not yet read.

    Attributes:
        paths: The paths of the files.
        labels: int64 class numbers, shape (n,).
    """

    paths: Sequence[str]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def cut(self, share: float, seed: int) -> tuple[ImageFiles, ImageFiles]:
        """The remaining files, and a share of them, stratified by class.

        Args:
            share: The share that is drawn, above 0 and below 1.
            seed: Seed of the draw.

        Raises:
            DatasetError: One of both would be empty.
        """
        out = drawn(self.labels, share, seed)
        return self._where(~out), self._where(out)

    def _where(self, mask: NDArray[np.bool_]) -> ImageFiles:
        return ImageFiles(
            [path for path, kept in zip(self.paths, mask, strict=True) if kept], self.labels[mask]
        )


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """The files of a folder of images, by split.

    Attributes:
        name: The path of the folder.
        classes: The names of the classes, sorted; their positions are the labels.
        train: The files to train on.
        validation: The held-out files.
        test: The files to test on.
        size: (height, width) of all images; None if they differ.
    """

    name: str
    classes: tuple[str, ...]
    train: ImageFiles
    validation: ImageFiles
    test: ImageFiles
    size: tuple[int, int] | None

    @classmethod
    def open(cls, folder: str | Path, validation: float = 0.1, seed: int = 0) -> ImageFolder:
        """Find the files of a folder, and check that each one is an image.

        Without a folder ``test``, the test split is the folder ``val``; without both, a fixed fifth
        of the files of each class. Without a folder ``val``, or where that is the test split, the
        validation split is drawn from the training files.

        Files of the classes with other endings than :data:`SUFFIXES` are left out, and one warning
        counts and names them; hidden files are left out without it.

        Args:
            folder: The folder.
            validation: Share of the training files that is held out, above 0 and below 1; not used
                where the folder has both ``val`` and ``test``.
            seed: Seed of the validation split.

        Raises:
            DatasetError: The folder has no subfolders, less than two classes, a class without
                images, other classes in one of its splits, or a file that is no image.

        Examples:
            >>> import keras, tempfile
            >>> root = Path(tempfile.mkdtemp())
            >>> for name in ("cat", "dog"):
            ...     (root / name).mkdir()
            ...     for number in range(10):
            ...         image = np.random.default_rng(number).uniform(0, 255, (8, 8, 3))
            ...         keras.utils.save_img(root / name / f"{number}.png", image)
            >>> found = ImageFolder.open(root, validation=0.25)
            >>> found.classes, found.size
            (('cat', 'dog'), (8, 8))
            >>> len(found.train), len(found.validation), len(found.test)
            (12, 4, 4)
        """
        root = Path(folder).expanduser()
        parts = _parts(root)
        classes = _classes(root, parts)
        files = {name: _files(root, path, classes) for name, path in parts.items()}
        _say_left_out([part / name for part in parts.values() for name in classes])
        size = _checked_size(root, files.values())
        train = files["train"]
        test = files.get("test") or files.get("validation")
        if test is None:
            train, test = train.cut(TEST_SHARE, seed=0)
        if "test" in files and "validation" in files:
            held_out = files["validation"]
        else:
            train, held_out = train.cut(validation, seed)
        return cls(str(folder), classes, train, held_out, test, size)


def _parts(root: Path) -> dict[str, Path]:
    """The folders of the splits; a folder without them is a training split."""
    if not root.is_dir():
        raise DatasetError(f"data: expected a folder of images, received {root}")
    found: dict[str, Path] = {}
    for path in _subfolders(root):
        split = SPLITS.get(path.name.lower())
        if split in found:
            raise DatasetError(
                f"data: expected one folder for the split {split}, received {found[split]} and "
                f"{path}"
            )
        if split is not None:
            found[split] = path
    if not found:
        return {"train": root}
    if "train" not in found:
        raise DatasetError(f"data: expected a folder 'train' in {root}, received {sorted(found)}")
    return found


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _classes(root: Path, parts: Mapping[str, Path]) -> tuple[str, ...]:
    named = {split: tuple(p.name for p in _subfolders(path)) for split, path in parts.items()}
    classes = named["train"]
    if len(classes) < 2:
        raise DatasetError(
            f"data: expected one subfolder for each class in {parts['train']}, at least two, "
            f"received {list(classes) or 'none'}"
        )
    for split, own in named.items():
        if different := set(classes) ^ set(own):
            raise DatasetError(
                f"data: expected the same classes in the splits of {root}, received classes that "
                f"only one of train and {split} has: {', '.join(sorted(different))}"
            )
    return classes


def _files(root: Path, part: Path, classes: Sequence[str]) -> ImageFiles:
    """The files of one split, class by class in the order of their names."""
    paths, labels = [], []
    for label, name in enumerate(classes):
        own = [str(path) for path in _visible(part / name) if path.suffix.lower() in SUFFIXES]
        if not own:
            held = _left_out([part / name])
            raise DatasetError(
                f"data: expected images ({', '.join(SUFFIXES)}) of every class in {root}, received "
                f"none in {part / name}{', but ' if held else ''}{held}"
            )
        paths += own
        labels += [label] * len(own)
    return ImageFiles(paths, np.array(labels, np.int64))


def _visible(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders but hidden ones, sorted."""
    return sorted(p for p in folder.rglob("*") if not p.name.startswith(".") and p.is_file())


def _say_left_out(folders: Sequence[Path]) -> None:
    if held := _left_out(folders):
        warnings.warn(
            f"data: {held} left out; images are files that end in {', '.join(SUFFIXES)}",
            stacklevel=3,
        )


def _left_out(folders: Sequence[Path]) -> str:
    """The files of classes that are not read, in words; empty if there is none."""
    files = [p for f in folders for p in _visible(f) if p.suffix.lower() not in SUFFIXES]
    if not files:
        return ""
    endings = Counter(path.suffix.lower() or "no ending" for path in files)
    kinds = ", ".join(f"{count} x {ending}" for ending, count in endings.most_common())
    more = len(files) - MOST_NAMED
    named = ", ".join(map(str, files[:MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
    return f"{len(files)} file{'s' * (len(files) > 1)} ({kinds}: {named})"


def _checked_size(root: Path, parts: Iterable[ImageFiles]) -> tuple[int, int] | None:
    """The size of all images, after each of them was decoded; None if they differ."""
    paths = [path for part in parts for path in part.paths]
    sizes = dict(_decoded_sizes(paths))
    if damaged := [path for path in paths if path not in sizes]:
        more = len(damaged) - MOST_NAMED
        raise DatasetError(
            f"data: expected images in {root}, received {len(damaged)} of {len(paths)} files that "
            f"cannot be decoded; move them away: {', '.join(damaged[:MOST_NAMED])}"
            + (f" and {more} more" if more > 0 else "")
        )
    different = set(sizes.values())
    return different.pop() if len(different) == 1 else None


def _decoded_sizes(paths: Sequence[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """The path and (height, width) of each image that can be decoded."""
    import tensorflow as tf

    def size(path: Tensor) -> tuple[Tensor, Tensor]:
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        return path, tf.shape(image)[:2]

    files = tf.data.Dataset.from_tensor_slices(list(paths))
    for path, found in files.map(size, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors():
        height, width = found.numpy().tolist()
        yield path.numpy().decode(), (height, width)
