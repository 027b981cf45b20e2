"""Small files in the formats of the published data sets."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SYNSETS = ("n01440764", "n01443537")
"""The first two classes of ImageNet."""


def pixels(seed: int, height: int, width: int) -> Any:
    """A smooth image, which JPEG changes little."""
    rng = np.random.default_rng(seed)
    down, right = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    a, b, c = rng.uniform(0, 80, (3, 1, 1, 3))
    return (a * down + b * right + c).astype(np.uint8)


def jpeg(image: Any) -> bytes:
    import tensorflow as tf

    return bytes(tf.io.encode_jpeg(image, quality=95).numpy())


def _tar(files: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def imagenet_archives(data_dir: Path, each: int = 5, validation: int = 3) -> None:
    """The archives of ImageNet with a few images of different sizes, where TFDS looks for them."""
    folder = data_dir / "downloads" / "manual"
    folder.mkdir(parents=True)
    images = {
        synset: {
            f"{synset}_{i}.JPEG": jpeg(pixels(10 * k + i, 40 + 8 * i, 64 - 4 * i))
            for i in range(each)
        }
        for k, synset in enumerate(SYNSETS)
    }
    train = {f"{synset}.tar": _tar(files) for synset, files in images.items()}
    (folder / "ILSVRC2012_img_train.tar").write_bytes(_tar(train))
    held = {
        f"ILSVRC2012_val_{i:08}.JPEG": jpeg(pixels(100 + i, 50, 70))
        for i in range(1, validation + 1)
    }
    (folder / "ILSVRC2012_img_val.tar").write_bytes(_tar(held))


def cifar10_files(folder: Path, each: int = 8) -> dict[str, tuple[Any, Any]]:
    """The extracted archive of CIFAR-10 with a few images; images and labels of both splits."""
    folder = folder / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    (folder / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)) + "\n\n")
    splits: dict[str, list[tuple[Any, Any]]] = {"train": [], "test": []}
    names = {**{f"data_batch_{i}.bin": "train" for i in range(1, 6)}, "test_batch.bin": "test"}
    for name, split in names.items():
        labels = rng.integers(0, 10, each).astype(np.uint8)
        images = rng.integers(0, 256, (each, 32, 32, 3)).astype(np.uint8)
        rows = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(each, -1)], 1)
        (folder / name).write_bytes(rows.tobytes())
        splits[split].append((images, labels))
    return {
        split: (np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]))
        for split, parts in splits.items()
    }
