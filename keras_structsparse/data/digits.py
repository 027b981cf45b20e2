"""scikit-learn's 1,797 handwritten digits as a TFDS builder: real data that need no network."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 16
"""The largest grey level; the smallest is 0."""

TEST_IMAGES = 500
TEST_SEED = 0


def stratified(labels: NDArray[np.integer[Any]], count: int, seed: int) -> NDArray[np.bool_]:
    """A mask of exactly `count` entries, from each class its share to within one.

    The entries are shuffled and sorted by class, and every (n/count)-th is selected.

    This is not scikit-learn's `train_test_split(stratify=...)`, which draws other entries. The
    packaged networks of `kss.models.load` were trained on the complement of these test images, and
    all committed results on these splits: with another draw, test images would be images that the
    networks were trained on.

    Args:
        labels: Class numbers, shape (n,).
        count: Number of entries to select, at most n.
        seed: Seed of the shuffle.

    Returns:
        True for selected entries, shape (n,).

    Examples:
        >>> labels = np.array([0, 0, 0, 0, 1, 1])
        >>> labels[stratified(labels, 3, seed=0)]
        array([0, 0, 1])
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    ticks = np.arange(len(labels) + 1) * count // len(labels)
    mask = np.zeros(len(labels), dtype=bool)
    mask[by_class[np.diff(ticks) > 0]] = True
    return mask


@functools.cache
def builder_class() -> Any:
    """The TFDS builder; made on demand, as defining it imports TFDS."""
    import tensorflow_datasets as tfds

    class Digits(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc,unused-ignore]
        """1,797 handwritten digits, 8x8, 17 grey levels; 1,297 for training and 500 for tests."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description=self.__doc__,
                features=tfds.features.FeaturesDict(
                    {
                        # a plain tensor: the 17 levels are kept as they are
                        "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                        "label": tfds.features.ClassLabel(num_classes=10),
                    }
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            from sklearn.datasets import load_digits

            digits = load_digits()
            test = stratified(digits.target, TEST_IMAGES, TEST_SEED)
            images = digits.images.astype(np.uint8)[..., None]
            return {
                "train": self._generate_examples(images[~test], digits.target[~test]),
                "test": self._generate_examples(images[test], digits.target[test]),
            }

        def _generate_examples(self, images: Any, labels: Any) -> Iterator[tuple[int, Any]]:
            for key, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield key, {"image": image, "label": int(label)}

    return Digits


@functools.cache
def cache_dir() -> Path:
    """A writable folder: in the user's cache, or a temporary one of this process."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "keras_structsparse"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # no home, or a read-only one
        return Path(_scratch().name)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="keras_structsparse-")
