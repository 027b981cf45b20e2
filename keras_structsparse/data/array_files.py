"""Data sets in files of NumPy: ``.npz`` with images and labels."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_structsparse.data.splits import TEST_SHARE, Dataset, Split, cut
from keras_structsparse.errors import DatasetError
from keras_structsparse.profiling.memory import check_memory

SPLITS = ("train", "val", "test")

UNREADABLE = (OSError, ValueError, EOFError, AttributeError, MemoryError, TypeError)
"""What NumPy raises for files that are none of its own, or damaged."""

MOST_CLASSES = 10**6
"""Labels above are no numbers of classes but identifiers."""

FEW = (1, 3, 4)
"""How many channels images have; on the second axis, before a long last one, they are first."""


def load(path: str | Path, validation: float = 0.1, seed: int = 0) -> Dataset:
    """Load images and labels from an ``.npz`` file.

    The file holds ``x`` and ``y``; or ``x_train``, ``y_train`` and, if there are such splits,
    ``x_val``, ``y_val``, ``x_test``, ``y_test``, as the files of ``keras.datasets`` do. Without a
    test split, a fixed fifth of each class becomes one.

    Args:
        path: The file. Images have the shape (n, height, width, channels) or (n, height, width), as
            whole numbers in [0, 255] or as floats in [0, 1]; labels are whole numbers from 0,
            shape (n,) or (n, 1).
        validation: Share of the training images that is held out, above 0 and below 1; not used
            where the file holds ``x_val``.
        seed: Seed of the validation split.

    Returns:
        The data set.

    Raises:
        DatasetError: The file cannot be read, or its arrays are others, as with channels first.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "data.npz")
        >>> np.savez(file, x=np.zeros((40, 8, 8), np.uint8), y=np.arange(40) % 4)
        >>> data = load(file, validation=0.25)
        >>> data.shape, data.classes, len(data.train), len(data.validation), len(data.test)
        ((8, 8, 1), 4, 24, 8, 8)
    """
    arrays = _arrays(Path(path).expanduser())
    prefix = f"data {path}: "
    if {"x", "y"} <= arrays.keys():
        arrays = {"x_train": arrays["x"], "y_train": arrays["y"]}
    if not {"x_train", "y_train"} <= arrays.keys():
        raise DatasetError(
            f"{prefix}expected arrays x and y, or x_train and y_train, received "
            f"{', '.join(sorted(arrays)) or 'none'}"
        )
    splits = {
        name: _split(prefix, name, arrays[f"x_{name}"], arrays[f"y_{name}"])
        for name in SPLITS
        if {f"x_{name}", f"y_{name}"} <= arrays.keys()
    }
    train = splits["train"]
    for name, split in splits.items():
        if split.x.shape[1:] != train.x.shape[1:]:
            raise DatasetError(
                f"{prefix}expected images of one size, received {train.x.shape[1:]} in x_train and "
                f"{split.x.shape[1:]} in x_{name}"
            )
    classes = 1 + max(int(split.y.max()) for split in splits.values())
    known = np.unique(train.y)
    if len(known) < classes:
        first = next((i for i, label in enumerate(known) if i != label), len(known))
        raise DatasetError(
            f"{prefix}expected images of every class from 0 to {classes - 1} in the training "
            f"split, received none of class {first}"
        )
    train, test = (train, splits["test"]) if "test" in splits else cut(train, TEST_SHARE, seed=0)
    if "val" in splits:
        held_out = splits["val"]
    else:
        train, held_out = cut(train, validation, seed)
    height, width, channels = train.x.shape[1:]
    return Dataset(str(path), train, held_out, test, classes, (height, width, channels))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # NumPy does not close a file that it has opened and cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            size = sum(entry.file_size for entry in file.zip.infolist())
            check_memory(size, "arrays", f"data {path}", DatasetError)
            return {name: file[name] for name in file.files}
    except DatasetError:
        raise
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        raise DatasetError(f"data: expected an .npz file, received {path} ({error})") from error


def _split(prefix: str, name: str, images: NDArray[Any], labels: NDArray[Any]) -> Split:
    x = images[..., None] if images.ndim == 3 else images
    if x.ndim == 4 and x.shape[1] in FEW and x.shape[3] > max(FEW):
        raise DatasetError(
            f"{prefix}expected x_{name} with the channels last, (n, height, width, channels), "
            f"received shape {images.shape}, whose channels seem to be first; write "
            f"np.moveaxis(x_{name}, 1, -1)"
        )
    y = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if x.ndim != 4 or x.dtype.kind not in "uif":
        raise DatasetError(
            f"{prefix}expected x_{name} as numbers of shape (n, height, width, channels), received "
            f"{images.dtype} of shape {images.shape}"
        )
    if y.shape != x.shape[:1] or y.dtype.kind not in "ui" or not len(y) or y.min() < 0:
        raise DatasetError(
            f"{prefix}expected y_{name} as whole numbers >= 0 of shape ({len(x)},), received "
            f"{labels.dtype} of shape {labels.shape}"
        )
    if y.max() >= MOST_CLASSES:
        raise DatasetError(
            f"{prefix}expected y_{name} as numbers of classes below {MOST_CLASSES:,}, received "
            f"{y.max():,}"
        )
    whole = x.dtype.kind in "ui"
    least, most = float(x.min()), float(x.max())
    if not (least >= 0 and most <= (255 if whole else 1)):  # NaN as well
        raise DatasetError(
            f"{prefix}expected x_{name} as whole numbers in [0, 255] or floats in [0, 1], received "
            f"{x.dtype} in [{least:g}, {most:g}]"
        )
    scaled = x.astype(np.float32) / np.float32(255) if whole else x.astype(np.float32)
    return Split(scaled, y.astype(np.int64))
