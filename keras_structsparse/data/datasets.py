"""Image-classification data as arrays, through tensorflow-datasets builders only.

`load` returns training, validation and test splits in memory; `builder` returns the prepared TFDS
builder itself, to stream data sets that do not fit in memory. The built-in data set is `digits`:
scikit-learn's 1,797 real handwritten digits, which need no network. TFDS waits minutes for a
download that cannot succeed, so prepared data, raw files and the hosts are checked first.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_structsparse.data import digits, raw_files
from keras_structsparse.data.splits import TEST_SHARE, Dataset, Split, check_memory, cut
from keras_structsparse.errors import DatasetError

__all__ = ["Dataset", "Split", "builder", "load"]

OFFICIAL_TEST = {"imagenet2012": "validation"}  # its "test" split has no labels
STREAM_INSTEAD = "stream it with keras_structsparse.data.datasets.builder"


def load(
    name: str, data_dir: str | Path | None = None, validation: float = 0.1, seed: int = 0
) -> Dataset:
    """Loads an image-classification data set into memory.

    The validation split is drawn from the training split, stratified by class; the seed determines
    it. The test split is the official one and does not depend on the seed (`imagenet2012`: the
    official validation images; a data set with a training split only: a fixed fifth of it).

    Args:
        name: `digits`, or the TFDS name of any image-classification data set.
        data_dir: Folder of prepared TFDS data; raw files may be in its `downloads/manual`. None:
            a cache folder for `digits`, the default of TFDS for all others.
        validation: Share of the training split, above 0 and below 1.
        seed: Seed of the validation split, >= 0.

    Returns:
        The three splits, the number of classes and the image shape.

    Raises:
        DatasetError: The data set is unknown, not for classification, too large for memory, has
            images of different sizes, or its files are missing and cannot be downloaded.

    Examples:
        >>> data = load("digits")
        >>> data.shape, data.classes
        ((8, 8, 1), 10)
        >>> len(data.train), len(data.validation), len(data.test)
        (1167, 130, 500)
    """
    if not 0 < validation < 1:
        raise DatasetError(f"validation: expected a share in (0, 1), received {validation!r}")
    if seed < 0:
        raise DatasetError(f"seed: expected a whole number >= 0, received {seed!r}")
    source = _find(name, data_dir)
    files = _raw_folder(source)  # first: which files are missing matters more than their size
    shape = _image_shape(source)
    source = _prepare(source, files)
    images = sum(split.num_examples for split in source.info.splits.values())
    check_memory(source.name, images, shape, STREAM_INSTEAD)
    train, test = _official_splits(source)
    train, held_out = cut(train, validation, seed)
    label = source.info.features["label"]
    names = tuple(label.names)
    return Dataset(name, train, held_out, test, int(label.num_classes), shape, names)


def builder(name: str, data_dir: str | Path | None = None) -> Any:
    """Returns the TFDS builder of an image-classification set, its data prepared.

    Its `as_dataset(split=...)` streams data sets that do not fit in memory.

    Args:
        name: As for `load`.
        data_dir: As for `load`.

    Returns:
        A `tfds.core.DatasetBuilder` after `download_and_prepare`.

    Raises:
        DatasetError: As for `load`, but memory and image sizes are not checked.

    Examples:
        >>> builder("digits").info.splits["test"].num_examples
        500
    """
    source = _find(name, data_dir)
    return _prepare(source, _raw_folder(source))


def _tfds() -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise DatasetError(
            f"data sets need tensorflow-datasets ({error}): pip install 'keras-structsparse[data]'"
        ) from error
    return tensorflow_datasets


def _find(name: str, data_dir: str | Path | None) -> Any:
    """The builder of a known image-classification data set; its data may not be prepared."""
    tfds = _tfds()
    folder = None if data_dir is None else os.path.expanduser(data_dir)
    if folder is not None and os.path.exists(folder) and not os.path.isdir(folder):
        raise DatasetError(f"data_dir: expected a folder, received the file {data_dir}")
    if name == "digits":
        return digits.builder_class()(data_dir=str(folder or digits.cache_dir()))
    known = tfds.list_builders(with_community_datasets=False)
    if str(name).partition("/")[0].partition(":")[0] not in known:
        raise DatasetError(_unknown(name, ["digits", *known]))
    try:
        found = tfds.builder(name, data_dir=folder)
    except Exception as error:  # TFDS has many ways to refuse a configuration or a version
        raise DatasetError(f"data set {name!r}: {error}") from error
    _check_classification(name, found)
    return found


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=5, cutoff=0.5)
    hint = f" near matches: {', '.join(near)}." if near else ""
    if Path(name).is_dir():
        hint += " Folders are loaded by keras_structsparse.data.loading.load."
    else:
        hint += f" There is no folder {name} here."
    command = 'python -c "import tensorflow_datasets as tfds; print(*tfds.list_builders())"'
    return f"expected digits or a TFDS data set, received {name!r};{hint} All names: {command}"


def _check_classification(name: str, source: Any) -> None:
    features = source.info.features
    keys = sorted(features) if hasattr(features, "keys") else [type(features).__name__]
    image, label = (features[k] if k in keys else None for k in ("image", "label"))
    if image is None or not hasattr(label, "num_classes") or len(image.shape or ()) != 3:
        raise DatasetError(
            f"data set {name!r}: expected an image-classification set with the features 'image' "
            f"(height, width, channels) and 'label' (a class), received {', '.join(keys)}"
        )


def _is_prepared(source: Any) -> bool:
    # source.is_prepared() logs a warning where nothing is
    return (Path(str(source.data_path)) / "dataset_info.json").is_file()


def _raw_folder(source: Any) -> Path | None:
    """The folder of the raw files; None if the data are prepared or built in."""
    if source.name == "digits" or _is_prepared(source):
        return None
    return raw_files.locate(source)


def _prepare(source: Any, manual_dir: Path | None) -> Any:
    """The builder with its data on disk; TFDS renames a finished folder atomically."""
    if _is_prepared(source):
        return source
    try:
        with _quiet() if source.name == "digits" else contextlib.nullcontext():
            _download_and_prepare(source, manual_dir)
    except Exception as error:  # whatever a builder's own code raises
        # Another process may have finished first: its folder prevents the renaming of ours.
        if not _is_prepared(source):
            raise DatasetError(
                f"data set {source.name!r} could not be prepared in {source.data_dir_root}: "
                f"{type(error).__name__}: {error}"
            ) from error
        return type(source)(
            data_dir=str(source.data_dir_root),
            config=source.builder_config,
            version=str(source.version),
        )
    return source


def _download_and_prepare(source: Any, manual_dir: Path | None) -> None:
    config = _tfds().download.DownloadConfig(
        manual_dir=None if manual_dir is None else str(manual_dir), try_download_gcs=False
    )
    downloads = Path(str(source.data_dir_root)) / "downloads"
    source.download_and_prepare(download_dir=str(downloads), download_config=config)
    if not _is_prepared(source):  # TFDS treats any folder of that name as finished
        raise DatasetError(
            f"expected a finished data set in {source.data_path}: remove that folder"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress progress bars of what takes a second."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _image_shape(source: Any) -> tuple[int, int, int]:
    shape = tuple(source.info.features["image"].shape)
    if None in shape:
        raise DatasetError(
            f"data set {source.name!r}: expected images of one size, received {shape} "
            "(height, width, channels): stream it with "
            "keras_structsparse.data.datasets.builder"
        )
    return shape


def _official_splits(source: Any) -> tuple[Split, Split]:
    splits = set(source.info.splits)
    if "train" not in splits:
        raise DatasetError(
            f"data set {source.name!r}: expected a split 'train', received {sorted(splits)}"
        )
    train = _arrays(source, "train")
    for test in (OFFICIAL_TEST.get(source.name, "test"), "test", "validation"):
        if test in splits:
            return train, _arrays(source, test)
    return cut(train, TEST_SHARE, seed=0)


def _arrays(source: Any, split: str) -> Split:
    try:
        raw = _tfds().as_numpy(source.as_dataset(split=split, batch_size=-1))
    except Exception as error:  # a damaged record, no memory: TensorFlow's own errors
        raise DatasetError(
            f"data set {source.name!r}: {source.data_path} cannot be read: {error}"
        ) from error
    levels = digits.LEVELS if source.name == "digits" else 255
    x = raw["image"].astype(np.float32) / np.float32(levels)
    return Split(x, raw["label"].astype(np.int64))
